//! A relay and a connector as processes on this machine, which can be killed and started again on what they left behind.

use std::collections::BTreeMap;
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
pub(crate) const QUEUE: &str = "hello@chat.example.com";
const PASSWORD: &str = "a pass phrase for alice";

/// One of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Relay,
    SecondRelay,
    Connector,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::SecondRelay => "relay2",
            Self::Connector => "connector",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Relay | Self::SecondRelay => "relay",
            Self::Connector => "connector",
        }
    }
}

/// The processes and their folder.
#[derive(Debug)]
pub(crate) struct Site {
    home: TempDir,
    running: BTreeMap<Role, Child>,
    relays: Vec<Role>,
    customers: [SocketAddr; 2],
    agents: SocketAddr,
}

impl Site {
    pub(crate) fn start() -> Self {
        Self::start_with(&[Role::Relay])
    }

    /// With these relays, both served by one connector.
    pub(crate) fn start_with(relays: &[Role]) -> Self {
        let home = tempfile::Builder::new().prefix("crash").tempdir().unwrap();
        let [first, second, agents] = free_places();
        let customers = [first, second];
        prepare(home.path());
        configure(home.path(), customers, agents, customers.map(|place| free_udp(place.ip())), relays);
        let mut site = Self { home, running: BTreeMap::new(), relays: relays.to_vec(), customers, agents };
        for &relay in relays {
            site.run(relay);
            site.await_status(relay, |_| true);
        }
        site.run(Role::Connector);
        site.await_attached();
        site
    }

    pub(crate) fn customer(&self) -> Account {
        self.account(self.customers_at(Role::Relay), CUSTOMERS, None, Management::Acknowledgements)
    }

    /// A customer with all of XEP-0198, at this address.
    pub(crate) fn customer_at(&self, address: SocketAddr) -> Account {
        self.account(address, CUSTOMERS, None, Management::Resumption)
    }

    /// Where a relay has its customers.
    pub(crate) fn customers_at(&self, relay: Role) -> SocketAddr {
        self.customers[usize::from(relay != Role::Relay)]
    }

    /// A customer for a client of somebody else's.
    pub(crate) fn customer_login(&self, address: SocketAddr) -> Login {
        Login {
            host: address.ip().to_string(),
            port: address.port(),
            tls: Tls::Direct,
            domain: CUSTOMERS.to_owned(),
            jid: None,
            password: None,
            ca_file: self.home.path().join("ca.pem"),
        }
    }

    pub(crate) fn agent(&self, management: Management) -> Account {
        self.account(self.agents, AGENTS, Some(("alice", PASSWORD)), management)
    }

    /// Alice for a client of somebody else's.
    pub(crate) fn agent_login(&self) -> Login {
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
    pub(crate) fn kill(&mut self, role: Role) {
        let mut child = self.running.remove(&role).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn run(&mut self, role: Role) {
        let name = role.name();
        let log = std::fs::File::options().create(true).append(true).open(self.home.path().join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outgate"));
        command.arg(role.command()).arg("--config").arg(self.home.path().join(format!("{name}.toml")));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.running.insert(role, child);
    }

    /// Waits until the tunnel has a carrier, as both sides see it.
    pub(crate) fn await_attached(&self) {
        for &relay in &self.relays {
            self.await_status(relay, |status| status["tunnels"][0]["is_attached"] == true);
        }
        let all = |status: &Value| (0..self.relays.len()).all(|index| status["tunnels"][index]["attached"] == true);
        self.await_status(Role::Connector, all);
    }

    pub(crate) fn await_status(&self, role: Role, ready: impl Fn(&Value) -> bool) -> Value {
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

    pub(crate) fn status(&self, role: Role) -> Value {
        self.await_status(role, |_| true)
    }

    /// The connector drops its carrier at once and dials again.
    pub(crate) fn reattach(&self) {
        let answer = self.ask(Role::Connector, "{\"do\":\"reattach\"}\n");
        assert_eq!(answer.unwrap()["done"], "reattach");
    }

    /// Every message of the record in its order; `true` for those to the customer.
    pub(crate) fn record(&self) -> Vec<(bool, String)> {
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
        for role in [Role::Relay, Role::SecondRelay, Role::Connector] {
            if let Some(mut child) = self.running.remove(&role) {
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
    outgate(&["ca", "issue", &path("ca"), "--relay", "dmz2", "--dns", "relay2.example.com", "--out", &path("tunnel2")]);
    outgate(&["ca", "issue", &path("ca"), "--connector", "lan1", "--out", &path("lan")]);
    certificates(home, &[CUSTOMERS, AGENTS]);
    std::fs::write(home.join("agents.toml"), "").unwrap();
    std::fs::write(home.join("password"), format!("{PASSWORD}\n")).unwrap();
    let (accounts, password) = (path("agents.toml"), path("password"));
    outgate(&["agent", "--file", &accounts, "add", "alice", "--queue", "hello", "--password-file", &password]);
}

fn configure(home: &Path, customers: [SocketAddr; 2], agents: SocketAddr, tunnels: [SocketAddr; 2], relays: &[Role]) {
    let folder = home.display();
    let mut dialled = String::new();
    for ((&role, customers), tunnel) in relays.iter().zip(customers).zip(tunnels) {
        let (name, keys) = if role == Role::Relay { ("relay", "tunnel") } else { ("relay2", "tunnel2") };
        let relay = format!(
            "[listen]\nclient = [\"{customers}\"]\ntunnel = \"{tunnel}\"\nadmin = \"{folder}/{name}.sock\"\n\
            [tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
            [tunnel_tls]\ncertificate = \"{keys}/relay.pem\"\nkey = \"{keys}/relay-key.pem\"\nca = \"{keys}/ca.pem\"\n\
            [[domain]]\nname = \"{CUSTOMERS}\"\npublic_queue = \"hello\"\n\
            [[domain.queue]]\nid = \"hello\"\n\
            [[connector]]\nidentity = \"outgate://example/connector/lan1\"\nqueues = [\"hello\"]\n{LIFTED_LIMITS}"
        );
        std::fs::write(home.join(format!("{name}.toml")), relay).unwrap();
        dialled += &format!("[[relay]]\naddress = \"{tunnel}\"\nserver_name = \"{name}.example.com\"\n");
    }
    let connector = format!(
        "name = \"lan1\"\nadmin = \"{folder}/connector.sock\"\n\
        {dialled}\
        [tunnel_tls]\ncertificate = \"lan/connector.pem\"\nkey = \"lan/connector-key.pem\"\nca = \"lan/ca.pem\"\n\
        [store]\npath = \"{folder}/store.sqlite\"\n\
        [agents]\nlisten = \"{agents}\"\ndomain = \"{AGENTS}\"\naccounts = \"agents.toml\"\n\
        [agents.tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
        [[domain]]\nname = \"{CUSTOMERS}\"\n\
        [[queue]]\nid = \"hello\"\ndomain = \"{CUSTOMERS}\"\npublic = true\nauto_accept = true\n"
    );
    std::fs::write(home.join("connector.toml"), connector).unwrap();
}

/// Places that were free a moment ago, on a loopback address that no client's own socket gets by chance.
fn free_places() -> [SocketAddr; 3] {
    let [_, high, low, _] = std::process::id().to_le_bytes().map(|byte| byte.max(1));
    let address = IpAddr::V4(Ipv4Addr::new(127, 77, low, high));
    let held = [(); 3].map(|()| TcpListener::bind((address, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

fn free_udp(address: IpAddr) -> SocketAddr {
    UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap()
}

fn outgate(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_outgate")).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "outgate {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
