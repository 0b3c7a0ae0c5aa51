//! A client that comes back in person, at another relay, and tells what it counted.

use super::rig::{CHANNEL, DOMAIN, Rig, attach, commands, config, data, said};
use crate::connector::desk::{Effect, Input, RelayIndex};
use crate::im::ImEvent;
use crate::proto::tunnel::{ChannelId, ConnectorCommand, ConnectorEvent, OpenKind, Payload, Proof, RefusalCode, event};
use crate::session::SessionSecret;

/// A session with a bot that has said two things; its client counts since the first, and the relay wrote two stanzas of its own
/// between them.
fn counted() -> Rig {
    let mut rig = Rig::new(config());
    rig.open(1, "bot");
    own(&mut rig, 1, 0);
    own(&mut rig, 1, 2);
    rig.customer_says(1, 1, "What are your hours?");
    rig
}

fn own(rig: &mut Rig, after: u64, count: u32) {
    let effects = rig.tunnel(ConnectorEvent::Own { channel: CHANNEL, after, count });
    assert!(matches!(commands(&effects)[..], [ConnectorCommand::OwnHandled { .. }]));
}

fn comes_back(rig: &mut Rig, relay: u16, client_h: Option<u32>) -> Vec<ConnectorCommand> {
    let mut open = attach(1, 0, 0);
    open.admission.queue = "bot".into();
    open.kind = OpenKind::Attach { secret: SessionSecret([1; 16]), in_next: 0, out_next: 0, client_h, attachment: 0 };
    let event = ConnectorEvent::Open { channel: ChannelId(9), open: Box::new(open) };
    let effects: Vec<Effect> = rig.handle(Input::Tunnel { relay: RelayIndex(relay), event });
    commands(&effects)
}

/// What is sent to the client that came back: the first number, and the texts.
fn accepted(told: &[ConnectorCommand]) -> Option<(u64, Vec<String>)> {
    let text = |payload: &Payload| match payload {
        Payload::Event(bytes) => {
            let Ok(ImEvent::Message(message)) = event::decode(bytes) else { panic!("{bytes:?} is no message") };
            message.body
        }
        Payload::Ephemeral(_) | Payload::Tombstone => String::new(),
    };
    told.iter().find_map(|command| {
        let ConnectorCommand::Accept { out_first, out, .. } = command else { return None };
        Some((*out_first, out.iter().map(text).collect()))
    })
}

fn refused(told: &[ConnectorCommand]) -> Option<RefusalCode> {
    told.iter().find_map(|command| if let ConnectorCommand::Refuse { code, .. } = command { Some(*code) } else { None })
}

#[test]
fn its_count_says_which_events_it_has_after_a_crash_of_the_connector_too() {
    for crashes in [false, true] {
        for (h, expected) in [(0, (2, vec!["Nine to five."])), (2, (2, vec!["Nine to five."])), (3, (3, vec![]))] {
            let mut rig = counted();
            if crashes {
                rig.restart(config(), 1);
            }
            let told = comes_back(&mut rig, 1, Some(h));
            let (first, texts) = accepted(&told).unwrap();
            assert_eq!((first, texts.iter().map(String::as_str).collect()), expected, "h {h}, crash {crashes}");
            assert!(told.iter().any(|command| matches!(command, ConnectorCommand::Handled { number: 1, sm_in: 1, .. })), "{told:?}");
        }
    }
}

#[test]
fn its_count_goes_on_where_it_stood_however_often_it_comes_back() {
    let mut rig = counted();
    // One of the two own stanzas never left; the new relay writes one of its own, and the second event.
    assert_eq!(accepted(&comes_back(&mut rig, 1, Some(1))).unwrap().0, 2);
    let own = ConnectorEvent::Own { channel: ChannelId(9), after: 1, count: 1 };
    rig.handle(Input::Tunnel { relay: RelayIndex(1), event: own });
    for crashes in [false, true] {
        if crashes {
            rig.restart(config(), 1);
        }
        assert_eq!(accepted(&comes_back(&mut rig, 0, Some(2))).unwrap().0, 2, "the own one");
        assert_eq!(accepted(&comes_back(&mut rig, 1, Some(3))).unwrap().0, 3, "and the event: the own one is forgotten");
        assert_eq!(refused(&comes_back(&mut rig, 1, Some(2))), Some(RefusalCode::UnknownSession), "it never goes back");
        rig = counted();
        assert_eq!(accepted(&comes_back(&mut rig, 1, Some(2))).unwrap().0, 2);
    }
}

#[test]
fn what_is_confirmed_is_counted_on() {
    let mut rig = counted();
    rig.tunnel(ConnectorEvent::OutHandled { channel: CHANNEL, number: 2, proof: Proof::Confirmed });
    own(&mut rig, 2, 1);
    rig.tunnel(data(1, 2, &said("c2", "hours, please")));
    rig.restart(config(), 1);
    assert_eq!(accepted(&comes_back(&mut rig, 1, Some(4))).unwrap().0, 3);
    assert_eq!(accepted(&comes_back(&mut rig, 1, Some(5))).unwrap().0, 4);
}

#[test]
fn a_count_that_cannot_be_is_no_return() {
    let mut rig = counted();
    assert_eq!(refused(&comes_back(&mut rig, 1, Some(4))), Some(RefusalCode::StoreRegressed), "more than was ever said");
    assert!(rig.desk.status().sessions.is_empty());
    // Nobody promised this one that it can resume.
    let mut rig = Rig::new(config());
    rig.open(1, "bot");
    assert_eq!(refused(&comes_back(&mut rig, 1, Some(0))), Some(RefusalCode::UnknownSession));
    assert_eq!(rig.desk.counters().refused_for.get("resume-not-promised"), Some(&1));
}

#[test]
fn a_login_for_another_queue_resumes_nothing() {
    let mut rig = counted();
    let mut open = attach(1, 0, 0);
    open.kind = OpenKind::Attach { secret: SessionSecret([1; 16]), in_next: 0, out_next: 0, client_h: Some(0), attachment: 0 };
    assert_eq!((open.admission.domain.as_str(), open.admission.queue.as_str()), (DOMAIN, "help"));
    let event = ConnectorEvent::Open { channel: ChannelId(9), open: Box::new(open) };
    let told = commands(&rig.handle(Input::Tunnel { relay: RelayIndex(1), event }));
    assert_eq!(refused(&told), Some(RefusalCode::UnknownSession));
}

#[test]
fn a_promise_said_again_changes_nothing_and_another_stream_counts_anew() {
    let mut rig = counted();
    own(&mut rig, 1, 0);
    assert_eq!(accepted(&comes_back(&mut rig, 1, Some(3))).unwrap().0, 3);
    assert_eq!(accepted(&comes_back(&mut rig, 0, None)).unwrap().0, 3);
    assert_eq!(refused(&comes_back(&mut rig, 0, Some(3))), Some(RefusalCode::UnknownSession));
}
