//! Queues, offers and commands.

use std::time::Duration;

use super::rig::{AGENTS, Rig, commands, config, data, is_told, open, profanity, texts_to_agents, texts_to_customer};
use crate::connector::desk::{AGENT_GRACE, Effect, Input, StreamHandle};
use crate::fingerprint::ClientSoftware;
use crate::im::ImEvent;
use crate::proto::tunnel::{Assertion, ChannelId, ConnectorCommand, ConnectorEvent};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;

fn desk() -> String {
    format!("desk@{AGENTS}")
}

fn written_to(effects: &[Effect], handle: u64) -> Vec<String> {
    let text = |effect: &Effect| match effect {
        Effect::AgentWrite { stream, xml } if *stream == StreamHandle(handle) => Some(xml.clone()),
        Effect::Tunnel { .. }
        | Effect::AgentWrite { .. }
        | Effect::AgentResumed { .. }
        | Effect::AgentClose { .. }
        | Effect::AgentRead { .. }
        | Effect::AgentResumeRefused { .. }
        | Effect::Audit(_)
        | Effect::Door(_) => None,
    };
    effects.iter().filter_map(text).collect()
}

#[test]
fn an_offer_names_the_customer_and_taking_it_joins_the_two() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    let link = Assertion::Link { token: "any".into(), kid: "k1".into() };
    let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(1), open: Box::new(open(1, "billing", link)) });
    let (proxy, code) = rig.proxy();
    let offer = format!(
        "[{}] billing, 0 s waiting - Maria &quot;card declined&quot; - Profanity 0.13.1. Reply: take {code} | skip {code} (20 s)",
        code.to_uppercase()
    );
    assert!(is_told(&texts_to_agents(&effects), &offer));
    rig.customer_says(1, 1, "are you there?");
    let effects = rig.agent_says(1, &desk(), "a1", &format!("take {code}"));
    let shown = texts_to_agents(&effects);
    let banner = shown.iter().position(|xml| xml.contains("Software: Profanity 0.13.1. Reason: card declined.")).unwrap();
    let message = shown.iter().position(|xml| xml.contains("are you there?")).unwrap();
    assert!(banner < message);
    assert!(shown[message].contains(&format!("from='{proxy}'")) && shown[message].contains(">Maria</nick>"));
    assert!(is_told(&texts_to_customer(&effects), "Alice has joined."));
    let effects = rig.agent_says(1, &proxy, "a2", "yes");
    assert_eq!(texts_to_customer(&effects), ["yes"]);
}

#[test]
fn an_offer_passes_to_the_next_after_its_time_and_a_late_taker_is_told() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    rig.pass(Duration::from_secs(1));
    rig.log_in(2, "bob");
    let effects = rig.open(1, "help");
    let (_, code) = rig.proxy();
    assert!(is_told(&written_to(&effects, 1), "Reply: take") && written_to(&effects, 2).is_empty());
    let effects = rig.pass(Duration::from_secs(20));
    assert!(is_told(&written_to(&effects, 2), "Reply: take"));
    let effects = rig.agent_says(1, &desk(), "a1", &format!("take {code}"));
    assert!(is_told(&written_to(&effects, 1), "offered to Bob now"));
    rig.agent_says(2, &desk(), "b1", &format!("take {code}"));
    let effects = rig.agent_says(1, &desk(), "a2", &format!("take {code}"));
    assert!(is_told(&written_to(&effects, 1), "was taken by Bob"));
    let counters = rig.desk.counters();
    assert_eq!((counters.offers_sent, counters.offers_expired, counters.offers_accepted), (2, 1, 1));
}

#[test]
fn who_skips_is_asked_again_only_where_nobody_else_is() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    rig.open(1, "help");
    let (_, code) = rig.proxy();
    let effects = rig.agent_says(1, &desk(), "a1", &format!("skip {code}"));
    assert!(!is_told(&texts_to_agents(&effects), "Reply: take"));
    let effects = rig.pass(Duration::from_secs(11));
    assert!(is_told(&texts_to_agents(&effects), "Reply: take"));
}

#[test]
fn the_offer_waits_for_the_software_but_not_for_long() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    let nameless = |n: u8| {
        let mut open = open(n, "help", Assertion::Anonymous);
        open.software = ClientSoftware::unknown();
        ConnectorEvent::Open { channel: ChannelId(n.into()), open: Box::new(open) }
    };
    let effects = rig.tunnel(nameless(1));
    assert!(!is_told(&texts_to_agents(&effects), "Reply: take"));
    let effects = rig.tunnel(data(1, 1, &ImEvent::Software(profanity())));
    assert!(is_told(&texts_to_agents(&effects), "Profanity 0.13.1. Reply: take"));
    rig.tunnel(nameless(2));
    let effects = rig.pass(Duration::from_millis(1500));
    assert!(is_told(&texts_to_agents(&effects), "unknown software. Reply: take"));
}

#[test]
fn presence_and_commands_decide_who_is_offered_work() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    let show = |show: &str| Element::new("presence", ns::CLIENT).with_child(Element::new("show", ns::CLIENT).with_text(show));
    rig.agent(1, show("dnd"));
    let effects = rig.open(1, "help");
    assert!(is_told(&texts_to_customer(&effects), "Nobody is available right now. You are number 1"));
    let effects = rig.agent_says(1, &desk(), "a1", "!ready");
    assert!(is_told(&texts_to_agents(&effects), "Reply: take"));
    rig.agent_says(1, &desk(), "a2", "pause lunch");
    assert_eq!(rig.desk.status().agents[0].standing, "paused");
    let effects = rig.open(2, "help");
    assert!(!is_told(&texts_to_agents(&effects), "Reply: take"));
}

#[test]
fn capacity_holds_and_freed_capacity_drains_the_queue() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    for n in 1..=3 {
        rig.open(n, "auto");
    }
    assert_eq!(rig.desk.status().agents[0].sessions, 2);
    let session = rig.desk.status().sessions.into_iter().find(|session| session.place == "agent").unwrap();
    let effects = rig.agent_says(1, &format!("guest-{}@{AGENTS}", session.code), "a1", "!done");
    assert!(commands(&effects).iter().any(|command| matches!(command, ConnectorCommand::Finish { .. })));
    assert!(is_told(&texts_to_customer(&effects), "Alice has joined."));
    assert_eq!(rig.desk.status().agents[0].sessions, 2);
}

#[test]
fn a_vanished_agents_session_goes_to_the_head_with_its_history() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    rig.open(1, "auto");
    let (proxy, _) = rig.proxy();
    rig.customer_says(1, 1, "first question");
    rig.agent_says(1, &proxy, "a1", "first answer");
    rig.handle(Input::AgentLost { stream: StreamHandle(1) });
    rig.pass(Duration::from_secs(1));
    rig.open(2, "auto");
    let effects = rig.pass(AGENT_GRACE);
    assert!(is_told(&texts_to_customer(&effects), "Alice is no longer here"));
    let effects = rig.log_in(2, "bob");
    let shown = written_to(&effects, 2);
    let banner = shown.iter().find(|xml| xml.contains("Earlier:")).unwrap();
    assert!(banner.contains(&format!("from='{proxy}'")) && banner.contains("Alice: first answer"));
    let all = shown.concat();
    assert!(all.contains("first question"));
}

#[test]
fn an_agent_back_within_the_grace_keeps_the_session() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    rig.open(1, "auto");
    rig.handle(Input::AgentLost { stream: StreamHandle(1) });
    rig.customer_says(1, 1, "still there?");
    rig.pass(Duration::from_secs(30));
    let effects = rig.log_in(2, "alice");
    assert!(is_told(&written_to(&effects, 2), "still there?"));
    rig.pass(AGENT_GRACE);
    assert_eq!(rig.desk.status().sessions[0].agent.as_deref(), Some("alice"));
}

#[test]
fn going_unavailable_gives_the_sessions_back_at_once() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    rig.open(1, "auto");
    rig.agent(1, Element::new("presence", ns::CLIENT).with_attribute("type", "unavailable"));
    assert_eq!(rig.desk.status().sessions[0].place, "queued");
}

#[test]
fn waiting_customers_hear_their_position_again_only_when_it_is_better() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    let effects = rig.open(2, "help");
    assert!(is_told(&texts_to_customer(&effects), "You are number 2"));
    assert!(texts_to_customer(&rig.pass(Duration::from_secs(40))).is_empty());
    rig.tunnel(ConnectorEvent::Fin { channel: ChannelId(1), number: 1, fin: left() });
    assert_eq!(texts_to_customer(&rig.pass(Duration::from_secs(16))), ["You are now number 1 in line."]);
}

#[test]
fn the_bot_answers_and_hands_over() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    assert_eq!(texts_to_customer(&rig.open(1, "bot")), ["Hello, I am a bot."]);
    assert_eq!(texts_to_customer(&rig.customer_says(1, 1, "Your hours?")), ["Nine to five."]);
    let effects = rig.customer_says(1, 2, "a human please");
    assert!(is_told(&texts_to_agents(&effects), "Reply: take"));
    let (_, code) = rig.proxy();
    let effects = rig.agent_says(1, &desk(), "a1", &format!("take {code}"));
    let shown = texts_to_agents(&effects);
    assert!(is_told(&shown, "Robo: Nine to five.") && is_told(&shown, "a human please"));
}

pub(super) fn left() -> crate::proto::tunnel::Fin {
    crate::proto::tunnel::Fin { reason: crate::session::CloseReason::CustomerLeft, text: String::new() }
}

fn block(jid: &str) -> Element {
    let item = Element::new("item", ns::BLOCKING).with_attribute("jid", jid);
    let block = Element::new("block", ns::BLOCKING).with_child(item);
    Element::new("iq", ns::CLIENT).with_attribute("type", "set").with_attribute("id", "b1").with_child(block)
}

#[test]
fn an_agent_who_blocks_a_customer_gives_the_conversation_to_another_with_what_was_said() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    rig.open(1, "auto");
    let (proxy, _) = rig.proxy();
    rig.log_in(2, "bob");
    let effects = rig.agent(1, block(&proxy));
    assert!(is_told(&written_to(&effects, 1), "type='result'") && is_told(&written_to(&effects, 1), "You blocked"));
    assert!(is_told(&texts_to_customer(&effects), "Another agent will go on with you."));
    assert!(is_told(&texts_to_customer(&effects), "Bob has joined."));
    let effects = rig.customer_says(1, 1, "still there?");
    assert!(written_to(&effects, 1).is_empty() && is_told(&written_to(&effects, 2), "still there?"));
    let effects = rig.agent_says(1, &proxy, "a1", "wait");
    assert!(is_told(&written_to(&effects, 1), "is with Bob now"));
}

#[test]
fn an_agent_who_blocks_the_desk_is_paused() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    let effects = rig.agent(1, block(&desk()));
    assert!(is_told(&written_to(&effects, 1), "You are paused"));
    let effects = rig.open(1, "help");
    assert!(!is_told(&texts_to_agents(&effects), "Reply: take"));
}
