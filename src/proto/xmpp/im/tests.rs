//! What crosses, what does not, and that what is written is read back.

use proptest::prelude::*;

use super::*;
use crate::{
    fingerprint::ClientSoftware,
    im::{MAX_EVENT_BYTES, MAX_ID_BYTES},
    proto::xmpp::im::text::cleaned,
};

/// `<message type='chat' id='m1'/>` with these children.
fn message(children: impl IntoIterator<Item = Element>) -> Element {
    children.into_iter().fold(chat("guest@relay.example/x", "help@relay.example", "m1"), Element::with_child)
}

fn body(text: &str) -> Element {
    Element::new("body", ns::CLIENT).with_text(text)
}

fn text(body: &str) -> Message {
    Message { id: Some("m1".into()), body: body.into(), ..Message::default() }
}

fn rebuilt(children: impl IntoIterator<Item = Element>) -> Rebuilt {
    events_of(&message(children)).unwrap()
}

#[test]
fn a_plain_message_is_its_text() {
    assert_eq!(rebuilt([body("Hello")]), Rebuilt { events: vec![ImEvent::Message(text("Hello"))], dropped: 0 });
}

#[test]
fn a_message_of_profanity_keeps_all_that_belongs_to_it() {
    let profanity = message([
        body("my invoice is wrong"),
        Element::new("origin-id", "urn:xmpp:sid:0").with_attribute("id", "m1"),
        Element::new("active", ns::CHAT_STATES),
        Element::new("request", ns::RECEIPTS),
    ]);
    let expected = Message { wants_receipt: true, ..text("my invoice is wrong") };
    assert_eq!(events_of(&profanity), Ok(Rebuilt { events: vec![ImEvent::Message(expected)], dropped: 1 }));
}

#[test]
fn a_corrected_reply_of_dino_keeps_its_fallback_text() {
    let dino = rebuilt([
        body("> which invoice?\nnumber 12"),
        Element::new("reply", ns::REPLY).with_attribute("to", "help@relay.example").with_attribute("id", "a7"),
        Element::new("fallback", "urn:xmpp:fallback:0").with_attribute("for", ns::REPLY),
        Element::new("replace", ns::CORRECTION).with_attribute("id", "m0"),
        Element::new("markable", ns::MARKERS),
    ]);
    let expected =
        Message { replies_to: Some("a7".into()), replaces: Some("m0".into()), markable: true, ..text("> which invoice?\nnumber 12") };
    assert_eq!(dino, Rebuilt { events: vec![ImEvent::Message(expected)], dropped: 1 });
}

#[test]
fn one_message_may_carry_four_events_its_text_the_last() {
    let all = rebuilt([
        Element::new("displayed", ns::MARKERS).with_attribute("id", "b"),
        Element::new("received", ns::RECEIPTS).with_attribute("id", "a"),
        Element::new("paused", ns::CHAT_STATES),
        body("hi"),
    ]);
    let events = vec![
        ImEvent::ChatState(ChatState::Paused),
        ImEvent::Receipt("a".into()),
        ImEvent::Marker(Marker { kind: MarkerKind::Displayed, id: "b".into() }),
        ImEvent::Message(text("hi")),
    ];
    assert_eq!(all, Rebuilt { events, dropped: 0 });
}

#[test]
fn an_active_state_alone_is_an_event_and_beside_text_is_not() {
    let active = Element::new("active", ns::CHAT_STATES);
    assert_eq!(rebuilt([active.clone()]).events, [ImEvent::ChatState(ChatState::Active)]);
    assert_eq!(rebuilt([active, body("hi")]).events, [ImEvent::Message(text("hi"))]);
}

#[test]
fn what_no_event_has_a_place_for_is_dropped_and_counted() {
    let dropped = rebuilt([
        Element::new("html", "http://jabber.org/protocol/xhtml-im"),
        Element::new("encrypted", "eu.siacs.conversations.axolotl"),
        Element::new("sent", ns::CARBONS).with_child(Element::new("forwarded", "urn:xmpp:forward:0").with_child(message([body("x")]))),
        Element::new("forwarded", "urn:xmpp:forward:0").with_child(message([body("x")])),
        Element::new("result", "urn:xmpp:mam:2"),
        Element::new("delay", ns::DELAY).with_attribute("stamp", "2002-09-10T23:08:25Z"),
        Element::new("stanza-id", "urn:xmpp:sid:0"),
        Element::new("subject", ns::CLIENT).with_text("s"),
        Element::new("thread", ns::CLIENT).with_text("t"),
        Element::new("nick", ns::NICK).with_text("Admin"),
        Element::new("no-store", ns::HINTS),
        Element::new("active", "urn:example:not-chatstates"),
    ]);
    assert_eq!(dropped, Rebuilt { events: vec![], dropped: 12 });
}

#[test]
fn what_belongs_to_a_text_is_dropped_without_one() {
    let orphans = rebuilt([
        Element::new("request", ns::RECEIPTS),
        Element::new("markable", ns::MARKERS),
        Element::new("replace", ns::CORRECTION).with_attribute("id", "m0"),
        Element::new("reply", ns::REPLY).with_attribute("id", "a7"),
    ]);
    assert_eq!(orphans, Rebuilt { events: vec![], dropped: 4 });
}

#[test]
fn of_two_children_of_one_kind_the_first_counts() {
    let twice = rebuilt([
        body("one"),
        body("two"),
        Element::new("replace", ns::CORRECTION).with_attribute("id", "a"),
        Element::new("replace", ns::CORRECTION).with_attribute("id", "b"),
        Element::new("request", ns::RECEIPTS),
        Element::new("request", ns::RECEIPTS),
    ]);
    let expected = Message { replaces: Some("a".into()), wants_receipt: true, ..text("one") };
    assert_eq!(twice, Rebuilt { events: vec![ImEvent::Message(expected)], dropped: 3 });
}

#[test]
fn an_encrypted_message_is_carried_by_its_fallback_text() {
    let omemo = [
        Element::new("encrypted", "eu.siacs.conversations.axolotl"),
        Element::new("encryption", "urn:xmpp:eme:0").with_attribute("name", "OMEMO"),
        Element::new("store", ns::HINTS),
        body("I sent you an OMEMO encrypted message but your client doesn't seem to support that."),
    ];
    let Rebuilt { events, dropped } = rebuilt(omemo);
    assert_eq!(dropped, 3);
    assert!(matches!(&events[..], [ImEvent::Message(message)] if message.body.starts_with("I sent you an OMEMO")));
}

#[test]
fn the_text_is_cleaned_and_an_emptied_text_is_none() {
    assert_eq!(rebuilt([body("a\u{202e}b\r\nc\u{1b}")]).events, [ImEvent::Message(text("ab\nc"))]);
    assert_eq!(rebuilt([body("\u{1b}\u{202e}")]), Rebuilt { events: vec![], dropped: 1 });
    assert_eq!(rebuilt([body("")]), Rebuilt { events: vec![], dropped: 1 });
}

#[test]
fn only_web_links_of_bearable_length_are_carried() {
    let link = |url: &str| Element::new("x", ns::OOB).with_child(Element::new("url", ns::OOB).with_text(url));
    let carried = "HTTPS://files.example/a.png";
    let expected = Message { oob_url: Some(carried.into()), ..text("") };
    assert_eq!(rebuilt([link(carried)]), Rebuilt { events: vec![ImEvent::Message(expected)], dropped: 0 });
    let long = format!("https://files.example/{}", "a".repeat(MAX_URL_BYTES));
    for refused in ["", "https://", "javascript:alert(1)", "file:///etc/passwd", "https://a b", "https://a\u{202e}b", "xmpp:a@b", &long] {
        assert_eq!(rebuilt([link(refused)]), Rebuilt { events: vec![], dropped: 1 }, "{refused}");
    }
}

#[test]
fn an_overlong_or_unclean_id_names_nothing() {
    let long = "i".repeat(MAX_ID_BYTES + 1);
    let stanza =
        message([body("hi"), Element::new("received", ns::RECEIPTS).with_attribute("id", long.as_str())]).with_attribute("id", long);
    let expected = Message { id: None, ..text("hi") };
    assert_eq!(events_of(&stanza), Ok(Rebuilt { events: vec![ImEvent::Message(expected)], dropped: 1 }));
    let unclean = Element::new("received", ns::MARKERS).with_attribute("id", "a\u{1b}b");
    assert_eq!(rebuilt([unclean]), Rebuilt { events: vec![], dropped: 1 });
}

#[test]
fn a_text_that_would_not_fit_an_event_is_refused_and_the_largest_fits() {
    assert_eq!(events_of(&message([body(&"x".repeat(MAX_BODY_BYTES + 1))])), Err(MessageFault::TooLarge));
    assert_eq!(rebuilt([body(&"x".repeat(MAX_BODY_BYTES))]).events.len(), 1);
    let url = format!("https://{}", "a".repeat(MAX_URL_BYTES - 8));
    let link = Element::new("x", ns::OOB).with_child(Element::new("url", ns::OOB).with_text(url));
    assert_eq!(events_of(&message([body(&"x".repeat(MAX_BODY_BYTES)), link])), Err(MessageFault::TooLarge));
}

#[test]
fn groupchat_and_headline_are_no_conversation() {
    for kind in ["groupchat", "headline"] {
        assert_eq!(events_of(&message([body("x")]).with_attribute("type", kind)), Err(MessageFault::NotChat));
    }
}

#[test]
fn an_error_has_no_events_and_is_no_fault_so_that_nobody_answers_it() {
    let bounced = message([body("x"), Element::new("error", ns::CLIENT)]).with_attribute("type", "error");
    assert_eq!(events_of(&bounced), Ok(Rebuilt { events: vec![], dropped: 2 }));
}

#[test]
fn a_message_without_a_type_or_with_an_unknown_one_is_read() {
    let untyped = Element::new("message", ns::CLIENT).with_child(body("x"));
    assert_eq!(events_of(&untyped).unwrap().events, [ImEvent::Message(Message { id: None, ..text("x") })]);
    assert_eq!(events_of(&message([body("x")]).with_attribute("type", "whisper")).unwrap().events, [ImEvent::Message(text("x"))]);
}

#[test]
fn an_agents_message_is_written_with_name_and_time() {
    let event = ImEvent::Message(Message {
        author: Author::Agent("Alice & Bob".into()),
        wants_receipt: true,
        markable: true,
        delayed_at: Some(1_031_699_305_000),
        ..text("Hello <you>")
    });
    let xml = stanza_of(&event, "help@relay.example", "guest@relay.example/x", "out1").unwrap().to_xml();
    assert_eq!(
        xml,
        "<message type='chat' from='help@relay.example' to='guest@relay.example/x' id='out1'><body>Hello &lt;you&gt;</body>\
         <active xmlns='http://jabber.org/protocol/chatstates'/><nick xmlns='http://jabber.org/protocol/nick'>Alice &amp; Bob</nick>\
         <request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>\
         <delay xmlns='urn:xmpp:delay' from='relay.example' stamp='2002-09-10T23:08:25Z'/></message>"
    );
}

#[test]
fn a_notice_says_nothing_but_its_text() {
    let event = ImEvent::Message(Message { author: Author::Notice, ..text("You are number 2 in the queue.") });
    let notice = stanza_of(&event, "help@relay.example", "guest@relay.example/x", "n1").unwrap();
    assert_eq!(notice.elements().map(Element::name).collect::<Vec<_>>(), ["body"]);
}

#[test]
fn a_chat_state_is_written_with_the_hint_not_to_store_it() {
    let stanza = stanza_of(&ImEvent::ChatState(ChatState::Composing), "a@x", "b@x/r", "c1").unwrap();
    assert!(stanza.child("composing", ns::CHAT_STATES).is_some());
    assert!(stanza.child("no-store", ns::HINTS).is_some());
    assert!(stanza.child("body", ns::CLIENT).is_none());
}

#[test]
fn presence_is_written_and_read_back() {
    use Availability::{Available, Away, Chat, DoNotDisturb, ExtendedAway, Unavailable};
    for availability in [Available, Chat, Away, ExtendedAway, DoNotDisturb, Unavailable] {
        let stanza = stanza_of(&ImEvent::Presence(availability), "a@x", "b@x/r", "").unwrap();
        assert_eq!(availability_of(&stanza), Some(availability));
        assert_eq!(stanza.attribute("id"), None);
    }
}

#[test]
fn presence_that_tells_no_availability_is_none() {
    let presence = Element::new("presence", ns::CLIENT);
    for kind in ["subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error", "nonsense"] {
        assert_eq!(availability_of(&presence.clone().with_attribute("type", kind)), None);
    }
    assert_eq!(availability_of(&Element::new("message", ns::CLIENT)), None);
    let odd = presence.with_child(Element::new("show", ns::CLIENT).with_text("lurking"));
    assert_eq!(availability_of(&odd), Some(Availability::Available));
}

#[test]
fn software_has_no_stanza() {
    assert_eq!(stanza_of(&ImEvent::Software(ClientSoftware::unknown()), "a@x", "b@x/r", "s"), None);
}

fn id() -> impl Strategy<Value = String> {
    "[!-~]{1,40}"
}

fn said() -> impl Strategy<Value = Message> {
    let url = prop::option::of("https?://[a-z0-9.]{1,20}/[!-~]{0,40}");
    // Text that is already clean: `\PC` holds no control character; what else is unfit is cleaned here.
    let body = "(\\PC|[\n\t]){0,200}".prop_map(|text| cleaned(&text));
    let flags = (any::<bool>(), any::<bool>());
    (id(), body, prop::option::of(id()), prop::option::of(id()), url, flags).prop_filter_map(
        "a message has a text or a link",
        |(id, body, replaces, replies_to, oob_url, (wants_receipt, markable))| {
            (!body.is_empty() || oob_url.is_some()).then_some(Message {
                id: Some(id),
                body,
                author: Author::Party,
                replaces,
                replies_to,
                oob_url,
                wants_receipt,
                markable,
                delayed_at: None,
            })
        },
    )
}

fn event() -> impl Strategy<Value = ImEvent> {
    use ChatState::{Active, Composing, Gone, Inactive, Paused};
    use MarkerKind::{Acknowledged, Displayed, Received};
    prop_oneof![
        4 => said().prop_map(ImEvent::Message),
        1 => prop::sample::select(vec![Active, Composing, Paused, Inactive, Gone]).prop_map(ImEvent::ChatState),
        1 => id().prop_map(ImEvent::Receipt),
        1 => (prop::sample::select(vec![Received, Displayed, Acknowledged]), id())
            .prop_map(|(kind, id)| ImEvent::Marker(Marker { kind, id })),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(event in event()) {
        let id = match &event {
            ImEvent::Message(message) => message.id.clone().unwrap(),
            ImEvent::ChatState(_) | ImEvent::Receipt(_) | ImEvent::Marker(_) | ImEvent::Presence(_) | ImEvent::Software(_) => "x1".into(),
        };
        let stanza = stanza_of(&event, "help@relay.example", "guest@relay.example/x", &id).unwrap();
        let Rebuilt { events, dropped } = events_of(&stanza).unwrap();
        prop_assert_eq!(events, vec![event.clone()]);
        prop_assert_eq!(dropped, u32::from(event.is_ephemeral()), "only the hint");
    }

    #[test]
    fn no_text_makes_an_event_too_large(text in "(\\PC|\\p{Cc}){0,400}", times in 1..120_usize) {
        if let Ok(Rebuilt { events, .. }) = events_of(&message([body(&text.repeat(times))])) {
            for event in events {
                let ImEvent::Message(message) = event else { panic!("a body alone is a message") };
                prop_assert!(message.body.len() <= MAX_BODY_BYTES && message.body.len() < MAX_EVENT_BYTES);
                prop_assert!(!message.body.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\t')));
            }
        }
    }
}
