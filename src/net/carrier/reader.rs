//! Turns a byte stream into frames, as many at once as one read brings, and passes them on.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};

use super::{CarrierInput, Ended};
use crate::proto::tunnel::frame::{self, Frame};
use crate::proto::tunnel::{CarrierId, Lane};

/// Bytes taken in one read.
const READ: usize = 64 * 1024;

/// Room below which a buffer is renewed rather than filled in slivers.
const LEAST_READ: usize = 8 * 1024;

/// Frames in one input: the smallest are four bytes, and one read of them must not become a hundred times as much memory.
const BATCH: usize = 1024;

/// How the lane of a frame is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum LaneOf {
    /// The stream carries one lane.
    Stream(Lane),
    /// Both lanes share the stream: the frame's type tells.
    Type,
}

/// Reads one stream of a carrier.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) lane: LaneOf,
    pub(super) carrier: CarrierId,
    pub(super) inputs: mpsc::Sender<CarrierInput>,
}

impl Reader {
    /// Reads to the stream's end; with a gate only while it stands open.
    pub(super) async fn read(self, mut receive: impl AsyncRead + Unpin, mut gate: Option<watch::Receiver<bool>>) -> Ended {
        let mut buffer = BytesMut::new();
        loop {
            if let Some(gate) = &mut gate
                && gate.wait_for(|open| *open).await.is_err()
            {
                return Ended::Dropped;
            }
            if buffer.capacity() - buffer.len() < LEAST_READ {
                buffer.reserve(READ);
            }
            match receive.read_buf(&mut buffer).await {
                Ok(0) => return Ended::Stream(io::ErrorKind::UnexpectedEof.into()),
                Err(fault) => return Ended::Stream(fault),
                Ok(_) => {}
            }
            if let Err(ended) = self.deliver_all(&mut buffer).await {
                return ended;
            }
        }
    }

    /// Delivers every whole frame at the head of the buffer.
    async fn deliver_all(&self, buffer: &mut BytesMut) -> Result<(), Ended> {
        let mut batch = Vec::new();
        let mut batch_lane = self.lane_of(0);
        loop {
            let frame = frame::decode(buffer).map_err(Ended::NoFrame)?;
            let lane = frame.as_ref().map_or(batch_lane, |frame| self.lane_of(frame.kind));
            if !batch.is_empty() && (frame.is_none() || lane != batch_lane || batch.len() >= BATCH) {
                self.deliver(batch_lane, std::mem::take(&mut batch)).await?;
            }
            let Some(frame) = frame else { return Ok(()) };
            batch_lane = lane;
            batch.push(frame);
        }
    }

    fn lane_of(&self, kind: u8) -> Lane {
        match self.lane {
            LaneOf::Stream(lane) => lane,
            LaneOf::Type => frame::lane_of(kind),
        }
    }

    async fn deliver(&self, lane: Lane, frames: Vec<Frame>) -> Result<(), Ended> {
        let sent = self.inputs.send(CarrierInput::Frames { carrier: self.carrier, lane, frames }).await;
        sent.map_err(|_| Ended::Dropped)
    }
}
