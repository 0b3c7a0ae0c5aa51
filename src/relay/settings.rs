//! What the relay is given at its start: everything that needs a file, a name or a socket is resolved before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::admission::allow_list::AllowList;
use crate::admission::headcount::Bounds;
use crate::admission::quota::Allowance;
use crate::config::{Confinement, RelayConfig};
use crate::link::{Label, LinkRefusal, LinkTerms};
use crate::net::accept_rate::Rates;
use crate::net::allow_files::AllowFiles;
use crate::net::carrier::{CarrierInput, Carriers, Writable};
use crate::net::certificates::reload::Shown;
use crate::net::link_keys::LinkKeyFiles;
use crate::net::listener::Listener;
use crate::net::tls::Acceptor;
use crate::proto::tunnel::{self, Identity};
use crate::telemetry::audit::Audit;

use super::certificates::Keeper;
use super::client::Idle;
use super::software_policy::SoftwarePolicy;

/// Everything a relay runs on.
pub struct RelaySettings {
    /// The served domains.
    pub domains: Vec<ServedDomain>,
    /// The connectors by the first character of their short codes.
    pub labels: BTreeMap<Label, Identity>,
    /// Judges a signed link with the relay's own keys; `None` where it has none and only connectors push some.
    pub verify_link: Option<Arc<VerifyLink>>,
    /// The files of these keys, to be read again.
    pub link_files: Option<Arc<LinkKeyFiles>>,
    /// How far the clocks of a link's issuer and this host may differ.
    pub leeway: Duration,
    /// TLS towards customers.
    pub tls: Arc<Acceptor>,
    /// Which client software may come in, and what is known of it.
    pub software: Arc<SoftwarePolicy>,
    /// Who may connect, by address.
    pub access: AllowLists,
    /// Listening sockets for customers, inherited or bound.
    pub clients: Vec<Listener>,
    /// Listening socket for `outgate status`, inherited or bound.
    pub admin: Option<tokio::net::UnixListener>,
    /// What accepts the carriers; it lives as long as the relay.
    pub acceptor: Option<Carriers>,
    /// Carriers as they are accepted and verified.
    pub carriers: mpsc::Receiver<CarrierInput>,
    /// Woken when a carrier has room again.
    pub writable: Writable,
    /// Where carriers are accepted, for those who chose port 0.
    pub tunnel_address: Option<SocketAddr>,
    /// How it takes its leave.
    pub leave: Leave,
    /// Limits towards customers.
    pub limits: Limits,
    /// Limits by where strangers come from.
    pub strangers: Strangers,
    /// The tunnel's times.
    pub tunnel: tunnel::Settings,
    /// What renews the tunnel's certificate.
    pub certificates: Option<Keeper>,
    /// The certificates whose files are watched.
    pub shown: Vec<Shown>,
    /// How often those files, and those of the allow-lists, are looked at.
    pub look_every: Duration,
    /// The configuration's file, where there is one to be read again.
    pub file: Option<ConfigFile>,
    /// Whether the process is confined, for status.
    pub confinement: Confinement,
    /// Where decisions are told.
    pub audit: Audit,
}

impl std::fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigFile").field("running", &self.running).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RelaySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelaySettings").field("domains", &self.domains).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Who may connect, by address, listener by listener.
#[derive(Clone, Debug)]
pub struct AllowLists {
    /// To the customers' listeners.
    pub client: Arc<AllowFiles>,
    /// To the connectors'.
    pub tunnel: Arc<AllowFiles>,
}

/// A served domain and its queues.
#[derive(Clone, Debug)]
pub struct ServedDomain {
    /// Its name.
    pub name: String,
    /// Where customers without a link go, if anywhere.
    pub public_queue: Option<String>,
    /// Its queues.
    pub queues: Vec<ServedQueue>,
}

/// A queue and the connector that may serve it.
#[derive(Clone, Debug)]
pub struct ServedQueue {
    /// Its name in links and JIDs.
    pub id: String,
    /// Its name on a customer's roster.
    pub name: String,
    /// The connector that it is granted to.
    pub identity: Identity,
}

/// A configuration that can be read again.
pub struct ConfigFile {
    /// What the relay runs on.
    pub running: RelayConfig,
    /// Reads the file. The sentence tells all of its faults.
    pub read: Box<dyn Fn() -> Result<RelayConfig, String> + Send + Sync>,
}

/// Judges a link: the token, the served domain, the time in seconds since the Unix epoch.
pub type VerifyLink = dyn Fn(&str, &str, u64) -> Result<LinkTerms, LinkRefusal> + Send + Sync;

/// How a relay that is told to stop takes its leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// How long those who are here are served on.
    pub within: Duration,
    /// `HOST:PORT` of relays that connectors may dial instead.
    pub alternates: Vec<String>,
}

/// What customers may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at one time.
    pub connections: usize,
    /// Connections at one time that are not logged in.
    pub before_login: usize,
    /// TLS handshakes at one time.
    pub handshakes: usize,
    /// From the first byte to resource binding; data does not extend it.
    pub login_within: Duration,
    /// The TLS handshake.
    pub tls_within: Duration,
    /// A trusted proxy's word of whose connection it passes on.
    pub proxy_header_within: Duration,
    /// The connector's answer to a CHECK.
    pub check_within: Duration,
    /// One write to a customer's transport.
    pub write_within: Duration,
    /// One stanza after login, from its first byte to its last; data does not extend it.
    pub stanza_within: Duration,
    /// Login attempts on one stream.
    pub attempts: u8,
    /// Silence limits after login.
    pub idle: Idle,
    /// What one session may send.
    pub session: Allowance,
}

/// What strangers may cost, by where they come from.
#[derive(Clone, Debug)]
pub struct Strangers {
    /// Connections at one time that are not logged in.
    pub before_login: Bounds,
    /// Connections at one time that are.
    pub logged_in: Bounds,
    /// How often they may come, log in and fail.
    pub rates: Rates,
    /// How long after the start they are not counted.
    pub returning: Duration,
    /// Who is not counted.
    pub exempt: AllowList,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            before_login: 2_048,
            handshakes: 1_024,
            login_within: Duration::from_secs(15),
            tls_within: Duration::from_secs(5),
            proxy_header_within: Duration::from_secs(3),
            check_within: Duration::from_secs(5),
            write_within: Duration::from_secs(30),
            // The largest in twice the time that it takes at 10 kB/s.
            stanza_within: Duration::from_secs(60),
            attempts: 3,
            idle: Idle::default(),
            session: Allowance::default(),
        }
    }
}
