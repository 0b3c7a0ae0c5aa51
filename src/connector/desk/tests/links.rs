//! Short codes, and customers who come back with what let them in.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one of many")]

use std::time::Duration;

use super::rig::{CHANNEL, RELAY, Rig, commands, config, data, is_told, open, said, texts_to_agents, texts_to_customer};
use crate::connector::desk::{DoorEffect, Effect, Input, LinkList, LinkStatus, LiveSessions, NewCode, RelayIndex, Revocation, Told};
use crate::proto::tunnel::{
    Admission, Assertion, ChannelId, CheckId, ConnectorCommand, ConnectorEvent, Open, OpenKind, RefusalCode, ResetCode, Welcome,
};
use crate::session::{OpenId, SessionSecret};

const OTHER: RelayIndex = RelayIndex(1);

#[test]
fn a_code_leads_to_its_queue_counts_its_uses_and_is_kept_by_digest_alone() {
    let mut rig = Rig::new(config());
    let made = rig.make(&NewCode { max_sessions: Some(2), ..wanted() });
    assert_eq!(made.len(), 26);
    assert!(made.starts_with('k'));
    assert!(!format!("{:?}", rig.store.codes).contains(&made));
    for n in 1..=2 {
        assert_eq!(rig.ask(&made), Ok(Welcome { queue: "billing".into(), continues: false }));
        // However it is written.
        assert_eq!(rig.enter(RELAY, n, &made.to_uppercase()), None);
    }
    assert_eq!(rig.ask(&made).unwrap_err().0, RefusalCode::BadLink);
    assert_eq!(rig.enter(OTHER, 3, &made), Some(RefusalCode::BadLink));
    assert_eq!(rig.desk.counters().refused_for.get("link-used-up"), Some(&2));
    let session = rig.store.sessions.values().next().unwrap();
    assert_eq!((session.record.customer.as_str(), session.record.reason.as_str()), ("Maria", "card declined"));
    assert_eq!(session.record.link_issuer, "code");
}

#[test]
fn wrong_expired_and_revoked_codes_and_those_of_other_domains_are_refused_by_their_reasons() {
    let mut rig = Rig::new(config());
    let wrong = "k0000000000000000000000000";
    let (code, revoked) = (rig.make(&wanted()), rig.make(&wanted()));
    let jti = rig.store.codes[1].terms.jti.clone();
    rig.take_back(&jti, LiveSessions::Stay);
    let elsewhere = Admission { domain: "other.example".into(), queue: String::new(), assertion: Assertion::Code(code.clone()) };
    for (admission, reason) in [
        (admission(wrong), "code-wrong"),
        (admission("no code at all"), "code-wrong"),
        (elsewhere, "code-wrong"),
        (admission(&revoked), "link-revoked"),
        (Admission { queue: "help".into(), ..admission(&code) }, "link-other-queue"),
    ] {
        let before = rig.desk.counters().refused_for.get(reason).copied().unwrap_or(0);
        assert_eq!(rig.check(admission).unwrap_err().0, RefusalCode::BadLink, "{reason}");
        assert_eq!(rig.desk.counters().refused_for.get(reason), Some(&(before + 1)), "{reason}");
    }
    rig.pass(Duration::from_secs(3600));
    assert_eq!(rig.ask(&code).unwrap_err().0, RefusalCode::BadLink);
    assert_eq!(rig.desk.counters().refused_for.get("link-expired"), Some(&1));
    assert_eq!(rig.store.codes.len(), 2, "whoever brings one is told that it is over, for a day");
    rig.pass(Duration::from_secs(26 * 3600));
    assert_eq!((rig.store.codes.len(), rig.desk.status().codes), (0, 0));
}

#[test]
fn codes_are_known_after_a_restart_and_revoked_ones_are_revoked() {
    let mut rig = Rig::new(config());
    let (code, revoked) = (rig.make(&wanted()), rig.make(&wanted()));
    let jti = rig.store.codes[1].terms.jti.clone();
    rig.take_back(&jti, LiveSessions::Stay);
    rig.restart(config(), 1);
    assert!(rig.ask(&code).is_ok());
    assert!(rig.ask(&revoked).is_err());
}

#[test]
fn a_connector_without_a_label_makes_no_codes_and_bad_wishes_are_told() {
    let mut rig = Rig::new(config());
    for bad in [
        NewCode { queue: "nowhere".into(), ..wanted() },
        NewCode { domain: Some("other.example".into()), ..wanted() },
        NewCode { seconds: 0, ..wanted() },
        NewCode { seconds: u64::MAX, ..wanted() },
        NewCode { max_sessions: Some(0), ..wanted() },
        NewCode { skills: vec!["x".repeat(65)], ..wanted() },
        NewCode { lang: Some("d\ne".into()), ..wanted() },
    ] {
        assert!(told(&rig.handle(Input::MakeCode { ask: 1, wanted: bad.clone() })).is_err(), "{bad:?}");
    }
    let mut config = config();
    config.door.label = None;
    let mut rig = Rig::new(config);
    let refused = told(&rig.handle(Input::MakeCode { ask: 1, wanted: wanted() })).unwrap_err();
    assert!(refused.contains("label"), "{refused}");
}

#[test]
fn the_list_has_codes_and_used_links_and_says_how_they_stand() {
    let mut rig = Rig::new(config());
    let code = rig.make(&wanted());
    rig.open_with(RELAY, 1, Assertion::Link { token: "once".into(), kid: String::new() });
    let list = rig.list();
    let short: Vec<_> = list.links.iter().map(|l| (l.issuer.as_str(), l.uses, l.max_sessions, l.state, l.live)).collect();
    assert_eq!(short, [("code", 0, Some(1), "good", false), ("shop", 1, Some(1), "used-up", true)]);
    rig.enter(RELAY, 2, &code);
    let jti = rig.store.codes[0].terms.jti.clone();
    rig.take_back(&jti, LiveSessions::End);
    let status = rig.list().links.into_iter().find(|link: &LinkStatus| link.issuer == "code").unwrap();
    assert_eq!((status.uses, status.state, status.live), (1, "revoked", false));
    assert!(!format!("{:?}", rig.list()).contains(&code));
}

#[test]
fn who_comes_back_with_a_link_for_one_session_has_that_session_and_the_earlier_client_is_told_that_it_moved() {
    let mut rig = Rig::new(config());
    rig.log_in(1, "alice");
    rig.open_with(RELAY, 1, once());
    let (proxy, code) = rig.proxy();
    rig.agent_says(1, "desk@desk.example", "t", &format!("take {code}"));
    rig.customer_says(1, 1, "from the office");
    rig.agent_says(1, &proxy, "a1", "seen");
    rig.tunnel(ConnectorEvent::OutHandled { channel: CHANNEL, number: rig.out_last(), proof: crate::proto::tunnel::Proof::Confirmed });
    rig.agent_says(1, &proxy, "a2", "not seen yet");

    assert_eq!(rig.check(link_admission()), Ok(Welcome { queue: String::new(), continues: true }));
    let effects = rig.come_back(OTHER, 7, once(), 77);
    let moved = |c: &&ConnectorCommand| matches!(c, ConnectorCommand::Reset { channel: CHANNEL, code: ResetCode::Moved });
    let sent = commands(&effects);
    assert_eq!(sent.iter().filter(moved).count(), 1);
    let accept = sent.iter().find_map(|c| match c {
        ConnectorCommand::Accept { attachment, in_next, out, .. } => Some((*attachment, *in_next, out.len())),
        _ => None,
    });
    assert_eq!(accept, Some((2, 2, 1)), "what he is owed, and nothing of what was said before");
    assert!(is_told(&texts_to_agents(&effects), "on another connection"));
    assert!(!is_told(&texts_to_customer(&effects), "office"));
    // His stanzas count from nought, the events go on.
    assert!(sent.iter().any(|c| matches!(c, ConnectorCommand::Handled { number: 1, sm_in: 0, .. })));
    let event = ConnectorEvent::Data { channel: ChannelId(7), number: 2, sm_in: 1, payload: payload("from home") };
    let effects = rig.handle(Input::Tunnel { relay: OTHER, event });
    assert!(is_told(&texts_to_agents(&effects), "from home"));
    // Nothing that the earlier relay holds lets anyone in.
    for kind in [rig_new(1), attach_kind(1, 2)] {
        let stale = Open { kind, ..open(1, "billing", Assertion::Anonymous) };
        let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(21), open: Box::new(stale) });
        assert!(refusal(&effects).is_some(), "{kind:?}");
    }
    assert_eq!(rig.store.sessions.len(), 1);
    assert_eq!(rig.desk.counters().links_continued, 1);
}

#[test]
fn a_repeated_return_finds_its_own_session_and_a_restart_does_not_forget_whose_it_is() {
    let mut rig = Rig::new(config());
    rig.open_with(RELAY, 1, once());
    for channel in [7, 9] {
        let effects = rig.come_back(OTHER, channel, once(), 77);
        assert!(commands(&effects).iter().any(|c| matches!(c, ConnectorCommand::Accept { .. })), "{effects:?}");
    }
    assert_eq!(rig.desk.counters().links_continued, 1, "the secret was known the second time");
    rig.restart(config(), 1);
    assert_eq!(rig.check(link_admission()), Ok(Welcome { queue: String::new(), continues: true }));
    let known = Open { kind: attach_kind(77, 1), ..open(1, "billing", Assertion::Anonymous) };
    let effects = rig.tunnel(ConnectorEvent::Open { channel: ChannelId(31), open: Box::new(known) });
    assert!(commands(&effects).iter().any(|c| matches!(c, ConnectorCommand::Accept { .. })));
    let effects = rig.come_back(RELAY, 33, once(), 78);
    assert!(commands(&effects).iter().any(|c| matches!(c, ConnectorCommand::Accept { .. })));
}

#[test]
fn of_two_who_present_one_link_the_later_has_it_three_times_a_minute_and_then_the_earlier_keeps_it() {
    let mut rig = Rig::new(config());
    rig.open_with(RELAY, 1, once());
    for n in 0..3 {
        assert_eq!(refusal(&rig.come_back(OTHER, 7 + 2 * n, once(), 70 + u8::try_from(n).unwrap())), None);
    }
    assert_eq!(rig.check(link_admission()).unwrap_err().0, RefusalCode::Busy);
    assert_eq!(refusal(&rig.come_back(RELAY, 41, once(), 90)), Some(RefusalCode::Busy));
    assert_eq!(rig.desk.counters().refused_for.get("link-in-use"), Some(&2));
    // Nobody has it now: who comes is no second one.
    rig.handle(Input::Tunnel { relay: OTHER, event: ConnectorEvent::Reset { channel: ChannelId(11), code: ResetCode::Unknown } });
    assert_eq!(refusal(&rig.come_back(RELAY, 43, once(), 91)), None);
    rig.pass(Duration::from_secs(61));
    assert_eq!(refusal(&rig.come_back(RELAY, 45, once(), 92)), None);
}

#[test]
fn a_link_for_many_continues_nothing_and_one_whose_session_is_over_neither() {
    let mut rig = Rig::new(config());
    let any = Assertion::Link { token: "any".into(), kid: String::new() };
    rig.open_with(RELAY, 1, any.clone());
    assert_eq!(refusal(&rig.come_back(OTHER, 7, any, 77)), Some(RefusalCode::UnknownSession));
    let mut rig = Rig::new(config());
    rig.open_with(RELAY, 1, once());
    let fin = crate::proto::tunnel::Fin { reason: crate::session::CloseReason::CustomerLeft, text: String::new() };
    rig.tunnel(ConnectorEvent::Fin { channel: CHANNEL, number: 1, fin });
    assert_eq!(rig.check(link_admission()).unwrap_err().0, RefusalCode::BadLink);
    assert_eq!(refusal(&rig.come_back(OTHER, 7, once(), 77)), Some(RefusalCode::BadLink));
    // Nor does an OPEN of a new session get into one that lives.
    let mut rig = Rig::new(config());
    rig.open_with(RELAY, 1, once());
    assert_eq!(refusal(&rig.open_with(OTHER, 2, once())), Some(RefusalCode::BadLink));
    assert_eq!(rig.desk.counters().refused_for.get("link-used-up"), Some(&1));
}

#[test]
fn a_live_sessions_own_link_brings_its_customer_back_after_its_end_and_though_revoked() {
    let mut rig = Rig::new(config());
    let code = rig.make(&wanted());
    rig.enter(RELAY, 1, &code);
    let jti = rig.store.codes[0].terms.jti.clone();
    rig.take_back(&jti, LiveSessions::Stay);
    let back = Assertion::Code(code);
    assert_eq!(refusal(&rig.come_back(OTHER, 7, back.clone(), 77)), None);
    rig.pass(Duration::from_secs(30 * 3600));
    assert_eq!(rig.store.codes.len(), 1);
    assert_eq!(refusal(&rig.come_back(RELAY, 9, back.clone(), 78)), None);
    rig.take_back(&jti, LiveSessions::End);
    assert_eq!(refusal(&rig.come_back(RELAY, 11, back, 79)), Some(RefusalCode::BadLink));
}

#[test]
fn a_link_is_verified_once_for_check_and_open() {
    let mut config_of = config();
    config_of.door.opens.burst = 5000;
    let mut rig = Rig::new(config_of);
    let verified = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = std::sync::Arc::clone(&verified);
    let verify = super::rig::outside(0).verify_link;
    rig.desk.outside.verify_link = Box::new(move |token, domain, now| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        verify(token, domain, now)
    });
    let times = || verified.load(std::sync::atomic::Ordering::Relaxed);
    rig.check(Admission { assertion: any(), ..link_admission() }).unwrap();
    assert_eq!(refusal(&rig.open_with(RELAY, 1, any())), None);
    assert_eq!(times(), 1);
    // Not in another domain's name, and not for long.
    let elsewhere = Admission { domain: "other.example".into(), assertion: any(), ..link_admission() };
    assert!(rig.check(elsewhere).is_err());
    rig.pass(Duration::from_secs(31));
    rig.check(Admission { assertion: any(), ..link_admission() }).unwrap();
    assert_eq!(times(), 2);
    // A link that ends meanwhile is not good because it was.
    rig.now.unix_millis = 1_700_003_600_000;
    rig.check(Admission { assertion: any(), ..link_admission() }).unwrap();
    assert_eq!(times(), 3);
}

impl Rig {
    fn make(&mut self, wanted: &NewCode) -> String {
        let effects = self.handle(Input::MakeCode { ask: 1, wanted: wanted.clone() });
        match told(&effects).unwrap() {
            Told::Code(made) => made.code.as_str().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    fn list(&mut self) -> LinkList {
        match told(&self.handle(Input::ListLinks { ask: 1 })).unwrap() {
            Told::Links(list) => list,
            other => panic!("{other:?}"),
        }
    }

    fn take_back(&mut self, jti: &str, live: LiveSessions) {
        let revocation = Revocation { issuer: None, jti: jti.to_owned(), expires: None, live };
        told(&self.handle(Input::Revoke { ask: 1, revocation })).unwrap();
    }

    fn ask(&mut self, code: &str) -> crate::proto::tunnel::Verdict {
        self.check(admission(code))
    }

    fn check(&mut self, admission: Admission) -> crate::proto::tunnel::Verdict {
        let effects = self.tunnel(ConnectorEvent::Check { check: CheckId(1), admission: Box::new(admission) });
        let verdict = commands(&effects).into_iter().find_map(|command| match command {
            ConnectorCommand::Verdict { verdict, .. } => Some(verdict),
            _ => None,
        });
        verdict.unwrap()
    }

    /// Comes in with a code; what it is refused for.
    fn enter(&mut self, relay: RelayIndex, n: u8, code: &str) -> Option<RefusalCode> {
        refusal(&self.open_with(relay, n, Assertion::Code(code.to_owned())))
    }

    fn open_with(&mut self, relay: RelayIndex, n: u8, assertion: Assertion) -> Vec<Effect> {
        let open = Box::new(open(n, "billing", assertion));
        self.handle(Input::Tunnel { relay, event: ConnectorEvent::Open { channel: ChannelId(n.into()), open } })
    }

    /// Comes back with a link, at this relay and channel, under a new secret.
    fn come_back(&mut self, relay: RelayIndex, channel: u32, assertion: Assertion, secret: u8) -> Vec<Effect> {
        let open = Open { kind: attach_kind(secret, 0), ..open(1, "billing", assertion) };
        self.handle(Input::Tunnel { relay, event: ConnectorEvent::Open { channel: ChannelId(channel), open: Box::new(open) } })
    }

    fn out_last(&self) -> u64 {
        self.desk.status().sessions[0].out_last
    }
}

fn wanted() -> NewCode {
    NewCode {
        domain: None,
        queue: "billing".into(),
        seconds: 3600,
        max_sessions: Some(1),
        skills: vec!["cards".into()],
        lang: Some("de".into()),
        reason: Some("card declined".into()),
        subject: Some("Maria".into()),
    }
}

fn admission(code: &str) -> Admission {
    Admission { domain: super::rig::DOMAIN.into(), queue: String::new(), assertion: Assertion::Code(code.to_owned()) }
}

fn link_admission() -> Admission {
    Admission { domain: super::rig::DOMAIN.into(), queue: "billing".into(), assertion: once() }
}

fn once() -> Assertion {
    Assertion::Link { token: "once".into(), kid: String::new() }
}

fn any() -> Assertion {
    Assertion::Link { token: "any".into(), kid: String::new() }
}

fn attach_kind(secret: u8, next: u64) -> OpenKind {
    OpenKind::Attach { secret: SessionSecret([secret; 16]), in_next: next, out_next: next, client_h: None, attachment: 0 }
}

fn rig_new(n: u8) -> OpenKind {
    OpenKind::New { open_id: OpenId([n; 16]), secret: SessionSecret([n; 16]) }
}

fn payload(text: &str) -> crate::proto::tunnel::Payload {
    let ConnectorEvent::Data { payload, .. } = data(1, 1, &said("x", text)) else { unreachable!("it is data") };
    payload
}

fn told(effects: &[Effect]) -> Result<Told, String> {
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Door(DoorEffect::Answer { done, .. }) => Some(done.clone()),
        _ => None,
    });
    told.unwrap()
}

fn refusal(effects: &[Effect]) -> Option<RefusalCode> {
    commands(effects).iter().find_map(|command| if let ConnectorCommand::Refuse { code, .. } = command { Some(*code) } else { None })
}
