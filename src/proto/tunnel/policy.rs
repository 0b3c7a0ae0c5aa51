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

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use crate::fingerprint::Denial;
use crate::link::RevokedLink;

use super::Identity;

mod intake;
mod outbox;
mod shape;

pub(super) use self::intake::{Intake, Taken};
pub(super) use self::outbox::Outbox;

/// Largest policy, in bytes.
pub const MAX_POLICY_BYTES: usize = 512 * 1024;

/// Most revoked links of one policy.
pub const MAX_REVOKED: usize = 4096;

/// Most refused kinds of software.
pub const MAX_DENIED: usize = 256;

/// Most queues that one connector claims.
pub const MAX_CLAIMS: usize = 1024;

/// Bytes of a part: a PING waits for one at most.
const PART_BYTES: usize = 8 * 1024;

/// Largest name of a queue, domain, issuer or link, in bytes.
const MAX_NAME_BYTES: usize = 255;

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
        let bytes = Bytes::from(shape::encode(policy));
        if bytes.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLarge(bytes.len()));
        }
        shape::decode(&bytes).map_err(|_| PolicyError::OutOfBounds)?;
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

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests;
