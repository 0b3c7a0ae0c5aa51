//! A relay, a connector and a wire as in [`Site`](crate::faults::site), but with many customers, ends that stop and start again on what
//! they left, and, where a case wants it, the connector in a process that can be stopped and killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outgate::config::RelayConfig;
use outgate::connector::Connector;
use outgate::net::inherited::Inherited;
use outgate::proto::tunnel::{Rate, Settings};
use outgate::relay::Relay;
use outgate::relay::client::Idle;
use outgate::relay::setup::settings_of;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::Tally;
use crate::crash::client::{Account, Client, Log, Management};
use crate::faults::Wire;
use crate::faults::site::{self, Plan};

/// Far above what anything here takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Where the connector of another process finds its files, and what it dials.
const HOME: &str = "OUTGATE_FAULT_HOME";
const WIRE: &str = "OUTGATE_FAULT_WIRE";
const LINES: &str = "OUTGATE_FAULT_LINES";
/// When it asks a silent carrier, and when it gives it up, in milliseconds.
const TIMES: [&str; 2] = ["OUTGATE_FAULT_PING_AFTER", "OUTGATE_FAULT_DEAD_AFTER"];

/// What a town is like.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) plan: Plan,
    pub(super) customers: usize,
    /// The connector is a process of its own.
    pub(super) apart: bool,
    /// A shell's words before that process.
    pub(super) limits: String,
    pub(super) detach_window: Duration,
    /// Inputs that may wait for the desk; `None` for as many as shipped.
    pub(super) desk_queue: Option<usize>,
    /// When a silent customer is asked and when given up.
    pub(super) idle: Idle,
}

impl Layout {
    /// Over one transport.
    pub(super) fn over(transport: &str) -> Self {
        Self { plan: Plan::with(&format!("transport = \"{transport}\"")), ..Self::default() }
    }

    /// Carriers are asked and given up as late as in the product.
    pub(super) fn with_shipped_times(mut self) -> Self {
        let Settings { ping_after, dead_after, .. } = Settings::default();
        (self.plan.ping_after, self.plan.dead_after) = (ping_after, dead_after);
        self
    }

    pub(super) fn customers(self, customers: usize) -> Self {
        Self { customers, ..self }
    }

    pub(super) fn apart(self) -> Self {
        Self { apart: true, ..self }
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            customers: 2,
            apart: false,
            limits: String::new(),
            detach_window: Duration::from_secs(120),
            desk_queue: None,
            idle: Idle::default(),
        }
    }
}

/// The connector.
#[derive(Debug)]
enum Lan {
    Here(Connector),
    Apart(Child),
}

/// A customer, and what he and the agent have said to each other.
#[derive(Debug)]
pub(super) struct Customer {
    pub(super) client: Client,
    pub(super) proxy: String,
    asked: usize,
    answered: usize,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Town {
    pub(super) wire: Wire,
    pub(super) layout: Layout,
    pub(super) agent: Client,
    pub(super) customers: Vec<Customer>,
    /// Customers that ever came.
    invited: usize,
    relay: Option<Relay>,
    lan: Option<Lan>,
    home: TempDir,
    ca_pem: String,
    addresses: [String; 2],
}

impl Town {
    /// Starts everything; each customer has said a word and was answered by a carrier that stands.
    pub(super) async fn start(layout: Layout) -> Self {
        let home = tempfile::Builder::new().prefix("town").tempdir().unwrap();
        let ca_pem = site::certificates(home.path());
        std::fs::write(home.path().join("agents.toml"), site::accounts()).unwrap();
        let mut addresses = [(); 2].map(|()| "127.0.0.1:0".to_owned());
        let relay = relay(home.path(), &layout, &addresses);
        addresses = [relay.client_addresses()[0].to_string(), relay.tunnel_address().unwrap().to_string()];
        let wire = Wire::to(relay.tunnel_address().unwrap());
        let (lan, agents) = connector(home.path(), &layout, &wire).await;
        let account = Account {
            address: agents,
            domain: site::AGENTS,
            ca_pem: ca_pem.clone(),
            login: Some(("alice", site::PASSWORD)),
            management: Management::Resumption,
        };
        let agent = Client::start("the agent", account);
        let (relay, lan, customers) = (Some(relay), Some(lan), Vec::new());
        let mut town = Self { wire, layout, agent, customers, invited: 0, relay, lan, home, ca_pem, addresses };
        town.agent.until("its stream", |log| (log.bound == 1).then_some(())).await;
        town.attached().await;
        for _ in 0..town.layout.customers.div_ceil(25) {
            town.invite(25.min(town.layout.customers - town.customers.len())).await;
        }
        town.settle().await;
        town
    }

    /// So many more customers come.
    pub(super) async fn invite(&mut self, count: usize) {
        let first = self.customers.len();
        for number in self.invited..self.invited + count {
            let client = Client::start("a customer", self.customer_account());
            client.say(site::QUEUE, format!("hello {number}"));
            self.customers.push(Customer { client, proxy: String::new(), asked: 0, answered: 0 });
        }
        for (number, customer) in (self.invited..).zip(self.customers.iter_mut().skip(first)) {
            let word = format!("hello {number}");
            let from = |log: &Log| log.shown.iter().find(|said| said.body == word).map(|said| said.from.clone());
            customer.proxy = self.agent.until(&word, from).await;
        }
        self.invited += count;
    }

    /// A relay beside the first, with the same certificates, that takes carriers at `tunnel`.
    pub(super) fn another_relay(&self, tunnel: &str) -> Relay {
        let plan = Plan { listen_lines: String::new(), ..self.layout.plan.clone() };
        let text = site::relay_toml(&plan).replace("\"relay.sock\"", "\"another.sock\"");
        relay_of(self.home.path(), &self.layout, &text, &["127.0.0.1:0".to_owned(), tunnel.to_owned()])
    }

    /// The ends themselves, for who asks more of them than to stop.
    pub(super) fn take_relay(&mut self) -> Relay {
        self.relay.take().unwrap()
    }

    pub(super) fn take_connector(&mut self) -> Connector {
        let Some(Lan::Here(connector)) = self.lan.take() else { panic!("it is a process of its own") };
        connector
    }

    /// Another agent's.
    pub(super) fn agent_account(&self, name: &'static str) -> Account {
        let address = std::fs::read_to_string(self.home.path().join("agents.address")).unwrap().parse().unwrap();
        let (domain, ca_pem, login) = (site::AGENTS, self.ca_pem.clone(), Some((name, site::PASSWORD)));
        Account { address, domain, ca_pem, login, management: Management::Resumption }
    }

    pub(super) fn customer_account(&self) -> Account {
        Account {
            address: self.addresses[0].parse().unwrap(),
            domain: site::CUSTOMERS,
            ca_pem: self.ca_pem.clone(),
            login: None,
            management: Management::Acknowledgements,
        }
    }

    /// Every customer and the agent say so many more messages to each other, each so many bytes long.
    pub(super) fn burst(&mut self, count: usize, bytes: usize) {
        self.ask(count, bytes);
        self.answer(count, bytes);
    }

    /// Every customer says so many more.
    pub(super) fn ask(&mut self, count: usize, bytes: usize) {
        for customer in &mut self.customers {
            for _ in 0..count {
                customer.asked += 1;
                customer.client.say(site::QUEUE, body("customer", customer.asked, bytes));
            }
        }
    }

    /// The agent says so many more to every customer.
    pub(super) fn answer(&mut self, count: usize, bytes: usize) {
        for _ in 0..count {
            for customer in &mut self.customers {
                customer.answered += 1;
                self.agent.say(&customer.proxy, body("agent", customer.answered, bytes));
            }
        }
    }

    /// The same for one of them.
    pub(super) fn burst_with(&mut self, number: usize, count: usize, bytes: usize) {
        let customer = &mut self.customers[number];
        for _ in 0..count {
            customer.asked += 1;
            customer.answered += 1;
            customer.client.say(site::QUEUE, body("customer", customer.asked, bytes));
            self.agent.say(&customer.proxy, body("agent", customer.answered, bytes));
        }
    }

    /// Waits until all was shown and acknowledged, or patience is at its end.
    pub(super) async fn settle(&self) -> Tally {
        let deadline = Instant::now() + PATIENCE;
        let asked: usize = self.customers.iter().map(|customer| customer.asked).sum();
        while Instant::now() < deadline {
            let at_agent =
                self.agent.with_log(|log| (log.shown.iter().filter(|said| said.body.starts_with("customer ")).count(), log.unacknowledged));
            let done = |customer: &Customer| {
                customer.client.with_log(|log| {
                    (log.shown.iter().filter(|said| said.body.starts_with("agent ")).count() >= customer.answered)
                        && log.unacknowledged == 0
                })
            };
            if at_agent.0 >= asked && at_agent.1 == 0 && self.customers.iter().all(done) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.tally()
    }

    /// Waits until the agent was shown all that customers said.
    pub(super) async fn all_asked(&self) {
        let asked: usize = self.customers.iter().map(|customer| customer.asked).sum();
        let all = |log: &Log| (log.shown.iter().filter(|said| said.body.starts_with("customer ")).count() >= asked).then_some(());
        self.agent.until("all that was asked", all).await;
    }

    /// Waits until customers were shown all that the agent said.
    pub(super) async fn all_answered(&self) {
        for customer in &self.customers {
            let all =
                |log: &Log| (log.shown.iter().filter(|said| said.body.starts_with("agent ")).count() >= customer.answered).then_some(());
            customer.client.until("all answers", all).await;
        }
    }

    /// What became of all that was said so far.
    pub(super) fn tally(&self) -> Tally {
        let mut asked: std::collections::HashMap<String, Vec<usize>> = std::collections::HashMap::new();
        let (mut tally, log) = (Tally::default(), self.agent.log());
        for said in &log.shown {
            if let Some(number) = numbered("customer ", &said.body) {
                asked.entry(said.from.clone()).or_default().push(number);
            }
        }
        for customer in &self.customers {
            let shown: Vec<usize> = customer.client.log().shown.iter().filter_map(|said| numbered("agent ", &said.body)).collect();
            tally = tally.and(Tally::of(&shown, customer.answered));
            tally = tally.and(Tally::of(asked.get(&customer.proxy).map_or(&[], Vec::as_slice), customer.asked));
            assert_faultless("a customer", &customer.client.log());
        }
        assert_faultless("the agent", &log);
        tally
    }

    /// The same for one customer, and how much the agent has said to him.
    pub(super) fn tally_of(&self, number: usize) -> (Tally, usize) {
        let customer = &self.customers[number];
        let shown: Vec<usize> =
            customer.client.with_log(|log| log.shown.iter().filter_map(|said| numbered("agent ", &said.body)).collect());
        let asked: Vec<usize> = self.agent.with_log(|log| {
            let his = log.shown.iter().filter(|said| said.from == customer.proxy);
            his.filter_map(|said| numbered("customer ", &said.body)).collect()
        });
        (Tally::of(&shown, customer.answered).and(Tally::of(&asked, customer.asked)), customer.answered)
    }

    /// The tunnel as the connector tells it.
    pub(super) async fn tunnel(&self) -> Value {
        self.ask_connector("{\"get\":\"status\"}\n").await.map_or(Value::Null, |status| status["tunnels"][0].clone())
    }

    pub(super) async fn connector_status(&self) -> Value {
        self.ask_connector("{\"get\":\"status\"}\n").await.unwrap_or(Value::Null)
    }

    /// The tunnel's epoch as the relay tells it.
    pub(super) async fn relay_epoch(&self) -> u64 {
        self.relay().status().await.tunnels.first().map_or(0, |tunnel| tunnel.epoch)
    }

    pub(super) async fn relay_is_attached(&self) -> bool {
        self.relay().status().await.tunnels.first().is_some_and(|tunnel| tunnel.is_attached)
    }

    pub(super) fn relay(&self) -> &Relay {
        self.relay.as_ref().unwrap()
    }

    /// Waits until the connector tells of the tunnel what is wanted.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let tunnel = self.tunnel().await;
            if wanted(&tunnel) {
                return tunnel;
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}: {tunnel}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a carrier is attached, as both sides see it.
    pub(super) async fn attached(&self) {
        self.until("a carrier", |tunnel| tunnel["attached"] == true).await;
        self.soon("the relay's carrier", async || self.relay_is_attached().await).await;
    }

    /// Waits for the carrier after the one of `epoch`.
    pub(super) async fn attached_after(&self, epoch: u64) {
        self.until("the next carrier", |tunnel| tunnel["attached"] == true && tunnel["epoch"].as_u64() > Some(epoch)).await;
    }

    pub(super) async fn soon(&self, what: &str, wanted: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !wanted().await {
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}: {}", self.tunnel().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the connector has given its carrier up.
    pub(super) async fn detached(&self) {
        self.until("the loss of the carrier", |tunnel| tunnel["attached"] == false).await;
    }

    /// The connector drops its carrier abruptly and dials at once.
    pub(super) async fn reattach(&self) {
        let answer = self.ask_connector("{\"do\":\"reattach\"}\n").await;
        assert_eq!(answer.unwrap()["done"], "reattach");
    }

    /// The connector stops as an admin stops it.
    pub(super) async fn stop_connector(&mut self) {
        match self.lan.take().unwrap() {
            Lan::Here(connector) => connector.shutdown().await,
            Lan::Apart(mut child) => {
                signal(&child, Signal::TERM);
                child.wait().unwrap();
            }
        }
    }

    /// SIGKILL.
    pub(super) fn kill_connector(&mut self) {
        let Some(Lan::Apart(mut child)) = self.lan.take() else { panic!("it is no process of its own") };
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(super) fn signal_connector(&self, what: Signal) {
        let Some(Lan::Apart(child)) = &self.lan else { panic!("it is no process of its own") };
        signal(child, what);
    }

    pub(super) fn connector_pid(&self) -> u32 {
        let Some(Lan::Apart(child)) = &self.lan else { panic!("it is no process of its own") };
        child.id()
    }

    /// Starts the connector again on its store; the agent comes back by himself.
    pub(super) async fn start_connector(&mut self) {
        let (lan, _) = connector(self.home.path(), &self.layout, &self.wire).await;
        self.lan = Some(lan);
    }

    /// The relay stops as an admin stops it.
    pub(super) async fn stop_relay(&mut self) {
        self.relay.take().unwrap().stop().await;
    }

    pub(super) fn store(&self) -> std::path::PathBuf {
        self.home.path().join("store.sqlite")
    }

    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(super) async fn stop(mut self) {
        self.stop_connector().await;
        self.stop_relay().await;
    }

    pub(super) async fn ask_connector(&self, question: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.home.path().join("connector.sock")).await.ok()?;
        stream.write_all(question.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        serde_json::from_str(&answer).ok()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        if let Some(Lan::Apart(child)) = &mut self.lan {
            let _ended = child.kill();
            let _status = child.wait();
        }
    }
}

/// An end that a side announces is none.
fn assert_faultless(who: &str, log: &Log) {
    let faults: Vec<&String> = log.faults.iter().filter(|fault| !fault.contains("<system-shutdown ")).collect();
    assert!(faults.is_empty(), "{who}'s faults: {faults:?}");
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

fn body(who: &str, number: usize, bytes: usize) -> String {
    if bytes == 0 { format!("{who} {number}") } else { format!("{who} {number} {}", "x".repeat(bytes)) }
}

fn numbered(prefix: &str, body: &str) -> Option<usize> {
    body.strip_prefix(prefix)?.split(' ').next()?.parse().ok()
}

fn relay(home: &Path, layout: &Layout, addresses: &[String; 2]) -> Relay {
    relay_of(home, layout, &site::relay_toml(&layout.plan), addresses)
}

fn relay_of(home: &Path, layout: &Layout, text: &str, [customers, tunnel]: &[String; 2]) -> Relay {
    let text = text
        .replace("client = [\"127.0.0.1:0\"]", &format!("client = [\"{customers}\"]"))
        .replace("tunnel = \"127.0.0.1:0\"", &format!("tunnel = \"{tunnel}\""));
    let config = RelayConfig::parse(&home.join("relay.toml"), &text).unwrap();
    let mut settings = settings_of(&config, &mut Inherited::none()).unwrap();
    crate::setup::lift_limits(&mut settings);
    (settings.tunnel.ping_after, settings.tunnel.dead_after) = (layout.plan.ping_after, layout.plan.dead_after);
    settings.tunnel.detach_window = layout.detach_window;
    // A case may attach a hundred times a second.
    settings.tunnel.attach_rate = Rate { per_second: 10_000, burst: 10_000 };
    settings.limits.idle = layout.idle;
    Relay::start(settings).unwrap()
}

/// Starts the connector; tells where it takes agents, always at the same address once it was chosen.
async fn connector(home: &Path, layout: &Layout, wire: &Wire) -> (Lan, std::net::SocketAddr) {
    let place = home.join("agents.address");
    if !place.exists() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        std::fs::write(&place, free.local_addr().unwrap().to_string()).unwrap();
    }
    let agents = std::fs::read_to_string(&place).unwrap().parse().unwrap();
    if !layout.apart {
        return (Lan::Here(start_here(home, layout, wire.addr()).await), agents);
    }
    let log = std::fs::File::options().create(true).append(true).open(home.join("connector.log")).unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{}\nexec \"$@\"", layout.limits)).arg("sh").arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "--test-threads", "1", "fault_table::town::a_connector_for_other_tests"]);
    command.env(HOME, home).env(WIRE, wire.addr().to_string()).env(LINES, &layout.plan.relay_lines);
    command.envs(TIMES.into_iter().zip([layout.plan.ping_after, layout.plan.dead_after].map(|time| time.as_millis().to_string())));
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    (Lan::Apart(child), agents)
}

async fn start_here(home: &Path, layout: &Layout, wire: std::net::SocketAddr) -> Connector {
    let agents = std::fs::read_to_string(home.join("agents.address")).unwrap();
    let mut settings = site::connector_settings(home, &layout.plan, wire, &agents);
    settings.relays.tunnel.detach_window = layout.detach_window;
    settings.desk_queue = layout.desk_queue.unwrap_or(settings.desk_queue);
    Connector::start(settings).await.unwrap()
}

/// Not a test but the process that [`Layout::apart`] starts; by itself it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_for_other_tests() {
    let Ok(home) = std::env::var(HOME) else { return };
    let wire = std::env::var(WIRE).unwrap().parse().unwrap();
    let [ping_after, dead_after] = TIMES.map(|name| Duration::from_millis(std::env::var(name).unwrap().parse().unwrap()));
    let plan = Plan { ping_after, dead_after, ..Plan::with(&std::env::var(LINES).unwrap()) };
    let layout = Layout { plan, ..Layout::default() };
    let connector = start_here(Path::new(&home), &layout, wire).await;
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    end.recv().await;
    connector.shutdown().await;
}
