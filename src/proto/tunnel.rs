//! The tunnel: one association of a relay and a connector that outlives its carriers and loses nothing.
//!
//! Pure: carriers, time and entropy come in as arguments, frames go out as bytes. Three things with three lifetimes:
//!
//! - a *carrier* is one transport connection; it knows nothing of sessions;
//! - a *tunnel* is one relay process and one connector; it outlives carriers, and each carrier that attaches gets the next
//!   *epoch*;
//! - a *session* outlives tunnels: its events are numbered for its whole life, both ways, and every number is kept by its
//!   sender until the other side has handled it.
//!
//! [`RelayEnd`] and [`ConnectorEnd`] are the two ends. What both share: `frame` and `wire` (bytes), `handshake` (HELLO to
//! ATTACHED), `line` (a session's numbers both ways, and who has something to send), `outflow` and `inflow` (the two
//! halves), `credit` and `scheduler`. `docs/tunnel-protocol.md` has the protocol byte by byte.
//!
//! Left out: how carriers are dialled, raced and secured (`net`), and what sessions mean (`relay`, `connector`).

mod carrier;
pub mod certificate;
mod clocks;
mod connector_end;
mod credit;
pub mod event;
pub mod frame;
mod goaway;
mod governor;
mod handshake;
mod inflow;
mod line;
mod memory;
mod open;
mod outflow;
pub mod policy;
pub mod probe;
mod relay_end;
mod scheduler;
mod wire;

pub use self::carrier::SILENT;
pub use self::clocks::{CLOCKS_APART, clock_ahead};
pub use self::connector_end::ConnectorEnd;
pub use self::goaway::{GoAway, GoAwayReason, MAX_ALTERNATE_BYTES, MAX_ALTERNATES};
pub use self::governor::Rate;
pub use self::memory::ReplayMemory;
pub use self::relay_end::RelayEnd;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use crate::fingerprint::ClientSoftware;
use crate::session::{CloseReason, OpenId, SessionSecret};

/// Names one transport connection within its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CarrierId(pub u64);

/// Names one session within the relay process; the caller chooses it and never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// Names one attachment of a session to one tunnel at the connector. Never reused within a `ConnectorEnd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u32);

/// Names one CHECK within the relay process; the caller chooses it and never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckId(pub u64);

/// The name in a tunnel certificate's SAN: `outgate://ORG/connector/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(pub String);

/// The two queues of a carrier: control frames and channel frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// HELLO to ATTACHED, PING, ACK, GOAWAY, CHECK, ERROR.
    Control,
    /// OPEN, OPEN_OK, OPEN_REFUSED, DATA, COUNTED, OWN, FIN, RESET.
    Data,
}

/// The terms on which a customer came in, as the relay saw them. The connector checks them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The served domain.
    pub domain: String,
    /// The queue asked for; with a link, the queue that the relay read in it.
    pub queue: String,
    /// What the customer presented.
    pub assertion: Assertion,
}

/// What a customer presents to be let in.
#[derive(Clone, PartialEq, Eq)]
pub enum Assertion {
    /// Nothing: the queue is public.
    Anonymous,
    /// A signed link in JWS compact form. Never logged.
    Link {
        /// The token.
        token: String,
        /// The key id named in its header.
        kid: String,
    },
}

impl std::fmt::Debug for Assertion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Link { kid, .. } => write!(f, "Link {{ token: MASKED, kid: {kid:?} }}"),
        }
    }
}

/// OPEN, number 0 of a session: asks the connector for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// A new session or the return of one.
    pub kind: OpenKind,
    /// Terms of entry.
    pub admission: Admission,
    /// The client's address as the relay saw it.
    pub client_addr: SocketAddr,
    /// The relay's own address that was reached.
    pub local_addr: SocketAddr,
    /// The client protocol, "xmpp".
    pub protocol: String,
    /// The server name in the client's TLS hello, if any.
    pub sni: Option<String>,
    /// Software as far as known at this moment.
    pub software: ClientSoftware,
    /// Whether the client's stream can be resumed (XEP-0198), so that `sm_in` and OWN count.
    pub resumable: bool,
    /// How long a client that asks in person had waited when this was sent: of two that ask for one session the later has it.
    pub waited: Duration,
}

/// Whether an OPEN begins a session or attaches an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenKind {
    /// A new session. A repeated `open_id` finds its own session again.
    New {
        /// Names this OPEN.
        open_id: OpenId,
        /// Lets this or another relay attach the session later.
        secret: SessionSecret,
    },
    /// A session that the relay still holds, or whose client returned with its secret.
    Attach {
        /// Proof.
        secret: SessionSecret,
        /// The number of the oldest inward event that the relay still holds or would send next.
        in_next: u64,
        /// The number of the next outward event that the relay expects.
        out_next: u64,
        /// Stanzas that the client says it has received (XEP-0198 `h`), where known.
        client_h: Option<u32>,
        /// The attachment that the relay was told with its last answer; 0: none, the client asks in person.
        attachment: u32,
    },
}

/// Why an OPEN or a CHECK was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalCode {
    /// Too much to do now.
    Busy,
    /// No such queue here.
    NoQueue,
    /// The link does not hold: signature, key, audience, expiry, uses, revocation.
    BadLink,
    /// Policy forbids it.
    Policy,
    /// Stopping.
    Drain,
    /// No session with this secret.
    UnknownSession,
    /// The store is older than what was acknowledged.
    StoreRegressed,
}

/// An event's body, or its place where the body is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// One encoded [`crate::im::ImEvent`] (see [`event`]).
    Event(Bytes),
    /// One encoded ephemeral event: on replay a tombstone stands for it.
    Ephemeral(Bytes),
    /// The number without its body.
    Tombstone,
}

/// How far an outward event is known to have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The customer's client confirmed it.
    Confirmed,
    /// It was written to the client's transport; the client answers no barrier.
    Written,
}

/// The end of a session, numbered like an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fin {
    /// Why.
    pub reason: CloseReason,
    /// A sentence for the other side's person.
    pub text: String,
}

/// Why an attachment ended without the session having ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResetCode {
    /// The session is attached elsewhere.
    Moved,
    /// A fault inside one channel: gap, bad event, acknowledgement of what was never sent.
    Protocol,
    /// The reader made no progress.
    Slow,
    /// OPEN withdrawn before it was answered.
    Cancelled,
    /// No such channel here.
    Unknown,
    /// The connector's store is older than what was acknowledged: the session has ended, nothing is renumbered.
    StoreRegressed,
}

/// What the relay's sessions ask of the tunnel.
#[expect(missing_docs, reason = "each variant says what its fields are")]
#[derive(Clone, Debug)]
pub enum RelayCommand {
    /// Opens a session towards the connector `identity`.
    Open { session: SessionKey, identity: Identity, open: Box<Open> },
    /// Sends the session's next inward event. Numbers are assigned in order from 1. `sm_in` is the client's stanza count up to and including it.
    Send { session: SessionKey, payload: Payload, sm_in: u32 },
    /// Reports stanzas without an event.
    Counted { session: SessionKey, sm_in: u32 },
    /// Announces that `count` of the relay's own stanzas in all follow outward event `after` (XEP-0198 account). The count is a
    /// total, so that a repeated announcement is harmless; it is repeated until it is recorded.
    Own { session: SessionKey, after: u64, count: u32 },
    /// Outward events up to `number` are handled.
    Handled { session: SessionKey, number: u64, proof: Proof },
    /// Ends the session; numbered after all that was sent. Before OPEN_OK it cancels.
    Finish { session: SessionKey, fin: Fin },
    /// Asks whether a customer would be let in: no state, nothing counted.
    Check { check: CheckId, identity: Identity, admission: Box<Admission> },
}

/// What the tunnel tells the relay.
#[expect(missing_docs, reason = "each variant says what its fields are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayEvent {
    /// A carrier attached. `resumed` tells a RESUME from a NEW.
    TunnelUp { identity: Identity, epoch: u64, resumed: bool },
    /// The tunnel has no carrier now.
    TunnelDetached { identity: Identity },
    /// The session stands.
    OpenOk { session: SessionKey },
    /// The session was refused and is forgotten.
    OpenRefused { session: SessionKey, code: RefusalCode, text: String },
    /// The next outward event, in order, once.
    Data { session: SessionKey, number: u64, payload: Payload },
    /// Inward events up to `number` are handled, and with them the client's stanzas up to `sm_in`.
    Handled { session: SessionKey, number: u64, sm_in: u32 },
    /// OWN stanzas after outward event `after` are recorded and may be written.
    OwnHandled { session: SessionKey, after: u64, count: u32 },
    /// The connector ended the session; nothing follows. `Handled` is still welcome for events that came before: the end is
    /// handled once they are, or after 30 s, or at `Finish`; what is not confirmed by then stays "written".
    Fin { session: SessionKey, fin: Fin },
    /// The session is gone without an end of its own; nothing follows.
    Gone { session: SessionKey, reason: CloseReason },
    /// Answer to a CHECK. `Err` with a sentence for the customer.
    Verdict { check: CheckId, verdict: Result<(), (RefusalCode, String)> },
    /// The connector is about to leave: it stops, or wants another carrier. Sessions stay; nothing need be done here.
    GoAway { identity: Identity, goaway: GoAway },
    /// A carrier must be closed: protocol fault, fenced, refused, or replaced.
    CloseCarrier { carrier: CarrierId, why: String },
}

/// What the connector's desk asks of a tunnel.
#[expect(missing_docs, reason = "each variant says what its fields are")]
#[derive(Clone, Debug)]
pub enum ConnectorCommand {
    /// Answers an OPEN. `attachment` rises whenever the client comes to another relay, or once more, and is told again by a relay
    /// that asks again. `in_next` is the next inward number expected; `out` holds all unconfirmed outward events in order, the
    /// first of which has number `out_first`.
    Accept { channel: ChannelId, attachment: u32, in_next: u64, out_first: u64, out: Vec<Payload> },
    /// Refuses an OPEN.
    Refuse { channel: ChannelId, code: RefusalCode, text: String, retry_after: Option<Duration> },
    /// Sends the outward event `number`, which must be the next.
    Send { channel: ChannelId, number: u64, payload: Payload },
    /// Inward events up to `number` are committed, and with them the client's stanza count `sm_in`.
    Handled { channel: ChannelId, number: u64, sm_in: u32 },
    /// The relay's own stanzas after outward event `after` are committed.
    OwnHandled { channel: ChannelId, after: u64, count: u32 },
    /// Ends the session with outward number `number`.
    Finish { channel: ChannelId, number: u64, fin: Fin },
    /// Ends the attachment.
    Reset { channel: ChannelId, code: ResetCode },
    /// Answers a CHECK (the id is the relay's).
    Verdict { check: CheckId, verdict: Result<(), (RefusalCode, String)> },
}

/// What a tunnel tells the connector's desk.
#[expect(missing_docs, reason = "each variant says what its fields are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectorEvent {
    /// Attached; channels of a RESUME live on, after a NEW all earlier ones are gone.
    Attached { epoch: u64, resumed: bool },
    /// No carrier now.
    Detached,
    /// The relay refused; the shell waits `retry_after` before it dials again.
    Refused { code: String, retry_after: Duration },
    /// A session is asked for.
    Open { channel: ChannelId, open: Box<Open> },
    /// The next inward event, in order, once.
    Data { channel: ChannelId, number: u64, sm_in: u32, payload: Payload },
    /// The client's stanza count rose without an event.
    Counted { channel: ChannelId, sm_in: u32 },
    /// The relay announces its own stanzas; answer with `OwnHandled` once committed.
    Own { channel: ChannelId, after: u64, count: u32 },
    /// Outward events up to `number` are handled.
    OutHandled { channel: ChannelId, number: u64, proof: Proof },
    /// The customer's side ended the session with inward number `number`; answer with `Handled`.
    Fin { channel: ChannelId, number: u64, fin: Fin },
    /// The attachment is gone; the session may come back on another channel.
    Reset { channel: ChannelId, code: ResetCode },
    /// A CHECK; answer with `Verdict`.
    Check { check: CheckId, admission: Box<Admission> },
    /// The relay, or the carrier alone, is about to go: the shell brings up another carrier first; it becomes a candidate.
    GoAway { goaway: GoAway },
    /// A second carrier has proven itself beside the attached one: `ConnectorEnd::switch_to` takes it, or the shell closes it.
    CandidateReady { carrier: CarrierId },
    /// The carrier must be closed.
    CloseCarrier { carrier: CarrierId, why: String },
}

/// What one end counts about itself; read by status and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelStats {
    /// Attachments granted or gained so far.
    pub attached: u64,
    /// Of these, those that took over from a carrier which still stood.
    pub switched: u64,
    /// Current epoch; 0 when never attached.
    pub epoch: u64,
    /// Events sent again after a carrier was lost.
    pub replayed: u64,
    /// Events received a second time and dropped.
    pub duplicates: u64,
    /// Channels that live now.
    pub channels: u64,
    /// Bytes held for replay now.
    pub held_bytes: u64,
}

/// Settings of an end; [`Settings::default`] gives the documented values.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's name, told in HELLO.
    pub node: String,
    /// Software and version, told in HELLO.
    pub software: String,
    /// Silence before a PING.
    pub ping_after: Duration,
    /// Silence before a carrier is dead.
    pub dead_after: Duration,
    /// How long a session waits without a carrier.
    pub detach_window: Duration,
    /// How long an OPEN waits for its answer.
    pub open_timeout: Duration,
    /// How long a carrier may stand without ATTACH.
    pub attach_timeout: Duration,
    /// How long a carrier may stand without ATTACH beside one that is attached.
    pub candidate_timeout: Duration,
    /// How long what was sent may lack a sign that it was received before another carrier is wanted.
    pub stalled_after: Duration,
    /// Relay: ATTACH of connectors that are not attached, over all of them.
    pub attach_rate: Rate,
    /// Relay: sessions that are opened again, or whose clients return, for each connector.
    pub reopen_rate: Rate,
    /// What all tunnels of this process may hold; clones of the settings share it.
    pub replay_memory: ReplayMemory,
    /// The wall clock in milliseconds since 1970, told in HELLO; 0 tells nothing.
    pub clock: fn() -> u64,
    /// Protocol versions spoken.
    pub versions: RangeInclusive<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: String::new(),
            software: concat!("outgate ", env!("CARGO_PKG_VERSION")).to_owned(),
            ping_after: Duration::from_secs(5),
            dead_after: Duration::from_secs(15),
            detach_window: Duration::from_secs(120),
            open_timeout: Duration::from_secs(10),
            attach_timeout: Duration::from_secs(5),
            candidate_timeout: Duration::from_secs(30),
            stalled_after: Duration::from_secs(30),
            attach_rate: Rate { per_second: 50, burst: 100 },
            reopen_rate: Rate { per_second: 1000, burst: 256 },
            replay_memory: ReplayMemory::default(),
            clock: || 0,
            versions: 1..=1,
        }
    }
}
