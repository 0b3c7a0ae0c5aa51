//! POLICY at the connector: what is to be pushed, and what the relay says of it.

use std::sync::Arc;

use crate::proto::tunnel::CarrierId;
use crate::proto::tunnel::carrier::Carrier;
use crate::proto::tunnel::frame::Frame;
use crate::proto::tunnel::handshake::Refusal;
use crate::proto::tunnel::policy::{EncodedPolicy, PolicyAnswer};

use super::ConnectorEnd;

impl ConnectorEnd {
    /// Sets the policy that the relay is to hold: sent now, and after each attachment to a relay that holds another.
    pub fn push_policy(&mut self, policy: Arc<EncodedPolicy>) {
        self.policy.push(policy);
    }

    /// What the relay has said of the policy.
    pub fn poll_policy_answer(&mut self) -> Option<PolicyAnswer> {
        self.policy.poll_answer()
    }

    pub(super) fn on_policy(&mut self, carrier: CarrierId, frame: &Frame) -> Result<(), Refusal> {
        if !self.carriers.get(&carrier).is_some_and(Carrier::is_attached) {
            return Err(Refusal("not_attached"));
        }
        self.policy.handle_state(frame)
    }
}
