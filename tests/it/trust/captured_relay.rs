//! A captured relay against a real connector.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut as _, Bytes, BytesMut};
use outgate::connector::desk::Space;
use outgate::connector::{Connector, Every};
use outgate::fingerprint::{ClientSoftware, Confidence, SoftwareSource};
use outgate::im::{ImEvent, Message};
use outgate::net::link_keys::SigningKey;
use outgate::proto::tunnel::frame::Frame;
use outgate::proto::tunnel::{Assertion, OpenKind, RefusalCode, RelayEvent, SessionKey, event};
use outgate::session::{CloseReason, SessionSecret};
use serde_json::{Value, json};

use super::PATIENCE;
use super::company::{Company, DOMAIN, ISSUER};
use super::fake::FakeRelay;

#[tokio::test]
async fn it_opens_its_burst_and_then_its_rate_and_known_sessions_come_back_all_the_same() {
    let (company, mut relay, _connector) = beside(&["hello", "support"]).await;
    let link = company.link("support");
    let start = tokio::time::Instant::now();
    for _ in 0..800 {
        relay.open("support", signed(&link));
    }
    let (mut accepted, mut refused) = (Vec::new(), 0);
    while accepted.len() + refused < 800 {
        relay
            .until("answers", |event| match event {
                RelayEvent::OpenOk { session, .. } => {
                    accepted.push(*session);
                    Some(())
                }
                RelayEvent::OpenRefused { code, .. } => {
                    assert_eq!(*code, RefusalCode::Busy);
                    refused += 1;
                    Some(())
                }
                _ => None,
            })
            .await;
    }
    let allowed = 500 + 50 * start.elapsed().as_secs() as usize + 50;
    assert!((500..=allowed).contains(&accepted.len()), "{} let in, {allowed} allowed", accepted.len());
    let status = company.ask("lan1", STATUS).await;
    assert_eq!(status["counters"]["refused_for"]["opens-too-fast"], refused);
    // Its carrier breaks while it has nothing left to open: RESUME is not held back, and neither are its sessions.
    relay.cut();
    assert!(relay.attached().await, "resumed");
    let first = accepted[0];
    relay.send(first, said("still here"));
    relay.handled(first, 1).await;
}

#[tokio::test]
async fn strangers_that_it_invents_hold_a_quarter_of_the_unanswered_opens_and_who_has_a_link_comes_in_beside_them() {
    let (company, mut relay, _connector) = beside(&["hello", "support"]).await;
    // Nothing is committed while another holds the store: no answer leaves.
    let hold = rusqlite::Connection::open(company.path("lan1.sqlite")).unwrap();
    hold.busy_timeout(PATIENCE).unwrap();
    hold.execute_batch("BEGIN IMMEDIATE").unwrap();
    let link = company.link("support");
    for _ in 0..300 {
        relay.open("hello", Assertion::Anonymous);
    }
    let signed = relay.open("support", signed(&link));
    {
        let judged = |status: &Value| status["counters"]["sessions_opened"] == 257;
        let judged = company.until("lan1", "all to be judged", judged);
        tokio::pin!(judged);
        let status = loop {
            tokio::select! {
                status = &mut judged => break status,
                () = relay.step() => {}
            }
        };
        assert_eq!(status["counters"]["refused_for"]["opens-unsigned"], 44);
    }
    hold.execute_batch("ROLLBACK").unwrap();
    let (mut accepted, mut refused) = (Vec::new(), 0);
    while accepted.len() + refused < 301 {
        relay
            .until("answers", |event| match event {
                RelayEvent::OpenOk { session, .. } => {
                    accepted.push(*session);
                    Some(())
                }
                RelayEvent::OpenRefused { code, text, .. } => {
                    assert!(*code == RefusalCode::Busy && text.starts_with("Too many people"), "{event:?}");
                    refused += 1;
                    Some(())
                }
                _ => None,
            })
            .await;
    }
    assert_eq!((accepted.len(), refused), (257, 44));
    assert!(accepted.contains(&signed), "who has a link is not kept out by strangers");
    // Their answers have left: there is room again.
    let later = relay.open("hello", Assertion::Anonymous);
    assert_eq!(relay.answer(later).await, Ok(()));
}

#[tokio::test]
async fn it_cannot_mint_links_or_bend_those_it_has_seen() {
    let (company, mut relay, _connector) = beside(&["hello", "support", "billing"]).await;
    let good = company.link("support");
    let (foreign, _) = SigningKey::generate().unwrap();
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let payload = good.split('.').nth(1).unwrap();
    let unsigned = |header: Value| format!("{}.{payload}.", encode(header));
    let signature = good.rsplit_once('.').unwrap().1;
    let other_payload = encode(json!({"iss": ISSUER, "aud": DOMAIN, "exp": 9_999_999_999u64, "jti": "x", "outgate": {"queue": "billing"}}));
    let kid = company.key.kid();
    let header = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid});
    let wrong: [(&str, String, &str, &str); 8] = [
        ("unsigned", unsigned(header("none", kid)), "support", "link-algorithm"),
        ("without a signature", unsigned(header("EdDSA", kid)), "support", "link-bad-signature"),
        ("under another algorithm", format!("{}.{payload}.{signature}", encode(header("ES256", kid))), "support", "link-bad-signature"),
        (
            "with another payload",
            format!("{}.{other_payload}.{signature}", good.split('.').next().unwrap()),
            "billing",
            "link-bad-signature",
        ),
        ("of its own key", foreign.mint(&company.claims("support")).unwrap(), "support", "link-unknown-key"),
        ("of its own key under a known name", rename(&foreign, &company), "support", "link-bad-signature"),
        ("for another queue", good.clone(), "billing", "link-other-queue"),
        (
            "that is garbage after the signature fails",
            format!("{}.e30.{signature}", good.split('.').next().unwrap()),
            "support",
            "link-bad-signature",
        ),
    ];
    for (what, token, queue, reason) in wrong {
        let session = relay.open(queue, signed(&token));
        assert_eq!(relay.answer(session).await, Err(RefusalCode::BadLink), "{what}");
        let status = company.ask("lan1", STATUS).await;
        assert!(status["counters"]["refused_for"][reason].as_u64() >= Some(1), "{what}: {}", status["counters"]["refused_for"]);
    }
    // Whether a queue is public is not the relay's to say.
    let session = relay.open("support", Assertion::Anonymous);
    assert_eq!(relay.answer(session).await, Err(RefusalCode::BadLink));
    let session = relay.open("boardroom", Assertion::Anonymous);
    assert_eq!(relay.answer(session).await, Err(RefusalCode::NoQueue));
    // What the relay claims of a link counts for nothing, either way.
    let session = relay.open("support", Assertion::Link { token: good, kid: "another".to_owned() });
    assert_eq!(relay.answer(session).await, Ok(()));
}

#[tokio::test]
async fn what_nobody_reads_stops_at_256_events_or_1_mib_and_more_costs_the_session_alone() {
    let (company, mut relay, _connector) = beside(&["unread"]).await;
    for (size, most) in [(20, 256), (30_000, (1 << 20) / 30_000)] {
        let session = opened(&mut relay, &company).await;
        let (mut sent, mut handled, mut before) = (0, 0, None);
        while before != Some(handled) {
            before = Some(handled);
            // A relay's own log of a session ends at 1 MiB: no more than that waits here.
            while sent < handled + 300.min((900 << 10) / size as u64) {
                relay.send(session, said(&"x".repeat(size)));
                sent += 1;
            }
            for event in relay.until_quiet().await {
                if let RelayEvent::Handled { session: which, number, .. } = event
                    && which == session
                {
                    handled = number;
                }
            }
        }
        let in_flight = 64.min(256 * 1024 / size as u64);
        assert!(handled > 0 && handled + in_flight <= most, "{handled} events of {size} bytes are handled");
    }
    // Frames by hand, beyond any credit: the first channel is 1, and 64 items may be in flight.
    let (company, mut relay, _connector) = beside(&["unread"]).await;
    let (greedy, honest) = (opened(&mut relay, &company).await, opened(&mut relay, &company).await);
    let frames: Vec<Frame> = (1..=200).map(|number| data(1, number, &said(&"x".repeat(20_000)))).collect();
    relay.forge(&frames).await;
    assert_eq!(relay.gone(greedy).await, CloseReason::Fault);
    relay.send(honest, said("me too"));
    relay.handled(honest, 1).await;
}

#[tokio::test]
async fn every_event_is_checked_again_and_a_bad_one_costs_its_session_alone() {
    let (company, mut relay, _connector) = beside(&["unread"]).await;
    let honest = opened(&mut relay, &company).await;
    let message = |message: Message| event::encode(&ImEvent::Message(message));
    let bad: [(&str, Bytes); 7] = [
        ("no event", Bytes::from_static(b"\xff\xff\xff")),
        ("nothing", Bytes::new()),
        ("bad UTF-8", Bytes::from_static(b"\x0a\x04\x12\x02\xff\xfe")),
        ("an escape sequence", said("\u{1b}[2J")),
        ("a bidirectional override", said("\u{202e}evil")),
        ("an id that is too long", message(Message { id: Some("x".repeat(300)), ..Message::default() })),
        ("a receipt with a control character", event::encode(&ImEvent::Receipt("a\u{7}".to_owned()))),
    ];
    for (what, bytes) in bad {
        let session = opened(&mut relay, &company).await;
        relay.send(session, bytes);
        assert_eq!(relay.gone(session).await, CloseReason::Fault, "{what}");
    }
    relay.send(honest, said("hello"));
    relay.handled(honest, 1).await;
    let status = company.ask("lan1", STATUS).await;
    assert_eq!(status["counters"]["channel_faults"], 7);
}

#[tokio::test]
async fn it_attaches_no_session_whose_secret_it_never_held() {
    let (company, mut relay, _connector) = beside(&["unread"]).await;
    opened(&mut relay, &company).await;
    for guess in [[0; 16], [0xff; 16], [7; 16]] {
        let kind = OpenKind::Attach { secret: SessionSecret(guess), in_next: 1, out_next: 1, client_h: None, attachment: 0 };
        let session = relay.open_as(kind, "unread", Assertion::Anonymous);
        assert_eq!(relay.answer(session).await, Err(RefusalCode::UnknownSession));
    }
    let status = company.ask("lan1", STATUS).await;
    assert_eq!(status["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(status["sessions"][0]["attachment"], 1);
}

#[tokio::test]
async fn a_full_disk_refuses_new_sessions_and_live_ones_go_on() {
    let company = Company::new();
    let mut relay = FakeRelay::start(&company);
    let is_full = Arc::new(AtomicBool::new(false));
    let full = Arc::clone(&is_full);
    let mut settings = company.connector_settings("lan1", &[relay.address], &["unread"]);
    settings.every = Every { space: Duration::from_millis(20), ..Every::default() };
    settings.space = Box::new(move || {
        let free = if full.load(Ordering::Relaxed) { 1 << 20 } else { 50 << 30 };
        Some(Space { free, total: 100 << 30 })
    });
    let _connector = Connector::start(settings).await.unwrap();
    relay.attached().await;
    let live = opened(&mut relay, &company).await;
    is_full.store(true, Ordering::Relaxed);
    company.until("lan1", "a full disk", |status| status["store_low"] == true).await;
    let session = relay.open("unread", signed(&company.link("unread")));
    assert_eq!(relay.answer(session).await, Err(RefusalCode::Busy));
    relay.send(live, said("still here"));
    relay.handled(live, 1).await;
    is_full.store(false, Ordering::Relaxed);
    company.until("lan1", "room", |status| status["store_low"] == false).await;
    opened(&mut relay, &company).await;
}

#[tokio::test]
async fn a_revoked_link_and_denied_software_are_refused_whatever_the_relay_lets_through() {
    let (company, mut relay, _connector) = beside(&["unread"]).await;
    let claims = company.claims("unread");
    let link = company.key.mint(&claims).unwrap();
    let live = relay.open("unread", signed(&link));
    relay.answer(live).await.unwrap();
    let done = company.ask("lan1", &json!({"do": {"revoke": {"jti": claims.jti, "end": true}}}).to_string()).await;
    assert_eq!((&done["revoked_links"], &done["ended_sessions"]), (&json!(1), &json!(1)), "{done}");
    assert_eq!(relay.gone(live).await, CloseReason::AgentDone);
    let session = relay.open("unread", signed(&link));
    assert_eq!(relay.answer(session).await, Err(RefusalCode::BadLink));

    let session = opened(&mut relay, &company).await;
    let software = ClientSoftware {
        name: "Chatty".to_owned(),
        source: SoftwareSource::Asked,
        confidence: Confidence::Stated,
        ..ClientSoftware::unknown()
    };
    relay.send(session, event::encode(&ImEvent::Software(software)));
    assert_eq!(relay.gone(session).await, CloseReason::AgentDone);
    let status = company.ask("lan1", STATUS).await;
    let refused = &status["queues"][0]["refused"];
    assert_eq!((&refused["link-revoked"], &refused["client-denied"]), (&json!(1), &json!(1)), "{refused}");
}

const STATUS: &str = "{\"get\":\"status\"}";

/// A captured relay with a real connector attached.
async fn beside(queues: &[&str]) -> (Company, FakeRelay, Connector) {
    let company = Company::new();
    let mut relay = FakeRelay::start(&company);
    let connector = company.connector("lan1", &[relay.address], queues).await;
    relay.attached().await;
    (company, relay, connector)
}

/// A session in the queue that nobody serves.
async fn opened(relay: &mut FakeRelay, company: &Company) -> SessionKey {
    let session = relay.open("unread", signed(&company.link("unread")));
    relay.answer(session).await.unwrap();
    session
}

fn signed(token: &str) -> Assertion {
    Assertion::Link { token: token.to_owned(), kid: "k".to_owned() }
}

/// A link signed with `key` that names the company's key.
fn rename(key: &SigningKey, company: &Company) -> String {
    let token = key.mint(&company.claims("support")).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (_, payload) = signed.split_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "EdDSA", "kid": company.key.kid()}).to_string());
    format!("{header}.{payload}.{signature}")
}

fn said(body: &str) -> Bytes {
    event::encode(&ImEvent::Message(Message { body: body.to_owned(), ..Message::default() }))
}

/// DATA by hand: number=1, event=4.
fn data(channel: u32, number: u64, event: &Bytes) -> Frame {
    let mut body = BytesMut::new();
    body.put_u8(1 << 3);
    varint(&mut body, number);
    body.put_u8(4 << 3 | 2);
    varint(&mut body, event.len() as u64);
    body.put_slice(event);
    Frame { kind: 9, flags: 0, channel, body: body.freeze() }
}

fn varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
