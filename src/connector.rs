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
pub mod bot;
pub mod desk;
mod desk_task;
pub mod dial_relay;
mod effects;
mod settings;

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin::socket;
use crate::net::shutdown::{self, Stopper};
use crate::store::sqlite::{Store, StoreError};
use crate::telemetry::readiness;

use self::desk::Input;
pub use self::settings::{ConnectorSettings, SettingsError};

/// Inputs that may wait for the desk before their senders are held back.
const INPUT_DEPTH: usize = 4096;

/// Batches of released effects that may wait.
const RELEASED_DEPTH: usize = 64;

/// A running connector.
#[derive(Debug)]
pub struct Connector {
    agents: SocketAddr,
    source: admin::Source,
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
        let (released, releases) = mpsc::channel(RELEASED_DEPTH);
        let (store, snapshot) = Store::open(&settings.store, released)?;
        let incarnation = snapshot.incarnation;
        let (desk, first) = desk::Desk::restore(snapshot, settings.desk, settings.outside, desk_task::now());
        let (inputs, input) = mpsc::channel::<Input>(INPUT_DEPTH);

        let legs = effects::Legs::default();
        let (links, tunnels) = dial_relay::start(&mut tasks, settings.relays, incarnation, &inputs, &stop).map_err(StartError::Tunnel)?;
        tasks.spawn(effects::dispatch(releases, legs.clone(), links.clone()));
        store.submit(first.ops, first.effects).await?;
        let desk = desk_task::start(&mut tasks, desk, store, input, stop.clone());
        let address = settings.agents_listener.local_addr().map_err(StartError::Socket)?;
        tasks.spawn(agents::listen(settings.agents_listener, settings.agents, inputs, legs, stop.clone()));
        let source = admin::Source { desk, tunnels, links };
        if let Some(listener) = settings.admin {
            tasks.spawn(socket::serve(listener, source.clone(), stop));
        }
        readiness::notify("READY=1");
        Ok(Self { agents: address, source, tasks, stopper })
    }

    /// Where agents connect.
    pub fn agents_addr(&self) -> SocketAddr {
        self.agents
    }

    /// What `outgate status` shows.
    pub async fn status(&self) -> Option<serde_json::Value> {
        self.source.status().await
    }

    /// Stops: agents are told, the store takes what waits, tasks end.
    pub async fn shutdown(mut self) {
        readiness::notify("STOPPING=1");
        self.stopper.stop();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(fault) = ended {
                tracing::error!(%fault, "a task of the connector failed");
            }
        }
    }

    /// Waits until a task of the connector ends, which it does not do by itself.
    pub async fn failed(&mut self) {
        if let Some(ended) = self.tasks.join_next().await {
            tracing::error!(?ended, "a task of the connector ended");
        }
    }
}
