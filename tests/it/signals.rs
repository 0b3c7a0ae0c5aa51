//! The program itself is told to stop: it takes its leave, and told once more it ends at once.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::crash::client::{Account, Client, Log, Management};
use crate::faults::site::{self, Plan};

const PATIENCE: Duration = Duration::from_secs(30);

/// Far below the drain of a minute that is configured, far above what an end at once takes.
const AT_ONCE: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_signal_drains_and_the_second_ends_at_once() {
    let place = Place::new("60s");
    let (mut relay, mut connector) = (place.start("relay"), place.start("connector"));
    let agent = Client::start("the agent", place.account(2, site::AGENTS, Some(("alice", site::PASSWORD))));
    let customer = Client::start("a customer", place.account(0, site::CUSTOMERS, None));
    customer.say(site::QUEUE, "hello".to_owned());
    shown(&agent, "hello").await;

    term(&connector);
    place.logged("connector", "draining").await;
    place.logged("relay", "is about to go").await;
    customer.say(site::QUEUE, "still here".to_owned());
    shown(&agent, "still here").await;
    assert!(connector.0.try_wait().unwrap().is_none(), "it serves whom it has");
    term(&connector);
    assert!(ended(&mut connector).await.success());

    term(&relay);
    place.logged("relay", "draining").await;
    assert!(relay.0.try_wait().unwrap().is_none(), "its customer is still there");
    term(&relay);
    assert!(ended(&mut relay).await.success());
    customer.until("the end", |log| log.is_over.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nobody_there_or_at_the_end_of_its_time_one_signal_is_enough() {
    let place = Place::new("60s");
    let (mut relay, mut connector) = (place.start("relay"), place.start("connector"));
    place.logged("relay", "tunnel attached").await;
    term(&connector);
    assert!(ended(&mut connector).await.success());
    term(&relay);
    assert!(ended(&mut relay).await.success());

    let place = Place::new("300ms");
    let (mut relay, mut connector) = (place.start("relay"), place.start("connector"));
    let agent = Client::start("the agent", place.account(2, site::AGENTS, Some(("alice", site::PASSWORD))));
    let customer = Client::start("a customer", place.account(0, site::CUSTOMERS, None));
    customer.say(site::QUEUE, "hello".to_owned());
    shown(&agent, "hello").await;
    term(&relay);
    assert!(ended(&mut relay).await.success());
    term(&connector);
    assert!(ended(&mut connector).await.success());
}

async fn shown(agent: &Client, word: &str) {
    agent.until(word, |log: &Log| log.shown.iter().any(|said| said.body == word).then_some(())).await;
}

fn term(role: &Role) {
    kill_process(Pid::from_raw(i32::try_from(role.0.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
}

async fn ended(role: &mut Role) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = role.0.try_wait().unwrap() {
            return status;
        }
        assert!(began.elapsed() < AT_ONCE, "it goes on");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A running program; it goes with the test.
struct Role(Child);

impl Drop for Role {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// The files of both roles, and where they listen: customers, tunnels, agents.
struct Place {
    home: TempDir,
    ca_pem: String,
    addresses: [String; 3],
}

impl Place {
    fn new(drain: &str) -> Self {
        let home = tempfile::Builder::new().prefix("signals").tempdir().unwrap();
        let ca_pem = site::certificates(home.path());
        let addresses = [(); 3].map(|()| site::free_address());
        let plan = Plan {
            listen_lines: format!("[tunnel]\ndrain = \"{drain}\""),
            relay_lines: format!("[tunnel]\ndrain = \"{drain}\""),
            ..Plan::default()
        };
        let relay = site::relay_toml(&plan)
            .replace("client = [\"127.0.0.1:0\"]", &format!("client = [\"{}\"]", addresses[0]))
            .replace("tunnel = \"127.0.0.1:0\"", &format!("tunnel = \"{}\"", addresses[1]));
        let connector = site::connector_toml(&plan, addresses[1].parse().unwrap(), &addresses[2]);
        for (name, text) in [("relay.toml", relay), ("connector.toml", connector), ("agents.toml", site::accounts())] {
            std::fs::write(home.path().join(name), text).unwrap();
        }
        Self { home, ca_pem, addresses }
    }

    fn start(&self, role: &str) -> Role {
        let log = std::fs::File::create(self.log(role)).unwrap();
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_outgate")));
        command.arg(role).arg("--config").arg(self.home.path().join(format!("{role}.toml"))).stdin(Stdio::null());
        Role(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }

    fn log(&self, role: &str) -> std::path::PathBuf {
        self.home.path().join(format!("{role}.log"))
    }

    async fn logged(&self, role: &str, words: &str) {
        let began = Instant::now();
        loop {
            let log = std::fs::read_to_string(self.log(role)).unwrap_or_default();
            if log.contains(words) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "the {role} never says {words:?}:\n{log}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn account(&self, listener: usize, domain: &'static str, login: Option<(&'static str, &'static str)>) -> Account {
        let management = if login.is_some() { Management::Resumption } else { Management::Acknowledgements };
        Account { address: self.addresses[listener].parse().unwrap(), domain, ca_pem: self.ca_pem.clone(), login, management }
    }
}
