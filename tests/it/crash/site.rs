//! A relay and a connector as processes on this machine, which can be killed and started again on what they left behind.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outgate::im::ImEvent;
use outgate::proto::tunnel::event;
use serde_json::Value;
use tempfile::TempDir;

use super::client::{Account, Management};
use crate::interop::prosody::certificates;
use crate::interop::{Login, Tls};
use crate::setup::LIFTED_LIMITS;

const CUSTOMERS: &str = "chat.example.com";
const AGENTS: &str = "agents.example.com";
pub(super) const QUEUE: &str = "hello@chat.example.com";
const PASSWORD: &str = "a pass phrase for alice";

/// One of the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Relay,
    Connector,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Connector => "connector",
        }
    }
}

/// Both processes and their folder.
#[derive(Debug)]
pub(super) struct Site {
    home: TempDir,
    relay: Option<Child>,
    connector: Option<Child>,
    customers: SocketAddr,
    agents: SocketAddr,
}

impl Site {
    pub(super) fn start() -> Self {
        let home = tempfile::Builder::new().prefix("crash").tempdir().unwrap();
        let [customers, agents] = free_places();
        let tunnel = free_udp(customers.ip());
        prepare(home.path());
        configure(home.path(), customers, agents, tunnel);
        let mut site = Self { home, relay: None, connector: None, customers, agents };
        site.run(Role::Relay);
        site.await_status(Role::Relay, |_| true);
        site.run(Role::Connector);
        site.await_attached();
        site
    }

    pub(super) fn customer(&self) -> Account {
        self.account(self.customers, CUSTOMERS, None, Management::Acknowledgements)
    }

    pub(super) fn agent(&self, management: Management) -> Account {
        self.account(self.agents, AGENTS, Some(("alice", PASSWORD)), management)
    }

    /// Alice for a client of somebody else's.
    pub(super) fn agent_login(&self) -> Login {
        Login {
            host: self.agents.ip().to_string(),
            port: self.agents.port(),
            tls: Tls::Direct,
            domain: AGENTS.to_owned(),
            jid: Some(format!("alice@{AGENTS}")),
            password: Some(PASSWORD.to_owned()),
            ca_file: self.home.path().join("ca.pem"),
        }
    }

    /// SIGKILL, then the same again.
    pub(super) fn kill(&mut self, role: Role) {
        let mut child = self.child(role).take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(super) fn run(&mut self, role: Role) {
        let name = role.name();
        let log = std::fs::File::options().create(true).append(true).open(self.home.path().join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outgate"));
        command.arg(name).arg("--config").arg(self.home.path().join(format!("{name}.toml")));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        *self.child(role) = Some(child);
    }

    /// Waits until the tunnel has a carrier, as both sides see it.
    pub(super) fn await_attached(&self) {
        self.await_status(Role::Relay, |status| status["tunnels"][0]["is_attached"] == true);
        self.await_status(Role::Connector, |status| status["tunnels"][0]["attached"] == true);
    }

    pub(super) fn await_status(&self, role: Role, ready: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        for _ in 0..600 {
            last = self.ask(role, "{\"get\":\"status\"}\n");
            if let Some(status) = last.as_ref().filter(|status| ready(status)) {
                return status.clone();
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("the {}'s status never became as wanted: {last:?}", role.name());
    }

    pub(super) fn status(&self, role: Role) -> Value {
        self.await_status(role, |_| true)
    }

    /// The connector drops its carrier at once and dials again.
    pub(super) fn reattach(&self) {
        let answer = self.ask(Role::Connector, "{\"do\":\"reattach\"}\n");
        assert_eq!(answer.unwrap()["done"], "reattach");
    }

    /// Every message of the record in its order; `true` for those to the customer.
    pub(super) fn record(&self) -> Vec<(bool, String)> {
        let connection = rusqlite::Connection::open(self.home.path().join("store.sqlite")).unwrap();
        let mut statement = connection.prepare("SELECT outward, body FROM event ORDER BY session, key").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
        let messages = rows.filter_map(|row| {
            let (outward, body) = row.unwrap();
            let ImEvent::Message(message) = event::decode(&body).unwrap() else { return None };
            Some((outward, message.body))
        });
        messages.collect()
    }

    fn ask(&self, role: Role, question: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.home.path().join(format!("{}.sock", role.name()))).ok()?;
        stream.write_all(question.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(&answer).ok()
    }

    fn child(&mut self, role: Role) -> &mut Option<Child> {
        match role {
            Role::Relay => &mut self.relay,
            Role::Connector => &mut self.connector,
        }
    }

    fn account(
        &self,
        address: SocketAddr,
        domain: &'static str,
        login: Option<(&'static str, &'static str)>,
        management: Management,
    ) -> Account {
        let ca_pem = std::fs::read_to_string(self.home.path().join("ca.pem")).unwrap();
        Account { address, domain, ca_pem, login, management }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for role in [Role::Relay, Role::Connector] {
            if let Some(mut child) = self.child(role).take() {
                let _ended = child.kill();
                let _status = child.wait();
            }
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.home.path().join(format!("{}.log", role.name()))).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(40).collect();
                eprintln!("The end of the {}'s log:", role.name());
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// Keys, certificates and the agent's account.
fn prepare(home: &Path) {
    let path = |name: &str| home.join(name).to_str().unwrap().to_owned();
    outgate(&["ca", "init", &path("ca"), "--org", "example"]);
    outgate(&["ca", "issue", &path("ca"), "--relay", "dmz1", "--dns", "relay.example.com", "--out", &path("tunnel")]);
    outgate(&["ca", "issue", &path("ca"), "--connector", "lan1", "--out", &path("lan")]);
    certificates(home, &[CUSTOMERS, AGENTS]);
    std::fs::write(home.join("agents.toml"), "").unwrap();
    std::fs::write(home.join("password"), format!("{PASSWORD}\n")).unwrap();
    let (accounts, password) = (path("agents.toml"), path("password"));
    outgate(&["agent", "--file", &accounts, "add", "alice", "--queue", "hello", "--password-file", &password]);
}

fn configure(home: &Path, customers: SocketAddr, agents: SocketAddr, tunnel: SocketAddr) {
    let folder = home.display();
    let relay = format!(
        "[listen]\nclient = [\"{customers}\"]\ntunnel = \"{tunnel}\"\nadmin = \"{folder}/relay.sock\"\n\
        [tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
        [tunnel_tls]\ncertificate = \"tunnel/relay.pem\"\nkey = \"tunnel/relay-key.pem\"\nca = \"tunnel/ca.pem\"\n\
        [[domain]]\nname = \"{CUSTOMERS}\"\npublic_queue = \"hello\"\n\
        [[domain.queue]]\nid = \"hello\"\n\
        [[connector]]\nidentity = \"outgate://example/connector/lan1\"\nqueues = [\"hello\"]\n{LIFTED_LIMITS}"
    );
    let connector = format!(
        "name = \"lan1\"\nadmin = \"{folder}/connector.sock\"\n\
        [[relay]]\naddress = \"{tunnel}\"\nserver_name = \"relay.example.com\"\n\
        [tunnel_tls]\ncertificate = \"lan/connector.pem\"\nkey = \"lan/connector-key.pem\"\nca = \"lan/ca.pem\"\n\
        [store]\npath = \"{folder}/store.sqlite\"\n\
        [agents]\nlisten = \"{agents}\"\ndomain = \"{AGENTS}\"\naccounts = \"agents.toml\"\n\
        [agents.tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
        [[domain]]\nname = \"{CUSTOMERS}\"\n\
        [[queue]]\nid = \"hello\"\ndomain = \"{CUSTOMERS}\"\npublic = true\nauto_accept = true\n"
    );
    std::fs::write(home.join("relay.toml"), relay).unwrap();
    std::fs::write(home.join("connector.toml"), connector).unwrap();
}

/// Two places that were free a moment ago, on a loopback address that no client's own socket gets by chance.
fn free_places() -> [SocketAddr; 2] {
    let [_, high, low, _] = std::process::id().to_le_bytes().map(|byte| byte.max(1));
    let address = IpAddr::V4(Ipv4Addr::new(127, 77, low, high));
    let held = [(); 2].map(|()| TcpListener::bind((address, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

fn free_udp(address: IpAddr) -> SocketAddr {
    UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap()
}

fn outgate(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_outgate")).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "outgate {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
