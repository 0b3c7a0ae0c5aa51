//! The attacks on XML and XMPP streams that are known, one test each, over real sockets against a real relay; and what of them an
//! agent's client gets to see, which is nothing.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outgate::relay::settings::Limits;
use outgate::session::CloseReason;

use super::PATIENCE;
use super::site::Site;
use crate::relay::customer::Customer;
use crate::relay::{DOMAIN, Rig};
use crate::setup::PASSWORD;

const HEADER: &str =
    "<stream:stream to='chat.example' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const LINK: &str = "good-link";

/// A customer's clock that is over soon.
const SOON: Duration = Duration::from_millis(700);

#[tokio::test]
async fn billion_laughs_and_every_other_doctype_entity_instruction_or_comment_end_the_stream_at_once() {
    let rig = Rig::start(Limits::default()).await;
    let laughs = "<?xml version='1.0'?><!DOCTYPE lolz [<!ENTITY lol 'lol'><!ENTITY lol2 '&lol;&lol;&lol;&lol;'>]>";
    for bytes in [laughs, "<!DOCTYPE x>", "<!-- x -->"] {
        ends(&mut rig.customer().await, bytes, "restricted-xml").await;
    }
    for bytes in [
        "<!DOCTYPE x>",
        "<!ENTITY x 'y'>",
        "<?php x ?>",
        "<!-- x -->",
        "<message><body>&lol;</body></message>",
        "<message><!-- x --></message>",
    ] {
        ends(&mut logged_in(&rig).await, bytes, "restricted-xml").await;
    }
}

#[tokio::test]
async fn an_endless_attribute_name_text_or_tag_ends_the_stream_at_its_limit() {
    let rig = Rig::start(Limits::default()).await;
    let long = "x".repeat(20_000);
    for bytes in [format!("<a b='{long}'"), format!("<{long}"), format!("<a {long}"), format!("<a>{long}")] {
        ends(&mut rig.customer().await, &format!("{HEADER}{bytes}"), "policy-violation").await;
    }
}

#[tokio::test]
async fn many_tiny_elements_deep_nesting_and_many_attributes_end_the_stream_before_and_after_login() {
    let rig = Rig::start(Limits::default()).await;
    let attributes = |count: usize| format!("<a {}/>", (0..count).map(|number| format!("a{number}='' ")).collect::<String>());
    for bytes in ["<a>".repeat(9), format!("<a>{}</a>", "<b/>".repeat(32)), attributes(65)] {
        ends(&mut rig.customer().await, &format!("{HEADER}{bytes}"), "policy-violation").await;
    }
    for bytes in ["<a>".repeat(33), format!("<a>{}</a>", "<b/>".repeat(2000)), attributes(65)] {
        ends(&mut logged_in(&rig).await, &bytes, "policy-violation").await;
    }
}

#[tokio::test]
async fn the_clock_before_login_is_absolute_whatever_is_said_meanwhile() {
    let rig = Rig::start(Limits { login_within: SOON, ..Limits::default() }).await;
    // Spaces between elements keep other servers' streams alive for ever; so do requests that are answered.
    let mut patient = rig.customer().await.direct_tls().await;
    patient.open_stream().await;
    patient.drip(&" ".repeat(2000), Duration::from_millis(10)).await;
    assert!(patient.end().await.contains("connection-timeout"));
    let mut asking = rig.customer().await.direct_tls().await;
    asking.open_stream().await;
    asking.plain("rubbish").await;
    asking.until("</failure>").await;
    assert!(asking.end().await.contains("connection-timeout"));
    rig.counted("login-timeout", 2).await;
}

#[tokio::test]
async fn slowloris_after_login_ends_with_the_clock_of_one_stanza_that_bytes_do_not_extend() {
    let mut rig = Rig::start(Limits { stanza_within: SOON, ..Limits::default() }).await;
    let mut slow = logged_in(&rig).await;
    slow.drip(&format!("<message><body>{}", "x".repeat(2000)), Duration::from_millis(10)).await;
    let end = slow.end().await;
    assert!(end.contains("connection-timeout") && end.contains("too long"), "{end}");
    rig.counted("stanza-timeout", 1).await;
    assert_eq!(rig.connector.next_end().await, CloseReason::CustomerLost);
    // Whoever says nothing between two stanzas, or spaces only, is not slow; nor who says much, in pieces that end within a stanza.
    let mut busy = logged_in(&rig).await;
    let (end, beginning) = ("body></message>", "<message to='billing@chat.example'><body>x</");
    busy.say(beginning).await;
    for _ in 0..30 {
        tokio::time::sleep(SOON / 15).await;
        busy.say(&format!("{end}{beginning}")).await;
    }
    busy.say(end).await;
    for _ in 0..31 {
        assert_eq!(rig.connector.next_body().await, "x");
    }
    let mut quiet = logged_in(&rig).await;
    quiet.drip(&" ".repeat(100), Duration::from_millis(10)).await;
    quiet.say("<iq type='get' id='still'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    quiet.until("id='still'").await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_ended_by_the_clock_of_a_write() {
    let mut rig = Rig::start(Limits { write_within: SOON, session: crate::setup::any_amount(), ..Limits::default() }).await;
    let mut deaf = logged_in(&rig).await;
    let questions = "<iq type='get' id='x'><ping xmlns='urn:xmpp:ping'/></iq>".repeat(1000);
    let asking = async {
        loop {
            deaf.say(&questions).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = asking => {}
        reason = rig.connector.next_end() => assert_eq!(reason, CloseReason::CustomerLost),
    }
}

#[tokio::test]
async fn a_client_that_acknowledges_nothing_costs_256_stanzas_and_then_its_stream() {
    let rig = Rig::start(Limits::default()).await;
    let mut hoarder = logged_in(&rig).await;
    hoarder.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    hoarder.until("<enabled").await;
    hoarder.say(&"<iq type='get' id='x'><ping xmlns='urn:xmpp:ping'/></iq>".repeat(300)).await;
    let end = hoarder.end().await;
    assert!(end.contains("policy-violation") && end.contains("acknowledge nothing"), "{}", &end[end.len().saturating_sub(300)..]);
    // As the stream ends it is given, beside the 256 that were written, the 64 at most that waited to be recorded.
    assert!((240..=256 + 64).contains(&end.matches("id='x'").count()), "{}", end.matches("id='x'").count());
    rig.counted("unacknowledged", 1).await;
}

#[tokio::test]
async fn compression_is_never_offered_and_never_begun() {
    let rig = Rig::start(Limits::default()).await;
    let mut customer = rig.customer().await.direct_tls().await;
    customer.say(HEADER).await;
    let before = customer.until("</stream:features>").await;
    customer.plain(LINK).await;
    customer.until("<success").await;
    customer.say(HEADER).await;
    let after = customer.until("</stream:features>").await;
    assert!(!before.contains("compress") && !after.contains("compress"), "{before}{after}");
    customer.say("<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>").await;
    let answer = customer.end().await;
    assert!(answer.contains("<stream:error>") && !answer.contains("<compressed"), "{answer}");
}

#[tokio::test]
async fn nothing_but_starttls_is_offered_or_taken_in_the_clear() {
    let rig = Rig::start(Limits::default()).await;
    let mut customer = rig.customer().await;
    customer.say(HEADER).await;
    let features = customer.until("</stream:features>").await;
    let offered = features.split_once("<stream:features>").unwrap().1;
    assert!(offered.starts_with("<starttls") && offered.contains("<required/>") && offered.matches("xmlns=").count() == 1, "{features}");
    for stripped in [
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AG1lAGdvb2QtbGluaw==</auth>",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>",
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
        "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>",
        "<message to='billing@chat.example'><body>in the clear</body></message>",
    ] {
        let mut customer = rig.customer().await;
        customer.say(&format!("{HEADER}{stripped}")).await;
        let answer = customer.end().await;
        assert!(answer.contains("<stream:error>") && !answer.contains("<success"), "{stripped}: {answer}");
    }
}

#[tokio::test]
async fn starttls_injection_bytes_behind_starttls_end_the_stream_and_are_never_read_inside_tls() {
    let rig = Rig::start(Limits::default()).await;
    let injected = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AG1lAGdvb2QtbGluaw==</auth>";
    ends(&mut rig.customer().await, &format!("{HEADER}{STARTTLS}{injected}"), "policy-violation").await;
    rig.counted("bytes-after-starttls", 1).await;
    // A space is no command; a client that sends one and then its hello is served, and from the beginning.
    let mut customer = rig.customer().await;
    customer.open_stream().await;
    customer.say(&format!("{STARTTLS} ")).await;
    customer.until("<proceed").await;
    let mut customer = customer.direct_tls().await;
    customer.log_in(LINK).await;
    // Behind <proceed/> only TLS is understood.
    let mut late = rig.customer().await;
    late.open_stream().await;
    late.say(STARTTLS).await;
    late.until("<proceed").await;
    late.say(injected).await;
    assert!(!late.end().await.contains("<success"));
    rig.counted("tls-handshake", 1).await;
}

#[tokio::test]
async fn authzid_confusion_nobody_logs_in_as_one_and_acts_as_another() {
    let rig = Rig::start(Limits::default()).await;
    for (authzid, is_good) in [
        ("", true),
        ("me", true),
        ("me@chat.example", true),
        ("alice", false),
        ("alice@agents.example.com", false),
        ("me@chat.example/x", false),
    ] {
        let mut customer = rig.customer().await.direct_tls().await;
        customer.open_stream().await;
        let message = STANDARD.encode(format!("{authzid}\0me\0{LINK}"));
        customer.say(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>")).await;
        let answer = customer.until_any(&["<success", "</failure>"]).await;
        assert_eq!((answer.contains("<success"), answer.contains("<invalid-authzid/>")), (is_good, !is_good), "{authzid:?}: {answer}");
    }
}

#[tokio::test]
async fn stanza_smuggling_a_tag_that_closes_another_ends_the_stream() {
    let mut rig = Rig::start(Limits::default()).await;
    for bytes in [
        "<message to='billing@chat.example'><body>x</y></message>",
        "<message><body></message></body>",
        "<message a='1' a='2'/>",
        "<message><body>]]></body></message>",
        "<message to=billing/>",
        "<message><body xmlns:p='u'></p:body></message>",
        "<x:message/>",
        "<message/></stream:stream><message/>",
    ] {
        let mut customer = logged_in(&rig).await;
        customer.say(bytes).await;
        let end = customer.end().await;
        assert!(end.contains("not-well-formed") || end.ends_with("</stream:stream>"), "{bytes}: {end}");
        rig.connector.next_end().await;
    }
    let mut customer = logged_in(&rig).await;
    customer.say("<message to='billing@chat.example'><body>a<b/>c&amp;&#x3c;<![CDATA[<d>]]></body></message>").await;
    let body = rig.connector.next_body().await;
    assert!(!body.contains("<b/>") && body.contains("&<<d>"), "text is text: {body}");
}

#[tokio::test]
async fn strict_utf8_overlong_forms_surrogates_and_forbidden_characters_end_the_stream() {
    let rig = Rig::start(Limits::default()).await;
    let forms: [&[u8]; 8] = [b"\xc0\xbc", b"\xe0\x80\xbc", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\x80", b"\x00", b"&#0;"];
    for form in forms {
        let mut customer = logged_in(&rig).await;
        customer.send(&[b"<message><body>", form, b"</body></message>"].concat()).await;
        let end = customer.end().await;
        assert!(end.contains("<unsupported-encoding") || end.contains("<not-well-formed"), "{form:x?}: {end}");
    }
    let mut utf16 = rig.customer().await;
    let bytes: Vec<u8> = HEADER.encode_utf16().flat_map(u16::to_le_bytes).collect();
    utf16.send(&[b"\xff\xfe".as_slice(), &bytes].concat()).await;
    assert!(utf16.end().await.contains("<stream:error>"));
    ends(&mut rig.customer().await, &format!("<?xml version='1.0' encoding='latin1'?>{HEADER}"), "unsupported-encoding").await;
}

#[tokio::test]
async fn what_an_agent_sees_of_a_guest_has_the_guests_own_address_and_nothing_that_he_smuggled() {
    let site = Site::start();
    let mut agent = site.agent_socket().await.direct_tls().await;
    agent.open_stream().await;
    let message = STANDARD.encode(format!("\0alice\0{PASSWORD}"));
    agent.say(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>")).await;
    agent.until("<success").await;
    agent.open_stream().await;
    agent.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
    agent.until("</iq>").await;
    agent.say("<presence/>").await;

    let mut claims = site.claims();
    claims.sub = Some("P\u{430}y\u{202e}pal \u{7}Z\u{335}\u{322}\u{34d}\u{489}\u{35c}\u{340}".to_owned());
    let mut guest = site.customer().await.direct_tls().await;
    guest.log_in(&site.key.mint(&claims).unwrap()).await;
    let inner = "<message xmlns='jabber:client' from='boss@agents.example.com'><body>smuggled</body></message>";
    guest
        .say(&format!(
            "<message from='boss@agents.example.com/desk' to='support@chat.example.com' type='chat' id='m1'><body>honest</body>\
             <received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded></received>\
             <sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded></sent>\
             <forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded>\
             <result xmlns='urn:xmpp:mam:2' id='1'><forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded></result>\
             <delay xmlns='urn:xmpp:delay' from='agents.example.com' stamp='1999-01-01T00:00:00Z'/>\
             <stanza-id xmlns='urn:xmpp:sid:0' by='agents.example.com' id='s1'/><origin-id xmlns='urn:xmpp:sid:0' id='o1'/>\
             <nick xmlns='http://jabber.org/protocol/nick'>The boss</nick><geoloc xmlns='http://jabber.org/protocol/geoloc'/>\
             <addresses xmlns='http://jabber.org/protocol/address'><address type='replyto' jid='x@y'/></addresses>\
             <subject>urgent</subject><html xmlns='http://jabber.org/protocol/xhtml-im'/></message>"
        ))
        .await;
    // Neither do presences to others, or of other kinds, come through.
    guest.say("<presence to='alice@agents.example.com' type='subscribe'/><presence to='alice@agents.example.com'/>").await;
    guest.say("<message to='alice@agents.example.com'><body>directly</body></message>").await;
    guest.until("item-not-found").await;
    guest.say("<message to='support@chat.example.com' type='chat' id='m2'><body>the last</body></message>").await;

    let seen = agent.until("the last</body>").await;
    assert!(seen.contains("honest</body>"), "{seen}");
    for smuggled in [
        "smuggled",
        "boss",
        "carbons",
        "forward",
        "mam:2",
        "1999",
        "id='s1'",
        "origin-id",
        "The boss",
        "geoloc",
        "address'",
        "urgent",
        "xhtml",
        "directly",
        "subscribe",
        "\u{202e}",
        "\u{7}",
    ] {
        assert!(!seen.contains(smuggled), "{smuggled:?}: {seen}");
    }
    assert!(seen.contains("P\u{430}ypal Z") && seen.contains("(mixed scripts)"), "{seen}");
}

/// Says `bytes` and hears the stream end with this condition.
async fn ends(customer: &mut Customer, bytes: &str, condition: &str) {
    customer.say(bytes).await;
    let end = tokio::time::timeout(PATIENCE, customer.end()).await.unwrap();
    assert!(end.contains(&format!("<{condition}")) && end.ends_with("</stream:stream>"), "{bytes:.80}: {end}");
}

async fn logged_in(rig: &Rig) -> Customer {
    let mut customer = rig.customer().await.direct_tls().await;
    customer.log_in(LINK).await;
    assert_eq!(DOMAIN, "chat.example");
    customer
}
