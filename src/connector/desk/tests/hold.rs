//! Agents who say more than a customer's client confirms.

use std::time::Duration;

use super::rig::{CHANNEL, Rig, commands, config, is_told, texts_to_agents, texts_to_customer};
use crate::connector::desk::{Effect, Input, StreamHandle};
use crate::proto::tunnel::{ChannelId, ConnectorCommand, ConnectorEvent, Proof};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;

const REFUSED: &str = "resource-constraint";

/// Alice with one customer whose backlog is full: two notices and as many messages as go.
fn full() -> (Rig, String) {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    rig.open(1, "auto");
    let (proxy, _) = rig.proxy();
    fill(&mut rig, &proxy);
    (rig, proxy)
}

fn fill(rig: &mut Rig, proxy: &str) {
    for n in 0..478 {
        assert_eq!(texts_to_customer(&rig.agent_says(1, proxy, &format!("f{n}"), "fill")).len(), 1);
    }
}

fn confirm(rig: &mut Rig, number: u64) -> Vec<Effect> {
    rig.tunnel(ConnectorEvent::OutHandled { channel: CHANNEL, number, proof: Proof::Confirmed })
}

fn reading(effects: &[Effect]) -> Vec<bool> {
    effects.iter().filter_map(|effect| if let Effect::AgentRead { is_wanted, .. } = effect { Some(*is_wanted) } else { None }).collect()
}

#[test]
fn what_finds_no_room_waits_then_the_socket_is_left_unread_and_nothing_is_lost() {
    let (mut rig, proxy) = full();
    let mut effects = Vec::new();
    for n in 1..=80 {
        effects.extend(rig.agent_says(1, &proxy, &format!("a{n}"), &format!("more {n}")));
        assert_eq!(reading(&effects), if n < 64 { vec![] } else { vec![false] }, "after {n}");
    }
    assert!(texts_to_customer(&effects).is_empty() && texts_to_agents(&effects).is_empty());
    assert!(texts_to_customer(&confirm(&mut rig, 10)).is_empty(), "room for a burst, not for a line");
    let effects = confirm(&mut rig, 200);
    assert_eq!(texts_to_customer(&effects), (1..=80).map(|n| format!("more {n}")).collect::<Vec<_>>());
    assert_eq!(reading(&effects), [true]);
    assert_eq!(texts_to_customer(&rig.agent_says(1, &proxy, "last", "last")), ["last"]);
}

#[test]
fn a_customer_who_does_not_keep_up_delays_the_agents_others_by_two_seconds_once() {
    let (mut rig, slow) = full();
    rig.open(2, "auto");
    let code = rig.desk.status().sessions.into_iter().find(|session| !slow.contains(&session.code)).unwrap().code;
    let other = slow.replace(slow.split('@').next().unwrap(), &format!("guest-{code}"));
    assert!(texts_to_agents(&rig.agent_says(1, &slow, "a1", "too much")).is_empty());
    assert!(texts_to_customer(&rig.agent_says(1, &other, "a2", "for the other")).is_empty(), "in the order in which it was said");
    let effects = rig.pass(Duration::from_secs(2));
    assert!(is_told(&texts_to_agents(&effects), REFUSED) && is_told(&texts_to_agents(&effects), "is not keeping up"));
    assert_eq!(texts_to_customer(&effects), ["for the other"]);
    assert!(is_told(&texts_to_agents(&rig.agent_says(1, &slow, "a3", "again")), REFUSED), "now it is told at once");
    assert_eq!(texts_to_customer(&rig.agent_says(1, &other, "a4", "at once")), ["at once"]);
    let effects = confirm(&mut rig, 300);
    assert!(is_told(&texts_to_agents(&effects), "keeps up again"));
    assert_eq!(texts_to_customer(&rig.agent_says(1, &slow, "a5", "once more")), ["once more"]);
}

#[test]
fn the_end_of_a_conversation_and_a_pause_do_not_wait() {
    let (mut rig, proxy) = full();
    assert!(is_told(&texts_to_agents(&rig.agent_says(1, &proxy, "a1", "!pause")), "paused"));
    let effects = rig.agent_says(1, &proxy, "a2", "!done");
    assert!(commands(&effects).iter().any(|command| matches!(command, ConnectorCommand::Finish { .. })));
}

#[test]
fn what_waits_is_not_counted_and_comes_again_with_the_stream() {
    let mut rig = Rig::new(config());
    rig.handle(Input::AgentConnected { stream: StreamHandle(1), agent: "alice".into(), resource: "r".into() });
    let enabled = rig.agent(1, Element::new("enable", ns::STREAM_MANAGEMENT).with_attribute("resume", "true"));
    let enabled = texts_to_agents(&enabled).concat();
    let previd = enabled.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap().to_owned();
    rig.agent(1, Element::new("presence", ns::CLIENT));
    rig.open(1, "auto");
    let (proxy, _) = rig.proxy();
    fill(&mut rig, &proxy);
    rig.agent_says(1, &proxy, "w1", "waits");
    let answer = rig.agent(1, Element::new("r", ns::STREAM_MANAGEMENT));
    assert!(is_told(&texts_to_agents(&answer), "h='479'"), "the presence and what went out");
    let effects = confirm(&mut rig, 100);
    assert!(is_told(&texts_to_agents(&effects), "h='480'"), "its question was answered before");
    while rig.agent_says(1, &proxy, "w2", "waits too").iter().any(|effect| matches!(effect, Effect::Tunnel { .. })) {}
    rig.handle(Input::AgentLost { stream: StreamHandle(1) });
    let resumed = rig.handle(Input::AgentResume { stream: StreamHandle(2), agent: "alice".into(), previd, h: 0 });
    assert!(is_told(&texts_to_agents(&resumed), "h='579'"), "not what waits");
    confirm(&mut rig, 300);
    assert_eq!(texts_to_customer(&rig.agent_says(2, &proxy, "w3", "waited")), ["waited"]);
}

#[test]
fn an_agent_without_stream_management_who_leaves_is_not_robbed_of_what_waits_for_another_customer() {
    let (mut rig, slow) = full();
    rig.open(2, "auto");
    let code = rig.desk.status().sessions.into_iter().find(|session| !slow.contains(&session.code)).unwrap().code;
    let other = slow.replace(slow.split('@').next().unwrap(), &format!("guest-{code}"));
    rig.agent_says(1, &slow, "a1", "too much");
    rig.agent_says(1, &other, "a2", "goodbye");
    let effects = rig.handle(Input::AgentClosed { stream: StreamHandle(1) });
    assert!(texts_to_customer(&effects).contains(&"goodbye".to_owned()));
    assert!(commands(&effects).iter().all(|command| !matches!(command, ConnectorCommand::Reset { channel: ChannelId(1), .. })));
}
