//! Opens the lanes of a connection and moves bytes and frames until one side ends it.

use bytes::{Bytes, BytesMut};
use quinn::{Connection, RecvStream, SendStream};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::proto::tunnel::frame::{self, Frame};
use crate::proto::tunnel::{CarrierId, Identity, Lane};

use super::{BROKEN, CLOSED, CarrierHandle, CarrierInput, LANE_DEPTH, Owner, Writable, told};

/// First byte of the control lane's stream.
const CONTROL: u8 = 0;

/// First byte of the data lane's stream.
const DATA: u8 = 1;

/// Bytes taken in one read.
const READ: usize = 64 * 1024;

/// Room below which a buffer is renewed rather than filled in slivers.
const LEAST_READ: usize = 8 * 1024;

/// Frames in one input: the smallest are four bytes, and one read of them must not become a hundred times as much memory.
const BATCH: usize = 1024;

/// A connection with both its lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) connection: Connection,
    control: (SendStream, RecvStream),
    data: (SendStream, RecvStream),
}

/// Opens both lanes, as the connector does.
pub(super) async fn open(connection: Connection) -> Result<Lanes, String> {
    let control = open_lane(&connection, CONTROL).await?;
    let data = open_lane(&connection, DATA).await?;
    Ok(Lanes { connection, control, data })
}

async fn open_lane(connection: &Connection, name: u8) -> Result<(SendStream, RecvStream), String> {
    let (mut send, receive) = connection.open_bi().await.map_err(|fault| told(&fault))?;
    send.write_all(&[name]).await.map_err(|_| "the peer refused a lane".to_owned())?;
    Ok((send, receive))
}

/// Takes both lanes in whichever order they come, as the relay does.
pub(super) async fn take(connection: Connection) -> Result<Lanes, String> {
    let first = take_lane(&connection).await?;
    let second = take_lane(&connection).await?;
    let (((CONTROL, control), (DATA, data)) | ((DATA, data), (CONTROL, control))) = (first, second) else {
        connection.close(BROKEN, b"lanes");
        return Err("the peer opened other lanes than control and data".into());
    };
    Ok(Lanes { connection, control, data })
}

async fn take_lane(connection: &Connection) -> Result<(u8, (SendStream, RecvStream)), String> {
    let (send, mut receive) = connection.accept_bi().await.map_err(|fault| told(&fault))?;
    let mut name = [0];
    receive.read_exact(&mut name).await.map_err(|_| "the peer ended a lane before naming it".to_owned())?;
    Ok((name[0], (send, receive)))
}

/// Announces the carrier and pumps it until it ends; tells why it did.
pub(super) async fn run(lanes: Lanes, carrier: CarrierId, identity: Identity, owner: &Owner) -> String {
    let Lanes { connection, control: (control_send, control_receive), data: (data_send, data_receive) } = lanes;
    // Where both lanes have bytes, the control lane's go first.
    drop(control_send.set_priority(1));
    let (control, control_queue) = mpsc::channel(LANE_DEPTH);
    let (data, data_queue) = mpsc::channel(LANE_DEPTH);
    let (read_data, mut gate) = watch::channel(false);
    let mut pumps = JoinSet::new();
    let reader = |lane| Reader { lane, carrier, inputs: owner.inputs.clone() };
    let (control_reader, data_reader, data_gate) = (reader(Lane::Control), reader(Lane::Data), gate.clone());

    let handle = CarrierHandle { control, data, read_data };
    if owner.inputs.send(CarrierInput::Opened { carrier, identity, handle }).await.is_err() {
        return "nobody owns it".into();
    }
    pumps.spawn(write(control_queue, control_send, owner.writable.clone()));
    pumps.spawn(write(data_queue, data_send, owner.writable.clone()));
    pumps.spawn(control_reader.read(control_receive, None));
    pumps.spawn(data_reader.read(data_receive, Some(data_gate)));

    let ended = tokio::select! {
        () = dropped(&mut gate) => Ended::Dropped,
        fault = connection.closed() => Ended::Connection(fault),
        Some(pump) = pumps.join_next() => pump.unwrap_or(Ended::Dropped),
    };
    let code = ended.code();
    // Asked first: a close of our own would hide the peer's.
    let why = ended.why(&connection);
    connection.close(code, b"");
    pumps.shutdown().await;
    why
}

/// Why pumping ended.
#[derive(Debug)]
enum Ended {
    /// The owner let go of the handle, or is gone.
    Dropped,
    /// The connection said so.
    Connection(quinn::ConnectionError),
    /// A stream broke; the connection may know why.
    Stream,
    /// The peer sent what is no frame.
    NoFrame(frame::FrameError),
}

impl Ended {
    fn code(&self) -> quinn::VarInt {
        match self {
            Self::Dropped => CLOSED,
            Self::Connection(_) | Self::Stream | Self::NoFrame(_) => BROKEN,
        }
    }

    fn why(self, connection: &Connection) -> String {
        match self {
            Self::Dropped => "closed here".into(),
            Self::Connection(fault) => told(&fault),
            Self::Stream => match connection.close_reason() {
                None => "the peer ended a lane".into(),
                Some(fault) => told(&fault),
            },
            Self::NoFrame(fault) => fault.to_string(),
        }
    }
}

/// Waits until the owner drops the handle.
async fn dropped(gate: &mut watch::Receiver<bool>) {
    while gate.changed().await.is_ok() {}
}

async fn write(mut queue: mpsc::Receiver<Bytes>, mut send: SendStream, writable: Writable) -> Ended {
    while let Some(bytes) = queue.recv().await {
        writable.notify_one();
        if send.write_chunk(bytes).await.is_err() {
            return Ended::Stream;
        }
    }
    Ended::Dropped
}

/// Turns one lane's bytes into frames.
#[derive(Debug)]
struct Reader {
    lane: Lane,
    carrier: CarrierId,
    inputs: mpsc::Sender<CarrierInput>,
}

impl Reader {
    async fn read(self, mut receive: RecvStream, mut gate: Option<watch::Receiver<bool>>) -> Ended {
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
                Ok(0) | Err(_) => return Ended::Stream,
                Ok(_) => {}
            }
            loop {
                let frames = match some_frames(&mut buffer) {
                    Ok(frames) if frames.is_empty() => break,
                    Ok(frames) => frames,
                    Err(fault) => return Ended::NoFrame(fault),
                };
                if self.deliver(frames).await.is_err() {
                    return Ended::Dropped;
                }
            }
        }
    }

    async fn deliver(&self, frames: Vec<Frame>) -> Result<(), mpsc::error::SendError<CarrierInput>> {
        self.inputs.send(CarrierInput::Frames { carrier: self.carrier, lane: self.lane, frames }).await
    }
}

/// The whole frames at the head of the buffer, [`BATCH`] at most.
fn some_frames(buffer: &mut BytesMut) -> Result<Vec<Frame>, frame::FrameError> {
    let mut frames = Vec::new();
    while frames.len() < BATCH
        && let Some(frame) = frame::decode(buffer)?
    {
        frames.push(frame);
    }
    Ok(frames)
}
