//! `connector.toml`: the relays the connector dials, its store, its agents and its queues.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::AuditLog;
use super::proxy::{Proxy, TransportChoice};
use super::reader::{Document, Table};
use super::relay::{check_alternates, check_word};
use super::tunnel::Tunnel;
use super::tunnel_name::is_name;
use super::{Confinement, Fault, Issuer, Log, Signers, Tls, TunnelTls};
use crate::proto::tunnel::policy::MAX_DENIED;

/// The connector's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorConfig {
    /// Its name, for logs and status.
    pub name: String,
    /// Whether the process gives up what it does not need.
    pub confinement: Confinement,
    /// Path of the admin socket.
    pub admin: PathBuf,
    /// Relays to dial.
    pub relays: Vec<Relay>,
    /// Certificate and authority of the tunnel.
    pub tunnel_tls: TunnelTls,
    /// What its tunnels hold, and how long it drains.
    pub tunnel: Tunnel,
    /// The issuing CA, where certificates are renewed; without it they are the admin's to renew.
    pub ca: Option<Ca>,
    /// Store.
    pub store: Store,
    /// The agents' listener.
    pub agents: AgentsListener,
    /// Domains that customers know.
    pub domains: Vec<Domain>,
    /// Queues.
    pub queues: Vec<Queue>,
    /// Who may sign links: the connector verifies again what a relay has verified.
    pub issuers: Vec<Issuer>,
    /// Client software that is not let in.
    pub denied: Vec<Denied>,
    /// What one relay may ask for.
    pub limits: Limits,
    /// Log.
    pub log: Log,
    /// Audit log.
    pub audit: AuditLog,
}

/// A relay to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// `HOST:PORT` to dial.
    pub address: String,
    /// `HOST:PORT` of others with the same name in their certificate, dialled only when this one cannot be reached or names them.
    pub alternates: Vec<String>,
    /// The name that the relay's certificate must carry.
    pub server_name: String,
    /// Over what the tunnel goes.
    pub transport: TransportChoice,
    /// How often the tunnel changes to a new carrier, so that the way is known to work; zero for never.
    pub switch_every: Duration,
    /// The proxy that TCP goes through.
    pub proxy: Option<Proxy>,
}

/// The issuing CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ca {
    /// Where `outgate ca serve` listens: `https://HOST:PORT`.
    pub url: String,
    /// How often it is asked whom to trust, and whom no longer.
    pub poll: Duration,
}

/// Where sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Database file.
    pub path: PathBuf,
    /// MiB of its disk that new sessions leave free.
    pub keep_free_mib: u32,
    /// Hundredths of its disk that new sessions leave free.
    pub keep_free_percent: u32,
}

/// Client software that is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Its name, letter case aside.
    pub software: String,
    /// Its version, or the beginning of a series; every one where absent.
    pub version: Option<String>,
    /// What the customer is told.
    pub text: Option<String>,
}

/// What one relay may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// New sessions in the long run.
    pub opens_per_second: u32,
    /// New sessions at once.
    pub opens_at_once: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { opens_per_second: 50, opens_at_once: 500 }
    }
}

/// Where agents log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentsListener {
    /// TCP address.
    pub listen: SocketAddr,
    /// Domain of the agents' JIDs.
    pub domain: String,
    /// Certificate.
    pub tls: Tls,
    /// The accounts, an `agents.toml`.
    pub accounts: PathBuf,
}

/// A domain that customers know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its name, the `aud` of its links.
    pub name: String,
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its id, as links name it.
    pub id: String,
    /// The domain it belongs to.
    pub domain: String,
    /// The name that customers and agents see.
    pub name: String,
    /// Whether customers may come without a link.
    pub public: bool,
    /// The bot that answers first.
    pub bot: Option<Bot>,
    /// How long an offer waits for an agent.
    pub offer_timeout: Duration,
    /// Whether an offer counts as taken at once.
    pub auto_accept: bool,
}

/// A bot that answers by rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bot {
    /// The name that customers see.
    pub name: String,
    /// What it says first.
    pub greeting: Option<String>,
    /// Its rules: the first that matches answers.
    pub rules: Vec<BotRule>,
    /// What it says where no rule matches.
    pub fallback: String,
    /// Words that call a human agent.
    pub handover: Vec<String>,
}

/// One rule of a bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BotRule {
    /// What the customer's message must contain, letter case aside (key `match`).
    pub pattern: String,
    /// The answer.
    pub reply: String,
}

/// How often a tunnel changes its carrier, unless the file says otherwise.
pub const DEFAULT_SWITCH_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Below it the tunnel would do little else.
const LEAST_SWITCH_EVERY: Duration = Duration::from_secs(60);

/// How often the issuing CA is asked whom to trust, unless the file says otherwise.
pub const DEFAULT_POLL: Duration = Duration::from_secs(60);

/// How long an offer waits for an agent, unless the file says otherwise.
pub const DEFAULT_OFFER_TIMEOUT: Duration = Duration::from_secs(20);

impl ConnectorConfig {
    /// Reads `text`, the content of `file`.
    ///
    /// # Errors
    /// All faults of the text, in its order.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<Fault>> {
        Document::new(file, text).read(Self::read)
    }

    fn read(root: &Table<'_>) -> Option<Self> {
        let name: Option<String> = root.required("name", "\"lan1\"");
        if let Some(name) = &name {
            check_name(root, name);
        }
        let confinement = Confinement::read(root);
        let default_admin = PathBuf::from("/run/outgate-connector/admin.sock");
        let admin = root.or("admin", default_admin, "\"/run/outgate-connector/admin.sock\"");
        let relays = Relay::read_all(root);
        let tunnel_tls = root.required_table("tunnel_tls").and_then(|table| TunnelTls::read(&table));
        let tunnel = read_tunnel(root);
        let ca = root.table("ca").and_then(|table| Ca::read(&table));
        let store = Store::read(root);
        let agents = root.required_table("agents").and_then(|table| AgentsListener::read(&table));
        let domains = Domain::read_all(root);
        let issuers = Issuer::read_all(root);
        let queues = Queue::read_all(root, &domains, Signers::of(root));
        let denied = Denied::read_all(root);
        let limits = Limits::read(root);
        let log = Log::read(root);
        let audit = AuditLog::read(root);
        root.finish();
        Some(Self {
            name: name?,
            confinement,
            admin,
            relays,
            tunnel_tls: tunnel_tls?,
            tunnel,
            ca,
            store,
            agents: agents?,
            domains,
            queues,
            issuers,
            denied,
            limits,
            log,
            audit,
        })
    }
}

/// Sessions outlive the connector that serves them: it has only to bring to its end what is under way.
const DEFAULT_TUNNEL: Tunnel = Tunnel { drain: Duration::from_secs(5), replay_memory_mib: None };

fn read_tunnel(root: &Table<'_>) -> Tunnel {
    let Some(table) = root.table("tunnel") else { return DEFAULT_TUNNEL };
    let tunnel = Tunnel::read(&table, DEFAULT_TUNNEL);
    table.finish();
    tunnel
}

impl Relay {
    fn read_all(root: &Table<'_>) -> Vec<Self> {
        let tables = root.tables("relay");
        if tables.is_empty() {
            root.fault("relay", "no relay to dial".into(), "add a section `[[relay]]` with `address`");
        }
        root.distinct(&tables, "address");
        let relays: Vec<_> = tables.iter().filter_map(Self::read).collect();
        let mut seen: Vec<&str> = relays.iter().map(|relay| relay.address.as_str()).collect();
        for alternate in relays.iter().flat_map(|relay| &relay.alternates) {
            if seen.contains(&alternate.as_str()) {
                let message = format!("the alternate \"{alternate}\" is named already: a relay has one tunnel to this connector");
                root.fault("relay", message, "name each relay once");
            }
            seen.push(alternate);
        }
        relays
    }

    fn read(table: &Table<'_>) -> Option<Self> {
        let address: Option<String> = table.required("address", "\"relay.example.com:7443\"");
        let alternates: Vec<String> = table.list("alternates", "\"relay2.example.com:7443\"").unwrap_or_default();
        let server_name: Option<String> = table.optional("server_name", "\"relay.example.com\"");
        let transport = table.or("transport", TransportChoice::default(), "\"auto\"");
        let switch_every = table.or("switch_every", DEFAULT_SWITCH_EVERY, "\"24h\"");
        let proxy = table.table("proxy").map(|proxy| Proxy::read(&proxy));
        table.finish();
        check_alternates(table, &alternates);
        if transport == TransportChoice::Quic && proxy.is_some() {
            table.fault(
                "proxy",
                "a proxy carries TCP, and `transport = \"quic\"` uses none".into(),
                "write `transport = \"auto\"` or \"tls\"",
            );
        }
        if !switch_every.is_zero() && switch_every < LEAST_SWITCH_EVERY {
            table.fault("switch_every", "`relay.switch_every` is under a minute".into(), "write \"24h\", or \"0s\" for never");
        }
        let address = address?;
        let Some(host) = host_of(&address) else {
            table.fault(
                "address",
                format!("`address = \"{address}\"` is not HOST:PORT"),
                "write, for example, \"relay.example.com:7443\" or \"[2001:db8::1]:7443\"",
            );
            return None;
        };
        let server_name = server_name.unwrap_or_else(|| host.to_owned());
        // A proxy that is wrong has been reported.
        let proxy = proxy.flatten();
        Some(Self { address, alternates, server_name, transport, switch_every, proxy })
    }
}

impl Ca {
    fn read(table: &Table<'_>) -> Option<Self> {
        let url: Option<String> = table.required("url", "\"https://ca.example.lan:7444\"");
        let poll = table.or("poll", DEFAULT_POLL, "\"1m\"");
        table.finish();
        if poll.is_zero() {
            table.fault("poll", "a pause of no time".into(), "write \"1m\"");
        }
        let url = url?;
        if url.strip_prefix("https://").and_then(|address| host_of(address.trim_end_matches('/'))).is_none() {
            let message = format!("`url = \"{url}\"` is not https://HOST:PORT");
            table.fault("url", message, "write, for example, \"https://ca.example.lan:7444\"");
            return None;
        }
        Some(Self { url, poll })
    }
}

impl Store {
    fn read(root: &Table<'_>) -> Self {
        let default = Self { path: PathBuf::from("/var/lib/outgate/connector.sqlite"), keep_free_mib: 1024, keep_free_percent: 5 };
        let Some(table) = root.table("store") else { return default };
        let store = Self {
            path: table.or("path", default.path, "\"/var/lib/outgate/connector.sqlite\""),
            keep_free_mib: table.or("keep_free_mib", default.keep_free_mib, "1024"),
            keep_free_percent: table.or("keep_free_percent", default.keep_free_percent, "5"),
        };
        table.finish();
        if store.keep_free_percent > 90 {
            table.fault("keep_free_percent", "over 90 % of the disk would stay empty".into(), "write 5");
        }
        store
    }
}

impl Denied {
    fn read_all(root: &Table<'_>) -> Vec<Self> {
        let tables = root.tables("deny");
        if let Some(table) = tables.get(MAX_DENIED) {
            table.fault(
                "software",
                format!("more than {MAX_DENIED} sections `[[deny]]`"),
                "leave out `version` to deny all of one software",
            );
        }
        tables.iter().filter_map(Self::read).collect()
    }

    fn read(table: &Table<'_>) -> Option<Self> {
        let software: Option<String> = table.required("software", "\"Chatty\"");
        let version: Option<String> = table.optional("version", "\"1.2\"");
        let text: Option<String> = table.optional("text", "\"Please update Chatty.\"");
        table.finish();
        for (key, value) in [("software", &software), ("version", &version), ("text", &text)] {
            if value.as_ref().is_some_and(|value| value.len() > 255 || value.chars().any(char::is_control)) {
                table.fault(key, format!("`{key}` is over 255 bytes or has control characters"), "shorten it to one line");
            }
        }
        Some(Self { software: software?, version, text })
    }
}

impl Limits {
    fn read(root: &Table<'_>) -> Self {
        let default = Self::default();
        let Some(table) = root.table("limits") else { return default };
        let limits = Self {
            opens_per_second: table.or("opens_per_second", default.opens_per_second, "50"),
            opens_at_once: table.or("opens_at_once", default.opens_at_once, "500"),
        };
        table.finish();
        limits
    }
}

impl AgentsListener {
    fn read(table: &Table<'_>) -> Option<Self> {
        // Loopback until an admin names the LAN's address: agents' passwords are tried here, and on
        // a host with a leg in the DMZ a wildcard would offer that door to the DMZ.
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 5222));
        let listen = table.or("listen", loopback, "\"192.168.1.10:5222\"");
        let domain: Option<String> = table.required("domain", "\"agents.example.com\"");
        let tls = table.required_table("tls").and_then(|tls| Tls::read(&tls));
        let accounts = table.required("accounts", "\"agents.toml\"");
        table.finish();
        if let Some(domain) = &domain {
            check_word(table, "domain", domain);
        }
        Some(Self { listen, domain: domain?, tls: tls?, accounts: accounts? })
    }
}

impl Domain {
    fn read_all(root: &Table<'_>) -> Vec<Self> {
        let tables = root.tables("domain");
        if tables.is_empty() {
            root.fault("domain", "no domain is served".into(), "add a section `[[domain]]`");
        }
        root.distinct(&tables, "name");
        tables.iter().filter_map(Self::read).collect()
    }

    fn read(table: &Table<'_>) -> Option<Self> {
        let name: Option<String> = table.required("name", "\"chat.example.com\"");
        table.finish();
        if let Some(name) = &name {
            check_word(table, "name", name);
        }
        Some(Self { name: name? })
    }
}

impl Queue {
    fn read_all(root: &Table<'_>, domains: &[Domain], signers: Signers) -> Vec<Self> {
        let tables = root.tables("queue");
        if tables.is_empty() {
            root.fault("queue", "there is no queue".into(), "add a section `[[queue]]`");
        }
        root.distinct(&tables, "id");
        let mut queues: Vec<Self> = Vec::new();
        for table in &tables {
            let Some(queue) = Self::read(table) else { continue };
            queue.check(table, domains, signers, &queues);
            queues.push(queue);
        }
        queues
    }

    fn read(table: &Table<'_>) -> Option<Self> {
        let id: Option<String> = table.required("id", "\"support\"");
        let domain: Option<String> = table.required("domain", "\"chat.example.com\"");
        let name: Option<String> = table.optional("name", "\"Support\"");
        let public = table.or("public", false, "true");
        let offer_timeout = table.or("offer_timeout", DEFAULT_OFFER_TIMEOUT, "\"20s\"");
        let auto_accept = table.or("auto_accept", false, "false");
        let bot = table.table("bot").map(|bot| Bot::read(&bot));
        table.finish();
        let id = id?;
        let name = name.unwrap_or_else(|| id.clone());
        Some(Self { id, domain: domain?, name, public, bot, offer_timeout, auto_accept })
    }

    fn check(&self, table: &Table<'_>, domains: &[Domain], signers: Signers, earlier: &[Self]) {
        check_word(table, "id", &self.id);
        if !domains.iter().any(|domain| domain.name == self.domain) {
            table.fault(
                "domain",
                format!("`domain = \"{}\"` is not one of this file's domains", self.domain),
                format!("add `[[domain]]` with `name = \"{}\"`, or name another", self.domain),
            );
        }
        let other = earlier.iter().find(|queue| queue.public && queue.domain == self.domain);
        if let (true, Some(other)) = (self.public, other) {
            table.fault("public", format!("\"{}\" is public in this domain already", other.id), "leave one queue of a domain public");
        }
        if !self.public && signers == Signers::Nobody {
            table.fault(
                "id",
                format!("queue \"{}\" needs a link, and no issuer may sign one", self.id),
                "add a section `[[issuer]]` with `iss` and `jwks`, or write `public = true`",
            );
        }
        if self.offer_timeout.is_zero() {
            table.fault("offer_timeout", "an offer of no time".into(), "write \"20s\"");
        }
    }
}

impl Bot {
    fn read(table: &Table<'_>) -> Self {
        let handover = table.list("handover", "\"human\"");
        let rules = table.tables("rule");
        let bot = Self {
            name: table.or("name", "Assistant".to_owned(), "\"Assistant\""),
            greeting: table.optional("greeting", "\"Hello!\""),
            rules: rules.iter().filter_map(BotRule::read).collect(),
            fallback: table.or(
                "fallback",
                "I did not understand. Write \"human\" to talk with a person.".to_owned(),
                "\"Please write \\\"human\\\" to talk with a person.\"",
            ),
            handover: handover.unwrap_or_else(|| vec!["human".to_owned(), "agent".to_owned()]),
        };
        table.finish();
        bot
    }
}

impl BotRule {
    fn read(table: &Table<'_>) -> Option<Self> {
        let pattern = table.required("match", "\"opening hours\"");
        let reply = table.required("reply", "\"We are here from 9 to 17.\"");
        table.finish();
        Some(Self { pattern: pattern?, reply: reply? })
    }
}

fn check_name(root: &Table<'_>, name: &str) {
    if !is_name(name) {
        root.fault(
            "name",
            format!("`name = \"{name}\"` cannot stand in a certificate name"),
            "use 1 to 63 letters, digits, `-`, `_` and `.` only",
        );
    }
}

/// The host of `HOST:PORT`, without the brackets of an IPv6 address.
pub(super) fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.is_empty() && !host.contains(char::is_whitespace)).then_some(host)
}
