//! A policy as protobuf, and the bounds within which one is read.

use bytes::Bytes;
use prost::Message as _;

use super::{IssuerKeys, MAX_CLAIMS, MAX_DENIED, MAX_NAME_BYTES, MAX_REVOKED, Policy, QueueClaim};
use crate::fingerprint::{Denial, MAX_SOFTWARE_BYTES};
use crate::link::RevokedLink;
use crate::proto::tunnel::open::text;

/// Most issuers of links.
const MAX_ISSUERS: usize = 64;

/// Largest JWK set, in bytes.
pub(super) const MAX_SET_BYTES: usize = 64 * 1024;

/// A policy as bytes.
pub(super) fn encode(policy: &Policy) -> Vec<u8> {
    let queues = policy.queues.iter().map(|claim| WireClaim { domain: claim.domain.clone(), queue: claim.queue.clone() });
    let issuers = policy.issuers.iter().map(|keys| WireIssuer { issuer: keys.issuer.clone(), jwks: keys.jwks.clone() });
    let revoked =
        policy.revoked.iter().map(|link| WireRevoked { issuer: link.issuer.clone(), jti: link.jti.clone(), expires: link.expires });
    let denied = policy.denied.iter().map(|denial| WireDenied {
        software: denial.software.clone(),
        version: denial.version.clone(),
        text: denial.text.clone(),
    });
    let policy = WirePolicy { queues: queues.collect(), issuers: issuers.collect(), revoked: revoked.collect(), denied: denied.collect() };
    policy.encode_to_vec()
}

/// Something in a policy is out of its bounds.
#[derive(Debug)]
pub(super) struct OutOfBounds;

/// Reads one, within its bounds.
pub(super) fn decode(bytes: &[u8]) -> Result<Policy, OutOfBounds> {
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
pub(super) struct WirePart {
    #[prost(uint64, tag = "1")]
    pub(super) version: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) digest: Bytes,
    #[prost(uint32, tag = "3")]
    pub(super) length: u32,
    #[prost(uint32, tag = "4")]
    pub(super) offset: u32,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) part: Bytes,
}

/// R→C.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireState {
    #[prost(uint64, tag = "1")]
    pub(super) version: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) digest: Bytes,
    #[prost(string, tag = "6")]
    pub(super) refused: String,
    #[prost(string, repeated, tag = "7")]
    pub(super) refused_claims: Vec<String>,
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
