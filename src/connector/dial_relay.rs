//! One task for each relay: it dials, owns the tunnel's end, and passes commands and events between the desk and the carrier.
//!
//! Events wait here while the desk is busy, and frames are not read meanwhile; commands are always taken, also while a name is
//! looked up. A lost carrier is dialled again at once, then with a growing, jittered pause (`pace`).

mod pace;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::net::carrier::{CarrierInput, Carriers, Lanes};
use crate::net::entropy;
use crate::net::inherited::Origin;
use crate::net::quic::{self, Credentials, Endpoint};
use crate::net::shutdown::Stop;
use crate::proto::tunnel::{self, CarrierId, ConnectorCommand, ConnectorEnd, ConnectorEvent};

use crate::telemetry::HOP;

use self::pace::Pace;
use super::desk::{Input, RelayIndex};

/// Commands that may wait for one tunnel's end.
const COMMAND_DEPTH: usize = 4096;

/// Inputs or commands taken at once.
const BATCH: usize = 256;

/// How long a name may take to resolve.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// How often the status is brought up to date while frames flow: it looks at every channel.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// A relay to dial.
#[derive(Debug)]
pub struct RelayAddress {
    /// `HOST:PORT`.
    pub address: String,
    /// The name that its certificate must carry.
    pub server_name: String,
}

/// Whom to dial, and as whom.
#[derive(Debug)]
pub struct RelaySettings {
    /// The relays.
    pub relays: Vec<RelayAddress>,
    /// Certificate, key and CA.
    pub credentials: Credentials,
    /// Times of the tunnel.
    pub tunnel: tunnel::Settings,
}

/// What `outgate status` shows of one tunnel.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TunnelStatus {
    /// The relay's address.
    pub relay: String,
    /// Whether a carrier is attached.
    pub attached: bool,
    /// The tunnel's epoch.
    pub epoch: u64,
    /// Carriers attached since the start.
    pub attachments: u64,
    /// Events sent again.
    pub replayed: u64,
    /// Events received again and dropped.
    pub duplicates: u64,
    /// Channels that live.
    pub channels: u64,
    /// Bytes held for replay.
    pub held_bytes: u64,
}

/// The way to all tunnels' ends.
#[derive(Clone, Debug)]
pub struct Links(Arc<[mpsc::Sender<Request>]>);

/// What a tunnel's task is asked.
#[derive(Debug)]
enum Request {
    Command(ConnectorCommand),
    /// Close the carrier abruptly and dial again.
    Reattach,
}

impl Links {
    pub(super) async fn command(&self, relay: RelayIndex, command: ConnectorCommand) {
        if let Some(link) = self.0.get(usize::from(relay.0)) {
            // A task that has stopped needs no commands.
            let _stopped = link.send(Request::Command(command)).await;
        }
    }

    /// Cuts every carrier and dials anew.
    pub(super) async fn reattach(&self) {
        for link in self.0.iter() {
            let _stopped = link.send(Request::Reattach).await;
        }
    }
}

/// Starts a task for each relay.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    settings: RelaySettings,
    incarnation: [u8; 16],
    inputs: &mpsc::Sender<Input>,
    stop: &Stop,
) -> Result<(Links, watch::Receiver<Vec<TunnelStatus>>), String> {
    let statuses = settings.relays.iter().map(|relay| TunnelStatus { relay: relay.address.clone(), ..TunnelStatus::default() }).collect();
    let (status, statuses) = watch::channel(statuses);
    let mut links = Vec::new();
    for (index, relay) in settings.relays.into_iter().enumerate() {
        let index = u16::try_from(index).map_err(|_| "too many relays".to_owned())?;
        let (link, requests) = mpsc::channel(COMMAND_DEPTH);
        let (carriers, carrier_inputs) = Carriers::new();
        let task = Link {
            index: RelayIndex(index),
            relay,
            end: ConnectorEnd::new(settings.tunnel.clone(), incarnation),
            carriers,
            lanes: Lanes::default(),
            endpoints: Endpoints { credentials: settings.credentials.clone(), v4: None, v6: None },
            dialling: None,
            pace: Pace::new(now()),
            pending: None,
            report_at: Some(now()),
            status: status.clone(),
        };
        tasks.spawn(task.run(carrier_inputs, requests, inputs.clone(), stop.clone()));
        links.push(link);
    }
    Ok((Links(links.into()), statuses))
}

struct Link {
    index: RelayIndex,
    relay: RelayAddress,
    end: ConnectorEnd,
    carriers: Carriers,
    lanes: Lanes,
    endpoints: Endpoints,
    dialling: Option<CarrierId>,
    pace: Pace,
    /// An event for which the desk had no room.
    pending: Option<Input>,
    /// When the status is to be told anew.
    report_at: Option<Instant>,
    status: watch::Sender<Vec<TunnelStatus>>,
}

impl Link {
    async fn run(
        mut self,
        mut carrier_inputs: mpsc::Receiver<CarrierInput>,
        mut requests: mpsc::Receiver<Request>,
        desk: mpsc::Sender<Input>,
        mut stop: Stop,
    ) {
        let writable = self.carriers.writable();
        let mut frames = Vec::with_capacity(BATCH);
        let mut asked = Vec::with_capacity(BATCH);
        let mut lookup = Lookup::default();
        loop {
            self.drain_events(&desk);
            self.lanes.fill(&mut self.end, now());
            self.report_if_due();
            let due = [self.end.poll_timeout(), self.lanes.poll_timeout(), self.pace.dial_at(), self.report_at];
            let due = due.into_iter().flatten().min();
            tokio::select! {
                _taken = carrier_inputs.recv_many(&mut frames, BATCH), if self.pending.is_none() => {
                    frames.drain(..).for_each(|input| self.handle_carrier(input));
                    self.report_soon();
                }
                taken = requests.recv_many(&mut asked, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                    asked.drain(..).for_each(|request| self.handle_request(request));
                    self.report_soon();
                }
                permit = desk.reserve(), if self.pending.is_some() => {
                    let Ok(permit) = permit else { break };
                    if let Some(input) = self.pending.take() {
                        permit.send(input);
                    }
                }
                () = writable.notified() => {}
                found = lookup.done() => self.dial(found),
                () = wait_until(due) => self.handle_timeout(&mut lookup),
                () = stop.requested() => break,
            }
        }
        drop(self.lanes);
        self.carriers.shutdown().await;
    }

    fn handle_request(&mut self, request: Request) {
        match request {
            Request::Command(command) => self.end.handle_command(command, now()),
            Request::Reattach => {
                let open: Vec<CarrierId> = self.lanes.open().collect();
                for carrier in open {
                    self.lanes.remove(carrier);
                    self.lost(carrier, "an operator asked for a new one");
                    self.pace.given_up(now());
                }
            }
        }
    }

    fn handle_carrier(&mut self, input: CarrierInput) {
        match input {
            CarrierInput::Opened { carrier, identity, handle } => {
                tracing::info!(relay = self.relay.address, identity = %identity.0, carrier = carrier.0, "carrier opened");
                self.dialling = None;
                self.lanes.insert(carrier, handle);
                self.end.carrier_opened(carrier, now());
            }
            CarrierInput::Frames { carrier, lane: _, frames } => {
                if self.lanes.is_open(carrier) {
                    for frame in frames {
                        self.end.handle_frame(carrier, frame, now());
                    }
                }
            }
            // Nothing is accepted here.
            CarrierInput::Refused { .. } => {}
            CarrierInput::Lost { carrier, why } => {
                if self.dialling == Some(carrier) {
                    self.dialling = None;
                    self.endpoints.forget();
                    self.dial_later(&why);
                } else if self.lanes.remove(carrier) {
                    self.lost(carrier, &why);
                }
            }
        }
    }

    fn lost(&mut self, carrier: CarrierId, why: &str) {
        tracing::warn!(relay = self.relay.address, carrier = carrier.0, why, "carrier lost");
        self.end.carrier_lost(carrier, now());
        self.pace.lost(now(), chance());
        self.report_at = Some(now());
    }

    fn dial_later(&mut self, why: &str) {
        let pause = self.pace.failed(now(), chance());
        tracing::warn!(relay = self.relay.address, why, retry_ms = pause.as_millis(), "cannot reach the relay");
    }

    fn handle_timeout(&mut self, lookup: &mut Lookup) {
        self.end.handle_timeout(now());
        if self.pace.is_due(now()) && self.dialling.is_none() && self.lanes.open().next().is_none() {
            lookup.begin(self.relay.address.clone());
        }
    }

    fn dial(&mut self, found: Result<Vec<SocketAddr>, String>) {
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(why) => return self.dial_later(&why),
        };
        // Each failure moves on to the next address.
        let Some(address) = addresses.get(self.pace.failures() as usize % addresses.len().max(1)).copied() else {
            return self.dial_later("its name has no address");
        };
        match self.endpoints.toward(address) {
            Ok(endpoint) => self.dialling = Some(self.carriers.dial(&endpoint, address, &self.relay.server_name)),
            Err(why) => self.dial_later(&why),
        }
    }

    fn drain_events(&mut self, desk: &mpsc::Sender<Input>) {
        while self.pending.is_none() {
            let Some(event) = self.end.poll_event() else { return };
            match &event {
                ConnectorEvent::CloseCarrier { carrier, why } => {
                    tracing::info!(relay = self.relay.address, carrier = carrier.0, why, "carrier closed");
                    self.lanes.fill(&mut self.end, now());
                    self.lanes.close(*carrier, now());
                    self.lost(*carrier, why);
                    continue;
                }
                ConnectorEvent::Refused { code, retry_after } => {
                    tracing::warn!(relay = self.relay.address, code, retry_ms = retry_after.as_millis(), "the relay refused");
                    self.pace.no_sooner(now() + *retry_after);
                }
                ConnectorEvent::Attached { epoch, resumed } => {
                    tracing::info!(relay = self.relay.address, epoch, resumed, "tunnel attached");
                    self.pace.attached(now());
                    self.report_at = Some(now());
                }
                ConnectorEvent::Detached => {
                    tracing::warn!(relay = self.relay.address, "tunnel detached");
                }
                ConnectorEvent::Open { .. }
                | ConnectorEvent::Data { .. }
                | ConnectorEvent::Counted { .. }
                | ConnectorEvent::Own { .. }
                | ConnectorEvent::OutHandled { .. }
                | ConnectorEvent::Fin { .. }
                | ConnectorEvent::Reset { .. }
                | ConnectorEvent::Check { .. } => {}
            }
            if let ConnectorEvent::Data { number, .. } = &event {
                tracing::trace!(target: HOP, "connector: event {number} came through the tunnel");
            }
            let input = Input::Tunnel { relay: self.index, event };
            if let Err(mpsc::error::TrySendError::Full(input)) = desk.try_send(input) {
                self.pending = Some(input);
            }
        }
    }

    fn report_soon(&mut self) {
        self.report_at.get_or_insert_with(|| now() + REPORT_EVERY);
    }

    fn report_if_due(&mut self) {
        if self.report_at.is_some_and(|at| at <= now()) {
            self.report_at = None;
            self.report();
        }
    }

    fn report(&self) {
        let stats = self.end.stats();
        let status = TunnelStatus {
            relay: self.relay.address.clone(),
            attached: self.pace.is_attached(),
            epoch: stats.epoch,
            attachments: stats.attached,
            replayed: stats.replayed,
            duplicates: stats.duplicates,
            channels: stats.channels,
            held_bytes: stats.held_bytes,
        };
        self.status.send_modify(|all| {
            if let Some(slot) = all.get_mut(usize::from(self.index.0)) {
                *slot = status;
            }
        });
    }
}

async fn resolve(address: &str) -> Result<Vec<SocketAddr>, String> {
    match tokio::time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host(address)).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(format!("its name does not resolve: {error}")),
        Err(_) => Err("its name took over 5 s to resolve".to_owned()),
    }
}

/// A name that is being looked up, beside all else that goes on.
#[derive(Default)]
struct Lookup(JoinSet<Result<Vec<SocketAddr>, String>>);

impl Lookup {
    fn begin(&mut self, address: String) {
        if self.0.is_empty() {
            self.0.spawn(async move { resolve(&address).await });
        }
    }

    async fn done(&mut self) -> Result<Vec<SocketAddr>, String> {
        match self.0.join_next().await {
            Some(found) => found.unwrap_or_else(|_| Err("its name was not looked up".to_owned())),
            None => std::future::pending().await,
        }
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let [a, b, c, d, ..] = entropy::sixteen();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

/// One endpoint for each address family, made when first needed: a host may have only one. Used until a dial fails: an endpoint
/// whose socket failed never works again, and says nothing but that the relay cannot be reached.
struct Endpoints {
    credentials: Credentials,
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
}

impl Endpoints {
    fn toward(&mut self, address: SocketAddr) -> Result<Endpoint, String> {
        let (slot, any) = match address {
            SocketAddr::V4(_) => (&mut self.v4, SocketAddr::from(([0, 0, 0, 0], 0))),
            SocketAddr::V6(_) => (&mut self.v6, SocketAddr::from(([0; 16], 0))),
        };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let socket = quic::bind(any).map_err(|error| format!("no UDP socket: {error}"))?;
        let endpoint = quic::client(socket, Origin::Bound, &self.credentials).map_err(|error| format!("no QUIC endpoint: {error}"))?;
        Ok(slot.insert(endpoint).clone())
    }

    /// The next dial makes its socket anew.
    fn forget(&mut self) {
        self.v4 = None;
        self.v6 = None;
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the tunnel's pure end")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
