//! One task for each relay and each of its alternates: it dials, owns the tunnel's end, and passes commands and events between the desk and the carrier.
//!
//! ```text
//! preference (which transport first) ─▶ race (one round of dials) ─▶ ways (sockets) ─▶ carriers ─▶ link (the task) ⇄ the end
//!       ▲ won, lost, failed                    ▲ lookup (the relay's addresses)
//!       └────────────────── pace (when to begin the next round) ◀───────────────────────── link
//! ```
//! `preference`, `race` and `pace` decide and are pure; the others do. `standby` tells the links of alternates when to dial.

mod backlog;
mod certificates;
mod link;
mod lookup;
mod pace;
mod preference;
mod race;
pub mod reach;
mod standby;
mod ways;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::config::proxy::{Proxy, TransportChoice};
use crate::net::carrier::Carriers;
use crate::net::certificates::Live;
use crate::net::shutdown::Stop;
use crate::proto::tunnel::certificate::CertificateAnswer;
use crate::proto::tunnel::{self, ConnectorCommand, ConnectorEnd, GoAway};

use self::certificates::CertificateLink;
use self::link::Link;
pub use self::lookup::Resolver;
pub use self::preference::CLIMB_EVERY;
use self::ways::Ways;
use super::certificates::Exchange;
use super::desk::{Input, RelayIndex};
use super::policy::PolicySource;

/// Commands that may wait for one tunnel's end.
const COMMAND_DEPTH: usize = 4096;

/// A relay to dial.
#[derive(Clone, Debug)]
pub struct RelayAddress {
    /// `HOST:PORT`.
    pub address: String,
    /// `HOST:PORT` of those that are dialled only while this one cannot be reached, or when it stops and names them.
    pub alternates: Vec<String>,
    /// The name that its certificate must carry.
    pub server_name: String,
    /// Over what the tunnel goes.
    pub transport: TransportChoice,
    /// How often the tunnel changes its carrier; zero for never.
    pub switch_every: Duration,
    /// How often QUIC is tried while the tunnel goes over TCP.
    pub climb_every: Duration,
    /// The proxy that TCP goes through.
    pub proxy: Option<Proxy>,
    /// Who knows its addresses.
    pub resolver: Resolver,
}

/// Whom to dial, and as whom.
#[derive(Debug)]
pub struct RelaySettings {
    /// The relays.
    pub relays: Vec<RelayAddress>,
    /// Certificate, key and CA.
    pub credentials: Live,
    /// Times of the tunnel.
    pub tunnel: tunnel::Settings,
}

/// What `outgate status` shows of one tunnel.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TunnelStatus {
    /// The relay's address.
    pub relay: String,
    /// Whether it is dialled only in another's stead.
    pub standby: bool,
    /// Whether a carrier is attached.
    pub attached: bool,
    /// Whether the relay has said that it stops.
    pub leaving: bool,
    /// What carries the tunnel now: "quic", "tls", "tls through an http proxy", "tls through a socks5 proxy".
    pub transport: Option<String>,
    /// Why the last carrier ended, or the relay could not be reached.
    pub last_end: Option<String>,
    /// The tunnel's epoch.
    pub epoch: u64,
    /// Carriers attached since the start.
    pub attachments: u64,
    /// Of these, those that took over from a carrier which still stood.
    pub switched: u64,
    /// Events sent again.
    pub replayed: u64,
    /// Events received again and dropped.
    pub duplicates: u64,
    /// Channels that live.
    pub channels: u64,
    /// Bytes held for replay.
    pub held_bytes: u64,
    /// The version of the policy that the relay holds; 0 for none.
    pub policy_version: u64,
    /// Whether that is what this connector pushed last.
    pub policy_current: bool,
    /// Why the relay refused the last one; empty where it did not.
    pub policy_refused: String,
    /// Queues of this connector that the relay does not grant it.
    pub refused_queues: Vec<String>,
}

/// The way to all tunnels' ends.
#[derive(Clone, Debug)]
pub struct Links(Arc<[mpsc::Sender<Request>]>);

/// What a tunnel's task is asked.
#[derive(Debug)]
enum Request {
    Command(ConnectorCommand),
    /// Say that this connector is about to stop; answered once the status is that of now.
    Drain(GoAway, oneshot::Sender<()>),
    /// Close the carrier abruptly and dial again.
    Reattach,
    /// Answer the relay's request for a certificate.
    Certificate(u64, CertificateAnswer),
}

impl Links {
    /// For a thread of its own: blocks while the tunnel's end has too much to do.
    pub(super) fn command(&self, relay: RelayIndex, command: ConnectorCommand) {
        let Some(link) = self.0.get(usize::from(relay.0)) else { return };
        // A task that has stopped needs no commands.
        if let Err(mpsc::error::TrySendError::Full(request)) = link.try_send(Request::Command(command)) {
            let _stopped = link.blocking_send(request);
        }
    }

    /// Answers a relay's request for a certificate.
    pub(super) async fn certificate(&self, relay: RelayIndex, id: u64, answer: CertificateAnswer) {
        if let Some(link) = self.0.get(usize::from(relay.0)) {
            let _stopped = link.send(Request::Certificate(id, answer)).await;
        }
    }

    /// Tells every relay that this connector is about to stop. The status of each is up to date then.
    pub(super) async fn drain(&self, goaway: &GoAway) {
        for link in self.0.iter() {
            let (told, heard) = oneshot::channel();
            let _stopped = link.send(Request::Drain(goaway.clone(), told)).await;
            let _told_or_stopped = heard.await;
        }
    }

    /// Cuts every carrier and dials anew.
    pub(super) async fn reattach(&self) {
        for link in self.0.iter() {
            let _stopped = link.send(Request::Reattach).await;
        }
    }
}

/// Starts a task for each relay, and for each of its alternates.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    settings: RelaySettings,
    incarnation: [u8; 16],
    policy: &PolicySource,
    inputs: &mpsc::Sender<Input>,
    exchange: &Exchange,
    stop: &Stop,
) -> Result<(Links, watch::Receiver<Vec<TunnelStatus>>), String> {
    let relays = standby::with_standbys(settings.relays);
    let statuses = relays.iter().map(|(relay, duty)| TunnelStatus {
        relay: relay.address.clone(),
        standby: duty.is_standby(),
        ..TunnelStatus::default()
    });
    let (status, statuses) = watch::channel(statuses.collect());
    let mut links = Vec::new();
    for (index, (relay, duty)) in relays.into_iter().enumerate() {
        let index = u16::try_from(index).map_err(|_| "too many relays".to_owned())?;
        let (link, requests) = mpsc::channel(COMMAND_DEPTH);
        let (mut carriers, carrier_inputs) = Carriers::new();
        carriers.trust(settings.credentials.clone());
        let ways = Ways::new(settings.credentials.clone(), &relay).map_err(|error| error.to_string())?;
        let certificates = CertificateLink::new(RelayIndex(index), exchange.clone());
        let end = ConnectorEnd::new(settings.tunnel.clone(), incarnation);
        let task = Link::new(RelayIndex(index), (relay, duty), end, carriers, ways, certificates, status.clone());
        tasks.spawn(task.run(carrier_inputs, requests, inputs.clone(), policy.latest(), stop.clone()));
        links.push(link);
    }
    Ok((Links(links.into()), statuses))
}

#[cfg(test)]
mod tests;
