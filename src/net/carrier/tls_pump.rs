//! TLS over TCP: both lanes in one stream, two queues before it. Frames of the control lane overtake those of the data lane
//! wherever these have not been handed to the kernel, and that holds few of them back (`TCP_NOTSENT_LOWAT`).
//!
//! Each buffer of a queue holds whole frames, so that the lanes may take turns between any two of them.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::reader::{LaneOf, Reader};
use super::{Cause, DialFault, Ended, Held, Owner, Writable};
use crate::net::certificates::alert_in_words;
use crate::net::issuer_named::{ForeignCertificate, foreign_in};
use crate::proto::tunnel::CarrierId;

/// How long a closing carrier may take to say so.
const GOODBYE: Duration = Duration::from_millis(200);

/// Pumps a carrier until it ends; tells why it did.
pub(super) async fn run(stream: Box<TlsStream<TcpStream>>, carrier: CarrierId, mut held: Held, owner: &Owner) -> DialFault {
    let (read, mut write): (ReadHalf<_>, WriteHalf<_>) = split(stream);
    let reader = Reader { lane: LaneOf::Type, carrier, inputs: owner.inputs.clone() };
    let ended = tokio::select! {
        () = super::dropped(&mut held.gate) => Ended::Dropped,
        // Data needs no gate of its own: on one stream it stands behind the ATTACHED that it had to wait for.
        ended = reader.read(read, None) => ended,
        ended = write_lanes(&mut write, held.control, held.data, &owner.writable) => ended,
    };
    let why = match ended {
        Ended::Stream(fault) => ended_by(&fault),
        Ended::Dropped | Ended::Connection(_) | Ended::NoFrame(_) => ended.told(),
    };
    // A peer that does not read its end any more need not be told of it.
    drop(timeout(GOODBYE, write.shutdown()).await);
    why
}

async fn write_lanes<W>(write: &mut W, mut control: mpsc::Receiver<Bytes>, mut data: mpsc::Receiver<Bytes>, writable: &Writable) -> Ended
where
    W: AsyncWrite + Unpin,
{
    loop {
        let bytes = tokio::select! {
            biased;
            bytes = control.recv() => bytes,
            bytes = data.recv() => bytes,
        };
        let Some(bytes) = bytes else { return Ended::Dropped };
        writable.notify_one();
        let written = async {
            write.write_all(&bytes).await?;
            if control.is_empty() && data.is_empty() { write.flush().await } else { Ok(()) }
        };
        if let Err(fault) = written.await {
            return Ended::Stream(fault);
        }
    }
}

fn ended_by(fault: &io::Error) -> DialFault {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof};
    let kind = fault.kind();
    if kind == UnexpectedEof {
        DialFault::new(Cause::Peer, "the peer closed it")
    } else if matches!(kind, ConnectionReset | BrokenPipe) {
        DialFault::new(Cause::Peer, "the connection was reset")
    } else if kind == TimedOut {
        DialFault::new(Cause::Silent, "the peer is silent")
    } else {
        handshake_failed(fault)
    }
}

/// Says why TLS failed, without words of the peer's choice but for the issuer of a foreign certificate.
pub(super) fn handshake_failed(fault: &io::Error) -> DialFault {
    let tls = fault.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(tls) = tls else { return DialFault::new(Cause::Peer, format!("the connection ended: {}", fault.kind())) };
    if let Some(foreign) = foreign_in(tls) {
        let cause = match foreign {
            ForeignCertificate::Inspected { .. } => Cause::Inspected,
            ForeignCertificate::OtherTunnel { .. } => Cause::Broken,
        };
        return DialFault::new(cause, foreign.to_string());
    }
    if let rustls::Error::AlertReceived(alert) = tls {
        let words = alert_in_words(u8::from(*alert)).map_or_else(|| format!("TLS alert {alert:?}"), str::to_owned);
        DialFault::new(Cause::Peer, format!("the peer refused it: {words}"))
    } else if let rustls::Error::InvalidCertificate(fault) = tls {
        DialFault::new(Cause::Broken, format!("the relay's certificate does not hold: {fault}"))
    } else {
        DialFault::new(Cause::Broken, "the peer speaks no TLS 1.3 of ours")
    }
}
