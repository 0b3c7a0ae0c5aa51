//! QUIC: opens the lanes of a connection, two streams, and moves bytes and frames until one side ends it.

use std::io;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, TransportErrorCode, VarInt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::reader::{LaneOf, Reader};
use super::{Cause, DialFault, Ended, Held, Owner, Writable};
use crate::net::certificates::alert_in_words;
use crate::proto::tunnel::{CarrierId, Lane};

/// Application code with which a carrier is closed that its owner dropped.
const CLOSED: VarInt = VarInt::from_u32(0);

/// Application code with which a carrier is closed whose peer broke the rules of the lanes or the frames.
pub(super) const BROKEN: VarInt = VarInt::from_u32(1);

/// First byte of the control lane's stream.
const CONTROL: u8 = 0;

/// First byte of the data lane's stream.
const DATA: u8 = 1;

/// A connection with both its lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) connection: Connection,
    control: (SendStream, RecvStream),
    data: (SendStream, RecvStream),
}

/// Opens both lanes, as the connector does.
pub(super) async fn open(connection: Connection) -> Result<Lanes, DialFault> {
    let control = open_lane(&connection, CONTROL).await?;
    let data = open_lane(&connection, DATA).await?;
    Ok(Lanes { connection, control, data })
}

async fn open_lane(connection: &Connection, name: u8) -> Result<(SendStream, RecvStream), DialFault> {
    let (mut send, receive) = connection.open_bi().await.map_err(|fault| told(&fault))?;
    send.write_all(&[name]).await.map_err(|_| DialFault::new(Cause::Broken, "the peer refused a lane"))?;
    Ok((send, receive))
}

/// Takes both lanes in whichever order they come, as the relay does.
pub(super) async fn take(connection: Connection) -> Result<Lanes, DialFault> {
    let first = take_lane(&connection).await?;
    let second = take_lane(&connection).await?;
    let (((CONTROL, control), (DATA, data)) | ((DATA, data), (CONTROL, control))) = (first, second) else {
        connection.close(BROKEN, b"lanes");
        return Err(DialFault::new(Cause::Broken, "the peer opened other lanes than control and data"));
    };
    Ok(Lanes { connection, control, data })
}

async fn take_lane(connection: &Connection) -> Result<(u8, (SendStream, RecvStream)), DialFault> {
    let (send, mut receive) = connection.accept_bi().await.map_err(|fault| told(&fault))?;
    let mut name = [0];
    let named = receive.read_exact(&mut name).await;
    named.map_err(|_| DialFault::new(Cause::Broken, "the peer ended a lane before naming it"))?;
    Ok((name[0], (send, receive)))
}

/// Pumps a carrier until it ends; tells why it did.
pub(super) async fn run(lanes: Lanes, carrier: CarrierId, mut held: Held, owner: &Owner) -> DialFault {
    let Lanes { connection, control: (control_send, control_receive), data: (data_send, data_receive) } = lanes;
    // Where both lanes have bytes, the control lane's go first.
    drop(control_send.set_priority(1));
    let mut pumps = JoinSet::new();
    let reader = |lane| Reader { lane: LaneOf::Stream(lane), carrier, inputs: owner.inputs.clone() };
    // Both lanes in one task each way: what they have for one datagram goes into one, and what one brought arrives together.
    let (control, data) = (held.control, held.data);
    let (writable, also_writable) = (owner.writable.clone(), owner.writable.clone());
    pumps.spawn(async move {
        tokio::select! {
            biased;
            ended = write(control, control_send, writable) => ended,
            ended = write(data, data_send, also_writable) => ended,
        }
    });
    let (control, data) = (reader(Lane::Control), reader(Lane::Data));
    let gate = held.gate.clone();
    pumps.spawn(async move {
        tokio::select! {
            biased;
            ended = control.read(control_receive, None) => ended,
            ended = data.read(data_receive, Some(gate)) => ended,
        }
    });

    let ended = tokio::select! {
        () = super::dropped(&mut held.gate) => Ended::Dropped,
        fault = connection.closed() => Ended::Connection(told(&fault)),
        Some(pump) = pumps.join_next() => pump.unwrap_or(Ended::Dropped),
    };
    let code = match ended {
        Ended::Dropped => CLOSED,
        Ended::Connection(_) | Ended::Stream(_) | Ended::NoFrame(_) => BROKEN,
    };
    // Asked first: a close of our own would hide the peer's.
    let why = match ended {
        Ended::Stream(_) => {
            connection.close_reason().map_or_else(|| DialFault::new(Cause::Peer, "the peer ended a lane"), |fault| told(&fault))
        }
        Ended::Dropped | Ended::Connection(_) | Ended::NoFrame(_) => ended.told(),
    };
    connection.close(code, b"");
    pumps.shutdown().await;
    why
}

async fn write(mut queue: mpsc::Receiver<Bytes>, mut send: SendStream, writable: Writable) -> Ended {
    while let Some(bytes) = queue.recv().await {
        writable.notify_one();
        if let Err(fault) = send.write_chunk(bytes).await {
            return Ended::Stream(io::Error::from(fault));
        }
    }
    Ended::Dropped
}

/// Says why a connection ended, without words of the peer's choice.
pub(super) fn told(fault: &ConnectionError) -> DialFault {
    use ConnectionError as Fault;
    match fault {
        Fault::VersionMismatch => DialFault::new(Cause::Broken, "the peer speaks no QUIC version of ours"),
        Fault::TransportError(fault) => {
            DialFault::new(Cause::Broken, format!("the handshake or the transport failed: {}", reason(fault.code)))
        }
        Fault::ConnectionClosed(close) => {
            DialFault::new(Cause::Peer, format!("the peer's transport closed it: {}", reason(close.error_code)))
        }
        Fault::ApplicationClosed(close) => DialFault::new(Cause::Peer, format!("the peer closed it with code {}", close.error_code)),
        Fault::Reset => DialFault::new(Cause::Peer, "the peer has no memory of it"),
        Fault::TimedOut => DialFault::new(Cause::Silent, "the peer is silent"),
        Fault::LocallyClosed => DialFault::new(Cause::Ours, "closed here"),
        Fault::CidsExhausted => DialFault::new(Cause::Broken, "the endpoint is out of connection ids"),
    }
}

/// A transport error; one that is a TLS alert about a certificate (0x100 and more, RFC 9001 §4.8) in words.
fn reason(code: TransportErrorCode) -> String {
    let alert = u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok());
    alert.and_then(alert_in_words).map_or_else(|| code.to_string(), str::to_owned)
}
