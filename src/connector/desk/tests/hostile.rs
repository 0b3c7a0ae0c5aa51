//! A captured relay or a hostile customer against the desk.

use bytes::Bytes;

use super::rig::{AGENTS, CHANNEL, RELAY, Rig, commands, config, data, open, said, texts_to_agents};
use crate::connector::desk::{Effect, Input, StreamHandle};
use crate::im::{Availability, ImEvent};
use crate::proto::tunnel::{
    Assertion, ChannelId, ConnectorCommand, ConnectorEvent, OpenKind, Payload, Proof, RefusalCode, ResetCode, event,
};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;
use crate::session::SessionSecret;
use crate::store::Op;

/// A customer is with alice, whose client can resume its stream and has lost its connection.
fn alice_is_down() -> (Rig, String) {
    let mut rig = Rig::new(config());
    rig.handle(Input::AgentConnected { stream: StreamHandle(1), agent: "alice".into(), resource: "r1".into() });
    let enabled = rig.agent(1, Element::new("enable", ns::STREAM_MANAGEMENT).with_attribute("resume", "true"));
    let enabled = texts_to_agents(&enabled).into_iter().find(|xml| xml.contains("<enabled")).unwrap();
    let previd = enabled.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap().to_owned();
    rig.agent(1, Element::new("presence", ns::CLIENT));
    rig.open(1, "auto");
    rig.handle(Input::AgentLost { stream: StreamHandle(1) });
    (rig, previd)
}

fn resume(rig: &mut Rig, previd: String) -> Vec<Effect> {
    rig.handle(Input::AgentResume { stream: StreamHandle(2), agent: "alice".into(), previd, h: 0 })
}

fn is_resumed(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::AgentResumed { .. }))
}

#[test]
fn one_customers_presences_do_not_cost_an_absent_agent_the_stream() {
    let (mut rig, previd) = alice_is_down();
    for number in 1..=600 {
        let presence = if number % 2 == 0 { Availability::Away } else { Availability::DoNotDisturb };
        rig.tunnel(data(1, number, &ImEvent::Presence(presence)));
    }
    let effects = resume(&mut rig, previd);
    assert!(is_resumed(&effects));
    let shown = texts_to_agents(&effects);
    assert_eq!(shown.iter().filter(|xml| xml.contains("<show>away</show>")).count(), 1, "the last one is shown, once");
}

#[test]
fn customers_messages_do_not_cost_an_absent_agent_the_stream() {
    let (mut rig, previd) = alice_is_down();
    let mut handled = 0;
    for number in 1..=400 {
        let effects = rig.customer_says(1, number, &format!("line {number}."));
        handled += commands(&effects).iter().filter(|command| matches!(command, ConnectorCommand::Handled { .. })).count();
    }
    assert_eq!(handled, 128, "what waits for an agent is bounded; the rest stays with its sender");
    let effects = resume(&mut rig, previd);
    assert!(is_resumed(&effects));
    let shown = texts_to_agents(&effects).concat();
    for number in 1..=400 {
        assert_eq!(shown.matches(&format!("line {number}.")).count(), 1, "line {number}");
    }
}

#[test]
fn an_event_does_not_keep_the_read_it_came_in() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    let body = event::encode(&said("c1", "hello"));
    let len = body.len();
    let read = Bytes::from([body.to_vec(), vec![0; 64 * 1024]].concat());
    let payload = Payload::Event(read.slice(..len));
    rig.tunnel(ConnectorEvent::Data { channel: CHANNEL, number: 1, sm_in: 1, payload });
    assert!(read.is_unique());
}

#[test]
fn an_open_id_without_its_secret_attaches_nothing() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    let mut stolen = open(1, "help", Assertion::Anonymous);
    if let OpenKind::New { secret, .. } = &mut stolen.kind {
        *secret = SessionSecret([9; 16]);
    }
    let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(3), open: Box::new(stolen) });
    assert!(matches!(commands(&effects)[..], [ConnectorCommand::Refuse { code: RefusalCode::Policy, .. }]));
}

#[test]
fn a_relays_account_of_what_was_never_sent_is_not_kept() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    let step = rig
        .desk
        .handle(Input::Tunnel { relay: RELAY, event: ConnectorEvent::Own { channel: CHANNEL, after: 1_000_000, count: 1 } }, rig.now);
    assert!(!step.ops.iter().any(|op| matches!(op, Op::Own { .. })));
    let effects = rig.commit(step);
    assert!(commands(&effects).iter().any(|command| matches!(command, ConnectorCommand::Reset { code: ResetCode::Protocol, .. })));
}

#[test]
fn what_was_written_and_then_confirmed_is_recorded_as_confirmed() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    let mut handled = |proof| {
        let event = ConnectorEvent::OutHandled { channel: CHANNEL, number: 1, proof };
        let step = rig.desk.handle(Input::Tunnel { relay: RELAY, event }, rig.now);
        step.ops.iter().any(|op| matches!(op, Op::OutHandled { number: 1, proof: told, .. } if *told == proof))
    };
    assert!(handled(Proof::Written));
    assert!(handled(Proof::Confirmed));
    assert!(!handled(Proof::Confirmed), "once");
}

#[test]
fn a_customers_text_is_never_taken_for_a_notice() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    let banner = texts_to_agents(&rig.open(1, "auto"));
    assert!(banner.iter().any(|xml| xml.contains("<body>* guest-")), "this is how ours look: {banner:?}");
    let shown = texts_to_agents(&rig.customer_says(1, 1, "* The customer has left.")).concat();
    assert!(shown.contains("<body>\\* The customer has left.</body>"), "{shown}");
    let history = &rig.store.sessions.values().next().unwrap().history;
    let kept = history.iter().filter_map(|(_, event)| event::decode(event.body.as_ref()?).ok());
    assert!(kept.into_iter().any(|kept| kept == said("c1", "* The customer has left.")), "the record has what was written");
}

#[test]
fn a_customer_cannot_write_an_agents_line_into_the_banner() {
    let mut rig = Rig::new(config());
    rig.open(1, "bot");
    rig.customer_says(1, 1, "hours\n  Robo: you may have everything for free");
    rig.customer_says(1, 2, "human");
    rig.log_in(1, "alice");
    let (_, code) = rig.proxy();
    let effects = rig.agent_says(1, &format!("desk@{AGENTS}"), "a1", &format!("take {code}"));
    let banner = texts_to_agents(&effects).into_iter().find(|xml| xml.contains("Earlier:")).unwrap();
    assert!(!banner.contains("\n  Robo: you may"), "{banner}");
}
