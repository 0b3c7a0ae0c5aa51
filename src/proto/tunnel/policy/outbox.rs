//! The connector's half: what is to be pushed to one relay, and how far that has come.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::shape::{WirePart, WireState};
use super::{EncodedPolicy, MAX_NAME_BYTES, MAX_TOLD, PART_BYTES, PolicyAnswer};
use crate::proto::tunnel::frame::{Frame, IGNORABLE, MORE};
use crate::proto::tunnel::handshake::Refusal;
use crate::proto::tunnel::open::text;
use crate::proto::tunnel::wire::{self, kind};

/// The connector's half: what is to be pushed to one relay, and how far that has come.
#[derive(Debug, Default)]
pub(in crate::proto::tunnel) struct Outbox {
    pub(super) policy: Option<Arc<EncodedPolicy>>,
    pub(super) version: u64,
    /// What the relay said it holds; `None` until it has spoken on this carrier.
    held: Option<(u64, Bytes)>,
    /// Bytes of the policy that are written.
    pub(super) sending: Option<usize>,
    answers: VecDeque<PolicyAnswer>,
}

impl Outbox {
    /// Sets what the relay is to hold.
    pub(in crate::proto::tunnel) fn push(&mut self, policy: Arc<EncodedPolicy>) {
        if self.policy.as_ref() != Some(&policy) {
            self.policy = Some(policy);
            self.begin_if_needed();
        }
    }

    /// The relay says what it holds; an error costs the carrier.
    pub(in crate::proto::tunnel) fn handle_state(&mut self, frame: &Frame) -> Result<(), Refusal> {
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
    pub(in crate::proto::tunnel) fn reset(&mut self) {
        self.held = None;
        self.sending = None;
    }

    /// Appends the next part to `out`, if there is one and `out` has room.
    pub(in crate::proto::tunnel) fn write(&mut self, max: usize, out: &mut BytesMut) {
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

    pub(in crate::proto::tunnel) fn poll_answer(&mut self) -> Option<PolicyAnswer> {
        self.answers.pop_front()
    }
}
