//! What must survive: sessions, their events, marks and the agents' streams.
//!
//! The desk hands over a list of [`Op`]s together with the effects that may only happen once they are committed. The writer
//! thread of [`sqlite::Store`] commits whatever waits as one transaction, then releases the effects in order. What a start goes
//! on with comes back as a [`Snapshot`]; what was said in one session is read as a [`Transcript`].
//!
//! Ops are idempotent: a repeated event number, OPEN or mark changes nothing, and marks never go back. An op that names a
//! session or stream the store does not know is the caller's fault; it is logged and changes nothing.

use std::hash::{Hash, Hasher};

use bytes::Bytes;

use crate::fingerprint::ClientSoftware;
use crate::im::Availability;
use crate::link::{LinkTerms, RevokedLink};
use crate::proto::tunnel::{Fin, Proof};
use crate::routing::agent::Wish;
use crate::session::{CloseReason, OpenId, SessionId};

pub mod sqlite;

pub use self::sqlite::{Store, StoreError};

/// SHA-256 of a session secret: what the store keeps in its stead. Compared in constant time, so that a relay that guesses learns
/// nothing from how long it waits.
#[derive(Clone, Copy, Debug, Eq)]
pub struct SecretDigest(pub [u8; 32]);

impl PartialEq for SecretDigest {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Hash for SecretDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Names one agent's XMPP stream through its resumptions: 128 random bits, the XEP-0198 id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(pub [u8; 16]);

impl std::fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamKey(MASKED)")
    }
}

/// Where a session stands in routing; what the desk needs to go on after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Waits in its queue.
    Queued,
    /// With the bot of its queue.
    Bot,
    /// With an agent.
    Agent(String),
    /// Ended; FIN may still be unconfirmed.
    Closed(CloseReason),
}

/// A session as it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its name.
    pub id: SessionId,
    /// The OPEN that made it.
    pub open_id: OpenId,
    /// Digest of its secret.
    pub secret: SecretDigest,
    /// Served domain.
    pub domain: String,
    /// Queue.
    pub queue: String,
    /// The short code agents and customers see, such as "7f3a".
    pub code: String,
    /// A name to show agents, such as "guest-7f3a" or the link's subject.
    pub customer: String,
    /// Why the customer comes, from the link; empty where unknown.
    pub reason: String,
    /// Link issuer and key id; empty for the public queue.
    pub link_issuer: String,
    /// Key id of the link; empty for the public queue.
    pub link_kid: String,
    /// SHA-256 of the link's token id, whose uses are counted; `None` for the public queue.
    pub link_use: Option<[u8; 32]>,
    /// The client's address.
    pub client_addr: String,
    /// Whether the client can resume (XEP-0198).
    pub resumable: bool,
    /// Software as known at OPEN.
    pub software: ClientSoftware,
    /// Milliseconds since the Unix epoch.
    pub opened_at: u64,
}

/// One change. A list of them is one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's sentence names its fields")]
pub enum Op {
    /// A session begins (and uses its link once). At most `max_uses` sessions may use a link: the caller checked.
    Begin(Box<SessionRecord>),
    /// An inward event, its number and the client's stanza count. `None` body: ephemeral or tombstone, only the marks move.
    In { session: SessionId, number: u64, sm_in: u32, body: Option<Bytes>, at: u64 },
    /// The client's stanza count without an event.
    Counted { session: SessionId, sm_in: u32 },
    /// An outward event. `None` body: ephemeral, kept as a tombstone until confirmed.
    Out { session: SessionId, number: u64, body: Option<Bytes>, at: u64 },
    /// The end of the session as outward number `number`.
    OutFin { session: SessionId, number: u64, fin: Fin, at: u64 },
    /// Outward events up to `number` are handled.
    OutHandled { session: SessionId, number: u64, proof: Proof },
    /// The relay's own stanzas (XEP-0198 account): `count` in all after outward event `after`; the greatest count stands.
    Own { session: SessionId, after: u64, count: u32 },
    /// The client's count (XEP-0198) stands at `count` right after outward event `event`: what it counts from now on is told from there.
    /// OWN of events before `own_from` is forgotten.
    Counts { session: SessionId, event: u64, count: u32, own_from: u64 },
    /// A relay asked for the session and showed how far it is; `attachment` rises when its client has come again.
    Attached { session: SessionId, attachment: u32 },
    /// Outward numbers from `from` on were given while no relay had asked for the session since the start; until one does.
    Unseen { session: SessionId, from: u64 },
    /// Software became known.
    Software { session: SessionId, software: ClientSoftware },
    /// The session moves in routing. `enqueued_at` keeps its place in the queue (milliseconds since the Unix epoch).
    Place { session: SessionId, place: Place, enqueued_at: u64 },
    /// The session is over and confirmed: what only its client's return needed goes.
    Forget { session: SessionId },
    /// The session never began for its customer: its link was not used.
    LinkReturned { session: SessionId },
    /// What is to be known of a link that `Begin` counted a use of; the count itself is the store's.
    LinkUsed(Box<LinkUse>),
    /// Uses of links that expired before `before` need not be known any more, but of those whose session lives.
    LinksExpired { before: u64 },
    /// A short code stands from now on.
    CodeMade(Box<StoredCode>),
    /// A short code is taken back.
    CodeRevoked { digest: SecretDigest },
    /// A short code need not be known any more.
    CodeForgotten { digest: SecretDigest },
    /// The session goes on under another secret, for who presented its link: what only the client before could know goes.
    TakenOver { session: SessionId, secret: SecretDigest, client_addr: String, resumable: bool },
    /// What an agent asked for by command; `Ready` and `Pause` stand until the next.
    Wish { agent: String, wish: Wish },
    /// An agent's resumable stream begins.
    StreamBegin { stream: StreamKey, agent: String, resource: String },
    /// What the agent's client shows on this stream; a client does not repeat it when it resumes.
    StreamPresence { stream: StreamKey, presence: Option<Availability> },
    /// Stanzas of the agent handled so far on this stream (our `h`).
    StreamIn { stream: StreamKey, h: u32 },
    /// Stanza number `number` (from 1) to the agent, not yet acknowledged. `session` and `event` tell which outward leg event it shows, if any.
    StreamOut { stream: StreamKey, number: u32, xml: String, session: Option<SessionId> },
    /// The agent's client acknowledged stanzas up to `h`.
    StreamAcked { stream: StreamKey, h: u32 },
    /// The stream is over; what it did not acknowledge is returned by nobody.
    StreamEnd { stream: StreamKey },
    /// A link is taken back; those that ended before `forget_before` (seconds since 1970) are forgotten.
    Revoke { link: RevokedLink, forget_before: u64 },
    /// Inward events of `session` up to `number` have been written to an agent's leg without resumption, or acknowledged on one with it.
    Delivered { session: SessionId, number: u64 },
}

/// How often a link was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkUse {
    /// What it is counted under: a digest of issuer and name.
    pub digest: [u8; 32],
    /// Who signed it; "code" for a short code.
    pub issuer: String,
    /// Its name.
    pub jti: String,
    /// Where it leads.
    pub queue: String,
    /// Sessions that it is for; `None` is any number.
    pub max_sessions: Option<u32>,
    /// Sessions that it has begun.
    pub uses: u32,
    /// When it ends, seconds since the Unix epoch.
    pub expires: u64,
}

/// A short code as the store knows it: not the code itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCode {
    /// Digest of the code.
    pub digest: SecretDigest,
    /// The domain that it is good for.
    pub domain: String,
    /// What it grants.
    pub terms: LinkTerms,
    /// When it was made, seconds since the Unix epoch.
    pub made_at: u64,
    /// Whether it was taken back.
    pub revoked: bool,
}

/// One event of a session as the record keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its number in its direction.
    pub number: u64,
    /// The encoded event; `None` for a tombstone.
    pub body: Option<Bytes>,
    /// Milliseconds since the Unix epoch; 0 for a tombstone.
    pub at: u64,
}

/// A live session as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// How it began, with software as known now.
    pub record: SessionRecord,
    /// Where it stands.
    pub place: Place,
    /// Its place in the queue.
    pub enqueued_at: u64,
    /// How often its client has come.
    pub attachment: u32,
    /// The first outward number that no relay can have seen, where there is one.
    pub unseen_from: Option<u64>,
    /// Highest inward number committed.
    pub in_handled: u64,
    /// Inward numbers up to here reached an agent's leg.
    pub delivered: u64,
    /// The client's stanza count committed.
    pub sm_in: u32,
    /// Highest outward number handed out; 0 for none.
    pub out_last: u64,
    /// Highest outward number confirmed or written.
    pub out_handled: u64,
    /// Outward events above `out_handled`, in order.
    pub out_pending: Vec<StoredEvent>,
    /// FIN and its number, if the session ended on our side; its number has no entry in `out_pending`.
    pub fin: Option<(u64, Fin)>,
    /// The relay's own stanzas: how many after which outward event, in order.
    pub own: Vec<(u64, u32)>,
    /// Where the client can resume: an outward event, and its count right after it.
    pub counts: Option<(u64, u32)>,
    /// The conversation so far, both ways, oldest first, the last 200 events with a body and whatever is not delivered.
    pub history: Vec<(crate::session::Direction, StoredEvent)>,
}

/// The record of one session, for status and for whoever checks what was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// How it began, with software as known now.
    pub record: SessionRecord,
    /// Where it stands.
    pub place: Place,
    /// Outward numbers up to here were confirmed by the customer's client.
    pub out_confirmed: u64,
    /// Outward numbers up to here were confirmed or written.
    pub out_handled: u64,
    /// All events with a body, both ways, in the order they were committed.
    pub events: Vec<(crate::session::Direction, StoredEvent)>,
}

/// An agent's resumable stream as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredStream {
    /// Its id.
    pub stream: StreamKey,
    /// The agent.
    pub agent: String,
    /// Its resource.
    pub resource: String,
    /// Our `h`.
    pub h: u32,
    /// Highest outward stanza number.
    pub out_last: u32,
    /// What its client last showed; `None` before the first presence and after unavailable.
    pub presence: Option<Availability>,
    /// What is not acknowledged, in order: number, stanza, session.
    pub pending: Vec<(u32, String, Option<SessionId>)>,
}

/// All that a connector goes on with after a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Names this store: made once, told in HELLO.
    pub incarnation: [u8; 16],
    /// Sessions that are not closed, or whose end is not confirmed.
    pub sessions: Vec<StoredSession>,
    /// Agents' resumable streams.
    pub streams: Vec<StoredStream>,
    /// How often each link was used.
    pub link_uses: Vec<LinkUse>,
    /// Short codes.
    pub codes: Vec<StoredCode>,
    /// What agents asked for by command.
    pub wishes: Vec<(String, Wish)>,
    /// Links that were taken back.
    pub revoked: Vec<RevokedLink>,
}
