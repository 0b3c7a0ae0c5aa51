//! The relay's half: what has come of a connector's policy, and which one stands.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::shape::{WirePart, WireState, decode};
use super::{MAX_POLICY_BYTES, MAX_TOLD, PART_BYTES, Policy, PolicyVerdict, sha256};
use crate::proto::tunnel::frame::{Frame, IGNORABLE, MORE};
use crate::proto::tunnel::handshake::Refusal;
use crate::proto::tunnel::wire::{self, kind};

/// Most parts of one policy: so many that whole ones fit, so few that tiny ones cost nothing.
pub(super) const MAX_PARTS: u32 = 2 * (MAX_POLICY_BYTES / PART_BYTES) as u32;

/// How many policies a connector may begin within [`BEGUN_WINDOW`]; more costs the carrier.
pub(super) const MAX_BEGUN: usize = 30;

/// The time over which beginnings are counted.
pub(super) const BEGUN_WINDOW: Duration = Duration::from_secs(60);

/// The relay's half of one connector's policy.
#[derive(Debug, Default)]
pub(in crate::proto::tunnel) struct Intake {
    held: Option<(u64, [u8; 32])>,
    /// Whole, and not judged yet.
    judged_next: Option<(u64, [u8; 32])>,
    pub(super) coming: Option<Coming>,
    begun: VecDeque<Instant>,
    refused: String,
    refused_claims: Vec<String>,
}

/// The parts of a policy that have come.
#[derive(Debug)]
pub(super) struct Coming {
    version: u64,
    digest: [u8; 32],
    length: usize,
    parts: u32,
    /// Empty where its version is old: then it is only counted.
    bytes: BytesMut,
    pub(super) received: usize,
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proto::tunnel) enum Taken {
    /// More is to come.
    Part,
    /// It was the last one.
    Whole(u64, Box<Policy>),
    /// It was the last one, and all of it is dropped.
    Dropped(&'static str),
}

impl Intake {
    /// Takes one part; an error costs the carrier.
    pub(in crate::proto::tunnel) fn take(&mut self, frame: &Frame, now: Instant) -> Result<Taken, Refusal> {
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
    pub(in crate::proto::tunnel) fn judge(&mut self, version: u64, verdict: &PolicyVerdict) {
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
    pub(in crate::proto::tunnel) fn state(&self) -> Bytes {
        let (version, digest) = self.held.map_or((0, Bytes::new()), |(version, digest)| (version, Bytes::copy_from_slice(&digest)));
        let state = WireState { version, digest, refused: self.refused.clone(), refused_claims: self.refused_claims.clone() };
        wire::encoded(kind::POLICY, IGNORABLE, 0, &state)
    }

    /// A carrier came or went: a policy that was cut is begun again.
    pub(in crate::proto::tunnel) fn cut(&mut self) {
        self.coming = None;
    }

    /// The version that stands; 0 for none.
    pub(in crate::proto::tunnel) fn version(&self) -> u64 {
        self.held.map_or(0, |(version, _)| version)
    }
}
