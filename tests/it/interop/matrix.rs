//! Every customer's client with every agent's client: the offer, the banner, and twenty messages each way.

use super::demo::Demo;
use super::driver::{bare, texts};
use super::{Driver, Event, Kind, Login, Needs, Tls};

const MESSAGES: usize = 20;

/// How the customer comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Link,
    Anonymous,
}

/// One pair of the matrix, as data.
#[derive(Debug, Clone, Copy)]
struct Pair {
    customer: (Kind, Tls, Entry),
    agent: (Kind, Tls),
}

#[test]
fn a_slixmpp_customer_talks_with_a_slixmpp_agent() {
    talk(Pair { customer: (Kind::Slixmpp, Tls::Starttls, Entry::Link), agent: (Kind::Slixmpp, Tls::Direct) });
}

#[test]
fn a_slixmpp_customer_talks_with_a_profanity_agent() {
    talk(Pair { customer: (Kind::Slixmpp, Tls::Direct, Entry::Anonymous), agent: (Kind::Profanity, Tls::Starttls) });
}

#[test]
fn a_profanity_customer_talks_with_a_slixmpp_agent() {
    talk(Pair { customer: (Kind::Profanity, Tls::Starttls, Entry::Anonymous), agent: (Kind::Slixmpp, Tls::Starttls) });
}

#[test]
fn a_profanity_customer_talks_with_a_profanity_agent() {
    talk(Pair { customer: (Kind::Profanity, Tls::Direct, Entry::Link), agent: (Kind::Profanity, Tls::Direct) });
}

#[test]
fn a_finch_customer_talks_with_a_slixmpp_agent() {
    talk(Pair { customer: (Kind::Finch, Tls::Starttls, Entry::Link), agent: (Kind::Slixmpp, Tls::Direct) });
}

#[test]
fn a_finch_customer_talks_with_a_profanity_agent() {
    talk(Pair { customer: (Kind::Finch, Tls::Direct, Entry::Link), agent: (Kind::Profanity, Tls::Starttls) });
}

#[test]
fn an_xmpp_js_customer_talks_with_a_slixmpp_agent() {
    talk(Pair { customer: (Kind::XmppJs, Tls::Starttls, Entry::Link), agent: (Kind::Slixmpp, Tls::Starttls) });
}

#[test]
fn an_xmpp_js_customer_talks_with_a_profanity_agent() {
    talk(Pair { customer: (Kind::XmppJs, Tls::Direct, Entry::Anonymous), agent: (Kind::Profanity, Tls::Direct) });
}

fn talk(pair: Pair) {
    let (customer_kind, customer_tls, entry) = pair.customer;
    let (agent_kind, agent_tls) = pair.agent;
    if !Needs::clients(&[customer_kind, agent_kind]).met(&format!("{customer_kind:?} to {agent_kind:?}")) {
        return;
    }
    let demo = Demo::start(&["--links", "1", "--agents", "1", "--capacity", "1"]);
    let ca_file = &demo.terms.ca_file;
    let mut agent = Driver::start(agent_kind, "the agent", ca_file);
    agent.connect(&demo.agent(agent_tls));
    let link = (entry == Entry::Link).then(|| demo.terms.links[0].as_str());
    let queue = demo.terms.queues.iter().find(|queue| queue.public == (entry == Entry::Anonymous)).unwrap();
    let mut customer = Driver::start(customer_kind, "the customer", ca_file);
    customer.connect(&demo.customer(customer_tls, link));
    customer.send(&queue.jid, "human");

    let proxy = take_offer(&mut agent, &demo.agent(agent_tls), customer_kind);
    for number in 1..=MESSAGES {
        customer.send(&queue.jid, &format!("customer says {number:02}"));
        agent.send(&proxy, &format!("agent says {number:02}"));
    }
    customer.expect_texts("agent says", MESSAGES);
    agent.expect_texts("customer says", MESSAGES);
    assert_on_screen(&mut agent, agent_kind, &demo.agent(agent_tls), customer_kind);
    assert_numbered(&customer.quit_without_errors(), "agent says", MESSAGES);
    assert_numbered(&agent.quit_without_errors(), "customer says", MESSAGES);
}

/// Waits for the desk's offer, takes it, and returns the JID of the contact with which the customer speaks.
pub(crate) fn take_offer(agent: &mut Driver, login: &Login, customer: Kind) -> String {
    let software = customer.software();
    let desk = format!("desk@{}", login.domain);
    let (_, offer) = agent.expect_message("an offer from the desk", |from, body| from == desk && body.contains("Reply: take "));
    assert!(offer.contains(software), "the offer lacks {software:?}: {offer}");
    let degraded = matches!(customer, Kind::Profanity | Kind::Finch);
    assert_eq!(offer.contains("(lacks "), degraded, "config/clients.toml has rows of these: {offer}");
    assert!(!offer.contains("doubtful"), "{offer}");
    let code = offer.split("Reply: take ").nth(1).and_then(|rest| rest.split([' ', '\n']).next()).unwrap();
    agent.send(&desk, &format!("take {code}"));
    let (proxy, _) = agent.expect_message("the banner of the conversation", |from, _| from != desk);
    bare(&proxy).to_owned()
}

/// An agent whose client has a screen reads there which software the customer has.
pub(crate) fn assert_on_screen(agent: &mut Driver, kind: Kind, login: &Login, customer: Kind) {
    if kind == Kind::Profanity {
        let screen = agent.screen(Some(&format!("desk@{}", login.domain)));
        assert!(screen.contains(customer.software()), "the agent's screen lacks {:?}:\n{screen}", customer.software());
    }
}

/// Everything that starts with `prefix` was shown completely, once and in order.
pub(crate) fn assert_numbered(events: &[Event], prefix: &str, count: usize) {
    let shown = texts(events, prefix);
    let wanted: Vec<String> = (1..=count).map(|number| format!("{prefix} {number:02}")).collect();
    assert_eq!(shown, wanted, "not complete, once and in order");
}
