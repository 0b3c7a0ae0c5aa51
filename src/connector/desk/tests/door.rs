//! The door towards the relays: what a captured one cannot get, and what none of it costs those who are known.

use std::time::Duration;

use super::rig::{CHANNEL, RELAY, Rig, attach, chatty, commands, config, data, is_told, open, texts_to_customer};
use crate::connector::desk::{DoorEffect, Effect, Input, LiveSessions, RelayIndex, Revocation, Space, Told};
use crate::im::ImEvent;
use crate::link::RevokedLink;
use crate::proto::tunnel::{Admission, Assertion, ChannelId, CheckId, ConnectorCommand, ConnectorEvent, Open, OpenKind, RefusalCode};
use crate::session::{OpenId, SessionSecret};

const ROOM: Space = Space { free: 50 << 30, total: 100 << 30 };
const NO_ROOM: Space = Space { free: 1 << 20, total: 100 << 30 };

#[test]
fn a_relay_that_floods_opens_gets_its_burst_and_then_its_rate_and_another_relay_is_not_hurt() {
    let mut rig = Rig::new(config());
    assert_eq!(rig.flood(RELAY, 0..700, link()), 500);
    assert_eq!(rig.desk.counters().refused_for.get("opens-too-fast"), Some(&200));
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.flood(RELAY, 1000..1200, link()), 50);
    assert_eq!(rig.flood(RelayIndex(1), 2000..2010, link()), 10);
    let refused = rig.desk.status().queues.iter().find(|queue| queue.id == "billing").unwrap().refused.clone();
    assert_eq!(refused.get("opens-too-fast"), Some(&350));
}

#[test]
fn strangers_without_a_signature_hold_a_quarter_of_the_unanswered_opens_at_most() {
    let mut rig = Rig::new(config());
    // Nothing is committed yet: no answer has left.
    let mut held = Vec::new();
    for n in 0..300 {
        held.extend(rig.opened(RELAY, n, "help", Assertion::Anonymous));
    }
    assert_eq!(accepted(&held), 256);
    assert_eq!(rig.desk.counters().refused_for.get("opens-unsigned"), Some(&44));
    let signed = rig.opened(RELAY, 400, "billing", link());
    assert_eq!(accepted(&signed), 1, "who has a link is not kept out by strangers");
    // Their answers leave.
    drop(held);
    let later = rig.opened(RELAY, 401, "help", Assertion::Anonymous);
    assert_eq!(accepted(&later), 1);
}

#[test]
fn unanswered_opens_are_bounded() {
    let mut config = config();
    config.door.opens.burst = 5000;
    let mut rig = Rig::new(config);
    let held: Vec<Effect> = (0..1100).flat_map(|n| rig.opened(RELAY, n, "billing", link())).collect();
    assert_eq!(accepted(&held), 1024);
    assert_eq!(rig.desk.counters().refused_for.get("opens-pending"), Some(&76));
}

#[test]
fn limits_of_new_sessions_never_hold_back_those_that_return() {
    let mut rig = Rig::new(config());
    rig.opened(RELAY, 0, "help", Assertion::Anonymous);
    rig.flood(RELAY, 1..700, link());
    rig.handle(Input::Space(NO_ROOM));
    let id = u32::from(u16::MAX);
    let again = Open { kind: new(0), ..open(0, "help", Assertion::Anonymous) };
    for open in [again, attach_of(0)] {
        let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(id), open: Box::new(open) });
        assert_eq!(accepted(&effects), 1);
    }
}

#[test]
fn a_store_without_room_refuses_new_sessions_and_live_ones_go_on() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    rig.handle(Input::Space(NO_ROOM));
    let refused = rig.opened(RELAY, 2, "help", Assertion::Anonymous);
    assert_eq!(refusal(&refused), Some(RefusalCode::Busy));
    let admission = Box::new(Admission { domain: "chat.example".into(), queue: "help".into(), assertion: Assertion::Anonymous });
    let asked = rig.tunnel(ConnectorEvent::Check { check: CheckId(1), admission });
    assert!(commands(&asked).iter().any(|c| matches!(c, ConnectorCommand::Verdict { verdict: Err((RefusalCode::Busy, _)), .. })));
    assert!(rig.desk.status().store_low);
    assert_eq!(rig.desk.counters().refused_for.get("store-full"), Some(&2));
    let said = rig.customer_says(1, 1, "still here");
    assert!(commands(&said).iter().any(|c| matches!(c, ConnectorCommand::Handled { number: 1, .. })));
    rig.handle(Input::Space(ROOM));
    assert_eq!(accepted(&rig.opened(RELAY, 3, "help", Assertion::Anonymous)), 1);
}

#[test]
fn what_nobody_reads_is_bounded_by_events_and_by_bytes() {
    for (size, most) in [(10, 256), (30_000, (1 << 20) / 30_000)] {
        let mut rig = Rig::new(config());
        rig.open(1, "help");
        let mut handled = 0;
        // As many as a relay may have in the tunnel: 64 events, or a window of 256 KiB.
        let in_flight = 64.min(256 * 1024 / size as u64);
        for number in 1.. {
            if number > handled + in_flight {
                break;
            }
            let effects = rig.customer_says(1, number, &"x".repeat(size));
            handled += commands(&effects).iter().filter(|c| matches!(c, ConnectorCommand::Handled { .. })).count() as u64;
        }
        let unread = handled + in_flight;
        assert!(unread <= most as u64, "{unread} events of {size} bytes");
        // An agent comes: it goes on.
        rig.log_in(1, "alice");
        let (_, code) = rig.proxy();
        let taken = rig.agent_says(1, "desk@desk.example", "t1", &format!("take {code}"));
        assert!(commands(&taken).iter().any(|c| matches!(c, ConnectorCommand::Handled { number, .. } if *number > handled)));
    }
}

#[test]
fn checks_are_bounded_too() {
    let mut rig = Rig::new(config());
    let mut answered = 0;
    for n in 0..2500 {
        let admission = Box::new(Admission { domain: "chat.example".into(), queue: "billing".into(), assertion: link() });
        let effects = rig.tunnel(ConnectorEvent::Check { check: CheckId(n), admission });
        answered += commands(&effects).iter().filter(|c| matches!(c, ConnectorCommand::Verdict { verdict: Ok(_), .. })).count();
    }
    assert_eq!(answered, 2000);
}

#[test]
fn a_revoked_link_opens_nothing_more_and_its_live_sessions_go_on_unless_they_are_to_end() {
    let mut rig = Rig::new(config());
    rig.opened(RELAY, 1, "billing", link());
    let effects = rig.revoke(LiveSessions::Stay);
    assert_eq!(told(&effects), vec![RevokedLink { issuer: "shop".into(), jti: "j1".into(), expires: 1_800_000_000 }]);
    assert_eq!(answer(&effects), Ok((1, 0)));
    assert_eq!(refusal(&rig.opened(RELAY, 2, "billing", link())), Some(RefusalCode::BadLink));
    assert_eq!(rig.desk.counters().refused_for.get("link-revoked"), Some(&1));
    assert_eq!(rig.desk.status().sessions.len(), 1);
    let effects = rig.revoke(LiveSessions::End);
    assert_eq!(answer(&effects), Ok((1, 1)));
    let fin = commands(&effects).into_iter().find_map(|c| if let ConnectorCommand::Finish { fin, .. } = c { Some(fin.text) } else { None });
    assert!(fin.unwrap().contains("withdrawn"));
    // It is remembered over a restart, and told anew.
    rig.restart(config(), 1);
    assert_eq!(refusal(&rig.opened(RELAY, 3, "billing", link())), Some(RefusalCode::BadLink));
    assert_eq!(rig.desk.status().revoked_links, 1);
}

#[test]
fn a_revocation_is_forgotten_a_day_after_its_link_has_ended() {
    let mut rig = Rig::new(config());
    let now = rig.now.unix_millis / 1000;
    let short = Revocation { expires: Some(now + 10), ..revocation(LiveSessions::Stay) };
    rig.handle(Input::Revoke { ask: 1, revocation: short.clone() });
    assert_eq!(rig.desk.status().revoked_links, 1);
    rig.now.unix_millis += 25 * 3600 * 1000;
    let other = Revocation { jti: "j2".into(), expires: None, ..short };
    let effects = rig.handle(Input::Revoke { ask: 2, revocation: other });
    assert_eq!(told(&effects).iter().map(|link| link.jti.as_str()).collect::<Vec<_>>(), ["j2"]);
}

#[test]
fn revocations_of_nobody_or_without_end_are_refused() {
    let mut rig = Rig::new(config());
    for wrong in [
        Revocation { issuer: Some("stranger".into()), ..revocation(LiveSessions::Stay) },
        Revocation { jti: String::new(), ..revocation(LiveSessions::Stay) },
        Revocation { jti: "x".repeat(256), ..revocation(LiveSessions::Stay) },
    ] {
        let effects = rig.handle(Input::Revoke { ask: 1, revocation: wrong });
        assert!(answer(&effects).is_err() && told(&effects).is_empty());
    }
    for n in 0..4097 {
        let one = Revocation { jti: format!("n{n}"), ..revocation(LiveSessions::Stay) };
        let effects = rig.handle(Input::Revoke { ask: 1, revocation: one });
        assert_eq!(answer(&effects).is_ok(), n < 4096);
    }
}

#[test]
fn denied_software_is_refused_at_open_and_ended_when_it_is_known_later() {
    let mut rig = Rig::new(config());
    let mut software = super::rig::profanity();
    software.name = "chatty".into();
    let at_once = Open { software: software.clone(), ..open(1, "help", Assertion::Anonymous) };
    let effects = rig.tunnel(ConnectorEvent::Open { channel: CHANNEL, open: Box::new(at_once) });
    assert_eq!(refusal(&effects), Some(RefusalCode::Policy));
    rig.open(2, "help");
    let effects = rig.tunnel(data(2, 1, &ImEvent::Software(software)));
    let text =
        commands(&effects).into_iter().find_map(|c| if let ConnectorCommand::Finish { fin, .. } = c { Some(fin.text) } else { None });
    assert_eq!(text.as_deref(), Some(chatty().sentence()));
    assert!(!is_told(&texts_to_customer(&effects), "position"));
    assert_eq!(rig.desk.counters().refused_for.get("client-denied"), Some(&2));
}

#[test]
fn a_session_is_attached_by_its_secret_alone() {
    let mut rig = Rig::new(config());
    rig.open(1, "help");
    rig.customer_says(1, 1, "private");
    for guess in [[2; 16], [0; 16], [0xff; 16]] {
        let kind = OpenKind::Attach { secret: SessionSecret(guess), in_next: 2, out_next: 1, client_h: None, attachment: 0 };
        let guessed = Open { kind, ..open(1, "help", Assertion::Anonymous) };
        let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(9), open: Box::new(guessed) });
        assert_eq!(refusal(&effects), Some(RefusalCode::UnknownSession));
    }
    // Its open_id, which the relay has seen, is no proof either.
    let kind = OpenKind::New { open_id: OpenId([1; 16]), secret: SessionSecret([2; 16]) };
    let stolen = Open { kind, ..open(1, "help", Assertion::Anonymous) };
    let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(11), open: Box::new(stolen) });
    assert_eq!(refusal(&effects), Some(RefusalCode::Policy));
    assert_eq!(rig.desk.status().sessions[0].attachment, 1);
}

impl Rig {
    /// How many of these are let in; their answers leave at once.
    fn flood(&mut self, relay: RelayIndex, numbers: std::ops::Range<u32>, assertion: Assertion) -> usize {
        numbers.map(|n| accepted(&self.opened(relay, n, "billing", assertion.clone()))).sum()
    }

    fn opened(&mut self, relay: RelayIndex, n: u32, queue: &str, assertion: Assertion) -> Vec<Effect> {
        let open = Open { kind: new(n), ..open(0, queue, assertion) };
        self.handle(Input::Tunnel { relay, event: ConnectorEvent::Open { channel: ChannelId(2 * n + 1), open: Box::new(open) } })
    }

    fn revoke(&mut self, live: LiveSessions) -> Vec<Effect> {
        self.handle(Input::Revoke { ask: 1, revocation: revocation(live) })
    }
}

fn revocation(live: LiveSessions) -> Revocation {
    Revocation { issuer: None, jti: "j1".into(), expires: Some(1_800_000_000), live }
}

fn link() -> Assertion {
    Assertion::Link { token: "any".into(), kid: "whatever the relay says".into() }
}

fn new(n: u32) -> OpenKind {
    let [a, b, c, d] = n.to_be_bytes();
    let id = [a, b, c, d, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
    OpenKind::New { open_id: OpenId(id), secret: SessionSecret(id) }
}

fn attach_of(n: u32) -> Open {
    let OpenKind::New { secret, .. } = new(n) else { unreachable!("it is new") };
    Open { kind: OpenKind::Attach { secret, in_next: 1, out_next: 1, client_h: None, attachment: 0 }, ..attach(0, 1, 1) }
}

fn accepted(effects: &[Effect]) -> usize {
    commands(effects).iter().filter(|command| matches!(command, ConnectorCommand::Accept { .. })).count()
}

fn refusal(effects: &[Effect]) -> Option<RefusalCode> {
    commands(effects).iter().find_map(|command| if let ConnectorCommand::Refuse { code, .. } = command { Some(*code) } else { None })
}

fn told(effects: &[Effect]) -> Vec<RevokedLink> {
    let told =
        effects.iter().find_map(|effect| if let Effect::Door(DoorEffect::Revoked(links)) = effect { Some(links.clone()) } else { None });
    told.unwrap_or_default()
}

/// Links revoked in all, and sessions ended.
fn answer(effects: &[Effect]) -> Result<(usize, usize), String> {
    let answer = effects
        .iter()
        .find_map(|effect| if let Effect::Door(DoorEffect::Answer { done, .. }) = effect { Some(done.clone()) } else { None });
    answer.unwrap().map(|told| if let Told::Revoked(done) = told { (done.revoked, done.ended) } else { panic!("{told:?}") })
}
