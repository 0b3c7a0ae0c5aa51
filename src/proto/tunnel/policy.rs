//! POLICY: what a connector tells a relay about links and clients, and what the relay holds of it.
//!
//! ```text
//! connector                 relay
//!                    ◀──    ATTACHED, then POLICY state      (which version it holds, and its digest)
//!   POLICY parts     ──▶                                     (only where that differs from the connector's)
//!                    ◀──    POLICY state                     (taken, or why not)
//! ```
//! A policy is one protobuf message, sent in parts of at most [`PART_BYTES`] behind all other control frames and ACKs. It counts
//! only once it is whole, its SHA-256 agrees and every bound holds; until then the one before it stands. Versions rise per
//! connector. The relay tells its version, so that a connector which restarted numbers on from there.
//!
//! Whether the keys in it are usable, and what it may say about whom, the relay's shell judges.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::fingerprint::{Denial, MAX_SOFTWARE_BYTES};
use crate::link::RevokedLink;

use super::Identity;
use super::frame::{Frame, IGNORABLE, MORE};
use super::handshake::Refusal;
use super::open::text;
use super::wire::{self, kind};

/// Largest policy, in bytes.
pub const MAX_POLICY_BYTES: usize = 512 * 1024;

/// Most revoked links of one policy.
pub const MAX_REVOKED: usize = 4096;

/// Most refused kinds of software.
pub const MAX_DENIED: usize = 256;

/// Most queues that one connector claims.
pub const MAX_CLAIMS: usize = 1024;

/// Most issuers of links.
const MAX_ISSUERS: usize = 64;

/// Largest JWK set, in bytes.
const MAX_SET_BYTES: usize = 64 * 1024;

/// Largest name of a queue, domain, issuer or link, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Bytes of a part: a PING waits for one at most.
const PART_BYTES: usize = 8 * 1024;

/// Most parts of one policy: so many that whole ones fit, so few that tiny ones cost nothing.
const MAX_PARTS: u32 = 2 * (MAX_POLICY_BYTES / PART_BYTES) as u32;

/// How many policies a connector may begin within [`BEGUN_WINDOW`]; more costs the carrier.
const MAX_BEGUN: usize = 30;

/// The time over which beginnings are counted.
const BEGUN_WINDOW: Duration = Duration::from_secs(60);

/// Refused claims that the relay names to the connector.
const MAX_TOLD: usize = 16;

/// What a connector tells its relays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The queues that it serves.
    pub queues: Vec<QueueClaim>,
    /// Who may sign links to these queues.
    pub issuers: Vec<IssuerKeys>,
    /// Links that hold no more.
    pub revoked: Vec<RevokedLink>,
    /// Clients that are not let in.
    pub denied: Vec<Denial>,
}

/// A queue that a connector says it serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueClaim {
    /// The served domain.
    pub domain: String,
    /// The queue.
    pub queue: String,
}

impl std::fmt::Display for QueueClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.queue, self.domain)
    }
}

/// An issuer's public keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerKeys {
    /// The `iss` of its links.
    pub issuer: String,
    /// Its JWK set, as text.
    pub jwks: String,
}

/// A policy as it goes over the wire.
#[derive(Debug, PartialEq, Eq)]
pub struct EncodedPolicy {
    bytes: Bytes,
    digest: [u8; 32],
}

/// Why a policy cannot be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is larger than [`MAX_POLICY_BYTES`].
    #[error("the policy has {0} bytes, more than a relay takes")]
    TooLarge(usize),
    /// A list is too long, or a name too long or not fit to be shown.
    #[error("the policy has a list or a name that no relay takes")]
    OutOfBounds,
}

impl EncodedPolicy {
    /// Encodes `policy` if a relay would take it.
    ///
    /// # Errors
    /// It would not.
    pub fn new(policy: &Policy) -> Result<Self, PolicyError> {
        let bytes = Bytes::from(to_wire(policy).encode_to_vec());
        if bytes.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLarge(bytes.len()));
        }
        decode(&bytes).map_err(|_| PolicyError::OutOfBounds)?;
        Ok(Self { digest: sha256(&bytes), bytes })
    }
}

/// What the relay's end tells its shell of policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyNews {
    /// A whole one came; answer with [`super::RelayEnd::judge_policy`].
    Whole {
        /// Whose.
        identity: Identity,
        /// Its number.
        version: u64,
        /// What it says.
        policy: Box<Policy>,
    },
    /// One was dropped: it was broken, out of bounds or old.
    Dropped {
        /// Whose.
        identity: Identity,
        /// The reason code.
        why: &'static str,
    },
}

/// What the relay's shell makes of a whole policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyVerdict {
    /// It stands from now on, but for these claims.
    Taken {
        /// Claimed queues that are not granted.
        refused: Vec<QueueClaim>,
    },
    /// The one before it stands.
    Refused {
        /// The reason code, for the connector's admin.
        why: &'static str,
    },
}

/// What the relay answered a connector about its policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyAnswer {
    /// The version that the relay holds; 0 for none.
    pub version: u64,
    /// Whether that is the connector's own.
    pub is_current: bool,
    /// Why the last one was refused; empty where it was not.
    pub refused: String,
    /// Claimed queues that the relay does not grant.
    pub refused_claims: Vec<String>,
}

/// The relay's half of one connector's policy.
#[derive(Debug, Default)]
pub(super) struct Intake {
    held: Option<(u64, [u8; 32])>,
    /// Whole, and not judged yet.
    judged_next: Option<(u64, [u8; 32])>,
    coming: Option<Coming>,
    begun: VecDeque<Instant>,
    refused: String,
    refused_claims: Vec<String>,
}

/// The parts of a policy that have come.
#[derive(Debug)]
struct Coming {
    version: u64,
    digest: [u8; 32],
    length: usize,
    parts: u32,
    /// Empty where its version is old: then it is only counted.
    bytes: BytesMut,
    received: usize,
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// More is to come.
    Part,
    /// It was the last one.
    Whole(u64, Box<Policy>),
    /// It was the last one, and all of it is dropped.
    Dropped(&'static str),
}

impl Intake {
    /// Takes one part; an error costs the carrier.
    pub(super) fn take(&mut self, frame: &Frame, now: Instant) -> Result<Taken, Refusal> {
        let malformed = Refusal("malformed");
        let part: WirePart = wire::body(frame).map_err(|_| malformed)?;
        let digest: [u8; 32] = part.digest.as_ref().try_into().map_err(|_| malformed)?;
        let length = part.length as usize;
        if length > MAX_POLICY_BYTES {
            return Err(Refusal("policy_too_large"));
        }
        if part.offset == 0 {
            self.begin(part.version, digest, length, now)?;
        }
        let coming = self.coming.as_mut().ok_or(malformed)?;
        let continues = (coming.version, coming.digest, coming.length) == (part.version, digest, length);
        coming.parts += 1;
        if !continues || coming.received != part.offset as usize || coming.parts > MAX_PARTS {
            return Err(malformed);
        }
        coming.received += part.part.len();
        if coming.received > length {
            return Err(malformed);
        }
        let is_old = self.held.is_some_and(|(held, _)| part.version <= held);
        if !is_old {
            coming.bytes.extend_from_slice(&part.part);
        }
        if frame.flags & MORE != 0 {
            return Ok(Taken::Part);
        }
        let Some(coming) = self.coming.take() else { return Err(malformed) };
        Ok(if is_old { self.drop_it("policy-old-version") } else { self.finish(coming) })
    }

    fn begin(&mut self, version: u64, digest: [u8; 32], length: usize, now: Instant) -> Result<(), Refusal> {
        while self.begun.pop_front_if(|at| *at + BEGUN_WINDOW <= now).is_some() {}
        if self.begun.len() >= MAX_BEGUN {
            return Err(Refusal("policy_flood"));
        }
        self.begun.push_back(now);
        self.coming = Some(Coming { version, digest, length, parts: 0, bytes: BytesMut::new(), received: 0 });
        Ok(())
    }

    fn finish(&mut self, coming: Coming) -> Taken {
        if coming.bytes.len() != coming.length || sha256(&coming.bytes) != coming.digest {
            return self.drop_it("policy-digest");
        }
        match decode(&coming.bytes) {
            Ok(policy) => {
                self.judged_next = Some((coming.version, coming.digest));
                Taken::Whole(coming.version, Box::new(policy))
            }
            Err(_) => self.drop_it("policy-malformed"),
        }
    }

    fn drop_it(&mut self, why: &'static str) -> Taken {
        why.clone_into(&mut self.refused);
        Taken::Dropped(why)
    }

    /// The shell has judged the policy of this version.
    pub(super) fn judge(&mut self, version: u64, verdict: &PolicyVerdict) {
        let Some(judged) = self.judged_next.take_if(|(judged, _)| *judged == version) else { return };
        match verdict {
            PolicyVerdict::Taken { refused } => {
                self.held = Some(judged);
                self.refused.clear();
                self.refused_claims = refused.iter().take(MAX_TOLD).map(ToString::to_string).collect();
            }
            PolicyVerdict::Refused { why } => (*why).clone_into(&mut self.refused),
        }
    }

    /// What the relay holds, for the connector.
    pub(super) fn state(&self) -> Bytes {
        let (version, digest) = self.held.map_or((0, Bytes::new()), |(version, digest)| (version, Bytes::copy_from_slice(&digest)));
        let state = WireState { version, digest, refused: self.refused.clone(), refused_claims: self.refused_claims.clone() };
        wire::encoded(kind::POLICY, IGNORABLE, 0, &state)
    }

    /// A carrier came or went: a policy that was cut is begun again.
    pub(super) fn cut(&mut self) {
        self.coming = None;
    }

    /// The version that stands; 0 for none.
    pub(super) fn version(&self) -> u64 {
        self.held.map_or(0, |(version, _)| version)
    }
}

/// The connector's half: what is to be pushed to one relay, and how far that has come.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    policy: Option<Arc<EncodedPolicy>>,
    version: u64,
    /// What the relay said it holds; `None` until it has spoken on this carrier.
    held: Option<(u64, Bytes)>,
    /// Bytes of the policy that are written.
    sending: Option<usize>,
    answers: VecDeque<PolicyAnswer>,
}

impl Outbox {
    /// Sets what the relay is to hold.
    pub(super) fn push(&mut self, policy: Arc<EncodedPolicy>) {
        if self.policy.as_ref() != Some(&policy) {
            self.policy = Some(policy);
            self.begin_if_needed();
        }
    }

    /// The relay says what it holds; an error costs the carrier.
    pub(super) fn handle_state(&mut self, frame: &Frame) -> Result<(), Refusal> {
        let malformed = Refusal("malformed");
        let state: WireState = wire::body(frame).map_err(|_| malformed)?;
        if state.refused_claims.len() > MAX_TOLD {
            return Err(malformed);
        }
        let claims = state.refused_claims.into_iter().map(|claim| text(claim, 2 * MAX_NAME_BYTES + 1));
        let refused_claims = claims.collect::<Result<_, _>>().map_err(|_| malformed)?;
        let refused = text(state.refused, MAX_NAME_BYTES).map_err(|_| malformed)?;
        let is_first = self.held.replace((state.version, state.digest)).is_none();
        self.version = self.version.max(state.version);
        let is_current = self.is_held();
        if self.answers.len() < MAX_TOLD {
            self.answers.push_back(PolicyAnswer { version: state.version, is_current, refused, refused_claims });
        }
        // What the relay has refused is not pushed again before the next carrier.
        if is_first {
            self.begin_if_needed();
        }
        Ok(())
    }

    fn is_held(&self) -> bool {
        let digest = self.policy.as_ref().map(|policy| &policy.digest[..]);
        self.held.as_ref().is_some_and(|(_, held)| digest == Some(held))
    }

    fn begin_if_needed(&mut self) {
        self.sending = None;
        if self.policy.is_some() && self.held.is_some() && !self.is_held() {
            self.version = self.version.saturating_add(1);
            self.sending = Some(0);
        }
    }

    /// The carrier is gone, or another one is attached: the relay tells anew what it holds.
    pub(super) fn reset(&mut self) {
        self.held = None;
        self.sending = None;
    }

    /// Appends the next part to `out`, if there is one and `out` has room.
    pub(super) fn write(&mut self, max: usize, out: &mut BytesMut) {
        let (Some(offset), Some(policy)) = (self.sending, &self.policy) else { return };
        if out.len() >= max {
            return;
        }
        let end = (offset + PART_BYTES).min(policy.bytes.len());
        let is_last = end == policy.bytes.len();
        let part = WirePart {
            version: self.version,
            digest: Bytes::copy_from_slice(&policy.digest),
            length: policy.bytes.len() as u32,
            offset: offset as u32,
            part: policy.bytes.slice(offset..end),
        };
        wire::put(out, kind::POLICY, if is_last { IGNORABLE } else { IGNORABLE | MORE }, 0, &part);
        self.sending = (!is_last).then_some(end);
    }

    pub(super) fn poll_answer(&mut self) -> Option<PolicyAnswer> {
        self.answers.pop_front()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn to_wire(policy: &Policy) -> WirePolicy {
    let queues = policy.queues.iter().map(|claim| WireClaim { domain: claim.domain.clone(), queue: claim.queue.clone() });
    let issuers = policy.issuers.iter().map(|keys| WireIssuer { issuer: keys.issuer.clone(), jwks: keys.jwks.clone() });
    let revoked =
        policy.revoked.iter().map(|link| WireRevoked { issuer: link.issuer.clone(), jti: link.jti.clone(), expires: link.expires });
    let denied = policy.denied.iter().map(|denial| WireDenied {
        software: denial.software.clone(),
        version: denial.version.clone(),
        text: denial.text.clone(),
    });
    WirePolicy { queues: queues.collect(), issuers: issuers.collect(), revoked: revoked.collect(), denied: denied.collect() }
}

/// Something in a policy is out of its bounds.
#[derive(Debug)]
struct OutOfBounds;

fn decode(bytes: &[u8]) -> Result<Policy, OutOfBounds> {
    let policy = WirePolicy::decode(bytes).map_err(|_| OutOfBounds)?;
    let within = policy.queues.len() <= MAX_CLAIMS
        && policy.issuers.len() <= MAX_ISSUERS
        && policy.revoked.len() <= MAX_REVOKED
        && policy.denied.len() <= MAX_DENIED;
    if !within {
        return Err(OutOfBounds);
    }
    let queues = policy.queues.into_iter().map(|claim| Ok(QueueClaim { domain: name(claim.domain)?, queue: name(claim.queue)? }));
    let issuers = policy.issuers.into_iter().map(|keys| {
        if keys.jwks.len() > MAX_SET_BYTES { Err(OutOfBounds) } else { Ok(IssuerKeys { issuer: name(keys.issuer)?, jwks: keys.jwks }) }
    });
    let revoked = policy.revoked.into_iter();
    let revoked = revoked.map(|link| Ok(RevokedLink { issuer: name(link.issuer)?, jti: name(link.jti)?, expires: link.expires }));
    let denied = policy.denied.into_iter().map(|denied| {
        let version = denied.version.map(|version| text(version, MAX_SOFTWARE_BYTES)).transpose().map_err(|_| OutOfBounds)?;
        let sentence = text(denied.text, MAX_NAME_BYTES).map_err(|_| OutOfBounds)?;
        Ok(Denial { software: name(denied.software)?, version, text: sentence })
    });
    Ok(Policy {
        queues: queues.collect::<Result<_, _>>()?,
        issuers: issuers.collect::<Result<_, _>>()?,
        revoked: revoked.collect::<Result<_, _>>()?,
        denied: denied.collect::<Result<_, _>>()?,
    })
}

/// A name: not empty, bounded, fit to be shown.
fn name(value: String) -> Result<String, OutOfBounds> {
    if value.is_empty() {
        return Err(OutOfBounds);
    }
    text(value, MAX_NAME_BYTES).map_err(|_| OutOfBounds)
}

/// C→R.
#[derive(Clone, PartialEq, prost::Message)]
struct WirePart {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(bytes = "bytes", tag = "2")]
    digest: Bytes,
    #[prost(uint32, tag = "3")]
    length: u32,
    #[prost(uint32, tag = "4")]
    offset: u32,
    #[prost(bytes = "bytes", tag = "5")]
    part: Bytes,
}

/// R→C.
#[derive(Clone, PartialEq, prost::Message)]
struct WireState {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(bytes = "bytes", tag = "2")]
    digest: Bytes,
    #[prost(string, tag = "6")]
    refused: String,
    #[prost(string, repeated, tag = "7")]
    refused_claims: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WirePolicy {
    #[prost(message, repeated, tag = "1")]
    queues: Vec<WireClaim>,
    #[prost(message, repeated, tag = "2")]
    issuers: Vec<WireIssuer>,
    #[prost(message, repeated, tag = "3")]
    revoked: Vec<WireRevoked>,
    #[prost(message, repeated, tag = "4")]
    denied: Vec<WireDenied>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireClaim {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(string, tag = "2")]
    queue: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireIssuer {
    #[prost(string, tag = "1")]
    issuer: String,
    #[prost(string, tag = "2")]
    jwks: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRevoked {
    #[prost(string, tag = "1")]
    issuer: String,
    #[prost(string, tag = "2")]
    jti: String,
    #[prost(uint64, tag = "3")]
    expires: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireDenied {
    #[prost(string, tag = "1")]
    software: String,
    #[prost(string, optional, tag = "2")]
    version: Option<String>,
    #[prost(string, tag = "3")]
    text: String,
}

#[cfg(test)]
mod tests;
