//! What the desk is told of its place: queues, agents, and what it cannot do by itself.

use std::time::Duration;

use crate::connector::bot::BotConfig;
use crate::proto::tunnel::RefusalCode;

/// One queue.
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// Its id, unique within its domain.
    pub id: String,
    /// The served domain it belongs to.
    pub domain: String,
    /// The name people see.
    pub name: String,
    /// Whether anyone may come in without a link.
    pub public: bool,
    /// The bot that answers first.
    pub bot: Option<BotConfig>,
    /// How long an offer stands.
    pub offer_timeout: Duration,
    /// Whether sessions are connected without an offer.
    pub auto_accept: bool,
}

/// One agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The account's name.
    pub name: String,
    /// The name customers see.
    pub display: String,
    /// Ids of the queues served.
    pub queues: Vec<String>,
    /// Sessions at a time.
    pub capacity: u32,
}

/// What the desk knows of its place.
#[derive(Clone, Debug)]
pub struct DeskConfig {
    /// The agents' domain, which customers' proxy addresses belong to as well.
    pub agents_domain: String,
    /// Queues.
    pub queues: Vec<QueueConfig>,
    /// Agents.
    pub agents: Vec<AgentConfig>,
}

/// What a verified link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTerms {
    /// Issuer.
    pub issuer: String,
    /// Key id.
    pub kid: String,
    /// The token's own id.
    pub jti: String,
    /// The customer's name, if the link has one.
    pub sub: Option<String>,
    /// The queue it leads to.
    pub queue: String,
    /// Why the customer comes.
    pub reason: Option<String>,
    /// Sessions it may begin; `None` for any number.
    pub max_uses: Option<u32>,
}

/// Verifies a link: the token, the audience (served domain) and seconds since the Unix epoch.
pub type VerifyLink = Box<dyn Fn(&str, &str, u64) -> Result<LinkTerms, (RefusalCode, String)> + Send>;

/// Yields random bytes.
pub type Entropy = Box<dyn FnMut() -> [u8; 16] + Send>;

/// What the desk cannot do by itself.
pub struct Outside {
    /// Verifies links.
    pub verify_link: VerifyLink,
    /// Yields random bytes.
    pub entropy: Entropy,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outside")
    }
}
