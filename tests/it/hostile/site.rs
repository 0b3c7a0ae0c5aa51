//! A relay and a connector on loopback, on ports that the system chose.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use outgate::link::token::{Claims, Terms};
use outgate::net::link_keys::SigningKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;
use crate::relay::customer::Customer;
use crate::setup::{AGENTS, CUSTOMERS, await_status, lifted_limits, outgate, prepare, substitute};

/// The relay's clock for everything up to bind.
pub(super) const LOGIN_WITHIN: Duration = Duration::from_secs(2);

const ISSUER: &str = "https://example.com";

/// Queues beside the shipped ones: one that the connector does not have, one whose connector never comes.
const MORE_QUEUES: &str = "\n[[domain.queue]]\nid = \"ghost\"\n\n[[domain.queue]]\nid = \"elsewhere\"\n\n\
    [[connector]]\nidentity = \"outgate://example/connector/lan2\"\nqueues = [\"elsewhere\"]\n\n# Who may sign links: the public half";

/// What a site is like.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The relay's clock for everything up to bind.
    pub(super) login: Duration,
    /// Its clock for the TLS handshake.
    pub(super) handshake: Duration,
    /// Sections that relay.toml has beside the shipped ones.
    pub(super) sections: &'static str,
    /// A second relay stands beside the first, with a tunnel of its own to the same connector.
    pub(super) two_relays: bool,
    /// The relay's sockets are handed over to it, as a service manager does: for customers, for QUIC, for admins.
    pub(super) handed_over: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { login: LOGIN_WITHIN, handshake: Duration::from_secs(1), sections: "", two_relays: false, handed_over: false }
    }
}

/// Both processes, and the folder with all that they need.
#[derive(Debug)]
pub(super) struct Site {
    relay: Process,
    _second: Option<Process>,
    connector: Process,
    home: TempDir,
    pub(super) door: SocketAddr,
    /// The customers' port of the second relay, where there is one.
    pub(super) second_door: Option<SocketAddr>,
    pub(super) tunnel: SocketAddr,
    pub(super) agents: SocketAddr,
    roots: Arc<rustls::RootCertStore>,
    pub(super) key: SigningKey,
}

impl Site {
    pub(super) fn start() -> Self {
        Self::start_with(LOGIN_WITHIN, Duration::from_secs(1))
    }

    /// Starts with these clocks for everything up to bind and for the TLS handshake.
    pub(super) fn start_with(login: Duration, handshake: Duration) -> Self {
        Self::start_as(Plan { login, handshake, ..Plan::default() })
    }

    pub(super) fn start_as(plan: Plan) -> Self {
        let home = tempfile::Builder::new().prefix("hostile").tempdir().unwrap();
        let _link = prepare(home.path());
        let accounts = home.path().join("lan/agents.toml");
        let account = std::fs::read_to_string(&accounts).unwrap();
        assert!(account.contains("\ncapacity = 4\n"), "{account}");
        std::fs::write(accounts, account.replace("\ncapacity = 4\n", "\ncapacity = 1000\n")).unwrap();
        let first = start_relay(home.path(), "dmz", &plan);
        let second = plan.two_relays.then(|| {
            prepare_second(home.path());
            start_relay(home.path(), "dmz2", &plan)
        });
        let tunnels: Vec<SocketAddr> = [Some(&first), second.as_ref()].into_iter().flatten().map(|relay| relay.tunnel).collect();
        let (connector, agents) = start_connector(home.path(), &tunnels);
        for side in ["dmz", "dmz2"].iter().take(tunnels.len()) {
            await_status(&socket(home.path(), side), |status| status["tunnels"][0]["is_attached"] == true);
        }
        let key = SigningKey::from_pkcs8_pem(&std::fs::read_to_string(home.path().join("issuer-key.pem")).unwrap()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let ca = std::fs::read_to_string(home.path().join("ca.pem")).unwrap();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let (second_door, second) = second.map_or((None, None), |relay| (Some(relay.door), Some(relay.process)));
        let StartedRelay { process: relay, door, tunnel } = first;
        Self { relay, _second: second, connector, home, door, second_door, tunnel, agents, roots: Arc::new(roots), key }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The authority that both listeners' certificates come from.
    pub(super) fn ca_pem(&self) -> String {
        std::fs::read_to_string(self.path("ca.pem")).unwrap()
    }

    pub(super) fn relay_pid(&self) -> u32 {
        self.relay.child.id()
    }

    pub(super) fn connector_pid(&self) -> u32 {
        self.connector.child.id()
    }

    /// A TCP connection to the relay.
    pub(super) async fn customer(&self) -> Customer {
        self.customer_at(self.door).await
    }

    /// The same to any of them.
    pub(super) async fn customer_at(&self, door: SocketAddr) -> Customer {
        Customer::connect(door, CUSTOMERS, Arc::clone(&self.roots)).await
    }

    /// The same from an address of this host.
    pub(super) async fn customer_from(&self, source: IpAddr) -> Customer {
        Customer::connect_from(source, self.door, CUSTOMERS, Arc::clone(&self.roots)).await
    }

    /// A TCP connection to the agents' listener.
    pub(super) async fn agent_socket(&self) -> Customer {
        Customer::connect(self.agents, AGENTS, Arc::clone(&self.roots)).await
    }

    /// The claims of a link that is good for an hour.
    #[expect(clippy::disallowed_methods, reason = "links are judged by the clock of the processes under test")]
    pub(super) fn claims(&self) -> Claims {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        Claims {
            iss: ISSUER.to_owned(),
            aud: vec![CUSTOMERS.to_owned()],
            exp: now + 3600,
            nbf: Some(now),
            jti: uuid::Uuid::now_v7().to_string(),
            sub: None,
            outgate: Terms { queue: "support".to_owned(), ..Terms::default() },
        }
    }

    pub(super) fn good_link(&self) -> String {
        self.key.mint(&self.claims()).unwrap()
    }

    /// What `outgate status --json` tells of the relay.
    pub(super) fn status(&self) -> Value {
        status(&socket(self.home.path(), "dmz"))
    }

    /// What it tells of the connector.
    pub(super) fn connector_status(&self) -> Value {
        status(&self.path("connector.sock"))
    }

    /// How often each reason was counted.
    pub(super) fn reasons(&self) -> BTreeMap<String, u64> {
        serde_json::from_value(self.status()["reasons"].clone()).unwrap()
    }

    /// Waits until the status is as wanted.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if wanted(&status) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "waited for {what} in vain: {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until `reason` was counted so many times more than in `before`, and asserts that it was not more often.
    pub(super) async fn counted(&self, before: &BTreeMap<String, u64>, reason: &str, times: u64) {
        let wanted = before.get(reason).copied().unwrap_or(0) + times;
        self.until(&format!("{reason} to reach {wanted}"), |status| status["reasons"][reason].as_u64().unwrap_or(0) >= wanted).await;
        assert_eq!(self.reasons().get(reason).copied().unwrap_or(0), wanted, "{reason}");
    }
}

#[derive(Debug)]
struct StartedRelay {
    process: Process,
    door: SocketAddr,
    tunnel: SocketAddr,
}

/// The second relay's folder: as the first's, with a tunnel certificate of its own.
fn prepare_second(home: &Path) {
    let path = |name: &str| home.join(name).to_str().unwrap().to_owned();
    std::fs::create_dir_all(home.join("dmz2/tls")).unwrap();
    outgate(&["ca", "issue", &path("ca"), "--relay", "dmz2", "--dns", "relay2.example.com", "--out", &path("dmz2/tunnel")]);
    for file in ["issuer.jwks.json".to_owned(), format!("tls/{CUSTOMERS}.pem"), format!("tls/{CUSTOMERS}-key.pem")] {
        std::fs::copy(home.join("dmz").join(&file), home.join("dmz2").join(&file)).unwrap();
    }
}

/// Where the relay in the folder `side` is asked.
fn socket(home: &Path, side: &str) -> PathBuf {
    home.join(if side == "dmz" { "relay.sock" } else { "relay2.sock" })
}

fn status(socket: &Path) -> Value {
    serde_json::from_str(&outgate(&["status", "--json", "--socket", socket.to_str().unwrap()])).unwrap()
}

fn start_relay(home: &Path, side: &str, plan: &Plan) -> StartedRelay {
    let audit = if side == "dmz" { "relay-audit.jsonl" } else { "relay2-audit.jsonl" };
    let changes = [
        ("# client = [\"[::]:5222\"]", "client = [\"127.0.0.1:0\"]".to_owned()),
        ("# tunnel = \"[::]:7443\"", "tunnel = \"127.0.0.1:0\"".to_owned()),
        ("# admin = \"/run/outgate-relay/admin.sock\"", format!("admin = \"{}\"", socket(home, side).display())),
        ("# negotiation = \"15s\"", format!("negotiation = \"{}s\"", plan.login.as_secs())),
        ("# tls_handshake = \"5s\"", format!("tls_handshake = \"{}s\"", plan.handshake.as_secs())),
        ("queues = [\"hello\", \"support\"]", "queues = [\"hello\", \"support\", \"ghost\"]".to_owned()),
        ("\n# Who may sign links: the public half", MORE_QUEUES.to_owned()),
        ("[audit]\n", format!("[audit]\nfile = \"{}\"\n", home.join(audit).display())),
    ];
    let changes: Vec<_> = changes.into_iter().chain(lifted_limits()).collect();
    let file = home.join(side).join("relay.toml");
    substitute("relay.toml", &file, &changes);
    append(&file, plan.sections);
    if plan.handed_over {
        return start_handed_over(home, &file);
    }
    let (process, log) = Process::start(home, side, "relay");
    let started = line(&log, "relay started");
    StartedRelay { process, door: address(&started, "customers=["), tunnel: address(&started, "tunnels=Some(") }
}

fn start_handed_over(home: &Path, file: &Path) -> StartedRelay {
    let clients = TcpListener::bind("127.0.0.1:0").unwrap();
    let tunnels = UdpSocket::bind("127.0.0.1:0").unwrap();
    let admin = UnixListener::bind(home.join("relay.sock")).unwrap();
    let (door, tunnel) = (clients.local_addr().unwrap(), tunnels.local_addr().unwrap());
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"LISTEN_PID=$$ exec "$@" 3<&0 4<&1 5<&2 0</dev/null 1>"$LOG" 2>&1"#, "sh", env!("CARGO_BIN_EXE_outgate")])
        .args(["relay", "--config"])
        .arg(file)
        .env("LISTEN_FDS", "3")
        .env("LISTEN_FDNAMES", "client:tunnel-quic:admin")
        .env("LOG", home.join("relay.log"))
        .stdin(OwnedFd::from(clients))
        .stdout(OwnedFd::from(tunnels))
        .stderr(OwnedFd::from(admin));
    StartedRelay { process: Process { child: command.spawn().unwrap() }, door, tunnel }
}

/// Starts it with a tunnel to each of these; tells where it takes agents.
fn start_connector(home: &Path, tunnels: &[SocketAddr]) -> (Process, SocketAddr) {
    let path = |name: &str| format!("\"{}\"", home.join(name).display());
    let changes = [
        ("# admin = \"/run/outgate-connector/admin.sock\"", format!("admin = {}", path("connector.sock"))),
        ("address = \"relay.example.com:7443\"", format!("address = \"{}\"", tunnels[0])),
        ("# server_name = \"relay.example.com\"", "server_name = \"relay.example.com\"".to_owned()),
        ("# path = \"/var/lib/outgate/connector.sqlite\"", format!("path = {}", path("connector.sqlite"))),
        ("# listen = \"127.0.0.1:5222\"", "listen = \"127.0.0.1:0\"".to_owned()),
        ("[audit]\n", format!("[audit]\nfile = {}\n", path("connector-audit.jsonl"))),
        ("name = \"Support\"", "name = \"Support\"\nauto_accept = true".to_owned()),
    ];
    let file = home.join("lan/connector.toml");
    substitute("connector.toml", &file, &changes);
    for second in tunnels.iter().skip(1) {
        append(&file, &format!("[[relay]]\naddress = \"{second}\"\nserver_name = \"relay2.example.com\"\n"));
    }
    let (process, log) = Process::start(home, "lan", "connector");
    (process, address(&line(&log, "connector started"), "agents="))
}

fn append(file: &Path, sections: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, format!("{text}\n{sections}")).unwrap();
}

/// A role that runs. Dropping it kills it.
#[derive(Debug)]
struct Process {
    child: Child,
}

impl Process {
    /// Starts it; what it logs comes out of the queue.
    fn start(home: &Path, side: &str, role: &str) -> (Self, Receiver<String>) {
        let config = home.join(side).join(format!("{role}.toml"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_outgate"));
        command.arg(role).arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = sync_channel(64);
        // Reads on when nobody listens any more: a full pipe would hold up the process.
        std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| drop(sender.try_send(line))));
        (Self { child }, lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The first line that says `what`.
fn line(log: &Receiver<String>, what: &str) -> String {
    let mut said = Vec::new();
    while let Ok(line) = log.recv_timeout(PATIENCE) {
        if line.contains(what) {
            return line;
        }
        said.push(line);
    }
    panic!("it never said {what:?}: {said:#?}");
}

fn address(line: &str, before: &str) -> SocketAddr {
    let (_, rest) = line.split_once(before).unwrap_or_else(|| panic!("no {before} in {line}"));
    let end = rest.find(|letter: char| !(letter.is_ascii_digit() || ".:".contains(letter))).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|fault| panic!("{fault}: {rest}"))
}
