//! `relay.toml`: what the relay in the DMZ listens on, serves and limits.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::connector::host_of;
use super::process::AuditLog;
use super::proxy::Accepted;
use super::reader::{Document, Table};
use super::tunnel::Tunnel;
use super::value::is_plain_word;
use super::{Confinement, Fault, Issuer, Log, Tls, TunnelTls};
use crate::link::Label;
use crate::proto::tunnel::{MAX_ALTERNATE_BYTES, MAX_ALTERNATES};

pub mod access;
pub mod clients;
pub(super) mod grants;
pub mod limits;

use access::Access;
use clients::Clients;
use limits::Limits;

/// The relay's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// Whether the process gives up what it does not need.
    pub confinement: Confinement,
    /// Sockets.
    pub listen: Listen,
    /// Who may connect, by address.
    pub access: Access,
    /// Which client software may come in.
    pub clients: Clients,
    /// Certificate of the customers' listener.
    pub tls: Tls,
    /// Certificate and authority of the tunnel.
    pub tunnel_tls: TunnelTls,
    /// What its tunnels hold, and how long it drains.
    pub tunnel: Tunnel,
    /// `HOST:PORT` of relays that connectors may dial when this one stops.
    pub alternates: Vec<String>,
    /// Served domains.
    pub domains: Vec<Domain>,
    /// The connectors' labels, by which short codes find them.
    pub labels: Vec<(Label, String)>,
    /// Who may sign links.
    pub issuers: Vec<Issuer>,
    /// How links are judged.
    pub link: Link,
    /// Bounds on what strangers and customers may take.
    pub limits: Limits,
    /// Log.
    pub log: Log,
    /// Audit log.
    pub audit: AuditLog,
}

/// Sockets of the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// TCP addresses for customers.
    pub client: Vec<SocketAddr>,
    /// Address for tunnels: UDP for QUIC, TCP for TLS.
    pub tunnel: SocketAddr,
    /// Which of both.
    pub tunnel_transports: Vec<Accepted>,
    /// Path of the admin socket.
    pub admin: PathBuf,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            client: vec![any(5222)],
            tunnel: any(7443),
            tunnel_transports: vec![Accepted::Quic, Accepted::Tls],
            admin: PathBuf::from("/run/outgate-relay/admin.sock"),
        }
    }
}

/// A domain that customers' clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its name: the JIDs' domain and the `aud` of its links.
    pub name: String,
    /// The queue that customers without a link come to.
    pub public_queue: Option<String>,
    /// Its queues.
    pub queues: Vec<QueueGrant>,
}

/// A queue and the connector that answers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueGrant {
    /// The queue, as links name it.
    pub id: String,
    /// Its name on customers' rosters, the id unless it is told.
    pub name: String,
    /// The connector's certificate name, `outgate://ORG/connector/NAME`.
    pub connector: String,
}

/// How links are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// How far the clocks of issuer and relay may differ.
    pub leeway: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Self { leeway: Duration::from_secs(30) }
    }
}

impl RelayConfig {
    /// Reads `text`, the content of `file`.
    ///
    /// # Errors
    /// All faults of the text, in its order.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<Fault>> {
        Document::new(file, text).read(Self::read)
    }

    fn read(root: &Table<'_>) -> Option<Self> {
        let confinement = Confinement::read(root);
        let listen = Listen::read(root);
        let access = Access::read(root);
        let clients = Clients::read(root);
        let tls = root.required_table("tls").and_then(|table| Tls::read(&table));
        let tunnel_tls = root.required_table("tunnel_tls").and_then(|table| TunnelTls::read(&table));
        let (tunnel, alternates) = read_tunnel(root);
        let issuers = Issuer::read_all(root);
        let mut domains = Domain::read_all(root);
        let labels = grants::grant(root, &mut domains);
        let link = Link::read(root);
        let limits = Limits::read(root);
        let log = Log::read(root);
        let audit = AuditLog::read(root);
        root.finish();
        Some(Self {
            confinement,
            listen,
            access,
            clients,
            tls: tls?,
            tunnel_tls: tunnel_tls?,
            tunnel,
            alternates,
            domains,
            labels,
            issuers,
            link,
            limits,
            log,
            audit,
        })
    }
}

/// Customers' conversations end with the relay that carries them: those under way get time to come to their end, less than a
/// service manager waits (90 s) before it kills.
const DEFAULT_TUNNEL: Tunnel = Tunnel { drain: Duration::from_secs(30), replay_memory_mib: None };

/// `[tunnel]`, with the key that only a relay knows.
fn read_tunnel(root: &Table<'_>) -> (Tunnel, Vec<String>) {
    let Some(table) = root.table("tunnel") else { return (DEFAULT_TUNNEL, Vec::new()) };
    let tunnel = Tunnel::read(&table, DEFAULT_TUNNEL);
    let alternates = table.list("alternates", "\"relay2.example.com:7443\"").unwrap_or_default();
    table.finish();
    check_alternates(&table, &alternates);
    (tunnel, alternates)
}

impl Listen {
    fn read(root: &Table<'_>) -> Self {
        let default = Self::default();
        let Some(table) = root.table("listen") else { return default };
        let client = table.list("client", "\"[::]:5222\"").unwrap_or(default.client);
        if client.is_empty() {
            table.fault("client", "`listen.client` names no address".into(), "write `client = [\"[::]:5222\"]`");
        }
        let tunnel_transports = table.list("tunnel_transports", "\"quic\", \"tls\"").unwrap_or(default.tunnel_transports);
        if tunnel_transports.is_empty() {
            table.fault(
                "tunnel_transports",
                "no connector could reach this relay".into(),
                "write `tunnel_transports = [\"quic\", \"tls\"]`",
            );
        }
        let listen = Self {
            client,
            tunnel_transports,
            tunnel: table.or("tunnel", default.tunnel, "\"[::]:7443\""),
            admin: table.or("admin", default.admin, "\"/run/outgate-relay/admin.sock\""),
        };
        table.finish();
        listen
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
        let public_queue: Option<String> = table.optional("public_queue", "\"hello\"");
        let tables = table.tables("queue");
        table.distinct(&tables, "id");
        let queues: Vec<_> = tables.iter().filter_map(QueueGrant::read).collect();
        table.finish();
        if let Some(name) = &name {
            check_word(table, "name", name);
        }
        if tables.is_empty() {
            table.fault("queue", "this domain has no queue".into(), "add a section `[[domain.queue]]` below it");
        } else if queues.len() == tables.len() {
            check_public(table, public_queue.as_deref(), &queues);
        }
        Some(Self { name: name?, public_queue, queues })
    }
}

/// The public queue must be one of the domain's. Whether the others have someone who signs links is not known here: connectors
/// push the keys.
fn check_public(table: &Table<'_>, public: Option<&str>, queues: &[QueueGrant]) {
    let Some(public) = public.filter(|public| !queues.iter().any(|queue| queue.id == *public)) else { return };
    let known: Vec<_> = queues.iter().map(|queue| queue.id.as_str()).collect();
    table.fault(
        "public_queue",
        format!("`public_queue = \"{public}\"` is no queue of this domain"),
        format!("name one of: {}", known.join(", ")),
    );
}

impl QueueGrant {
    fn read(table: &Table<'_>) -> Option<Self> {
        let id: Option<String> = table.required("id", "\"support\"");
        let has_connector = table.has("connector");
        let connector: Option<String> = table.optional("connector", "nothing");
        let name: Option<String> = table.optional("name", "\"Customer support\"");
        table.finish();
        if let Some(id) = &id {
            check_word(table, "id", id);
        }
        if name.as_ref().is_some_and(|name| name.chars().any(char::is_control)) {
            table.fault("name", "`name` has control characters".into(), "write a line such as \"Customer support\"");
        }
        if has_connector {
            let identity = connector.as_deref().unwrap_or("outgate://example/connector/lan1");
            let id = id.as_deref().unwrap_or("support");
            table.fault(
                "connector",
                "a queue does not name its connector: the connector names its queues".into(),
                format!(
                    "delete this line, and write `queues = [\"{id}\"]` in the section `[[connector]]` with `identity = \"{identity}\"`"
                ),
            );
            return None;
        }
        let name = name.or_else(|| id.clone());
        Some(Self { id: id?, name: name?, connector: String::new() })
    }
}

impl Link {
    fn read(root: &Table<'_>) -> Self {
        let default = Self::default();
        let Some(table) = root.table("link") else { return default };
        let link = Self { leeway: table.or("leeway", default.leeway, "\"30s\"") };
        table.finish();
        if link.leeway > Duration::from_secs(300) {
            table.fault("leeway", "`link.leeway` is over 5 minutes".into(), "set the clocks right and write \"30s\"");
        }
        link
    }
}

/// Reports what is no list of other addresses.
pub(super) fn check_alternates(table: &Table<'_>, alternates: &[String]) {
    if alternates.len() > MAX_ALTERNATES {
        table.fault("alternates", format!("more than {MAX_ALTERNATES} alternates"), "name those that are most likely to be there");
    }
    if let Some(wrong) = alternates.iter().find(|address| address.len() > MAX_ALTERNATE_BYTES || host_of(address).is_none()) {
        table.fault("alternates", format!("\"{wrong}\" is not HOST:PORT"), "write, for example, \"relay2.example.com:7443\"");
    }
}

/// Reports `text` unless it may stand in a JID as it is.
pub(super) fn check_word(table: &Table<'_>, key: &str, text: &str) {
    if !is_plain_word(text) {
        table.fault(
            key,
            format!("`{key} = \"{text}\"` cannot stand in an address"),
            "use lower-case letters, digits, `-`, `_` and `.` only",
        );
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}
