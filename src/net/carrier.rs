//! A carrier as two lanes of frames, pumped between a QUIC connection and the owner of a tunnel end.
//!
//! The owner (the relay's or the connector's actor) gets [`CarrierInput`]s through one bounded queue and gives bytes to a
//! [`CarrierHandle`]; it is woken through [`Writable`] whenever a lane has room again.
//!
//! On the wire a carrier is two bidirectional streams that the connector opens. The first byte of each tells its lane: 0 control,
//! 1 data. All that follows, either way, is frames. The lanes' own flow control is QUIC's: a lane whose frames are not read holds
//! back its sender and nothing else.
//!
//! Not here: what the frames mean, when to dial again, other transports.

mod admit;
mod lanes;
mod pump;

pub use lanes::{Lanes, TunnelEnd};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Endpoint, VarInt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::net::quic::peer_identity;
use crate::proto::tunnel::frame::Frame;
use crate::proto::tunnel::{CarrierId, Identity, Lane};

/// Inputs that may wait for the owner; a batch of frames is at most 64 KiB, so 16 MiB.
const INPUT_DEPTH: usize = 256;

/// Buffers that may wait in a lane: one on its way, one ready.
const LANE_DEPTH: usize = 2;

/// How long a handshake, and the opening of the lanes, may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Application code with which a carrier is closed that its owner dropped.
const CLOSED: VarInt = VarInt::from_u32(0);

/// Application code with which a carrier is closed whose peer broke the rules of the lanes or the frames.
const BROKEN: VarInt = VarInt::from_u32(1);

/// What a carrier tells its owner: first `Opened`, then `Frames`, last `Lost`; where it does not come up, `Lost` alone if it was
/// dialled, `Refused` alone if it was to be accepted.
#[derive(Debug)]
pub enum CarrierInput {
    /// A carrier stands: TLS verified, `identity` is the peer's certificate name.
    Opened {
        /// The carrier.
        carrier: CarrierId,
        /// The peer.
        identity: Identity,
        /// How to write to it.
        handle: CarrierHandle,
    },
    /// Frames arrived, as many as one read brought, in order.
    Frames {
        /// The carrier.
        carrier: CarrierId,
        /// Which lane they came on.
        lane: Lane,
        /// The frames; at least one.
        frames: Vec<Frame>,
    },
    /// The carrier is gone: closed by either side, idle, or it sent what is no frame. Comes once, also after the owner dropped
    /// the handle.
    Lost {
        /// The carrier.
        carrier: CarrierId,
        /// Why, for the log.
        why: String,
    },
    /// Somebody knocked and did not come in: no certificate, a foreign one, one for another purpose, or no handshake at all.
    Refused {
        /// Who.
        address: SocketAddr,
        /// Why, for the log.
        why: String,
    },
}

/// The writing half of a carrier, and its life: dropping it closes the carrier at once.
#[derive(Debug)]
pub struct CarrierHandle {
    /// Bytes of the control lane; capacity 2 buffers.
    pub control: mpsc::Sender<Bytes>,
    /// Bytes of the data lane; capacity 2 buffers.
    pub data: mpsc::Sender<Bytes>,
    /// Set to true when frames of the data lane may be read.
    pub read_data: watch::Sender<bool>,
}

/// Woken when any lane of any carrier has room again.
pub type Writable = Arc<Notify>;

/// All carriers of one owner, and the tasks that pump them. Dropping it ends them.
#[derive(Debug)]
pub struct Carriers {
    tasks: JoinSet<()>,
    owner: Owner,
}

impl Carriers {
    /// Makes a set without carriers, and the queue through which they will speak.
    pub fn new() -> (Self, mpsc::Receiver<CarrierInput>) {
        let (inputs, queue) = mpsc::channel(INPUT_DEPTH);
        let owner = Owner { inputs, writable: Arc::default(), ids: Arc::default() };
        (Self { tasks: JoinSet::new(), owner }, queue)
    }

    /// Accepts carriers at the relay's `endpoint` until the set is dropped or the endpoint closed.
    pub fn accept(&mut self, endpoint: Endpoint) {
        self.tasks.spawn(admit::accept(endpoint, self.owner.clone()));
    }

    /// Dials the relay at `addr`, whose certificate must name `server_name`. The outcome arrives as `Opened` or `Lost`.
    pub fn dial(&mut self, endpoint: &Endpoint, addr: SocketAddr, server_name: &str) -> CarrierId {
        while self.tasks.try_join_next().is_some() {}
        let carrier = self.owner.next();
        self.tasks.spawn(dial(endpoint.clone(), addr, server_name.to_owned(), carrier, self.owner.clone()));
        carrier
    }

    /// What is woken when a lane of any of these carriers has room again.
    pub fn writable(&self) -> Writable {
        self.owner.writable.clone()
    }

    /// Ends all carriers and waits until their tasks are gone.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

/// How a carrier reaches its owner.
#[derive(Clone, Debug)]
struct Owner {
    inputs: mpsc::Sender<CarrierInput>,
    writable: Writable,
    ids: Arc<AtomicU64>,
}

impl Owner {
    fn next(&self) -> CarrierId {
        CarrierId(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    async fn lost(&self, carrier: CarrierId, why: String) {
        // An owner that is gone needs no word.
        drop(self.inputs.send(CarrierInput::Lost { carrier, why }).await);
    }
}

async fn dial(endpoint: Endpoint, addr: SocketAddr, server_name: String, carrier: CarrierId, owner: Owner) {
    let reaching = async {
        let connection = endpoint.connect(addr, &server_name).map_err(|fault| fault.to_string())?.await.map_err(|fault| told(&fault))?;
        pump::open(connection).await
    };
    match timeout(HANDSHAKE, reaching).await {
        Ok(Ok(lanes)) => serve(lanes, carrier, owner).await,
        Ok(Err(why)) => owner.lost(carrier, why).await,
        Err(_) => owner.lost(carrier, "the relay did not answer in time".into()).await,
    }
}

/// Tells the owner of a carrier whose lanes stand, and pumps it to its end.
async fn serve(lanes: pump::Lanes, carrier: CarrierId, owner: Owner) {
    let identity = match peer_identity(&lanes.connection) {
        Ok(identity) => identity,
        Err(fault) => {
            lanes.connection.close(BROKEN, b"no name");
            return owner.lost(carrier, fault.to_string()).await;
        }
    };
    let why = pump::run(lanes, carrier, identity, &owner).await;
    owner.lost(carrier, why).await;
}

/// Says why a connection ended, without words of the peer's choice.
fn told(fault: &quinn::ConnectionError) -> String {
    use quinn::ConnectionError as Fault;
    match fault {
        Fault::VersionMismatch => "the peer speaks no QUIC version of ours".into(),
        Fault::TransportError(fault) => format!("the handshake or the transport failed: {}", fault.code),
        Fault::ConnectionClosed(close) => format!("the peer's transport closed it: {}", close.error_code),
        Fault::ApplicationClosed(close) => format!("the peer closed it with code {}", close.error_code),
        Fault::Reset => "the peer has no memory of it".into(),
        Fault::TimedOut => "the peer is silent".into(),
        Fault::LocallyClosed => "closed here".into(),
        Fault::CidsExhausted => "the endpoint is out of connection ids".into(),
    }
}
