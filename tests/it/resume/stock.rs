//! The same with clients as people have them: what each shows on its own, and what its own log tells of `<resumed/>`.

use std::time::Duration;

use super::switch::Switch;
use super::{RELAYS, assert_no_second_belt, assert_recorded};
use crate::crash::client::{Client, Management};
use crate::crash::site::{QUEUE, Role, Site};
use crate::crash::{Dice, assert_numbered};
use crate::interop::driver::texts;
use crate::interop::{Driver, Event, Kind, Needs};

/// Relays killed in one run.
const KILLS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slixmpp_goes_on_at_another_relay() {
    goes_on(Kind::Slixmpp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xmpp_js_goes_on_at_another_relay() {
    goes_on(Kind::XmppJs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profanity_goes_on_at_another_relay() {
    goes_on(Kind::Profanity).await;
}

async fn goes_on(kind: Kind) {
    if !Needs::clients(&[kind]).met(&format!("{kind:?} at another relay")) {
        return;
    }
    let mut dice = Dice::new();
    let mut site = Site::start_with(&RELAYS);
    let switch = Switch::start(site.customers_at(Role::Relay)).await;
    let agent = Client::start("the agent", site.agent(Management::Resumption));
    agent.until("its stream", |log| (log.bound == 1).then_some(())).await;
    let login = site.customer_login(switch.address());
    let mut customer = Driver::start(kind, "the customer", &login.ca_file);
    customer.connect(&login);
    customer.send(QUEUE, "hello");
    let proxy = agent.until("the customer", |log| log.shown.iter().find(|said| said.body == "hello").map(|said| said.from.clone())).await;
    let (mut by_customer, mut by_agent) = (0, 0);
    for kill in 1..=KILLS {
        for _ in 0..dice.between(3, 10) {
            for _ in 0..dice.between(1, 5) {
                by_customer += 1;
                customer.send(QUEUE, &format!("customer {by_customer}"));
            }
            for _ in 0..dice.between(1, 5) {
                by_agent += 1;
                agent.say(&proxy, format!("agent {by_agent}"));
            }
            tokio::time::sleep(Duration::from_millis(dice.between(1, 30))).await;
        }
        let (here, there) = (RELAYS[(kill - 1) % 2], RELAYS[kill % 2]);
        if kind == Kind::Profanity {
            // It types what it is told to say, and loses by itself what it has not typed when it has no connection.
            agent.until("what it typed", |log| (log.texts("customer ").len() >= by_customer).then_some(())).await;
            by_agent += 1;
            agent.say(&proxy, format!("agent {by_agent}"));
        }
        site.kill(here);
        switch.to(site.customers_at(there));
        by_agent += 1;
        agent.say(&proxy, format!("agent {by_agent}"));
        tokio::task::block_in_place(|| {
            customer.expect_within("its stream again", Duration::from_secs(60), |events| (resumptions(events) >= kill).then_some(()));
        });
        site.run(here);
        site.await_attached();
    }
    agent.until("the customer's last word", |log| (log.texts("customer ").len() >= by_customer).then_some(())).await;
    tokio::task::block_in_place(|| customer.expect_texts("agent ", by_agent));
    assert_numbered(&agent.log().texts("customer "), "customer", by_customer);
    assert_numbered(&texts(&customer.events(), "agent "), "agent", by_agent);
    assert_no_second_belt(&site);
    assert_recorded(&site, by_customer, by_agent);
    eprintln!("{kind:?}: {by_customer} and {by_agent} messages, {KILLS} relays killed, resumed each time");
}

fn resumptions(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Resumed { .. })).count()
}
