//! Faults of the two sides: full, slow, stopped, killed, asleep, with a store that waits, is full or is an old one.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::town::{Layout, Town};
use super::{Trial, alone, asked};
use crate::crash::client::{Absence, Client, Log};
use crate::faults::{Kind, Way, site};

/// Customers, where `OUTGATE_CUSTOMERS` asks for no other number.
const CUSTOMERS: u64 = 1000;

/// Messages that lie unread.
const UNREAD: usize = 100;

/// How long the store holds its writer up.
const STORE_SLOW: Duration = Duration::from_secs(30);

/// One customer of a thousand stops to read, and then one agent; the others notice nothing.
#[test]
fn fault_19_one_slow_consumer_among_many() {
    alone(async || {
        let customers = usize::try_from(asked("OUTGATE_CUSTOMERS", CUSTOMERS)).unwrap();
        let mut town = Town::start(Layout::over("quic").customers(customers)).await;
        let bob = Bob::start(&town).await;
        let usual = round_trips(&mut town).await;
        let trial = Trial::begin(19);
        town.customers[0].client.leave(Absence::Frozen);
        town.burst_with(0, 100, 4000);
        let beside_customer = round_trips(&mut town).await;
        town.customers[0].client.come_back();
        bob.agent.leave(Absence::Frozen);
        bob.is_told(UNREAD, 4000);
        let beside_agent = round_trips(&mut town).await;
        bob.agent.come_back();
        // Frozen, the customer hung up when he was back; what he was shown till then is in order. The agent resumes.
        let tally = tally_but_first(&town).and(bob.tally(UNREAD).await);
        let [usual, beside_customer, beside_agent] = [usual, beside_customer, beside_agent].map(|took| took.as_millis());
        let note = format!(
            "{customers} customers; slowest answer of the others {usual} ms, beside a slow customer {beside_customer}, agent {beside_agent}"
        );
        trial.end(tally, Duration::ZERO, &note).await;
        assert!(beside_customer < 2000 && beside_agent < 2000, "{note}");
        drop(bob);
        town.stop().await;
    });
}

/// Another agent, and a customer whom he alone serves.
struct Bob {
    agent: Client,
    customer: Client,
    proxy: String,
}

impl Bob {
    async fn start(town: &Town) -> Self {
        let agent = Client::start("bob", town.agent_account("bob"));
        agent.until("bob's stream", |log| (log.bound == 1).then_some(())).await;
        for number in 1..=10 {
            let customer = Client::start("bob's customer", town.customer_account());
            let word = format!("hello, number {number}");
            customer.say(site::QUEUE, word.clone());
            let shown_to =
                |client: &Client| client.with_log(|log| log.shown.iter().find(|said| said.body == word).map(|said| said.from.clone()));
            town.soon("an agent", async || shown_to(&agent).is_some() || shown_to(&town.agent).is_some()).await;
            if let Some(proxy) = shown_to(&agent) {
                return Self { agent, customer, proxy };
            }
            // Who has just ended a session is asked last: the next is more likely bob's.
            customer.close();
            customer.until("its end", |log| log.is_over.then_some(())).await;
        }
        panic!("ten customers came, and bob was given none");
    }

    fn is_told(&self, count: usize, bytes: usize) {
        for number in 1..=count {
            self.customer.say(site::QUEUE, format!("to bob {number} {}", "x".repeat(bytes)));
        }
    }

    /// Waits until he was shown all.
    async fn tally(&self, count: usize) -> super::Tally {
        let numbers = |log: &Log| {
            let his = log.shown.iter().filter(|said| said.from == self.proxy);
            his.filter_map(|said| said.body.strip_prefix("to bob ")?.split(' ').next()?.parse().ok()).collect::<Vec<usize>>()
        };
        self.agent.until("all that he was told", |log| (numbers(log).len() >= count).then_some(())).await;
        super::Tally::of(&self.agent.with_log(numbers), count)
    }
}

/// One word each way with everybody but the first, one after the other; the slowest.
async fn round_trips(town: &mut Town) -> Duration {
    let mut slowest = Duration::ZERO;
    for number in 1..town.customers.len() {
        let began = Instant::now();
        town.burst_with(number, 1, 0);
        let customer = &town.customers[number];
        let count = town.tally_of(number).1;
        customer.client.until("its answer", |log| (log.texts("agent ").len() >= count).then_some(())).await;
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

fn tally_but_first(town: &Town) -> super::Tally {
    (1..town.customers.len()).map(|number| town.tally_of(number).0).fold(super::Tally::default(), super::Tally::and)
}

/// More than any credit both ways, over a wire that stands still and then crawls.
#[test]
fn fault_20_both_directions_full_and_both_readers_slow() {
    alone(async || {
        let mut town = Town::start(Layout::over("tls").customers(4)).await;
        let trial = Trial::begin(20);
        town.wire.every(|rule| rule.frozen = true);
        town.burst(80, 3000);
        sleep(Duration::from_millis(700)).await;
        town.wire.every(|rule| (rule.frozen, rule.bytes_per_second) = (false, Some(800_000)));
        let tally = town.settle().await;
        let took = trial.elapsed();
        assert_eq!(town.tunnel().await["epoch"], 1, "no carrier was given up");
        trial.end(tally, took, "tls, 1 MB each way").await;
        town.stop().await;
    });
}

/// Without a carrier both sides say more than they may; then it comes. Without one for longer than the window, both are told.
#[test]
fn fault_22_the_detach_window_filled_and_outlived() {
    alone(async || {
        let layout = Layout { detach_window: Duration::from_secs(5), ..Layout::over("tls").customers(3) };
        let mut town = Town::start(layout).await;
        let trial = Trial::begin(22);
        town.wire.block(Kind::Tcp, true);
        town.detached().await;
        town.burst(120, 1000);
        sleep(Duration::from_millis(1500)).await;
        let began = Instant::now();
        town.wire.block(Kind::Tcp, false);
        town.reattach().await;
        let tally = town.settle().await;
        let took = began.elapsed();
        trial.end(tally, took, "tls; 360 KB each way waited; outlived, both sides are told").await;
        town.wire.block(Kind::Tcp, true);
        for customer in &town.customers {
            customer.client.until("the end", |log| log.is_over.then_some(())).await;
        }
        let told = |log: &Log| (log.shown.iter().filter(|said| is_notice(&said.body)).count() >= 3).then_some(());
        town.agent.until("three ends", told).await;
        town.wire.block(Kind::Tcp, false);
        town.stop().await;
    });
}

fn is_notice(body: &str) -> bool {
    !["customer ", "hello "].iter().any(|said| body.starts_with(said))
}

/// The disk holds the writer up for over three times as long as a silent carrier lives, under so much load that the connector's own queues
/// are full: nothing is acknowledged meanwhile, no carrier is lost, nothing else either, and it goes on by itself.
#[test]
fn fault_26_the_store_is_slow() {
    const CUSTOMERS: usize = 60;
    const EACH: usize = 40;
    alone(async || {
        let mut total = super::Tally::default();
        let mut slowest = Duration::ZERO;
        for transport in ["quic", "tls"] {
            // A short queue: one agent serves them all, and his client may owe 4096 acknowledgements at most.
            let layout = Layout { desk_queue: Some(16), ..Layout::over(transport).customers(CUSTOMERS) };
            let mut town = Town::start(layout).await;
            town.burst(1, 0);
            town.settle().await;
            let trial = Trial::begin(26);
            let hold = rusqlite::Connection::open(town.store()).unwrap();
            hold.execute_batch("BEGIN IMMEDIATE").unwrap();
            let shown = town.agent.with_log(|log| log.shown.len());
            // More than fits into all queues between carrier and store, and less than a channel may hold unhandled.
            town.ask(EACH, 0);
            town.answer(4, 0);
            sleep(Duration::from_secs(5)).await;
            assert!(town.relay_is_attached().await, "{transport}: the carrier stands");
            let waiting: usize = town.customers.iter().map(|customer| customer.client.with_log(|log| log.unacknowledged)).sum();
            assert_eq!(waiting, EACH * CUSTOMERS, "{transport}: what is not committed is not acknowledged");
            assert_eq!(town.agent.with_log(|log| log.shown.len()), shown, "{transport}: nor passed on");
            hold.execute_batch("ROLLBACK").unwrap();
            drop(hold);
            let began = Instant::now();
            total = total.and(town.settle().await);
            slowest = slowest.max(began.elapsed());
            assert_eq!(town.tunnel().await["epoch"], 1, "{transport}: the carrier lived on");
            trial.end(total, slowest, "quic and tls, 60 customers, 5 s without a commit, a carrier dead after 1.5 s").await;
            town.stop().await;
        }
    });
}

/// The same for half a minute, with little to do.
#[test]
fn fault_26_the_store_stands_still_for_half_a_minute() {
    alone(async || {
        let mut town = Town::start(Layout::over("quic")).await;
        town.burst(1, 0);
        town.settle().await;
        let trial = Trial::begin(26);
        let hold = rusqlite::Connection::open(town.store()).unwrap();
        hold.execute_batch("BEGIN IMMEDIATE").unwrap();
        let acknowledged = town.agent.with_log(|log| log.shown.len());
        town.burst(100, 200);
        sleep(STORE_SLOW).await;
        let waiting = town.customers[0].client.with_log(|log| log.unacknowledged);
        assert_eq!(waiting, 100, "what is not committed is not acknowledged");
        assert_eq!(town.agent.with_log(|log| log.shown.len()), acknowledged, "nor passed on");
        hold.execute_batch("ROLLBACK").unwrap();
        drop(hold);
        let began = Instant::now();
        let tally = town.settle().await;
        let took = began.elapsed();
        assert_eq!(town.tunnel().await["epoch"], 1, "the carrier lived on");
        trial.end(tally, took, "quic, 30 s without a commit").await;
        town.stop().await;
    });
}

/// The connector has committed and passed on, and dies before its ACK leaves.
#[test]
fn fault_27_committed_but_dead_before_the_acknowledgement() {
    alone(async || {
        let mut town = Town::start(Layout::over("tls").apart()).await;
        let trial = Trial::begin(27);
        let mut slowest = Duration::ZERO;
        for _ in 0..3 {
            town.wire.rule(Kind::Tcp, Way::ToRelay, |rule| rule.hole = true);
            town.ask(20, 0);
            town.all_asked().await;
            town.kill_connector();
            town.wire.cut();
            town.wire.every(|rule| rule.hole = false);
            let began = Instant::now();
            town.start_connector().await;
            town.burst(5, 0);
            town.settle().await;
            slowest = slowest.max(began.elapsed());
        }
        let tally = town.settle().await;
        trial.end(tally, slowest, "tls, kill -9 three times").await;
        town.stop().await;
    });
}

/// A store put back to an older copy: the sessions it cannot vouch for end, and both sides are told; new ones work.
#[test]
fn fault_36_the_store_is_an_older_one() {
    alone(async || {
        let mut town = Town::start(Layout::over("tls")).await;
        town.burst(10, 0);
        town.settle().await;
        town.stop_connector().await;
        let copy = town.home().join("older.sqlite");
        std::fs::copy(town.store(), &copy).unwrap();
        town.start_connector().await;
        town.attached().await;
        town.burst(10, 0);
        let tally = town.settle().await;
        let trial = Trial::begin(36);
        town.stop_connector().await;
        for beside in ["sqlite-wal", "sqlite-shm"] {
            drop(std::fs::remove_file(town.store().with_extension(beside)));
        }
        std::fs::copy(&copy, town.store()).unwrap();
        let began = Instant::now();
        town.start_connector().await;
        for customer in &town.customers {
            customer.client.until("the end", |log| log.is_over.then_some(())).await;
        }
        let took = began.elapsed();
        town.customers.clear();
        trial.end(tally, took, "store regressed: sessions end, both sides are told").await;
        town.stop().await;
    });
}

/// Files of the connector may not grow: it says so, acknowledges nothing, and goes on when there is room.
#[test]
fn fault_36_the_disk_is_full() {
    alone(async || {
        // The soft limit of the connector's process alone; SIGXFSZ is ignored, so that a write fails instead.
        let limits = "trap '' XFSZ".to_owned();
        let mut town = Town::start(Layout { limits, ..Layout::over("tls").apart() }).await;
        town.burst(1, 0);
        town.settle().await;
        let trial = Trial::begin(36);
        set_file_limit(town.connector_pid(), "65536");
        let (before, began) = (town.agent.with_log(|log| log.shown.len()), Instant::now());
        town.ask(100, 2000);
        let logged = || std::fs::read_to_string(town.home().join("connector.log")).unwrap_or_default();
        sleep(Duration::from_millis(1500)).await;
        let shown = town.agent.with_log(|log| log.shown.len()) - before;
        assert!(shown < 100 * town.customers.len(), "the limit did not bite: {shown} were committed; {}", logged());
        set_file_limit(town.connector_pid(), "unlimited");
        let tally = town.settle().await;
        let took = began.elapsed();
        trial.end(tally, took, "disk full for 1.5 s: what waits is committed when there is room").await;
        town.stop().await;
    });
}

fn set_file_limit(pid: u32, bytes: &str) {
    let status = std::process::Command::new("prlimit").args([&format!("--pid={pid}"), &format!("--fsize={bytes}:unlimited")]).status();
    assert!(status.unwrap().success(), "prlimit");
}

#[test]
fn fault_38_suspend_and_wake_over_quic() {
    alone(async || suspend_and_wake("quic").await);
}

#[test]
fn fault_38_suspend_and_wake_over_tcp() {
    alone(async || suspend_and_wake("tls").await);
}

/// The connector's host sleeps, with the shipped times: for less than a carrier lives, and for longer.
async fn suspend_and_wake(transport: &str) {
    let mut town = Town::start(Layout::over(transport).with_shipped_times().apart()).await;
    let trial = Trial::begin(38);
    let mut slowest = Duration::ZERO;
    for asleep in [6, 18].map(Duration::from_secs) {
        town.burst(10, 0);
        town.signal_connector(Signal::STOP);
        town.burst(10, 0);
        sleep(asleep).await;
        town.signal_connector(Signal::CONT);
        let began = Instant::now();
        town.settle().await;
        slowest = slowest.max(began.elapsed());
    }
    let tally = town.settle().await;
    trial.end(tally, slowest, &format!("{transport}; asleep for 6 s and 18 s, a carrier is dead after 15 s")).await;
    town.stop().await;
}
