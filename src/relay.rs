//! The relay: it stands in the DMZ, speaks with customers' clients and hands what they say into the tunnel.
//!
//! Flow: `listener` accepts, `connection` negotiates and asks `door`, then drives `client`, the pure state machine of one stream;
//! `attach` owns all tunnels. After its start the relay opens no socket, and it never dials: it is given its listeners and the
//! carriers that others accept.

pub mod admin;
pub mod attach;
pub mod certificates;
pub mod client;
pub mod codes;
mod connection;
pub mod counters;
pub mod door;
pub mod gate;
mod listener;
pub mod policies;
mod refusal_log;
pub mod reload;
mod resumable;
pub mod settings;
pub mod setup;
pub mod software_policy;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admin::socket;
use crate::net::accept_rate::Ticks;
use crate::net::allow_files;
use crate::net::carrier::Carriers;
use crate::net::certificates::reload as certificate_files;
use crate::net::link_keys::reload as link_key_files;
use crate::net::negotiate::Terms;
use crate::net::shutdown::{self, Stopper};
use crate::proto::tunnel::{GoAway, GoAwayReason};
use crate::proto::xmpp::negotiation::NegotiationSettings;
use crate::telemetry::audit::{By, Event};
use crate::telemetry::readiness;

use self::admin::{RelayStatus, StatusSource};
use self::attach::TunnelOwner;
use self::codes::Codes;
use self::connection::{Shared, Until};
use self::counters::Counters;
use self::door::{Door, Proofs};
use self::gate::Gate;
use self::policies::Policies;
use self::refusal_log::RefusalLog;
use self::reload::{Reload, Reloaded};
use self::settings::{Leave, RelaySettings};

/// How long the audit log's last lines may take.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    clients: Vec<SocketAddr>,
    tunnel: Option<SocketAddr>,
    status: StatusSource,
    /// Said first: no new customers.
    close: Stopper,
    /// Said last.
    stop: Stopper,
    /// Those who accept customers; each ends with the last of them.
    listeners: JoinSet<()>,
    tasks: JoinSet<()>,
    leave: Leave,
    acceptor: Option<Carriers>,
}

impl Relay {
    /// Starts on sockets that stand already.
    pub fn start(settings: RelaySettings) -> anyhow::Result<Self> {
        let counters = Arc::new(Counters::default());
        let audit = settings.audit;
        let policies = Arc::new(Policies::new(&settings.domains, settings.leeway));
        let codes = Codes::new(settings.labels);
        let gate = Arc::new(Gate::new(&settings.limits, settings.strangers, Ticks::start()));
        let proofs = Proofs { codes, verify_link: settings.verify_link, policies: Arc::clone(&policies) };
        let door = Door::new(settings.domains, proofs, Arc::clone(&gate), settings.limits.check_within);
        let (owner, tunnels) =
            TunnelOwner::new(settings.tunnel, policies, settings.carriers, settings.writable, Arc::clone(&counters), audit.clone());
        let negotiation = NegotiationSettings {
            domains: door.mechanisms(),
            attempts: settings.limits.attempts,
            stream_management: true,
            resumption: true,
            salt_secret: [0; 32],
        };
        let shared = Arc::new(Shared {
            door,
            terms: Terms {
                negotiation: Arc::new(negotiation),
                tls: settings.tls,
                tls_within: settings.limits.tls_within,
                login_within: settings.limits.login_within,
                write_within: settings.limits.write_within,
            },
            counters: Arc::clone(&counters),
            limits: settings.limits,
            log: RefusalLog::new(audit.clone()),
            gate: Arc::clone(&gate),
            access: settings.access.client.watched(),
            software: Arc::clone(&settings.software),
            resumables: Arc::default(),
        });
        let lists = vec![("client", Arc::clone(&settings.access.client)), ("tunnel", Arc::clone(&settings.access.tunnel))];
        let reload = Arc::new(Reload::new(settings.access, settings.software, settings.file, audit.clone()));
        let (stop, stopped) = shutdown::pair();
        let (close, closed) = shutdown::pair();
        let (mut listeners, mut tasks) = (JoinSet::new(), JoinSet::new());
        let mut clients = Vec::new();
        for listener in settings.clients {
            clients.push(listener.local_addr().context("the customers' listening socket")?);
            let until = Until { closed: closed.clone(), stopped: stopped.clone() };
            listeners.spawn(listener::listen(listener, Arc::clone(&shared), tunnels.clone(), until));
        }
        let (board, certificates) = watch::channel(Vec::new());
        tasks.spawn(Arc::clone(&gate).keep_clean(stopped.clone()));
        let confinement = settings.confinement;
        let started = Instant::now();
        let status = StatusSource { tunnels, counters, gate, started, certificates, reload, confinement, audit: audit.clone() };
        if let Some(listener) = settings.admin {
            tasks.spawn(socket::serve(listener, status.clone(), stopped.clone()));
        }
        if let Some(files) = settings.link_files {
            let (keys, audit) = (Arc::clone(&files), audit.clone());
            let taken = move || audit.record(Event::FileTaken { what: "link keys", entries: keys.keys().len() });
            tasks.spawn(link_key_files::watch(files, link_key_files::EVERY, stopped.clone(), taken));
        }
        if let Some(keeper) = settings.certificates {
            tasks.spawn(certificates::run(keeper, status.tunnels.clone(), stopped.clone()));
        }
        let lists_taken = audit.clone();
        let list_taken = move |what, entries| lists_taken.record(Event::FileTaken { what, entries });
        tasks.spawn(allow_files::watch(lists, settings.look_every, stopped.clone(), list_taken));
        tasks.spawn(certificate_files::run(settings.shown, settings.look_every, board, stopped));
        tasks.spawn(owner.run());
        audit.record(Event::Started { role: "relay", version: env!("CARGO_PKG_VERSION") });
        readiness::notify("READY=1");
        let (tunnel, leave, acceptor) = (settings.tunnel_address, settings.leave, settings.acceptor);
        Ok(Self { clients, tunnel, status, close, stop, listeners, tasks, leave, acceptor })
    }

    /// Takes its leave: tells every connector, takes no new customers, and serves those who are here until the last has gone or the
    /// configured time is over. May be dropped; `stop` follows in any case.
    pub async fn drain(&mut self) {
        let Leave { within, alternates } = &self.leave;
        readiness::stopping(*within);
        let goaway = GoAway { reason: GoAwayReason::Stopping, deadline: *within, alternates: alternates.clone() };
        self.status.tunnels.drain(goaway).await;
        self.close.stop();
        let sessions = self.status.counters.snapshot().sessions;
        tracing::info!(sessions, within_ms = within.as_millis(), "draining");
        let left = async { while self.listeners.join_next().await.is_some() {} };
        if tokio::time::timeout(*within, left).await.is_err() {
            tracing::info!(sessions = self.status.counters.snapshot().sessions, "the time to drain is over");
        }
    }

    /// Ends every stream with a word, lets the tunnels' last frames leave, and awaits every task.
    pub async fn stop(self) {
        readiness::stopping(Duration::ZERO);
        let Self { clients: _, tunnel: _, status, close, stop, mut listeners, mut tasks, leave: _, acceptor } = self;
        close.stop();
        stop.stop();
        let audit = status.audit.clone();
        // The tunnels' owner ends once the last handle to it is gone.
        drop(status);
        while listeners.join_next().await.is_some() {}
        while tasks.join_next().await.is_some() {}
        if let Some(acceptor) = acceptor {
            acceptor.shutdown().await;
        }
        audit.record(Event::Stopped);
        // It waits for a thread that writes, at a time when nobody else needs this one.
        audit.flush(LAST_LINES);
    }

    /// Where customers are accepted.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.clients
    }

    /// Where carriers are accepted, if they are accepted here.
    pub fn tunnel_address(&self) -> Option<SocketAddr> {
        self.tunnel
    }

    /// Reads the configuration again and takes up what it can, as told by SIGHUP.
    ///
    /// # Errors
    /// What is wrong; nothing has changed.
    pub async fn reload(&self) -> Result<Reloaded, String> {
        self.status.reload.run(By::Signal).await
    }

    /// What `outgate status` tells.
    pub async fn status(&self) -> RelayStatus {
        self.status.status().await
    }
}
