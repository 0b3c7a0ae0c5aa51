//! A relay and a connector in this process, joined over a [`Wire`], and a conversation that is numbered and compared.
//!
//! ```ignore
//! let site = Site::start(Plan::default()).await;
//! let mut talk = site.talk().await;
//! talk.burst(20);
//! site.wire.cut();
//! talk.settle().await;                              // all shown once and in order, all acknowledged
//! ```
//! The tunnel's times are a tenth of the real ones unless the plan says otherwise.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use outgate::config::{AgentsConfig, ConnectorConfig, RelayConfig, Role};
use outgate::connector::dial_relay::Resolver;
use outgate::connector::{Connector, ConnectorSettings};
use outgate::net::certificates::{Issued, TunnelCa, self_signed};
use outgate::net::inherited::Inherited;
use outgate::proto::xmpp::sasl::ScramKeys;
use outgate::relay::Relay;
use outgate::relay::setup::settings_of;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use super::Wire;
use crate::crash::client::{Account, Client, Log, Management};

pub(crate) const CUSTOMERS: &str = "chat.example.com";
pub(crate) const AGENTS: &str = "agents.example.com";
pub(crate) const QUEUE: &str = "hello@chat.example.com";
pub(crate) const PASSWORD: &str = "a pass phrase for alice";

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a site is like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Lines of the connector's `[[relay]]` section beside its address, perhaps with a section `[relay.proxy]` at their end.
    pub(crate) relay_lines: String,
    /// Where the connector dials, `HOST:PORT`; `None` for the wire, `PORT` stands for its port.
    pub(crate) address: Option<String>,
    /// Who knows the relay's addresses.
    pub(crate) resolver: Resolver,
    /// Lines of the relay's `[listen]`.
    pub(crate) listen_lines: String,
    pub(crate) ping_after: Duration,
    pub(crate) dead_after: Duration,
    /// How often QUIC is tried while TCP carries.
    pub(crate) climb_every: Duration,
    /// How often a fresh carrier is sought.
    pub(crate) switch_every: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            relay_lines: String::new(),
            address: None,
            resolver: Resolver::System,
            listen_lines: String::new(),
            ping_after: Duration::from_millis(500),
            dead_after: Duration::from_millis(1500),
            climb_every: Duration::from_secs(3600),
            switch_every: Duration::ZERO,
        }
    }
}

impl Plan {
    /// A plan with these lines in `[[relay]]`.
    pub(crate) fn with(relay_lines: &str) -> Self {
        Self { relay_lines: relay_lines.to_owned(), ..Self::default() }
    }
}

/// Both roles and the wire between them.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) wire: Wire,
    pub(crate) relay: Relay,
    pub(crate) connector: Connector,
    /// Where the relay itself accepts carriers.
    pub(crate) tunnel: SocketAddr,
    home: TempDir,
    ca_pem: String,
}

impl Site {
    /// Starts both; the connector begins to dial.
    pub(crate) async fn start(plan: Plan) -> Self {
        Self::start_on(plan, |_| {}).await
    }

    /// The same, but the wire is prepared before the connector begins to dial.
    pub(crate) async fn start_on(plan: Plan, prepare: impl FnOnce(&Wire)) -> Self {
        let home = tempfile::Builder::new().prefix("site").tempdir().unwrap();
        let ca_pem = certificates(home.path());
        std::fs::write(home.path().join("agents.toml"), accounts()).unwrap();
        let config = RelayConfig::parse(&home.path().join("relay.toml"), &relay_toml(&plan)).unwrap();
        let mut settings = settings_of(&config, &mut Inherited::none()).unwrap();
        crate::setup::lift_limits(&mut settings);
        (settings.tunnel.ping_after, settings.tunnel.dead_after) = (plan.ping_after, plan.dead_after);
        let relay = Relay::start(settings).unwrap();
        let tunnel = relay.tunnel_address().unwrap();
        let wire = Wire::to(tunnel);
        prepare(&wire);
        let connector = Connector::start(connector_settings(home.path(), &plan, wire.addr(), "127.0.0.1:0")).await.unwrap();
        Self { wire, relay, connector, tunnel, home, ca_pem }
    }

    /// The folder of the files of both.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The only tunnel as the connector tells it.
    pub(crate) async fn tunnel(&self) -> Value {
        self.connector.status().await.unwrap()["tunnels"][0].clone()
    }

    /// Waits until the connector tells of the tunnel what is wanted; gives the time that it took and what it told.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> (Duration, Value) {
        let began = Instant::now();
        loop {
            let tunnel = self.tunnel().await;
            if wanted(&tunnel) {
                return (began.elapsed(), tunnel);
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}: {tunnel}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until this transport carries the tunnel.
    pub(crate) async fn carried_by(&self, transport: &str) -> (Duration, Value) {
        self.until(transport, |tunnel| tunnel["attached"] == true && tunnel["transport"] == transport).await
    }

    /// As an operator asks: every carrier is cut and dialled anew.
    pub(crate) async fn reattach(&self) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::UnixStream::connect(self.home.path().join("connector.sock")).await.unwrap();
        socket.write_all(b"{\"do\":\"reattach\"}\n").await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("done"), "{answer}");
    }

    /// A customer and an agent begin to talk.
    pub(crate) async fn talk(&self) -> Talk {
        let agent = Client::start("the agent", self.account(self.connector.agents_addr(), AGENTS, Some(("alice", PASSWORD))));
        agent.until("its stream", |log| (log.bound == 1).then_some(())).await;
        let customer = Client::start("the customer", self.account(self.relay.client_addresses()[0], CUSTOMERS, None));
        customer.say(QUEUE, "hello".to_owned());
        let first = |log: &Log| log.shown.iter().find(|said| said.body == "hello").map(|said| said.from.clone());
        let proxy = agent.until("the customer", first).await;
        Talk { customer, agent, proxy, said: 0 }
    }

    /// Ends both, the connector first.
    pub(crate) async fn stop(self) {
        self.connector.shutdown().await;
        self.relay.stop().await;
        drop(self.home);
    }

    fn account(&self, address: SocketAddr, domain: &'static str, login: Option<(&'static str, &'static str)>) -> Account {
        let management = if login.is_some() { Management::Resumption } else { Management::Acknowledgements };
        Account { address, domain, ca_pem: self.ca_pem.clone(), login, management }
    }
}

/// A customer and an agent in conversation. What both say is numbered.
#[derive(Debug)]
pub(crate) struct Talk {
    customer: Client,
    agent: Client,
    proxy: String,
    said: usize,
}

impl Talk {
    /// Both say so many more messages.
    pub(crate) fn burst(&mut self, count: usize) {
        self.bulk(count, 0);
    }

    /// Both say so many more messages, each so many bytes longer than its number.
    pub(crate) fn bulk(&mut self, count: usize, bytes: usize) {
        let padding = if bytes > 0 { format!(" {}", "x".repeat(bytes)) } else { String::new() };
        for _ in 0..count {
            self.said += 1;
            self.customer.say(QUEUE, format!("customer {}{padding}", self.said));
            self.agent.say(&self.proxy, format!("agent {}{padding}", self.said));
        }
    }

    /// Messages said, both ways together.
    pub(crate) fn said(&self) -> usize {
        2 * self.said
    }

    /// Waits until all was shown and acknowledged, and asserts that all was shown once and in order.
    pub(crate) async fn settle(&self) {
        for (client, prefix) in [(&self.customer, "agent"), (&self.agent, "customer")] {
            let last = format!("{prefix} {}", self.said);
            client.until(&last, |log| log.shown.iter().any(|said| numbered(&said.body) == last).then_some(())).await;
            client.until("its acknowledgements", |log| (log.unacknowledged == 0).then_some(())).await;
            let log = client.log();
            let shown: Vec<String> = log.texts(&format!("{prefix} ")).iter().map(|body| numbered(body)).collect();
            let said: Vec<String> = (1..=self.said).map(|number| format!("{prefix} {number}")).collect();
            assert_eq!(shown, said, "everything once and in order");
            assert_eq!(log.faults, [""; 0]);
        }
        crate::fault_table::settled(2 * self.said);
    }
}

/// The first two words: who, and which.
fn numbered(body: &str) -> String {
    body.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[expect(clippy::disallowed_methods, reason = "certificates are judged by the clock")]
pub(crate) fn certificates(home: &Path) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let write = |name: &str, issued: &Issued| {
        std::fs::write(home.join(format!("{name}.pem")), &issued.certificate).unwrap();
        std::fs::write(home.join(format!("{name}-key.pem")), &*issued.key).unwrap();
    };
    let (customers_ca, customers) = self_signed(CUSTOMERS, now).unwrap();
    let (agents_ca, agents) = self_signed(AGENTS, now).unwrap();
    write("customers", &customers);
    write("agents", &agents);
    let (ca, own) = TunnelCa::create("example", now).unwrap();
    std::fs::write(home.join("tunnel-ca.pem"), &own.certificate).unwrap();
    let hosts = ["relay.example.com".to_owned()];
    write("tunnel-relay", &ca.issue(Role::Relay, "dmz1", &hosts, now).unwrap().1);
    write("tunnel-connector", &ca.issue(Role::Connector, "lan1", &[], now).unwrap().1);
    format!("{customers_ca}{agents_ca}")
}

/// An address whose port is free for UDP and TCP.
pub(crate) fn free_address() -> String {
    loop {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        if std::net::TcpListener::bind(address).is_ok() {
            return address.to_string();
        }
    }
}

pub(crate) fn accounts() -> String {
    let keys = ScramKeys::derive(PASSWORD, b"not quite random", 4096).to_text();
    let account = |name: &str, display: &str| {
        format!("[[agent]]\nname = \"{name}\"\ndisplay = \"{display}\"\npassword = \"{keys}\"\nqueues = [\"hello\"]\ncapacity = 5000\n")
    };
    account("alice", "Alice") + &account("bob", "Bob")
}

pub(crate) fn relay_toml(plan: &Plan) -> String {
    format!(
        "[listen]\nclient = [\"127.0.0.1:0\"]\ntunnel = \"127.0.0.1:0\"\nadmin = \"relay.sock\"\n{}\n\
        [tls]\ncertificate = \"customers.pem\"\nkey = \"customers-key.pem\"\n\
        [tunnel_tls]\ncertificate = \"tunnel-relay.pem\"\nkey = \"tunnel-relay-key.pem\"\nca = \"tunnel-ca.pem\"\n\
        [[domain]]\nname = \"{CUSTOMERS}\"\npublic_queue = \"hello\"\n\
        [[domain.queue]]\nid = \"hello\"\n\
        [[connector]]\nidentity = \"outgate://example/connector/lan1\"\nqueues = [\"hello\"]\n",
        plan.listen_lines
    )
}

pub(crate) fn connector_toml(plan: &Plan, wire: SocketAddr, agents: &str) -> String {
    let address = plan.address.as_ref().map_or_else(|| wire.to_string(), |address| address.replace("PORT", &wire.port().to_string()));
    format!(
        "name = \"lan1\"\nadmin = \"connector.sock\"\n\
        [[relay]]\naddress = \"{address}\"\nserver_name = \"relay.example.com\"\n{}\n\
        [tunnel_tls]\ncertificate = \"tunnel-connector.pem\"\nkey = \"tunnel-connector-key.pem\"\nca = \"tunnel-ca.pem\"\n\
        [store]\npath = \"store.sqlite\"\n\
        [limits]\nopens_per_second = 100000\nopens_at_once = 100000\n\
        [agents]\nlisten = \"{agents}\"\ndomain = \"{AGENTS}\"\naccounts = \"agents.toml\"\n\
        [agents.tls]\ncertificate = \"agents.pem\"\nkey = \"agents-key.pem\"\n\
        [[domain]]\nname = \"{CUSTOMERS}\"\n\
        [[queue]]\nid = \"hello\"\ndomain = \"{CUSTOMERS}\"\npublic = true\nauto_accept = true\n",
        plan.relay_lines
    )
}

pub(crate) fn connector_settings(home: &Path, plan: &Plan, wire: SocketAddr, agents: &str) -> ConnectorSettings {
    let config = ConnectorConfig::parse(&home.join("connector.toml"), &connector_toml(plan, wire, agents)).unwrap();
    let accounts = AgentsConfig::parse(&home.join("agents.toml"), &accounts()).unwrap();
    let mut settings = ConnectorSettings::from_config(&config, &accounts, &mut Inherited::none()).unwrap();
    let tunnel = &mut settings.relays.tunnel;
    (tunnel.ping_after, tunnel.dead_after) = (plan.ping_after, plan.dead_after);
    for relay in &mut settings.relays.relays {
        (relay.climb_every, relay.switch_every) = (plan.climb_every, plan.switch_every);
        relay.resolver = plan.resolver.clone();
    }
    settings
}
