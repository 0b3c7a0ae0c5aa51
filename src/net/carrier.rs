//! A carrier as two lanes of frames, pumped between a connection and the owner of a tunnel end.
//!
//! The owner (the relay's or the connector's actor) gets [`CarrierInput`]s through one bounded queue and gives bytes to a
//! [`CarrierHandle`]; it is woken through [`Writable`] whenever a lane has room again. Over which transport a carrier goes makes
//! no difference to it.
//!
//! - Over **QUIC** a carrier is two bidirectional streams that the connector opens. The first byte of each tells its lane: 0
//!   control, 1 data. All that follows, either way, is frames. A lane whose frames are not read holds back its sender alone.
//! - Over **TLS** (1.3, on TCP, perhaps through a proxy) it is one stream of frames; a frame's type tells its lane.
//!
//! Not here: what the frames mean, when to dial again and over what.

mod admit;
mod lanes;
mod quic_pump;
mod reader;
mod tls_pump;

pub use lanes::{Lanes, TunnelEnd};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::Endpoint;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::net::allow_files::Watched;
use crate::net::certificates::{Live, identity_of};
use crate::net::dial::{self, DialFault, Route};
use crate::net::listener::Listener;
use crate::net::quic::{self, EndpointError, IdentityError, peer_certificate};
use crate::proto::tunnel::frame::{Frame, FrameError};
use crate::proto::tunnel::{CarrierId, Identity, Lane};

/// Inputs that may wait for the owner; a batch of frames is at most 64 KiB, so 16 MiB.
const INPUT_DEPTH: usize = 256;

/// Buffers that may wait in a lane: one on its way, one ready.
const LANE_DEPTH: usize = 2;

/// How long a handshake, and the opening of the lanes, may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// What carries a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// QUIC.
    Quic,
    /// TLS 1.3 over TCP.
    Tls,
}

impl Transport {
    /// Its name in logs, status and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
        }
    }
}

/// Of what kind the end of a carrier is, or of a dial that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// We let go of it.
    Ours,
    /// The peer ended it.
    Peer,
    /// Nothing was heard for too long.
    Silent,
    /// This host's firewall forbids it.
    Blocked,
    /// Nobody could be reached, or not in time.
    Unreachable,
    /// Only an admin can mend it: a proxy's credentials.
    Configuration,
    /// Something on the way opens TLS and shows a certificate of its own.
    Inspected,
    /// The peer broke a rule, or is another than it should be.
    Broken,
}

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
        /// What carries it.
        transport: Transport,
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
        /// Of what kind the end is.
        cause: Cause,
        /// Why, for the log.
        why: String,
    },
    /// Somebody knocked and did not come in: no certificate, a foreign one, one for another purpose, or no handshake at all.
    Refused {
        /// Who.
        address: SocketAddr,
        /// The reason's code, for counters.
        reason: &'static str,
        /// Why, for the log.
        why: String,
    },
}

/// The writing half of a carrier, and its life: dropping it closes the carrier at once.
#[derive(Debug)]
pub struct CarrierHandle {
    /// Bytes of the control lane, whole frames in each buffer; capacity 2 buffers.
    pub control: mpsc::Sender<Bytes>,
    /// Bytes of the data lane, whole frames in each buffer; capacity 2 buffers.
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
        let owner = Owner { inputs, writable: Arc::default(), ids: Arc::default(), trust: None, access: None };
        (Self { tasks: JoinSet::new(), owner }, queue)
    }

    /// Ends a carrier as soon as `trust` says that its peer's certificate is revoked or has expired. Say it before the first carrier.
    pub fn trust(&mut self, trust: Live) {
        self.owner.trust = Some(trust);
    }

    /// Refuses carriers from addresses that `access` denies, and ends those that stand as soon as it does. Say it before the first carrier.
    pub fn admit_only(&mut self, access: Watched) {
        self.owner.access = Some(access);
    }

    /// Accepts carriers over QUIC at the relay's `endpoint` until the set is dropped or the endpoint closed.
    pub fn accept(&mut self, endpoint: Endpoint) {
        self.tasks.spawn(admit::accept_quic(endpoint, self.owner.clone()));
    }

    /// Accepts carriers over TLS at `listener` until the set is dropped.
    ///
    /// # Errors
    /// The credentials cannot be used, or the socket is no TCP socket.
    pub fn accept_tls(&mut self, listener: Listener, credentials: &Live) -> Result<(), EndpointError> {
        let tls = quic::server_tls(credentials)?;
        // Asked of the listener for the sake of the segment size: it is told in the first answer to a newcomer.
        dial::tune((&listener).into())?;
        self.tasks.spawn(admit::accept_tls(listener, Arc::new(tls), self.owner.clone()));
        Ok(())
    }

    /// Dials the relay at `addr` over QUIC, whose certificate must name `server_name`. The outcome arrives as `Opened` or `Lost`.
    pub fn dial(&mut self, endpoint: &Endpoint, addr: SocketAddr, server_name: &str) -> Dial {
        self.begin(reach_quic(endpoint.clone(), addr, server_name.to_owned()))
    }

    /// Dials the relay by `route` over TLS, likewise.
    pub fn dial_tls(&mut self, dialler: &TlsDialler, route: Route, server_name: &str) -> Dial {
        self.begin(reach_tls(dialler.clone(), route, server_name.to_owned()))
    }

    fn begin(&mut self, reaching: impl Future<Output = Result<Standing, DialFault>> + Send + 'static) -> Dial {
        while self.tasks.try_join_next().is_some() {}
        let (carrier, owner) = (self.owner.next(), self.owner.clone());
        let abort = self.tasks.spawn(async move {
            match reaching.await {
                Ok(standing) => serve(standing, carrier, owner).await,
                Err(fault) => owner.lost(carrier, fault).await,
            }
        });
        Dial { carrier, abort }
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

/// A dial under way.
#[derive(Debug)]
pub struct Dial {
    /// The carrier that may come of it.
    pub carrier: CarrierId,
    abort: AbortHandle,
}

impl Dial {
    /// Gives it up: nothing more is heard of the carrier, whether it stands already or not.
    pub fn give_up(self) {
        self.abort.abort();
    }
}

/// What dials over TLS.
#[derive(Clone)]
pub struct TlsDialler(TlsConnector);

impl TlsDialler {
    /// Makes one that shows these credentials.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn new(credentials: &Live) -> Result<Self, EndpointError> {
        Ok(Self(TlsConnector::from(Arc::new(quic::client_tls(credentials)?))))
    }
}

impl std::fmt::Debug for TlsDialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsDialler")
    }
}

/// How a carrier reaches its owner.
#[derive(Clone, Debug)]
struct Owner {
    inputs: mpsc::Sender<CarrierInput>,
    writable: Writable,
    ids: Arc<AtomicU64>,
    trust: Option<Live>,
    access: Option<Watched>,
}

impl Owner {
    fn next(&self) -> CarrierId {
        CarrierId(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until the peer's certificate holds no more, which may be never.
    async fn trust_is_over(&self, peer: &CertificateDer<'_>) -> DialFault {
        match &self.trust {
            Some(trust) => DialFault::new(Cause::Broken, trust.over(peer).await),
            None => std::future::pending().await,
        }
    }

    /// Whether whoever knocks from `address` is listened to.
    fn admits(&self, address: SocketAddr) -> bool {
        self.access.as_ref().is_none_or(|access| access.allows(address.ip()))
    }

    /// Waits until the peer's address is denied, which may be never.
    async fn denied(&self, address: Option<SocketAddr>) -> DialFault {
        match (self.access.clone(), address) {
            (Some(mut access), Some(address)) => {
                access.denied(address.ip()).await;
                DialFault::new(Cause::Broken, "its address is not allowed any more".to_owned())
            }
            _ => std::future::pending().await,
        }
    }

    async fn lost(&self, carrier: CarrierId, fault: DialFault) {
        let DialFault { cause, why } = fault;
        // An owner that is gone needs no word.
        drop(self.inputs.send(CarrierInput::Lost { carrier, cause, why }).await);
    }
}

/// A connection whose peer is verified.
#[derive(Debug)]
enum Standing {
    Quic(quic_pump::Lanes),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Standing {
    fn peer(&self) -> Result<(CertificateDer<'static>, Identity), IdentityError> {
        let leaf = match self {
            Self::Quic(lanes) => peer_certificate(&lanes.connection),
            Self::Tls(stream) => stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned()),
        };
        let leaf = leaf.ok_or(IdentityError::NoCertificate)?;
        let identity = identity_of(&leaf)?;
        Ok((leaf, identity))
    }

    /// Where the peer is, or its proxy.
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Quic(lanes) => Some(lanes.connection.remote_address()),
            Self::Tls(stream) => stream.get_ref().0.peer_addr().ok(),
        }
    }

    fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::Tls(_) => Transport::Tls,
        }
    }
}

/// What a pump holds of its carrier: the other ends of a [`CarrierHandle`].
#[derive(Debug)]
struct Held {
    control: mpsc::Receiver<Bytes>,
    data: mpsc::Receiver<Bytes>,
    gate: watch::Receiver<bool>,
}

/// Why pumping ended.
#[derive(Debug)]
enum Ended {
    /// The owner let go of the handle, or is gone.
    Dropped,
    /// The connection said so.
    Connection(DialFault),
    /// A stream broke or ended.
    Stream(io::Error),
    /// The peer sent what is no frame.
    NoFrame(FrameError),
}

impl Ended {
    fn told(self) -> DialFault {
        match self {
            Self::Dropped => DialFault::new(Cause::Ours, "closed here"),
            Self::Connection(fault) => fault,
            Self::Stream(_) => DialFault::new(Cause::Peer, "the peer ended it"),
            Self::NoFrame(fault) => DialFault::new(Cause::Broken, fault.to_string()),
        }
    }
}

async fn reach_quic(endpoint: Endpoint, addr: SocketAddr, server_name: String) -> Result<Standing, DialFault> {
    dial::datagrams_leave(addr).await?;
    let reaching = async {
        let connecting = endpoint.connect(addr, &server_name);
        let connecting = connecting.map_err(|fault| DialFault::new(Cause::Unreachable, fault.to_string()))?;
        let connection = connecting.await.map_err(|fault| quic_pump::told(&fault))?;
        Ok(Standing::Quic(quic_pump::open(connection).await?))
    };
    timeout(HANDSHAKE, reaching).await.unwrap_or_else(|_| Err(no_answer()))
}

async fn reach_tls(dialler: TlsDialler, route: Route, server_name: String) -> Result<Standing, DialFault> {
    let name = ServerName::try_from(server_name);
    let name = name.map_err(|_| DialFault::new(Cause::Configuration, "`server_name` is no DNS name or IP address"))?;
    let socket = dial::reach(&route).await?;
    match timeout(HANDSHAKE, dialler.0.connect(name, socket)).await {
        Ok(Ok(stream)) => Ok(Standing::Tls(Box::new(stream.into()))),
        Ok(Err(fault)) => Err(tls_pump::handshake_failed(&fault)),
        Err(_) => Err(no_answer()),
    }
}

fn no_answer() -> DialFault {
    DialFault::new(Cause::Unreachable, "the relay did not answer in time")
}

/// Tells the owner of a carrier, and pumps it to its end.
async fn serve(standing: Standing, carrier: CarrierId, owner: Owner) {
    let (peer, identity) = match standing.peer() {
        Ok(peer) => peer,
        Err(fault) => {
            if let Standing::Quic(lanes) = &standing {
                lanes.connection.close(quic_pump::BROKEN, b"no name");
            }
            return owner.lost(carrier, DialFault::new(Cause::Broken, fault.to_string())).await;
        }
    };
    let (control, control_queue) = mpsc::channel(LANE_DEPTH);
    let (data, data_queue) = mpsc::channel(LANE_DEPTH);
    let (read_data, gate) = watch::channel(false);
    let handle = CarrierHandle { control, data, read_data };
    let held = Held { control: control_queue, data: data_queue, gate };
    let (transport, address) = (standing.transport(), standing.address());
    if owner.inputs.send(CarrierInput::Opened { carrier, identity, transport, handle }).await.is_err() {
        return;
    }
    let pumped = async {
        match standing {
            Standing::Quic(lanes) => quic_pump::run(lanes, carrier, held, &owner).await,
            Standing::Tls(stream) => tls_pump::run(stream, carrier, held, &owner).await,
        }
    };
    let ended = tokio::select! {
        ended = pumped => ended,
        // A pump that is dropped lets go of its connection, which closes it.
        ended = owner.trust_is_over(&peer) => ended,
        ended = owner.denied(address) => ended,
    };
    owner.lost(carrier, ended).await;
}

/// Waits until the owner drops the handle.
async fn dropped(gate: &mut watch::Receiver<bool>) {
    while gate.changed().await.is_ok() {}
}
