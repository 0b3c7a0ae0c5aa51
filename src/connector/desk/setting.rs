//! What the desk is told of its place: queues, agents, and what it cannot do by itself.

use std::time::Duration;

use super::{OpenRate, SpaceFloor};
use crate::connector::bot::BotConfig;
use crate::fingerprint::Denial;
use crate::link::{Label, LinkRefusal, LinkTerms};

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

/// What relays and customers may ask for.
#[derive(Clone, Debug, Default)]
pub struct DoorConfig {
    /// The first character of this connector's short codes; without it there are none.
    pub label: Option<Label>,
    /// Who may sign links.
    pub issuers: Vec<String>,
    /// Software that is not let in.
    pub denied: Vec<Denial>,
    /// How fast one relay may open new sessions.
    pub opens: OpenRate,
    /// How much of the store's disk is kept free of new sessions.
    pub space: SpaceFloor,
}

/// What the desk knows of its place.
#[derive(Clone, Debug)]
pub struct DeskConfig {
    /// The agents' domain, which customers' proxy addresses belong to as well.
    pub agents_domain: String,
    /// What relays and customers may ask for.
    pub door: DoorConfig,
    /// Queues.
    pub queues: Vec<QueueConfig>,
    /// Agents.
    pub agents: Vec<AgentConfig>,
}

/// Verifies a link: the token, the audience (served domain) and seconds since the Unix epoch. The `expires` that it yields includes the
/// tolerance for clocks.
pub type VerifyLink = Box<dyn Fn(&str, &str, u64) -> Result<LinkTerms, LinkRefusal> + Send>;

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
