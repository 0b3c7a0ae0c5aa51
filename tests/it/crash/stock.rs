//! slixmpp as the agent, over the connector's death: what its own program shows, and what its own log tells of `<a/>` and
//! `<resumed/>`, so that a fault of its own would be seen as such.

use std::time::Duration;

use super::client::{Client, Log};
use super::site::{QUEUE, Role, Site};
use super::{Dice, assert_numbered};
use crate::interop::driver::{bare, texts};
use crate::interop::{Driver, Event, Kind, Needs};

/// Kills of the connector in one run.
const KILLS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slixmpp_as_the_agent_loses_and_repeats_nothing_when_the_connector_is_killed() {
    if !Needs::clients(&[Kind::Slixmpp]).met("slixmpp as the agent of a killed connector") {
        return;
    }
    let mut talk = Talk::begin();
    for kill in 1..=KILLS {
        for _ in 0..talk.dice.between(2, 20) {
            talk.burst();
            std::thread::sleep(Duration::from_millis(talk.dice.between(1, 30)));
        }
        talk.assert_no_second_belt();
        talk.site.kill(Role::Connector);
        talk.burst();
        std::thread::sleep(Duration::from_millis(talk.dice.between(1, 60)));
        talk.site.run(Role::Connector);
        talk.burst();
        talk.agent.expect("its stream again", |events| (resumptions(events) == kill).then_some(()));
    }
    talk.settle().await;
    talk.assert_no_second_belt();
    let Talk { site, customer, mut agent, proxy, said_by_customer, said_by_agent, .. } = talk;
    agent.send(&proxy, "!done");
    customer.until("the end", |log| log.is_over.then_some(())).await;
    let events = agent.quit_without_errors();
    assert_the_stream_lived_on(&events);
    assert_numbered(&texts(&events, "customer "), "customer", said_by_customer);
    assert_numbered(&customer.log().texts("agent "), "agent", said_by_agent);
    assert_eq!(customer.log().faults, [""; 0], "the customer's faults");
    let record = site.record();
    for (outward, prefix, count) in [(true, "agent", said_by_agent), (false, "customer", said_by_customer)] {
        let of_it = record.iter().filter(|(out, body)| *out == outward && body.starts_with(&format!("{prefix} ")));
        assert_numbered(&of_it.map(|(_, body)| body.clone()).collect::<Vec<_>>(), prefix, count);
    }
}

/// A customer, and slixmpp as the agent.
struct Talk {
    site: Site,
    customer: Client,
    agent: Driver,
    proxy: String,
    dice: Dice,
    said_by_customer: usize,
    said_by_agent: usize,
}

impl Talk {
    fn begin() -> Self {
        let dice = Dice::new();
        let site = Site::start();
        let login = site.agent_login();
        let mut agent = Driver::start(Kind::Slixmpp, "the agent", &login.ca_file);
        agent.connect(&login);
        let customer = Client::start("the customer", site.customer());
        customer.say(QUEUE, "hello".to_owned());
        let (proxy, _) = agent.expect_message("the customer", |_, body| body == "hello");
        Self { site, customer, agent, proxy, dice, said_by_customer: 0, said_by_agent: 0 }
    }

    fn burst(&mut self) {
        for _ in 0..self.dice.between(1, 8) {
            self.said_by_customer += 1;
            self.customer.say(QUEUE, format!("customer {}", self.said_by_customer));
        }
        for _ in 0..self.dice.between(1, 8) {
            self.said_by_agent += 1;
            self.agent.send(&self.proxy, &format!("agent {}", self.said_by_agent));
        }
    }

    /// The counts alone keep everything once: nothing was recognised by its id and text as sent before.
    fn assert_no_second_belt(&self) {
        let counters = &self.site.status(Role::Connector)["counters"];
        for count in ["agent_messages_refused", "possibly_repeated", "duplicates_dropped"] {
            assert_eq!(counters[count], 0, "{count}: {counters}");
        }
    }

    async fn settle(&self) {
        let last = format!("agent {}", self.said_by_agent);
        let shown = |log: &Log| log.shown.iter().any(|said| said.body == last).then_some(());
        self.customer.until("the agent's last word", shown).await;
        self.agent.expect_texts("customer ", self.said_by_customer);
    }
}

fn resumptions(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Resumed { .. })).count()
}

/// One stream for all the time, and a count that only grew: else slixmpp drops what it has not seen acknowledged.
fn assert_the_stream_lived_on(events: &[Event]) {
    assert_eq!(resumptions(events), KILLS, "resumptions");
    let bound = events.iter().filter(|event| matches!(event, Event::Connected { jid } if bare(jid).starts_with("alice@")));
    assert_eq!(bound.count(), 1, "streams");
    let told: Vec<i64> =
        events.iter().filter_map(|event| if let Event::A { h } | Event::Resumed { h } = event { Some(*h) } else { None }).collect();
    assert!(told.is_sorted(), "h went back: {told:?}");
}
