//! POLICY at the relay: parts in, the state out.

use std::time::Instant;

use crate::proto::tunnel::frame::Frame;
use crate::proto::tunnel::handshake::Refusal;
use crate::proto::tunnel::policy::{PolicyNews, PolicyVerdict, Taken};
use crate::proto::tunnel::{CarrierId, Identity};

use super::RelayEnd;

impl RelayEnd {
    /// The next whole or dropped policy. Judge each whole one with [`RelayEnd::judge_policy`].
    pub fn poll_policy(&mut self) -> Option<PolicyNews> {
        self.policy_news.pop_front()
    }

    /// Says whether the policy `version` of `identity` stands from now on; the connector is told.
    pub fn judge_policy(&mut self, identity: &Identity, version: u64, verdict: &PolicyVerdict, now: Instant) {
        let peer = self.peer(identity);
        self.peers[peer].policy.judge(version, verdict);
        self.tell_policy(peer, now);
    }

    /// The version of the policy that stands for `identity`; 0 for none.
    pub fn policy_version(&self, identity: &Identity) -> u64 {
        self.by_identity.get(identity).map_or(0, |&peer| self.peers[peer].policy.version())
    }

    pub(super) fn on_policy(&mut self, carrier: CarrierId, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        let peer = self.on_any_attached(carrier)?;
        let identity = self.peers[peer].identity.clone();
        match self.peers[peer].policy.take(frame, now)? {
            Taken::Part => {}
            Taken::Whole(version, policy) => self.policy_news.push_back(PolicyNews::Whole { identity, version, policy }),
            Taken::Dropped(why) => {
                self.policy_news.push_back(PolicyNews::Dropped { identity, why });
                self.tell_policy(peer, now);
            }
        }
        Ok(())
    }

    /// Tells the connector which policy stands.
    pub(super) fn tell_policy(&mut self, peer: usize, now: Instant) {
        self.say(peer, self.peers[peer].policy.state(), now);
    }
}
