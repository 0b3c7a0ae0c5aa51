//! From the configuration files to what the connector runs on: certificates, keys and accounts are read here.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;

use crate::admin::socket::{self, SocketError};
use crate::config::{AgentsConfig, ConnectorConfig, TunnelTls, connector as file};
use crate::fingerprint::Denial;
use crate::link::LinkTerms;
use crate::net::certificates::reload::{LOOK_EVERY, Shown, take_up_revocations};
use crate::net::certificates::{FileError, Live, LiveError, finish_pair, load, load_authorities};
use crate::net::entropy;
use crate::net::inherited::{InheritError, Inherited};
use crate::net::link_keys::{LinkKeyFileError, LinkKeyFiles, reload};
use crate::net::listener::Listener;
use crate::net::negotiate::Terms;
use crate::net::process_memory::{TooMuch, replay_memory};
use crate::net::quic::Credentials;
use crate::net::tls::Acceptor;
use crate::net::wall_clock::unix_millis;
use crate::proto::tunnel;
use crate::proto::tunnel::policy::QueueClaim;
use crate::proto::xmpp::negotiation::{Mechanism, NegotiationSettings};
use crate::telemetry::audit::Audit;

use super::agents::AgentsDoor;
use super::bot::{BotConfig, BotRule};
use super::certificates::IssuingCa;
use super::desk::{AgentConfig, DeskConfig, DoorConfig, OpenRate, Outside, QueueConfig, SpaceFloor};
use super::dial_relay::{CLIMB_EVERY, RelayAddress, RelaySettings, Resolver};
use super::space::{self, Probe};

/// How far the clocks of a link's issuer and this host may differ.
const LEEWAY: Duration = Duration::from_secs(30);

/// Inputs that may wait for the desk.
const DESK_QUEUE: usize = 4096;

/// Login attempts on one stream.
const ATTEMPTS: u8 = 3;

/// Everything a connector runs on.
pub struct ConnectorSettings {
    /// The database file.
    pub store: PathBuf,
    /// Asks how much room its disk has.
    pub space: Probe,
    /// How often files and disk are looked at.
    pub every: Every,
    /// The keys of links, which are pushed to the relays.
    pub link_keys: Arc<LinkKeyFiles>,
    /// The queues that this connector serves, as the relays are told.
    pub claims: Vec<QueueClaim>,
    /// Software that is not let in, as the relays are told.
    pub denied: Vec<Denial>,
    /// Queues and agents.
    pub desk: DeskConfig,
    /// Inputs that may wait for the desk before their senders are held back.
    pub desk_queue: usize,
    /// What the desk cannot do by itself.
    pub outside: Outside,
    /// The relays.
    pub relays: RelaySettings,
    /// Where agents connect.
    pub agents_listener: Listener,
    /// Who may.
    pub agents: AgentsDoor,
    /// Where `outgate status` asks.
    pub admin: Option<UnixListener>,
    /// The files of the tunnel's certificate.
    pub tunnel_files: TunnelTls,
    /// The issuing CA, if there is one to ask.
    pub ca: Option<IssuingCa>,
    /// How long a connector that is told to stop goes on with what stands.
    pub drain: Duration,
    /// The certificates whose files are watched.
    pub shown: Vec<Shown>,
    /// How often those files are looked at.
    pub look_every: Duration,
    /// Where decisions are told.
    pub audit: Audit,
}

/// How often something outside is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Every {
    /// The content of the link keys' files.
    pub keys: Duration,
    /// The room on the store's disk.
    pub space: Duration,
}

impl Default for Every {
    fn default() -> Self {
        Self { keys: reload::EVERY, space: space::EVERY }
    }
}

impl std::fmt::Debug for ConnectorSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectorSettings").field("desk", &self.desk).field("relays", &self.relays).finish_non_exhaustive()
    }
}

/// Why settings cannot be made of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A certificate or key.
    #[error(transparent)]
    Certificate(#[from] FileError),
    /// The tunnel's certificates together.
    #[error("{}", with_source(.0))]
    Tunnel(#[from] LiveError),
    /// An issuer's keys.
    #[error(transparent)]
    LinkKeys(#[from] LinkKeyFileError),
    /// TLS does not take the certificate.
    #[error("the agents' listener cannot use its certificate: {0}")]
    Tls(String),
    /// The replay memory.
    #[error(transparent)]
    Memory(#[from] TooMuch),
    /// The issuing CA's address.
    #[error("`ca.url = \"{0}\"` is not https://HOST:PORT")]
    Ca(String),
    /// The audit log's file.
    #[error("the audit log (`audit.file`): {0}")]
    Audit(#[source] io::Error),
    /// Sockets that were handed over.
    #[error(transparent)]
    Inherited(#[from] InheritError),
    /// The agents' address.
    #[error("cannot listen for agents on {address}: {source}")]
    Agents {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] SocketError),
    /// A password's keys.
    #[error("agent {0}: its password is not in the form that `outgate agent passwd` writes")]
    Password(String),
}

impl ConnectorSettings {
    /// Reads what the configuration names, takes inherited sockets or binds its addresses. Needs a runtime.
    ///
    /// # Errors
    /// The first file or socket that cannot be used.
    pub fn from_config(config: &ConnectorConfig, accounts: &AgentsConfig, inherited: &mut Inherited) -> Result<Self, SettingsError> {
        let credentials = credentials(&config.tunnel_tls)?;
        let replay_memory = replay_memory(config.tunnel.replay_memory_mib)?;
        let listener = load(&config.agents.tls.certificate, &config.agents.tls.key)?;
        warn(&listener.warnings);
        let tls = Arc::new(Acceptor::new(listener.chain, listener.key).map_err(|error| SettingsError::Tls(error.to_string()))?);
        let link_keys = Arc::new(LinkKeyFiles::open(&config.issuers)?);
        let relays = config.relays.iter().map(|relay| RelayAddress {
            address: relay.address.clone(),
            alternates: relay.alternates.clone(),
            server_name: relay.server_name.clone(),
            transport: relay.transport,
            switch_every: relay.switch_every,
            climb_every: CLIMB_EVERY,
            proxy: relay.proxy.clone(),
            resolver: Resolver::System,
        });
        Ok(Self {
            store: config.store.path.clone(),
            space: space::probe(&config.store.path),
            every: Every::default(),
            link_keys: Arc::clone(&link_keys),
            claims: config.queues.iter().map(claim).collect(),
            denied: denied(config),
            desk: desk(config, accounts),
            desk_queue: DESK_QUEUE,
            outside: Outside { verify_link: verifier(&link_keys), entropy: Box::new(entropy::sixteen) },
            relays: RelaySettings {
                relays: relays.collect(),
                credentials: credentials.clone(),
                tunnel: tunnel::Settings { node: config.name.clone(), replay_memory, clock: unix_millis, ..tunnel::Settings::default() },
            },
            agents_listener: agents_listener(config.agents.listen, inherited)?,
            agents: door(config, accounts, Arc::clone(&tls))?,
            admin: Some(socket::open(&config.admin, inherited)?),
            tunnel_files: config.tunnel_tls.clone(),
            ca: config.ca.as_ref().map(issuing_ca).transpose()?,
            drain: config.tunnel.drain,
            shown: vec![Shown::Tunnel(credentials, config.tunnel_tls.clone()), Shown::People("agents", tls, config.agents.tls.clone())],
            look_every: LOOK_EVERY,
            audit: Audit::from_config(&config.audit).map_err(SettingsError::Audit)?,
        })
    }
}

fn agents_listener(address: SocketAddr, inherited: &mut Inherited) -> Result<Listener, SettingsError> {
    let listener = match inherited.tcp("agents")?.pop() {
        Some(socket) => Listener::from_std(socket),
        None => Listener::bind(address),
    };
    listener.map_err(|source| SettingsError::Agents { address, source })
}

fn with_source(error: &LiveError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn issuing_ca(ca: &file::Ca) -> Result<IssuingCa, SettingsError> {
    Ok(IssuingCa { url: ca.url.parse().map_err(|_other| SettingsError::Ca(ca.url.clone()))?, poll: ca.poll })
}

fn credentials(files: &TunnelTls) -> Result<Live, SettingsError> {
    // What a crash left half done; where the folder is not ours to write, nobody renewed there.
    drop(finish_pair(&files.certificate, &files.key));
    let own = load(&files.certificate, &files.key)?;
    warn(&own.warnings);
    let live = Live::new(&Credentials { chain: own.chain, key: own.key, authorities: load_authorities(&files.ca)? })?;
    warn(take_up_revocations(&live, files).err().as_slice());
    Ok(live)
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!(warning, "certificate");
    }
}

fn desk(config: &ConnectorConfig, accounts: &AgentsConfig) -> DeskConfig {
    let agents = accounts.agents.iter().map(|agent| AgentConfig {
        name: agent.name.clone(),
        display: agent.display.clone(),
        queues: agent.queues.clone(),
        capacity: agent.capacity,
    });
    DeskConfig {
        agents_domain: config.agents.domain.clone(),
        door: DoorConfig {
            issuers: config.issuers.iter().map(|issuer| issuer.iss.clone()).collect(),
            denied: denied(config),
            opens: OpenRate { per_second: config.limits.opens_per_second, burst: config.limits.opens_at_once },
            space: SpaceFloor { bytes: u64::from(config.store.keep_free_mib) << 20, percent: config.store.keep_free_percent },
        },
        queues: config.queues.iter().map(queue).collect(),
        agents: agents.collect(),
    }
}

fn claim(queue: &file::Queue) -> QueueClaim {
    QueueClaim { domain: queue.domain.clone(), queue: queue.id.clone() }
}

fn denied(config: &ConnectorConfig) -> Vec<Denial> {
    let denial = |denied: &file::Denied| Denial {
        software: denied.software.clone(),
        version: denied.version.clone(),
        text: denied.text.clone().unwrap_or_default(),
    };
    config.denied.iter().map(denial).collect()
}

fn queue(queue: &file::Queue) -> QueueConfig {
    QueueConfig {
        id: queue.id.clone(),
        domain: queue.domain.clone(),
        name: queue.name.clone(),
        public: queue.public,
        bot: queue.bot.as_ref().map(bot),
        offer_timeout: queue.offer_timeout,
        auto_accept: queue.auto_accept,
    }
}

fn bot(bot: &file::Bot) -> BotConfig {
    BotConfig {
        name: bot.name.clone(),
        greeting: bot.greeting.clone().unwrap_or_default(),
        rules: bot.rules.iter().map(|rule| BotRule { words: vec![rule.pattern.clone()], answer: rule.reply.clone() }).collect(),
        fallback: bot.fallback.clone(),
        handover: bot.handover.clone(),
    }
}

fn door(config: &ConnectorConfig, accounts: &AgentsConfig, tls: Arc<Acceptor>) -> Result<AgentsDoor, SettingsError> {
    let mut keys = HashMap::new();
    for agent in &accounts.agents {
        keys.insert(agent.name.clone(), agent.password.keys().ok_or_else(|| SettingsError::Password(agent.name.clone()))?);
    }
    let negotiation = NegotiationSettings {
        domains: vec![(config.agents.domain.clone(), vec![Mechanism::ScramSha256, Mechanism::Plain])],
        attempts: ATTEMPTS,
        stream_management: true,
        resumption: true,
        salt_secret: entropy::thirty_two(),
    };
    let terms = Terms {
        negotiation: Arc::new(negotiation),
        tls,
        tls_within: Duration::from_secs(5),
        login_within: Duration::from_secs(15),
        write_within: Duration::from_secs(30),
    };
    Ok(AgentsDoor { accounts: keys, domain: config.agents.domain.clone(), terms })
}

/// The connector verifies again what a relay says it has verified.
fn verifier(files: &Arc<LinkKeyFiles>) -> super::desk::VerifyLink {
    let files = Arc::clone(files);
    Box::new(move |token, audience, now| {
        let terms = files.keys().verify_link(token, now, audience, LEEWAY)?;
        Ok(LinkTerms { expires: terms.expires.saturating_add(LEEWAY.as_secs()), ..terms })
    })
}
