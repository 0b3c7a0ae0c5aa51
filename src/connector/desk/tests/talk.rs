//! What is said reaches whom it is for, and nobody else.

use std::time::Duration;

use super::rig::{CHANNEL, Rig, attach, commands, config, is_told, texts_to_agents, texts_to_customer};
use super::routing::left;
use crate::connector::agent_leg::PLAIN_PROOF_AFTER;
use crate::connector::desk::{AGENT_GRACE, Effect, Input, StreamHandle};
use crate::im::{ChatState, ImEvent};
use crate::proto::tunnel::event;
use crate::proto::tunnel::{ChannelId, ConnectorCommand, ConnectorEvent, Payload, Proof};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;
use crate::store::Place;

fn connected() -> (Rig, String) {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    rig.open(1, "auto");
    let (proxy, _) = rig.proxy();
    (rig, proxy)
}

#[test]
fn commands_and_mistyped_commands_never_reach_the_customer() {
    let (mut rig, proxy) = connected();
    for text in ["!help", "!mine", "!pause lunch", "!ready", "!dnoe", "!"] {
        let effects = rig.agent_says(1, &proxy, text, text);
        assert!(texts_to_customer(&effects).is_empty(), "{text}");
        assert!(!texts_to_agents(&effects).is_empty(), "{text}");
    }
    assert_eq!(texts_to_customer(&rig.agent_says(1, &proxy, "x", "!!important")), ["!important"]);
}

#[test]
fn a_message_to_someone_elses_customer_is_refused_to_its_writer() {
    let (mut rig, proxy) = connected();
    rig.log_in(2, "bob");
    let effects = rig.agent_says(2, &proxy, "b1", "hello");
    assert!(texts_to_customer(&effects).is_empty());
    assert!(is_told(&texts_to_agents(&effects), "is with Alice now; your message was not sent."));
    rig.tunnel(ConnectorEvent::Fin { channel: CHANNEL, number: 1, fin: left() });
    let effects = rig.agent_says(1, &proxy, "a1", "hello");
    assert!(is_told(&texts_to_agents(&effects), "no such conversation any more"));
}

#[test]
fn done_ends_the_session_after_the_last_message_and_is_kept_until_confirmed() {
    let (mut rig, proxy) = connected();
    rig.agent_says(1, &proxy, "a1", "bye");
    let effects = rig.agent_says(1, &proxy, "a2", "!done");
    let finished =
        commands(&effects).iter().find_map(|c| if let ConnectorCommand::Finish { number, .. } = c { Some(*number) } else { None });
    let last = rig.store.sessions.values().next().unwrap().out_last;
    assert_eq!(finished, Some(last + 1));
    rig.restart(config(), 1);
    let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(2), open: Box::new(attach(1, 1, 1)) });
    assert!(commands(&effects).iter().any(|c| matches!(c, ConnectorCommand::Finish { number, .. } if *number == last + 1)));
    rig.tunnel(ConnectorEvent::OutHandled { channel: ChannelId(2), number: last + 1, proof: Proof::Confirmed });
    assert!(rig.desk.status().sessions.is_empty());
}

#[test]
fn typing_is_shown_now_or_never_and_takes_its_number() {
    let (mut rig, proxy) = connected();
    let payload = Payload::Ephemeral(event::encode(&ImEvent::ChatState(ChatState::Composing)));
    let effects = rig.tunnel(ConnectorEvent::Data { channel: CHANNEL, number: 1, sm_in: 1, payload });
    assert!(is_told(&texts_to_agents(&effects), "<composing"));
    assert!(commands(&effects).iter().any(|c| matches!(c, ConnectorCommand::Handled { number: 1, sm_in: 1, .. })));
    let typing = Element::new("message", ns::CLIENT)
        .with_attribute("type", "chat")
        .with_attribute("to", proxy)
        .with_child(Element::new("composing", ns::CHAT_STATES));
    let effects = rig.agent(1, typing);
    assert!(commands(&effects).iter().any(|c| matches!(c, ConnectorCommand::Send { payload: Payload::Ephemeral(_), .. })));
    let pending = &rig.store.sessions.values().next().unwrap().out_pending;
    assert_eq!(pending.last().map(|event| event.body.is_none()), Some(true));
}

#[test]
fn a_message_sent_again_after_a_reconnect_is_dropped() {
    let (mut rig, proxy) = connected();
    rig.agent_says(1, &proxy, "a1", "once");
    assert_eq!(texts_to_customer(&rig.agent_says(1, &proxy, "a1", "once")), ["once"], "the same connection may repeat itself");
    rig.handle(Input::AgentLost { stream: StreamHandle(1) });
    rig.log_in(2, "alice");
    assert!(texts_to_customer(&rig.agent_says(2, &proxy, "a1", "once")).is_empty());
    rig.customer_says(1, 1, "hello");
    rig.tunnel(ConnectorEvent::Open { channel: ChannelId(2), open: Box::new(attach(1, 2, 1)) });
    let again = super::rig::data(2, 2, &super::rig::said("c1", "hello"));
    let effects = rig.tunnel(again);
    assert!(!is_told(&texts_to_agents(&effects), "hello"));
    assert_eq!(rig.desk.counters().duplicates_dropped, 2);
}

#[test]
fn a_plain_stream_gets_what_was_not_proven_again_with_the_same_id_and_a_stamp() {
    let (mut rig, _) = connected();
    rig.customer_says(1, 1, "proven");
    rig.pass(PLAIN_PROOF_AFTER);
    let first = texts_to_agents(&rig.customer_says(1, 2, "in doubt"));
    assert!(is_told(&first, "id='c2'") && !is_told(&first, "<delay"));
    rig.restart(config(), 1);
    let shown = texts_to_agents(&rig.log_in(2, "alice"));
    assert!(!is_told(&shown, ">proven<"));
    let again = shown.iter().find(|xml| xml.contains("in doubt")).unwrap();
    assert!(again.contains("id='c2'") && again.contains("<delay"));
    assert_eq!(rig.desk.counters().possibly_repeated, 1);
}

#[test]
fn a_session_that_changed_hands_takes_its_text_from_the_former_owners_stream() {
    let mut rig = Rig::new(config());
    rig.handle(Input::AgentConnected { stream: StreamHandle(1), agent: "alice".into(), resource: "r".into() });
    let enable = Element::new("enable", ns::STREAM_MANAGEMENT).with_attribute("resume", "true");
    let enabled = texts_to_agents(&rig.agent(1, enable)).concat();
    let key = enabled.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap().to_owned();
    rig.agent(1, Element::new("presence", ns::CLIENT));
    rig.open(1, "auto");
    rig.handle(Input::AgentLost { stream: StreamHandle(1) });
    rig.customer_says(1, 1, "my secret");
    rig.pass(AGENT_GRACE);
    let shown = texts_to_agents(&rig.log_in(2, "bob"));
    assert!(is_told(&shown, "my secret"));
    let resume = |stream| Input::AgentResume { stream: StreamHandle(stream), agent: "alice".into(), previd: key.clone(), h: 0 };
    let effects = rig.handle(resume(3));
    let replay = texts_to_agents(&effects).concat();
    assert!(replay.starts_with("<resumed") && replay.contains("the conversation has moved on") && !replay.contains("my secret"));
    rig.restart(config(), 1);
    let replay = texts_to_agents(&rig.handle(resume(4))).concat();
    assert!(replay.starts_with("<resumed") && !replay.contains("my secret"));
    assert!(matches!(&rig.store.sessions.values().next().unwrap().place, Place::Agent(bob) if bob == "bob"));
}

#[test]
fn too_much_waiting_ends_the_credit_and_goes_on_when_an_agent_comes() {
    let mut rig = Rig::new(config());
    rig.open(1, "auto");
    let mut handled = 0;
    for number in 1..=200 {
        let effects = rig.customer_says(1, number, &format!("line {number};"));
        handled += commands(&effects).iter().filter(|c| matches!(c, ConnectorCommand::Handled { .. })).count();
    }
    assert_eq!(handled, 128);
    let shown = texts_to_agents(&rig.log_in(1, "alice")).concat();
    let places: Vec<usize> = (1..=200).map(|n| shown.find(&format!(">line {n};<")).unwrap()).collect();
    assert!(places.is_sorted());
    rig.pass(Duration::from_secs(60));
    assert_eq!(rig.store.sessions.values().next().unwrap().delivered, 200);
}

#[test]
fn the_newest_available_resource_gets_the_work_and_the_older_takes_over_again() {
    let (mut rig, _) = connected();
    rig.log_in(2, "alice");
    let written = |effects: &[Effect], handle: u64, part: &str| {
        effects.iter().any(|effect| matches!(effect, Effect::AgentWrite { stream, xml } if stream.0 == handle && xml.contains(part)))
    };
    let effects = rig.customer_says(1, 1, "to the newest");
    assert!(written(&effects, 2, "to the newest") && !written(&effects, 1, "to the newest"));
    let effects = rig.handle(Input::AgentClosed { stream: StreamHandle(2) });
    assert!(written(&effects, 1, "to the newest"), "what the closed one had not proven");
    let effects = rig.customer_says(1, 2, "to the older");
    assert!(written(&effects, 1, "to the older"));
    assert_eq!(rig.desk.status().sessions[0].place, "agent");
}

#[test]
fn a_client_that_acknowledges_too_much_is_cut_off() {
    let mut rig = Rig::new(config());
    rig.handle(Input::AgentConnected { stream: StreamHandle(1), agent: "alice".into(), resource: "r".into() });
    rig.agent(1, Element::new("enable", ns::STREAM_MANAGEMENT));
    let effects = rig.agent(1, Element::new("a", ns::STREAM_MANAGEMENT).with_attribute("h", "5"));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::AgentClose { condition: "undefined-condition", .. })));
}

#[test]
fn a_stream_that_is_down_holds_its_customers_back_and_then_gives_their_sessions_to_the_next_agent() {
    let mut rig = Rig::new(config());
    rig.handle(Input::AgentConnected { stream: StreamHandle(1), agent: "alice".into(), resource: "r".into() });
    rig.agent(1, Element::new("enable", ns::STREAM_MANAGEMENT).with_attribute("resume", "true"));
    rig.agent(1, Element::new("presence", ns::CLIENT));
    rig.open(1, "auto");
    rig.handle(Input::AgentLost { stream: StreamHandle(1) });
    for number in 1..=300 {
        rig.customer_says(1, number, "more");
    }
    assert_eq!(rig.desk.status().sessions[0].in_handled, 128, "the rest waits in front of the door");
    rig.pass(AGENT_GRACE);
    assert_eq!(rig.desk.status().sessions[0].place, "queued");
    let shown = texts_to_agents(&rig.log_in(2, "bob")).concat();
    assert_eq!(shown.matches("<body>more</body>").count(), 300, "nothing is lost to the next agent");
}

#[test]
fn a_pause_and_an_absence_last_over_a_restart() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "bob");
    rig.agent_says(1, "desk@desk.example", "p1", "!pause lunch");
    rig.handle(Input::AgentConnected { stream: StreamHandle(2), agent: "alice".into(), resource: "r".into() });
    let enabled = texts_to_agents(&rig.agent(2, Element::new("enable", ns::STREAM_MANAGEMENT).with_attribute("resume", "true"))).concat();
    let previd = enabled.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap().to_owned();
    let away = Element::new("show", ns::CLIENT).with_text("away");
    rig.agent(2, Element::new("presence", ns::CLIENT).with_child(away));
    rig.restart(config(), 1);
    rig.log_in(3, "bob");
    rig.handle(Input::AgentResume { stream: StreamHandle(4), agent: "alice".into(), previd, h: 0 });
    let standings: Vec<&str> = rig.desk.status().agents.iter().map(|agent| agent.standing).collect();
    assert_eq!(standings, ["away", "paused"]);
    assert!(is_told(&texts_to_agents(&rig.agent_says(3, "desk@desk.example", "p2", "!mine")), "paused (lunch)"));
}

#[test]
fn a_proxy_is_a_contact_while_its_session_is_the_agents() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    let roster = Element::new("iq", ns::CLIENT)
        .with_attribute("type", "get")
        .with_attribute("id", "r1")
        .with_child(Element::new("query", ns::ROSTER));
    assert!(is_told(&texts_to_agents(&rig.agent(1, roster)), "desk@desk.example"));
    let shown = texts_to_agents(&rig.open(1, "auto"));
    let (proxy, _) = rig.proxy();
    assert!(shown.iter().any(|xml| xml.starts_with("<iq") && xml.contains(&proxy)), "a roster push");
    assert!(shown.iter().any(|xml| xml.starts_with("<presence") && xml.contains(&proxy) && !xml.contains("unavailable")));
    let shown = texts_to_agents(&rig.tunnel(ConnectorEvent::Fin { channel: CHANNEL, number: 1, fin: left() }));
    assert!(shown.iter().any(|xml| xml.starts_with("<presence") && xml.contains("unavailable")));
    assert!(shown.iter().any(|xml| xml.starts_with("<iq") && xml.contains("subscription='remove'")));
    assert!(is_told(&shown, "The customer has left."));
}
