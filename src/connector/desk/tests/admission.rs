//! Who may come in, and who may come back.

use std::time::Duration;

use super::rig::{CHANNEL, RELAY, Rig, attach, commands, config, data, is_told, open, said, texts_to_agents, texts_to_customer};
use crate::connector::desk::{Audit, Effect, Input, RelayIndex};
use crate::proto::tunnel::{
    Admission, Assertion, ChannelId, CheckId, ConnectorCommand, ConnectorEvent, Open, OpenKind, Payload, RefusalCode, ResetCode,
};

fn link(token: &str) -> Assertion {
    Assertion::Link { token: token.into(), kid: "k1".into() }
}

fn opened(rig: &mut Rig, n: u8, queue: &str, assertion: Assertion) -> Vec<ConnectorCommand> {
    let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(n.into()), open: Box::new(open(n, queue, assertion)) });
    commands(&effects)
}

fn refusal(commands: &[ConnectorCommand]) -> Option<RefusalCode> {
    commands.iter().find_map(|command| if let ConnectorCommand::Refuse { code, .. } = command { Some(*code) } else { None })
}

#[test]
fn only_public_queues_and_good_links_let_in() {
    let mut rig = Rig::new(config());
    assert_eq!(refusal(&opened(&mut rig, 1, "nowhere", Assertion::Anonymous)), Some(RefusalCode::NoQueue));
    assert_eq!(refusal(&opened(&mut rig, 2, "billing", Assertion::Anonymous)), Some(RefusalCode::BadLink));
    assert_eq!(refusal(&opened(&mut rig, 3, "billing", link("forged"))), Some(RefusalCode::BadLink));
    assert_eq!(refusal(&opened(&mut rig, 4, "help", link("any"))), Some(RefusalCode::BadLink));
    assert_eq!(refusal(&opened(&mut rig, 5, "billing", link("any"))), None);
    assert_eq!(rig.desk.counters().refused.get("bad-link"), Some(&3));
    assert_eq!(rig.store.sessions.len(), 1);
}

#[test]
fn a_link_for_one_session_opens_one_and_checks_count_nothing() {
    let mut rig = Rig::new(config());
    let check = |rig: &mut Rig| {
        let admission = Box::new(Admission { domain: "chat.example".into(), queue: "billing".into(), assertion: link("once") });
        let effects = rig.tunnel(ConnectorEvent::Check { check: CheckId(1), admission });
        commands(&effects).iter().any(|command| matches!(command, ConnectorCommand::Verdict { verdict: Ok(()), .. }))
    };
    assert!(check(&mut rig) && check(&mut rig));
    assert_eq!(refusal(&opened(&mut rig, 1, "billing", link("once"))), None);
    assert!(!check(&mut rig));
    assert_eq!(refusal(&opened(&mut rig, 2, "billing", link("once"))), Some(RefusalCode::BadLink));
    rig.restart(config(), 1);
    assert_eq!(refusal(&opened(&mut rig, 3, "billing", link("once"))), Some(RefusalCode::BadLink));
}

#[test]
fn a_customer_who_withdraws_before_the_answer_has_not_used_his_link() {
    let mut rig = Rig::new(config());
    opened(&mut rig, 1, "billing", link("once"));
    rig.tunnel(ConnectorEvent::Reset { channel: CHANNEL, code: ResetCode::Cancelled });
    assert!(rig.desk.status().sessions.is_empty(), "nobody comes back to it");
    rig.restart(config(), 1);
    assert_eq!(refusal(&opened(&mut rig, 2, "billing", link("once"))), None);
    rig.tunnel(data(2, 1, &said("c1", "hello")));
    rig.tunnel(ConnectorEvent::Reset { channel: ChannelId(2), code: ResetCode::Cancelled });
    assert_eq!(refusal(&opened(&mut rig, 3, "billing", link("once"))), Some(RefusalCode::BadLink), "this one was there");
}

#[test]
fn uses_are_counted_as_long_as_the_link_could_be_used_and_no_longer() {
    let mut rig = Rig::new(config());
    opened(&mut rig, 1, "billing", link("once"));
    rig.pass(Duration::from_secs(3600));
    assert_eq!(refusal(&opened(&mut rig, 2, "billing", link("once"))), Some(RefusalCode::BadLink));
    rig.restart(config(), 1);
    rig.pass(Duration::from_secs(3601));
    assert_eq!(rig.store.snapshot().link_uses, []);
    // The real one is refused for its age; here nothing but the count would refuse it.
    assert_eq!(refusal(&opened(&mut rig, 3, "billing", link("once"))), None);
}

#[test]
fn a_repeated_open_finds_its_own_session_and_use() {
    let mut rig = Rig::new(config());
    opened(&mut rig, 1, "billing", link("once"));
    rig.restart(config(), 1);
    let again = opened(&mut rig, 1, "billing", link("once"));
    assert!(matches!(again.first(), Some(ConnectorCommand::Accept { in_next: 1, out_first: 1, out, .. }) if !out.is_empty()));
    assert_eq!(rig.store.sessions.len(), 1);
}

#[test]
fn an_attachment_brings_what_is_unconfirmed_and_moves_the_session() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    rig.customer_says(1, 1, "hello");
    let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(9), open: Box::new(attach(1, 2, 1)) });
    let told = commands(&effects);
    assert!(told.iter().any(|c| matches!(c, ConnectorCommand::Reset { channel: CHANNEL, code: ResetCode::Moved })));
    assert!(told.iter().any(
        |c| matches!(c, ConnectorCommand::Accept { channel: ChannelId(9), attachment: 2, in_next: 2, out_first: 1, out } if out.len() == 1)
    ));
    assert_eq!(rig.desk.status().sessions[0].attachment, 2);
    let ignored = rig.tunnel(data(1, 2, &said("c2", "late")));
    assert!(commands(&ignored).is_empty());
}

#[test]
fn a_relay_that_knows_more_than_the_store_ends_the_session() {
    for (in_next, out_next) in [(2, 1), (1, 3)] {
        let mut rig = Rig::new(config());
        rig.open(1, "help");
        let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(9), open: Box::new(attach(1, in_next, out_next)) });
        assert_eq!(refusal(&commands(&effects)), Some(RefusalCode::StoreRegressed));
        assert!(rig.desk.status().sessions.is_empty());
    }
    let mut rig = Rig::new(config());
    let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(9), open: Box::new(attach(1, 1, 1)) });
    assert_eq!(refusal(&commands(&effects)), Some(RefusalCode::UnknownSession));
}

#[test]
fn a_relay_that_the_customer_has_left_asks_in_vain() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    let ask = |rig: &mut Rig, relay: u16, n: u32, attachment: u32| {
        let mut open = attach(1, 1, 1);
        if let OpenKind::Attach { attachment: told, .. } = &mut open.kind {
            *told = attachment;
        }
        let event = ConnectorEvent::Open { channel: ChannelId(n), open: Box::new(open) };
        commands(&rig.handle(Input::Tunnel { relay: RelayIndex(relay), event }))
    };
    let granted = |told: &[ConnectorCommand]| {
        told.iter().find_map(|c| if let ConnectorCommand::Accept { attachment, .. } = c { Some(*attachment) } else { None })
    };
    // The same relay asks again: its connector has forgotten the channel.
    assert_eq!(granted(&ask(&mut rig, 0, 3, 1)), Some(1));
    // The customer comes to another.
    assert_eq!(granted(&ask(&mut rig, 1, 1, 0)), Some(2));
    for seed in [1, 2] {
        let told = ask(&mut rig, 0, 5, 1);
        assert!(matches!(told[..], [ConnectorCommand::Reset { channel: ChannelId(5), code: ResetCode::Moved }]), "{told:?}");
        assert_eq!(granted(&ask(&mut rig, 1, 3, 2)), Some(2));
        rig.restart(config(), seed);
    }
    // What the relay was told was kept before it was told: this store is older.
    assert_eq!(refusal(&ask(&mut rig, 0, 7, 3)), Some(RefusalCode::StoreRegressed));
    assert!(rig.desk.status().sessions.is_empty());
}

#[test]
fn of_two_relays_that_a_client_asked_the_later_has_the_session_whichever_is_heard_first() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    rig.pass(Duration::from_secs(20));
    let ask = |rig: &mut Rig, relay: u16, waited: u64| {
        let open = Open { waited: Duration::from_secs(waited), ..attach(1, 1, 1) };
        let event = ConnectorEvent::Open { channel: ChannelId(9), open: Box::new(open) };
        commands(&rig.handle(Input::Tunnel { relay: RelayIndex(relay), event }))
    };
    let has_it = |told: &[ConnectorCommand]| told.iter().any(|c| matches!(c, ConnectorCommand::Accept { channel: ChannelId(9), .. }));
    assert!(has_it(&ask(&mut rig, 1, 1)));
    let told = ask(&mut rig, 2, 11);
    assert!(matches!(told[..], [ConnectorCommand::Reset { channel: ChannelId(9), code: ResetCode::Moved }]), "{told:?}");
    assert!(has_it(&ask(&mut rig, 1, 3)), "the same relay asks again");
    assert!(has_it(&ask(&mut rig, 2, 0)));
}

#[test]
fn a_number_given_before_any_relay_has_asked_is_not_taken_for_an_older_one() {
    for crashes in 0..3 {
        let mut rig = Rig::new(config());
        rig.log_in(1, "alice");
        rig.open(1, "auto");
        let (proxy, _) = rig.proxy();
        let known = rig.store.sessions.values().next().unwrap().out_last;
        rig.restart(config(), 1);
        rig.log_in(2, "alice");
        for n in 0..5 {
            rig.agent_says(2, &proxy, &format!("a{n}"), &format!("reply {n}"));
        }
        for seed in 0..crashes {
            rig.restart(config(), 2 + seed);
        }
        let mut older = Rig { desk: rig.desk, store: rig.store.clone(), now: rig.now };
        let asked = |out_next| ConnectorEvent::Open { channel: ChannelId(9), open: Box::new(attach(1, 1, out_next)) };
        // Such numbers the relay has from a store that is gone.
        let effects = older.tunnel(asked(known + 2));
        assert_eq!(refusal(&commands(&effects)), Some(RefusalCode::StoreRegressed), "{crashes} crashes");
        assert!(older.desk.status().sessions.is_empty());
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Audit(Audit::StoreRegressed { .. }))));

        let mut same = Rig { store: rig.store, ..Rig::new(config()) };
        same.now = rig.now;
        same.restart(config(), 9);
        assert_eq!(refusal(&commands(&same.tunnel(asked(known + 1)))), None, "{crashes} crashes");
        // From here on they are seen.
        assert_eq!(refusal(&commands(&same.tunnel(asked(known + 4)))), None, "{crashes} crashes");
    }
}

#[test]
fn a_relay_that_finds_the_store_older_ends_the_session_and_its_agent_hears_why() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    rig.open(1, "auto");
    let effects = rig.tunnel(ConnectorEvent::Reset { channel: CHANNEL, code: ResetCode::StoreRegressed });
    assert!(is_told(&texts_to_agents(&effects), "older than what the customer was told"));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Audit(Audit::StoreRegressed { .. }))));
    assert!(rig.desk.status().sessions.is_empty());
}

#[test]
fn a_link_is_good_again_when_the_word_of_a_withdrawal_was_lost() {
    let mut rig = Rig::new(config());
    opened(&mut rig, 1, "billing", link("once"));
    rig.tunnel(ConnectorEvent::Reset { channel: CHANNEL, code: ResetCode::Unknown });
    assert_eq!(refusal(&opened(&mut rig, 2, "billing", link("once"))), Some(RefusalCode::BadLink));
    rig.pass(crate::connector::desk::DETACHED_FOR);
    assert_eq!(refusal(&opened(&mut rig, 3, "billing", link("once"))), None);
}

#[test]
fn a_withdrawn_return_does_not_end_a_session() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    rig.tunnel(ConnectorEvent::Open { channel: ChannelId(9), open: Box::new(attach(1, 1, 1)) });
    rig.tunnel(ConnectorEvent::Reset { channel: ChannelId(9), code: ResetCode::Cancelled });
    assert_eq!(rig.desk.status().sessions.len(), 1);
}

#[test]
fn a_bad_event_costs_the_channel_and_marks_nothing() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    let payload = Payload::Event(bytes::Bytes::from_static(b"\xff\xff"));
    let effects = rig.tunnel(ConnectorEvent::Data { channel: CHANNEL, number: 1, sm_in: 1, payload });
    assert!(matches!(commands(&effects)[..], [ConnectorCommand::Reset { code: ResetCode::Protocol, .. }]));
    let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(2), open: Box::new(attach(1, 1, 1)) });
    assert!(commands(&effects).iter().any(|c| matches!(c, ConnectorCommand::Accept { in_next: 1, .. })));
}

#[test]
fn a_customer_who_stays_away_is_given_up() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    rig.open(1, "auto");
    rig.handle(Input::Tunnel { relay: RELAY, event: ConnectorEvent::Attached { epoch: 1, resumed: false } });
    let effects = rig.pass(crate::connector::desk::DETACHED_FOR);
    assert!(is_told(&texts_to_agents(&effects), "cut by a fault"));
    assert!(texts_to_customer(&effects).is_empty());
    assert!(rig.desk.status().sessions.is_empty());
}
