//! From the configuration files to what the connector runs on: certificates, keys and accounts are read here.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;

use crate::admin::socket::{self, SocketError};
use crate::config::{AgentsConfig, ConnectorConfig, connector as file};
use crate::link::LinkRefusal;
use crate::net::certificates::{FileError, load, load_authorities};
use crate::net::entropy;
use crate::net::inherited::{InheritError, Inherited};
use crate::net::link_keys::{LinkKeyFileError, LinkKeys};
use crate::net::listener::Listener;
use crate::net::negotiate::Terms;
use crate::net::quic::Credentials;
use crate::net::tls::Acceptor;
use crate::proto::tunnel::{self, RefusalCode};
use crate::proto::xmpp::negotiation::{Mechanism, NegotiationSettings};

use super::agents::AgentsDoor;
use super::bot::{BotConfig, BotRule};
use super::desk::{AgentConfig, DeskConfig, LinkTerms, Outside, QueueConfig};
use super::dial_relay::{RelayAddress, RelaySettings};

/// How far the clocks of a link's issuer and this host may differ.
const LEEWAY: Duration = Duration::from_secs(30);

/// Login attempts on one stream.
const ATTEMPTS: u8 = 3;

/// Everything a connector runs on.
#[derive(Debug)]
pub struct ConnectorSettings {
    /// The database file.
    pub store: PathBuf,
    /// Queues and agents.
    pub desk: DeskConfig,
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
}

/// Why settings cannot be made of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A certificate or key.
    #[error(transparent)]
    Certificate(#[from] FileError),
    /// An issuer's keys.
    #[error(transparent)]
    LinkKeys(#[from] LinkKeyFileError),
    /// TLS does not take the certificate.
    #[error("the agents' listener cannot use its certificate: {0}")]
    Tls(String),
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
        let listener = load(&config.agents.tls.certificate, &config.agents.tls.key)?;
        warn(&listener.warnings);
        let tls = Acceptor::new(listener.chain, listener.key).map_err(|error| SettingsError::Tls(error.to_string()))?;
        let mut keys = LinkKeys::default();
        for issuer in &config.issuers {
            keys.add_file(issuer)?;
        }
        let relays =
            config.relays.iter().map(|relay| RelayAddress { address: relay.address.clone(), server_name: relay.server_name.clone() });
        Ok(Self {
            store: config.store.path.clone(),
            desk: desk(config, accounts),
            outside: Outside { verify_link: verifier(keys), entropy: Box::new(entropy::sixteen) },
            relays: RelaySettings {
                relays: relays.collect(),
                credentials,
                tunnel: tunnel::Settings { node: config.name.clone(), ..tunnel::Settings::default() },
            },
            agents_listener: agents_listener(config.agents.listen, inherited)?,
            agents: door(config, accounts, tls)?,
            admin: Some(socket::open(&config.admin, inherited)?),
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

fn credentials(files: &crate::config::TunnelTls) -> Result<Credentials, SettingsError> {
    let own = load(&files.certificate, &files.key)?;
    warn(&own.warnings);
    Ok(Credentials { chain: own.chain, key: own.key, authorities: load_authorities(&files.ca)? })
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
    DeskConfig { agents_domain: config.agents.domain.clone(), queues: config.queues.iter().map(queue).collect(), agents: agents.collect() }
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

fn door(config: &ConnectorConfig, accounts: &AgentsConfig, tls: Acceptor) -> Result<AgentsDoor, SettingsError> {
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
        tls: Arc::new(tls),
        tls_within: Duration::from_secs(5),
        login_within: Duration::from_secs(15),
        write_within: Duration::from_secs(30),
    };
    Ok(AgentsDoor { accounts: keys, domain: config.agents.domain.clone(), terms })
}

/// The connector verifies again what a relay says it has verified.
fn verifier(keys: LinkKeys) -> super::desk::VerifyLink {
    Box::new(move |token, audience, now| match keys.verify_link(token, now, audience, LEEWAY) {
        Ok(terms) => Ok(LinkTerms {
            issuer: terms.issuer,
            kid: terms.kid,
            jti: terms.jti,
            sub: terms.subject,
            queue: terms.queue,
            reason: terms.reason,
            max_uses: terms.max_sessions,
        }),
        Err(refusal) => Err((refusal_code(refusal), refusal.sentence().to_owned())),
    })
}

fn refusal_code(refusal: LinkRefusal) -> RefusalCode {
    match refusal {
        LinkRefusal::Queue => RefusalCode::NoQueue,
        LinkRefusal::Malformed
        | LinkRefusal::Algorithm
        | LinkRefusal::UnknownKey
        | LinkRefusal::BadSignature
        | LinkRefusal::Claims
        | LinkRefusal::Issuer
        | LinkRefusal::Audience
        | LinkRefusal::Expired
        | LinkRefusal::NotYetValid => RefusalCode::BadLink,
    }
}
