//! The connector: stands on the LAN, dials out to its relays, queues and routes sessions, serves agents and keeps the record.
//!
//! ```text
//! relay ⇄ dial_relay (tunnel end) ─▶ inputs ─▶ desk ─▶ steps ─▶ store ─▶ effects ─▶ tunnel ends, agents' clients
//! agents' clients ⇄ agents ────────▶
//! ```
//! The desk is the only state; it is pure. The store releases a step's effects when its operations are committed, so nothing
//! leaves this process that a restart would forget. No cycle can stall: tunnel ends take commands while their events wait, and
//! an agent whose client does not read is cut off.

mod admin;
mod agent_leg;
pub mod agents;
mod audit;
pub mod bot;
pub mod certificates;
pub mod desk;
mod desk_task;
pub mod dial_relay;
mod effects;
pub mod enrolment;
mod policy;
mod settings;
mod space;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::admin::socket;
use crate::net::certificates::reload as certificate_files;
use crate::net::link_keys::reload as link_key_files;
use crate::net::shutdown::{self, Stopper};
use crate::proto::tunnel::{GoAway, GoAwayReason};
use crate::store::sqlite::{Store, StoreError};
use crate::telemetry::audit::Event;
use crate::telemetry::readiness;

use self::certificates::Keeper;
use self::desk::Input;
use self::policy::PolicySource;
pub use self::settings::{ConnectorSettings, Every, SettingsError};
pub use self::space::Probe;

/// How long the audit log's last lines may take.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A running connector.
#[derive(Debug)]
pub struct Connector {
    agents: SocketAddr,
    source: admin::Source,
    drain: Duration,
    tasks: JoinSet<()>,
    stopper: Stopper,
}

/// Why a connector does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agents' listener.
    #[error("the agents' listener: {0}")]
    Socket(#[source] std::io::Error),
    /// The tunnel's endpoint.
    #[error("cannot make the tunnel's endpoint: {0}")]
    Tunnel(String),
}

impl Connector {
    /// Opens the store, serves its listeners, and begins to dial. A relay that cannot be reached is no
    /// fault: it is dialled until it can.
    ///
    /// # Errors
    /// What only the admin can mend: a store that cannot be opened.
    pub async fn start(settings: ConnectorSettings) -> Result<Self, StartError> {
        let (stopper, stop) = shutdown::pair();
        let mut tasks = JoinSet::new();
        let legs = effects::Legs::default();
        let released = Arc::new(OnceLock::<effects::Ways>::new());
        let ways_of_released = Arc::clone(&released);
        let (store, snapshot) = Store::open(&settings.store, move |effects| {
            // Nothing is submitted before the ways are there.
            if let Some(ways) = ways_of_released.get() {
                effects::dispatch(effects, ways);
            }
        })?;
        let incarnation = snapshot.incarnation;
        let (desk, first) = desk::Desk::restore(snapshot, settings.desk, settings.outside, desk_task::now());
        let (inputs, input) = mpsc::channel::<Input>(settings.desk_queue);

        let (keeper, exchange) = Keeper::new(settings.relays.credentials.clone(), settings.tunnel_files, settings.ca);
        let policy = PolicySource::new(Arc::clone(&settings.link_keys), settings.claims, settings.denied);
        let started = dial_relay::start(&mut tasks, settings.relays, incarnation, &policy, &inputs, &exchange, &stop);
        let (links, tunnels) = started.map_err(StartError::Tunnel)?;
        let (board, certificates) = watch::channel(Vec::new());
        tasks.spawn(keeper.run(links.clone(), stop.clone()));
        tasks.spawn(certificate_files::run(settings.shown, settings.look_every, board, stop.clone()));
        let asks = effects::Asks::default();
        let ways = effects::Ways {
            legs: legs.clone(),
            links: links.clone(),
            policy: policy.clone(),
            asks: asks.clone(),
            audit: settings.audit.clone(),
        };
        let _first = released.set(ways);
        let (changed, keys, keys_taken) = (policy.clone(), Arc::clone(&settings.link_keys), settings.audit.clone());
        tasks.spawn(link_key_files::watch(settings.link_keys, settings.every.keys, stop.clone(), move || {
            keys_taken.record(Event::FileTaken { what: "link keys", entries: keys.keys().len() });
            changed.publish();
        }));
        tasks.spawn(space::watch(settings.space, settings.every.space, inputs.clone(), stop.clone()));
        store.submit(first.ops, first.effects).await?;
        let desk = desk_task::start(&mut tasks, desk, store, input, stop.clone());
        let address = settings.agents_listener.local_addr().map_err(StartError::Socket)?;
        tasks.spawn(agents::listen(settings.agents_listener, settings.agents, inputs.clone(), legs, stop.clone()));
        let audit = settings.audit;
        tasks.spawn(audit::tell_tunnels(tunnels.clone(), audit.clone(), stop.clone()));
        let source = admin::Source { desk, tunnels, links, certificates, policy, asks, inputs, audit: audit.clone() };
        if let Some(listener) = settings.admin {
            tasks.spawn(socket::serve(listener, source.clone(), stop));
        }
        audit.record(Event::Started { role: "connector", version: env!("CARGO_PKG_VERSION") });
        readiness::notify("READY=1");
        Ok(Self { agents: address, source, drain: settings.drain, tasks, stopper })
    }

    /// Where agents connect.
    pub fn agents_addr(&self) -> SocketAddr {
        self.agents
    }

    /// What `outgate status` shows.
    pub async fn status(&self) -> Option<serde_json::Value> {
        self.source.status().await
    }

    /// Takes its leave: tells every relay, takes no new sessions, and goes on with those that stand until the last has ended or the
    /// configured time is over. May be dropped; `shutdown` follows in any case.
    pub async fn drain(&mut self) {
        readiness::stopping(self.drain);
        tracing::info!(within_ms = self.drain.as_millis(), "draining");
        let goaway = GoAway { reason: GoAwayReason::Stopping, deadline: self.drain, alternates: Vec::new() };
        let Self { source: admin::Source { links, inputs, tunnels, .. }, drain, .. } = self;
        let over = async {
            links.drain(&goaway).await;
            // A desk that has ended takes no sessions either.
            drop(inputs.send(Input::Leave).await);
            drop(tunnels.wait_for(|tunnels| tunnels.iter().all(|tunnel| tunnel.channels == 0)).await);
        };
        if tokio::time::timeout(*drain, over).await.is_err() {
            tracing::info!("the time to drain is over; sessions that are left go on when the connector is back");
        }
    }

    /// Stops: agents are told, the store takes what waits, tasks end.
    pub async fn shutdown(mut self) {
        readiness::stopping(Duration::ZERO);
        self.stopper.stop();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(fault) = ended {
                tracing::error!(%fault, "a task of the connector failed");
            }
        }
        let audit = &self.source.audit;
        audit.record(Event::Stopped);
        // It waits for a thread that writes, at a time when nobody else needs this one.
        audit.flush(LAST_LINES);
    }

    /// Waits until a task of the connector ends, which it does not do by itself.
    pub async fn failed(&mut self) {
        if let Some(ended) = self.tasks.join_next().await {
            tracing::error!(?ended, "a task of the connector ended");
        }
    }
}
