//! A customer's stream that is taken up again: at another relay when its own is killed, and here when only the connection broke.
//!
//! Two relays and a connector are processes; the customer's client knows one address, behind which [`switch`] leads to whichever
//! relay lives. Everything said is numbered, and what each side was shown is compared with what was said.

mod stock;
mod switch;

use std::time::Duration;

use self::switch::Switch;
use crate::crash::client::{Client, Log};
use crate::crash::site::{QUEUE, Role, Site};
use crate::crash::{Dice, assert_numbered};

/// Relays killed in one run.
const KILLS: usize = 12;

/// Connections broken in one run.
const BREAKS: usize = 20;

/// Unacknowledged stanzas at which a side stops to talk.
const MANY: usize = 100;

const RELAYS: [Role; 2] = [Role::Relay, Role::SecondRelay];

/// A customer behind a switch, and an agent.
struct Talk {
    site: Site,
    switch: Switch,
    customer: Client,
    agent: Client,
    proxy: String,
    dice: Dice,
    said_by_customer: usize,
    said_by_agent: usize,
}

impl Talk {
    async fn begin() -> Self {
        let site = Site::start_with(&RELAYS);
        let switch = Switch::start(site.customers_at(Role::Relay)).await;
        let agent = Client::start("the agent", site.agent(crate::crash::client::Management::Resumption));
        agent.until("its stream", |log| (log.bound == 1).then_some(())).await;
        let customer = Client::start("the customer", site.customer_at(switch.address()));
        customer.say(QUEUE, "hello".to_owned());
        let proxy =
            agent.until("the customer", |log| log.shown.iter().find(|said| said.body == "hello").map(|said| said.from.clone())).await;
        Self { site, switch, customer, agent, proxy, dice: Dice::new(), said_by_customer: 0, said_by_agent: 0 }
    }

    fn burst(&mut self) {
        for _ in 0..self.dice.between(1, 12) {
            if self.customer.with_log(|log| log.unacknowledged) < MANY {
                self.said_by_customer += 1;
                self.customer.say(QUEUE, format!("customer {}", self.said_by_customer));
            }
        }
        let unseen = self.said_by_agent - self.customer.log().texts("agent ").len();
        for _ in 0..self.dice.between(1, 12) {
            if self.agent.with_log(|log| log.unacknowledged) < MANY && unseen < MANY {
                self.said_by_agent += 1;
                self.agent.say(&self.proxy, format!("agent {}", self.said_by_agent));
            }
        }
    }

    async fn talk_for(&mut self, millis: u64) {
        let until = tokio::time::Instant::now() + Duration::from_millis(millis);
        while tokio::time::Instant::now() < until {
            self.burst();
            tokio::time::sleep(Duration::from_millis(self.dice.between(1, 20))).await;
        }
    }

    async fn resumed(&self, times: usize) {
        self.customer.until("its stream again", |log| (log.resumed >= times).then_some(())).await;
    }

    /// Waits until all was shown and acknowledged, and compares.
    async fn settle(&self) {
        let last = |prefix: &'static str, count: usize| {
            move |log: &Log| log.shown.iter().any(|said| said.body == format!("{prefix} {count}")).then_some(())
        };
        self.customer.until("the agent's last word", last("agent", self.said_by_agent)).await;
        self.agent.until("the customer's last word", last("customer", self.said_by_customer)).await;
        let told = |log: &Log| (log.unacknowledged == 0).then_some(());
        self.customer.until("its acknowledgements", told).await;
        self.agent.until("its acknowledgements", told).await;
        assert_numbered(&self.customer.log().texts("agent "), "agent", self.said_by_agent);
        assert_numbered(&self.agent.log().texts("customer "), "customer", self.said_by_customer);
        assert_eq!(self.customer.log().faults, [""; 0], "the customer's faults");
        assert_eq!(self.agent.log().faults, [""; 0], "the agent's faults");
        assert_eq!(self.customer.log().bound, 1);
        assert_no_second_belt(&self.site);
    }

    /// The agent ends it; the record has everything once.
    async fn end(self) -> usize {
        self.agent.say(&self.proxy, "!done".to_owned());
        self.customer.until("the end", |log| log.is_over.then_some(())).await;
        self.site.await_status(Role::Connector, |status| status["sessions"].as_array().is_some_and(Vec::is_empty));
        assert_recorded(&self.site, self.said_by_customer, self.said_by_agent);
        self.said_by_agent + self.said_by_customer
    }
}

fn assert_recorded(site: &Site, by_customer: usize, by_agent: usize) {
    let record = site.record();
    for (outward, prefix, count) in [(true, "agent", by_agent), (false, "customer", by_customer)] {
        let of_it = record.iter().filter(|(out, body)| *out == outward && body.starts_with(&format!("{prefix} ")));
        assert_numbered(&of_it.map(|(_, body)| body.clone()).collect::<Vec<_>>(), prefix, count);
    }
}

/// The counts alone keep everything once: nothing was recognised by its id and text as sent before.
fn assert_no_second_belt(site: &Site) {
    let counters = &site.status(Role::Connector)["counters"];
    for count in ["agent_messages_refused", "possibly_repeated", "duplicates_dropped"] {
        assert_eq!(counters[count], 0, "{count}: {counters}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_whose_relay_is_killed_goes_on_at_another_and_nothing_is_lost_or_doubled() {
    let mut talk = Talk::begin().await;
    for kill in 1..=KILLS {
        let alive = talk.dice.between(20, 400);
        talk.talk_for(alive).await;
        talk.burst();
        let (here, there) = (RELAYS[(kill - 1) % 2], RELAYS[kill % 2]);
        talk.site.kill(here);
        talk.switch.to(talk.site.customers_at(there));
        talk.burst();
        talk.resumed(kill).await;
        talk.site.run(here);
        talk.site.await_attached();
    }
    talk.settle().await;
    let said = talk.end().await;
    eprintln!("{said} messages both ways, {KILLS} relays killed");
    crate::fault_table::tallied(24, said, None, &format!("three processes, {KILLS} relays killed, resumed at the other"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_whose_relay_is_killed_goes_on_at_the_same_when_it_is_back() {
    let mut talk = Talk::begin().await;
    for kill in 1..=4 {
        talk.talk_for(100).await;
        talk.site.kill(Role::Relay);
        talk.burst();
        talk.site.run(Role::Relay);
        talk.resumed(kill).await;
    }
    talk.settle().await;
    talk.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_whose_connection_breaks_goes_on_at_the_same_relay() {
    let mut talk = Talk::begin().await;
    for cut in 1..=BREAKS {
        let whole = talk.dice.between(5, 120);
        talk.talk_for(whole).await;
        talk.burst();
        talk.switch.cut();
        talk.burst();
        talk.resumed(cut).await;
    }
    talk.settle().await;
    talk.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_who_comes_to_another_relay_leaves_none_behind_at_the_first() {
    let mut talk = Talk::begin().await;
    for turn in 1..=6 {
        talk.talk_for(60).await;
        talk.burst();
        // The first relay is not told: to it the connection stands, and nobody reads it.
        talk.switch.freeze();
        talk.switch.to(talk.site.customers_at(RELAYS[turn % 2]));
        talk.burst();
        talk.resumed(turn).await;
    }
    talk.settle().await;
    let site = &talk.site;
    site.await_status(RELAYS[1], |status| status["tunnels"][0]["channels"] == 0);
    talk.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_and_connector_killed_together_lose_nothing_of_a_customer_who_resumes() {
    let mut talk = Talk::begin().await;
    for kill in 1..=4 {
        talk.talk_for(150).await;
        talk.burst();
        let (here, there) = (RELAYS[(kill - 1) % 2], RELAYS[kill % 2]);
        talk.site.kill(here);
        talk.site.kill(Role::Connector);
        talk.switch.to(talk.site.customers_at(there));
        talk.burst();
        talk.site.run(Role::Connector);
        talk.site.run(here);
        talk.resumed(kill).await;
        talk.site.await_attached();
    }
    talk.settle().await;
    talk.end().await;
}
