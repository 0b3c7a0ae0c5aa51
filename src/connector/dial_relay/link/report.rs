//! What `outgate status` is told of one tunnel.

use std::time::Duration;

use super::{Link, now};
use crate::connector::dial_relay::TunnelStatus;
use crate::proto::tunnel::policy::PolicyAnswer;

/// How often the status is brought up to date while frames flow: it looks at every channel.
const REPORT_EVERY: Duration = Duration::from_millis(250);

impl Link {
    pub(super) fn handle_policy_answer(&mut self, answer: PolicyAnswer) {
        let relay = &self.relay.address;
        if !answer.refused.is_empty() {
            tracing::warn!(relay, reason = answer.refused, "the relay refused the policy");
        }
        for claim in &answer.refused_claims {
            tracing::warn!(relay, queue = claim, "the relay does not grant this queue: see `[[connector]]` in its relay.toml");
        }
        self.policy = answer;
        self.report_soon();
    }

    pub(super) fn report_soon(&mut self) {
        self.report_at.get_or_insert_with(|| now() + REPORT_EVERY);
    }

    pub(super) fn report_if_due(&mut self) {
        if self.report_at.is_some_and(|at| at <= now()) {
            self.report_at = None;
            self.report();
        }
    }

    pub(super) fn report(&self) {
        let stats = self.end.stats();
        let status = TunnelStatus {
            relay: self.relay.address.clone(),
            standby: self.duty.is_standby(),
            attached: self.attached.is_some(),
            leaving: self.is_left && self.attached.is_some(),
            transport: self.attached.map(|(_, attempt)| self.ways.describe(attempt)),
            last_end: self.last_end.clone(),
            epoch: stats.epoch,
            attachments: stats.attached,
            replayed: stats.replayed,
            switched: stats.switched,
            duplicates: stats.duplicates,
            channels: stats.channels,
            held_bytes: stats.held_bytes,
            policy_version: self.policy.version,
            policy_current: self.policy.is_current,
            policy_refused: self.policy.refused.clone(),
            refused_queues: self.policy.refused_claims.clone(),
        };
        self.status.send_modify(|all| {
            if let Some(slot) = all.get_mut(usize::from(self.index.0)) {
                *slot = status;
            }
        });
    }
}
