//! What the relay answers on its admin socket: its status.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::admin::socket::Answer;
use crate::admin::{Action, Request, Subject};
use crate::config::Confinement;
use crate::net::certificates::reload::{Board, CertificateStatus};
use crate::telemetry::audit::{Audit, AuditCounts, By};

use super::attach::{TunnelState, Tunnels};
use super::counters::{Counters, Snapshot};
use super::gate::{Gate, GateStatus};
use super::policies::PushedCounts;
use super::reload::Reload;
use crate::net::carrier::Transport;

/// What a relay tells about itself.
#[derive(Clone, Debug, Serialize)]
pub struct RelayStatus {
    /// Always "relay".
    pub role: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// "on" where the process has given up what it does not need.
    pub confinement: Confinement,
    /// Lines of the audit log, where it has a file.
    pub audit: Option<AuditCounts>,
    /// Connections, sessions and reasons.
    #[serde(flatten)]
    pub counts: Snapshot,
    /// Limits by where strangers come from.
    pub gate: GateStatus,
    /// One entry a tunnel.
    pub tunnels: Vec<TunnelStatus>,
    /// One entry a certificate.
    pub certificates: Vec<CertificateStatus>,
    /// Prefixes in the allow-list of each listener.
    pub allow_lists: BTreeMap<&'static str, usize>,
}

/// One tunnel in the status.
#[derive(Clone, Debug, Serialize)]
pub struct TunnelStatus {
    /// The connector's name.
    pub identity: String,
    /// Whether it has a carrier now.
    pub is_attached: bool,
    /// What carries it now: "quic" or "tls".
    pub transport: Option<&'static str>,
    /// Whether it has said that it stops.
    pub is_leaving: bool,
    /// Why its last carrier ended.
    pub last_end: Option<String>,
    /// Its epoch.
    pub epoch: u64,
    /// Carriers attached so far.
    pub attached: u64,
    /// Events sent again.
    pub replayed: u64,
    /// Events received twice and dropped.
    pub duplicates: u64,
    /// Channels that live.
    pub channels: u64,
    /// Bytes held for replay.
    pub held_bytes: u64,
    /// The version of the policy that it pushed; 0 for none.
    pub policy_version: u64,
    /// What that policy holds.
    pub policy: PushedCounts,
}

/// What the status is made of.
#[derive(Clone, Debug)]
pub(super) struct StatusSource {
    pub(super) tunnels: Tunnels,
    pub(super) counters: Arc<Counters>,
    pub(super) gate: Arc<Gate>,
    pub(super) started: Instant,
    pub(super) certificates: Board,
    pub(super) reload: Arc<Reload>,
    pub(super) confinement: Confinement,
    pub(super) audit: Audit,
}

impl StatusSource {
    pub(super) async fn status(&self) -> RelayStatus {
        let tunnels = self.tunnels.stats().await.into_iter().map(
            |TunnelState { identity, stats, transport, is_leaving, last_end, policy_version, pushed }| TunnelStatus {
                identity: identity.0,
                is_attached: transport.is_some(),
                transport: transport.map(Transport::as_str),
                is_leaving,
                last_end,
                policy_version,
                policy: pushed,
                epoch: stats.epoch,
                attached: stats.attached,
                replayed: stats.replayed,
                duplicates: stats.duplicates,
                channels: stats.channels,
                held_bytes: stats.held_bytes,
            },
        );
        RelayStatus {
            role: "relay",
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.started.elapsed().as_secs(),
            confinement: self.confinement,
            audit: self.audit.counts(),
            counts: self.counters.snapshot(),
            gate: self.gate.status(),
            tunnels: tunnels.collect(),
            certificates: self.certificates.borrow().clone(),
            allow_lists: self.reload.sizes(),
        }
    }
}

impl Answer for StatusSource {
    async fn answer(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::Get(Subject::Status) => serde_json::to_value(self.status().await).map_err(|error| error.to_string()),
            Request::Get(Subject::LinkKeys) => {
                Err("a relay has keys for links from its files and its connectors: ask the connector".to_owned())
            }
            Request::Do(Action::Reload) => serde_json::to_value(self.reload.run(By::Command).await?).map_err(|error| error.to_string()),
            Request::Get(Subject::Links) => Err("a relay keeps no links: ask the connector".to_owned()),
            Request::Do(Action::MakeCode(_)) => Err("a relay makes no codes: ask the connector".to_owned()),
            Request::Do(Action::Revoke(_)) => Err("a relay takes no link back: ask the connector".to_owned()),
            Request::Do(Action::Reattach) => Err("a relay does not dial: ask the connector to reattach".to_owned()),
        }
    }
}
