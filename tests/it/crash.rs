//! Processes killed with SIGKILL and carriers cut while bursts run both ways: nothing lost, nothing doubled.
//!
//! [`site`] runs a relay and a connector from files, [`client`] is an XMPP client with XEP-0198, [`stock`] has slixmpp as the
//! agent. Everything that is said is numbered; what each side was shown and what the store has recorded is compared with what was said.
//! `OUTGATE_CRASH_SEED` repeats a run's moments.

pub(crate) mod client;
pub(crate) mod site;
mod stock;

use std::collections::BTreeMap;
use std::time::Duration;

use self::client::{Absence, Client, Management};
use self::site::{QUEUE, Role, Site};

/// Kills of the connector in one run.
const KILLS: usize = 20;

/// Cuts of the carrier in one run.
const CUTS: usize = 30;

/// Unacknowledged stanzas at which a side stops to talk: below what the desk keeps for a customer.
const MANY: usize = 150;

/// xorshift64*: the same seed gives the same moments.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Self {
        let seed: u64 = match std::env::var("OUTGATE_CRASH_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into(),
        };
        eprintln!("OUTGATE_CRASH_SEED={seed}");
        Self(seed | 1 << 40)
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        low + (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % (high - low)
    }
}

/// A customer and an agent in conversation.
struct Talk {
    site: Site,
    customer: Client,
    agent: Client,
    proxy: String,
    dice: Dice,
    said_by_customer: usize,
    said_by_agent: usize,
}

impl Talk {
    async fn begin(management: Management) -> Self {
        let dice = Dice::new();
        let site = Site::start();
        let agent = Client::start("the agent", site.agent(management));
        agent.until("its stream", |log| (log.bound == 1).then_some(())).await;
        let customer = Client::start("the customer", site.customer());
        customer.say(QUEUE, "hello".to_owned());
        let proxy =
            agent.until("the customer", |log| log.shown.iter().find(|said| said.body == "hello").map(|said| said.from.clone())).await;
        Self { site, customer, agent, proxy, dice, said_by_customer: 0, said_by_agent: 0 }
    }

    fn customer_says(&mut self, count: usize) {
        for _ in 0..count {
            self.said_by_customer += 1;
            self.customer.say(QUEUE, format!("customer {}", self.said_by_customer));
        }
    }

    fn agent_says(&mut self, count: usize) {
        for _ in 0..count {
            self.said_by_agent += 1;
            self.agent.say(&self.proxy, format!("agent {}", self.said_by_agent));
        }
    }

    /// Bursts both ways, for as long as told.
    async fn talk_for(&mut self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        loop {
            self.burst();
            let pause = Duration::from_millis(self.dice.between(1, 40));
            if tokio::time::Instant::now() + pause >= until {
                return tokio::time::sleep_until(until).await;
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn burst(&mut self) {
        let (mine, yours) = (self.dice.between(1, 20) as usize, self.dice.between(1, 20) as usize);
        if self.customer.log().unacknowledged < MANY {
            self.customer_says(mine);
        }
        // What the customer was not shown yet is what the desk holds.
        let unseen = self.said_by_agent - self.customer.log().texts("agent ").len();
        if self.agent.log().unacknowledged < MANY && unseen < MANY {
            self.agent_says(yours);
        }
    }

    /// Waits until all was shown and acknowledged.
    async fn settle(&self) {
        let (to_customer, to_agent) = (self.said_by_agent, self.said_by_customer);
        let last = |prefix: &'static str, count: usize| {
            move |log: &client::Log| {
                let wanted = format!("{prefix} {count}");
                (count == 0 || log.shown.iter().any(|said| said.body == wanted)).then_some(())
            }
        };
        self.customer.until("the agent's last word", last("agent", to_customer)).await;
        self.agent.until("the customer's last word", last("customer", to_agent)).await;
        let told = |log: &client::Log| (log.unacknowledged == 0).then_some(());
        self.customer.until("its acknowledgements", told).await;
        self.agent.until("its acknowledgements", told).await;
    }

    /// Waits until the connector has recorded so much that the agent has not got.
    fn await_undelivered(&self, wanted: u64) {
        self.site
            .await_status(Role::Connector, |status| status["sessions"][0]["undelivered"].as_u64().is_some_and(|count| count >= wanted));
    }

    fn assert_shown_once_and_in_order(&self) {
        assert_numbered(&self.customer.log().texts("agent "), "agent", self.said_by_agent);
        assert_numbered(&self.agent.log().texts("customer "), "customer", self.said_by_customer);
        assert_eq!(self.customer.log().faults, [""; 0], "the customer's faults");
        assert_eq!(self.agent.log().faults, [""; 0], "the agent's faults");
    }

    fn assert_nothing_repeated(&self) {
        let counters = &self.site.status(Role::Connector)["counters"];
        assert_eq!(counters["possibly_repeated"], 0, "{counters}");
        assert_eq!(counters["agent_messages_refused"], 0, "{counters}");
    }

    /// The agent ends it: everything said is recorded once, and nobody keeps anything.
    async fn end(&self) {
        self.agent.say(&self.proxy, "!done".to_owned());
        self.customer.until("the end", |log| log.is_over.then_some(())).await;
        self.assert_nothing_is_left();
        let record = self.site.record();
        let texts = |outward: bool, prefix: &str| -> Vec<String> {
            let of_it = record.iter().filter(|(out, body)| *out == outward && body.starts_with(prefix));
            of_it.map(|(_, body)| body.clone()).collect()
        };
        assert_numbered(&texts(true, "agent "), "agent", self.said_by_agent);
        assert_numbered(&texts(false, "customer "), "customer", self.said_by_customer);
    }

    fn assert_nothing_is_left(&self) {
        self.site.await_status(Role::Relay, |status| {
            let tunnel = &status["tunnels"][0];
            tunnel["channels"] == 0 && tunnel["held_bytes"] == 0
        });
        self.site.await_status(Role::Connector, |status| {
            let tunnel = &status["tunnels"][0];
            tunnel["channels"] == 0 && tunnel["held_bytes"] == 0 && status["sessions"].as_array().is_some_and(Vec::is_empty)
        });
    }
}

pub(crate) fn assert_numbered(shown: &[String], prefix: &str, count: usize) {
    let wrong = shown.iter().enumerate().find(|(index, body)| **body != format!("{prefix} {}", index + 1));
    if let Some((index, body)) = wrong {
        panic!("not once and in order: {body:?} stands at {} of {} ({count} were said)", index + 1, shown.len());
    }
    assert_eq!(shown.len(), count, "complete: {prefix}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_killed_at_random_moments_loses_nothing_and_doubles_nothing() {
    let mut talk = Talk::begin(Management::Resumption).await;
    for kill in 1..=KILLS {
        let alive = Duration::from_millis(talk.dice.between(20, 400));
        talk.talk_for(alive).await;
        talk.assert_nothing_repeated();
        talk.burst();
        talk.site.kill(Role::Connector);
        let dead = Duration::from_millis(talk.dice.between(1, 60));
        talk.talk_for(dead).await;
        talk.site.run(Role::Connector);
        talk.site.await_attached();
        talk.agent.until("its stream again", |log| (log.resumed == kill).then_some(())).await;
    }
    talk.settle().await;
    talk.assert_nothing_repeated();
    talk.assert_shown_once_and_in_order();
    eprintln!("{} messages of the customer, {} of the agent, {KILLS} kills", talk.said_by_customer, talk.said_by_agent);
    let said = talk.said_by_customer + talk.said_by_agent;
    talk.end().await;
    crate::fault_table::tallied(23, said, None, &format!("two processes, {KILLS} kills"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_acknowledgements_sees_at_most_stamped_repetitions_when_the_connector_is_killed() {
    let mut talk = Talk::begin(Management::Nothing).await;
    for kill in 1..=5 {
        talk.customer_says(60);
        let alive = Duration::from_millis(talk.dice.between(20, 400));
        tokio::time::sleep(alive).await;
        talk.site.kill(Role::Connector);
        talk.customer_says(20);
        talk.site.run(Role::Connector);
        talk.site.await_attached();
        talk.agent.until("its stream again", |log| (log.bound > kill).then_some(())).await;
    }
    talk.settle().await;
    let log = talk.agent.log();
    assert_eq!(log.faults, [""; 0]);
    let mut seen = BTreeMap::new();
    for said in log.shown.iter().filter(|said| said.body.starts_with("customer ")) {
        match seen.get(&said.body) {
            None => assert!(seen.insert(said.body.clone(), said.id.clone()).is_none()),
            Some(id) => assert_eq!((&said.id, said.is_delayed), (id, true), "a repetition has its id and a stamp: {said:?}"),
        }
    }
    let missing: Vec<usize> = (1..=talk.said_by_customer).filter(|number| !seen.contains_key(&format!("customer {number}"))).collect();
    assert_eq!(missing, [0; 0], "lost");
    talk.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carrier_cut_again_and_again_loses_nothing_and_doubles_nothing() {
    let mut talk = Talk::begin(Management::Resumption).await;
    let before = talk.site.status(Role::Relay)["tunnels"][0]["epoch"].as_u64().unwrap();
    for _ in 0..CUTS {
        let whole = Duration::from_millis(talk.dice.between(5, 120));
        talk.talk_for(whole).await;
        talk.burst();
        talk.site.reattach();
        talk.burst();
        talk.site.await_attached();
    }
    talk.settle().await;
    let (relay, connector) = (talk.site.status(Role::Relay), talk.site.status(Role::Connector));
    let (relay, connector) = (&relay["tunnels"][0], &connector["tunnels"][0]);
    assert!(relay["epoch"].as_u64().unwrap() >= before + CUTS as u64, "{relay}");
    assert!(relay["replayed"].as_u64().unwrap() + connector["replayed"].as_u64().unwrap() > 0, "{relay} {connector}");
    talk.assert_nothing_repeated();
    talk.assert_shown_once_and_in_order();
    talk.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_arrive_whole() {
    let mut talk = Talk::begin(Management::Resumption).await;
    for count in [100, 300] {
        talk.customer_says(count);
        talk.agent_says(count);
        talk.settle().await;
        talk.agent_says(count);
        talk.settle().await;
        talk.customer_says(count);
        talk.settle().await;
    }
    talk.assert_nothing_repeated();
    talk.assert_shown_once_and_in_order();
    talk.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_the_agent_beyond_what_is_kept_for_a_customer_arrives_whole() {
    let mut talk = Talk::begin(Management::Resumption).await;
    talk.agent_says(2000);
    talk.settle().await;
    talk.assert_nothing_repeated();
    talk.assert_shown_once_and_in_order();
    talk.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_who_does_not_read_holds_up_the_agents_other_customer_for_seconds_at_most() {
    let mut talk = Talk::begin(Management::Resumption).await;
    let other = Client::start("the other customer", talk.site.customer());
    other.say(QUEUE, "the other".to_owned());
    let proxy =
        talk.agent.until("the other customer", |log| log.shown.iter().find(|said| said.body == "the other").map(|said| said.from.clone()));
    let proxy = proxy.await;
    talk.customer.leave(Absence::Frozen);
    talk.agent_says(700);
    talk.agent.say(&proxy, "agent to the other".to_owned());
    other.until("its answer", |log| log.shown.iter().any(|said| said.body == "agent to the other").then_some(())).await;
    talk.agent.until("the refusal", |log| log.faults.iter().any(|fault| fault.contains("is not keeping up")).then_some(())).await;
    talk.customer.come_back();
    talk.customer.until("the end of its stream", |log| log.is_over.then_some(())).await;
    let shown = talk.customer.log().texts("agent ");
    assert_numbered(&shown, "agent", shown.len());
    let refused = talk.agent.log().faults.len();
    assert!(refused > 0 && refused <= 700 - 400, "{refused} of 700 were refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_to_an_agent_who_is_away_holds_the_customer_back_and_arrives_whole() {
    let mut talk = Talk::begin(Management::Resumption).await;
    talk.agent.leave(Absence::Disconnected);
    talk.customer_says(1000);
    talk.await_undelivered(128);
    talk.site.kill(Role::Connector);
    talk.site.run(Role::Connector);
    talk.site.await_attached();
    talk.agent.come_back();
    talk.settle().await;
    assert_eq!(talk.agent.log().resumed, 1);
    talk.assert_nothing_repeated();
    talk.assert_shown_once_and_in_order();
    talk.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_with_hundreds_of_stanzas_unread_is_resumed() {
    let mut talk = Talk::begin(Management::Resumption).await;
    talk.agent.leave(Absence::Frozen);
    talk.customer_says(600);
    talk.await_undelivered(600);
    talk.site.kill(Role::Connector);
    talk.customer_says(50);
    talk.site.run(Role::Connector);
    talk.site.await_attached();
    talk.site.await_status(Role::Connector, |status| status["sessions"][0]["attached"] == true);
    talk.agent.come_back();
    talk.settle().await;
    talk.assert_nothing_repeated();
    talk.assert_shown_once_and_in_order();
    talk.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_without_acknowledgements_never_read_is_shown_after_a_restart_however_much_it_was() {
    let mut talk = Talk::begin(Management::Nothing).await;
    talk.agent.leave(Absence::Frozen);
    talk.customer_says(300);
    talk.await_undelivered(300);
    talk.site.kill(Role::Connector);
    talk.site.run(Role::Connector);
    talk.site.await_attached();
    talk.agent.come_back();
    talk.settle().await;
    talk.assert_shown_once_and_in_order();
    talk.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_killed_relay_the_agent_is_told_and_new_sessions_work() {
    let mut talk = Talk::begin(Management::Resumption).await;
    talk.customer_says(20);
    talk.agent_says(20);
    talk.settle().await;
    talk.site.kill(Role::Relay);
    talk.customer.until("the loss of its stream", |log| log.is_over.then_some(())).await;
    talk.site.run(Role::Relay);
    talk.site.await_status(Role::Connector, |status| {
        status["tunnels"][0]["attached"] == true
            && status["sessions"].as_array().is_some_and(|all| all.iter().all(|one| one["attached"] == false))
    });
    talk.customer = Client::start("the second customer", talk.site.customer());
    talk.customer.say(QUEUE, "hello again".to_owned());
    let second = talk
        .agent
        .until("the second customer", |log| log.shown.iter().find(|said| said.body == "hello again").map(|said| said.from.clone()));
    talk.proxy = second.await;
    (talk.said_by_agent, talk.said_by_customer) = (20, 20);
    talk.customer_says(20);
    talk.agent_says(20);
    talk.settle().await;
    assert_numbered(&talk.agent.log().texts("customer "), "customer", 40);
    assert_eq!(talk.customer.log().texts("agent ").len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_customer_says_and_leaves_at_once_is_recorded() {
    let talk = Talk::begin(Management::Resumption).await;
    for number in 1..=10 {
        let hasty = Client::start("a customer in a hurry", talk.site.customer());
        hasty.say(QUEUE, format!("hasty {number}"));
        hasty.close();
        hasty.until("its end", |log| log.is_over.then_some(())).await;
    }
    talk.end().await;
    let record = talk.site.record();
    for number in 1..=10 {
        let wanted = format!("hasty {number}");
        assert_eq!(record.iter().filter(|(_, body)| *body == wanted).count(), 1, "{wanted}");
    }
}
