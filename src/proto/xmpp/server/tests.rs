//! What real clients ask after they are bound, and what they are told.

use proptest::prelude::*;

use super::{super::stanza::Node, quoted::quoted, *};

const CLIENT: &str = "guest-7@relay.example/profanity.a1B2";

/// A customer's roster of one.
fn site() -> Site {
    Site {
        domain: "relay.example".into(),
        client: CLIENT.into(),
        contacts: vec![Contact { jid: "help@relay.example".into(), name: "Help & Billing".into(), group: "Support".into() }],
        anonymous: true,
    }
}

/// The replies to one stanza, as text.
fn told(answers: &mut Answers, xml: &str) -> Vec<String> {
    answers.handle_iq(&site(), &quoted(xml)).replies.iter().map(Element::to_xml).collect()
}

/// The one reply to one iq.
fn reply(xml: &str) -> Element {
    let outcome = Answers::default().handle_iq(&site(), &quoted(xml));
    assert_eq!(outcome.blocked, None);
    let [reply] = &outcome.replies[..] else { panic!("one reply, not {:?}", outcome.replies) };
    assert_eq!(reply.attribute("to"), Some(CLIENT));
    assert_eq!(reply.attribute("from"), quoted(xml).attribute("to"));
    assert_eq!(reply.attribute("id"), quoted(xml).attribute("id"));
    reply.clone()
}

/// The type and condition of the error that answers one iq.
fn refusal(xml: &str) -> (String, String) {
    let reply = reply(xml);
    assert_eq!(reply.attribute("type"), Some("error"));
    let error = reply.child("error", ns::CLIENT).unwrap();
    let condition = error.elements().next().unwrap();
    assert_eq!(condition.namespace(), ns::STANZA_ERRORS);
    (error.attribute("type").unwrap().to_owned(), condition.name().to_owned())
}

/// Asserts that an iq is answered with an empty result.
fn assert_done(xml: &str) {
    let reply = reply(xml);
    assert_eq!((reply.attribute("type"), reply.elements().count()), (Some("result"), 0), "{xml}");
}

fn assert_unavailable(xml: &str) {
    assert_eq!(refusal(xml), ("cancel".into(), "service-unavailable".into()), "{xml}");
}

/// The identity and the features of a disco#info result.
fn disco(xml: &str) -> (Element, Vec<String>) {
    let reply = reply(xml);
    assert_eq!(reply.attribute("type"), Some("result"));
    let query = reply.child("query", ns::DISCO_INFO).unwrap();
    let features = query.elements().filter(|child| child.name() == "feature").map(|feature| feature.attribute("var").unwrap().to_owned());
    (query.child("identity", ns::DISCO_INFO).unwrap().clone(), features.collect())
}

#[test]
fn roster_get_of_gajim_lists_the_queue_subscribed_both_ways() {
    let gajim = "<iq xmlns='jabber:client' type='get' id='3c2c9d5e-0b0e'><query xmlns='jabber:iq:roster'/></iq>";
    assert_eq!(
        told(&mut Answers::default(), gajim),
        [format!(
            "<iq to='{CLIENT}' id='3c2c9d5e-0b0e' type='result'><query xmlns='jabber:iq:roster'>\
             <item jid='help@relay.example' name='Help &amp; Billing' subscription='both'><group>Support</group></item></query></iq>"
        )]
    );
}

#[test]
fn roster_get_with_a_version_is_answered_in_full() {
    let dino = "<iq type='get' id='a' to='guest-7@relay.example'><query xmlns='jabber:iq:roster' ver='12'/></iq>";
    assert_eq!(reply(dino).child("query", ns::ROSTER).unwrap().elements().count(), 1);
}

#[test]
fn the_roster_of_an_agent_holds_the_desk_and_every_customer() {
    let contact = |jid: &str| Contact { jid: jid.into(), name: jid.into(), group: "Customers".into() };
    let contacts = vec![contact("desk@agents.example"), contact("c1@agents.example"), contact("c2@agents.example")];
    let site = Site { domain: "agents.example".into(), client: "alice@agents.example/x".into(), contacts, anonymous: false };
    let outcome = Answers::default().handle_iq(&site, &quoted("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>"));
    assert_eq!(outcome.replies[0].child("query", ns::ROSTER).unwrap().elements().count(), 3);
}

#[test]
fn roster_set_for_the_queue_is_done_and_pushed_as_it_stays() {
    let mut answers = Answers::default();
    told(&mut answers, "<iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>");
    assert!(answers.is_interested());
    let finch = "<iq type='set' id='purple7f3a'><query xmlns='jabber:iq:roster'>\
                 <item jid='help@relay.example' name='My helper'><group>Buddies</group></item></query></iq>";
    assert_eq!(
        told(&mut answers, finch),
        [
            format!("<iq to='{CLIENT}' id='purple7f3a' type='result'/>"),
            format!(
                "<iq type='set' id='push-1' to='{CLIENT}'><query xmlns='jabber:iq:roster'>\
                 <item jid='help@relay.example' name='Help &amp; Billing' subscription='both'><group>Support</group></item></query></iq>"
            )
        ]
    );
}

#[test]
fn roster_sets_that_would_change_who_is_there_are_refused() {
    let set = |item: &str| refusal(&format!("<iq type='set' id='s'><query xmlns='jabber:iq:roster'>{item}</query></iq>"));
    assert_eq!(set("<item jid='help@relay.example' subscription='remove'/>").1, "not-allowed");
    assert_eq!(set("<item jid='friend@jabber.example'/>").1, "not-allowed");
    assert_eq!(set("<item jid='friend@jabber.example' subscription='remove'/>").1, "item-not-found");
    assert_eq!(set("").1, "bad-request");
    assert_eq!(set("<item/>").1, "bad-request");
    assert_eq!(set("<item jid='help@relay.example'/><item jid='help@relay.example'/>").1, "bad-request");
}

#[test]
fn roster_push_goes_only_to_a_client_that_asked_for_its_roster() {
    let (mut answers, site) = (Answers::default(), site());
    assert_eq!(answers.roster_push(&site, &site.contacts[0], false, "p1"), None);
    told(&mut answers, "<iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>");
    let removed = answers.roster_push(&site, &site.contacts[0], true, "p2").unwrap();
    assert_eq!(
        removed.to_xml(),
        format!(
            "<iq type='set' id='p2' to='{CLIENT}'><query xmlns='jabber:iq:roster'>\
             <item jid='help@relay.example' subscription='remove'/></query></iq>"
        )
    );
}

#[test]
fn subscription_to_the_queue_is_granted_and_it_shows_itself() {
    let mut answers = Answers::default();
    let outcome = answers.handle_subscription(&site(), &quoted("<presence type='subscribe' to='help@relay.example' id='prof_sub_1'/>"));
    assert_eq!(
        outcome.replies.iter().map(Element::to_xml).collect::<Vec<_>>(),
        [
            "<presence type='subscribed' from='help@relay.example' to='guest-7@relay.example'/>".to_owned(),
            format!(
                "<presence from='help@relay.example' to='{CLIENT}'><nick xmlns='http://jabber.org/protocol/nick'>Help &amp; Billing</nick></presence>"
            )
        ]
    );
}

#[test]
fn other_subscription_traffic_changes_nothing() {
    let mut answers = Answers::default();
    let mut replies = |xml: &str| answers.handle_subscription(&site(), &quoted(xml)).replies;
    let denied = replies("<presence type='subscribe' to='friend@relay.example/x'/>");
    assert_eq!(denied[0].to_xml(), "<presence type='unsubscribed' from='friend@relay.example' to='guest-7@relay.example'/>");
    assert_eq!(replies("<presence type='subscribed' to='help@relay.example'/>"), []);
    assert_eq!(replies("<presence type='unsubscribe' to='help@relay.example'/>"), []);
    assert_eq!(replies("<presence type='subscribe'/>"), []);
    assert_eq!(replies("<presence to='help@relay.example'/>"), []);
    assert_eq!(replies("<presence type='probe' to='help@relay.example'/>").len(), 1);
    answers.handle_iq(&site(), &quoted("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>"));
    let shown = answers.handle_subscription(&site(), &quoted("<presence type='unsubscribe' to='help@relay.example'/>")).replies;
    let item = shown[0].child("query", ns::ROSTER).unwrap().child("item", ns::ROSTER).unwrap();
    assert_eq!(item.attribute("subscription"), Some("both"));
}

#[test]
fn disco_info_of_the_domain_tells_gajim_and_profanity_what_works() {
    let gajim =
        "<iq xmlns='jabber:client' to='relay.example' type='get' id='b9a1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    let (identity, features) = disco(gajim);
    assert_eq!((identity.attribute("category"), identity.attribute("type")), (Some("server"), Some("im")));
    for feature in [ns::DISCO_INFO, ns::DISCO_ITEMS, ns::PING, ns::CARBONS] {
        assert!(features.iter().any(|known| known == feature), "{feature}");
    }
    assert!(!features.iter().any(|feature| feature.contains("mam") || feature.contains("pubsub") || feature.contains("upload")));
}

#[test]
fn disco_items_of_the_domain_are_none() {
    let conversations = "<iq to='relay.example' id='Rqo1' type='get'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>";
    let reply = reply(conversations);
    assert_eq!(reply.attribute("type"), Some("result"));
    assert_eq!(reply.child("query", ns::DISCO_ITEMS).unwrap().elements().count(), 0);
}

#[test]
fn disco_info_of_the_own_account_says_whether_it_is_anonymous() {
    let dino = "<iq id='d1' to='guest-7@relay.example' type='get'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    let (identity, features) = disco(dino);
    assert_eq!((identity.attribute("category"), identity.attribute("type")), (Some("account"), Some("anonymous")));
    assert_eq!(features, [ns::DISCO_INFO], "no PEP, no archive");
    let registered = Site { anonymous: false, ..site() };
    let reply = Answers::default().handle_iq(&registered, &quoted(dino)).replies.remove(0);
    let identity = reply.child("query", ns::DISCO_INFO).unwrap().child("identity", ns::DISCO_INFO).unwrap().clone();
    assert_eq!(identity.attribute("type"), Some("registered"));
}

#[test]
fn disco_of_an_unknown_node_finds_nothing() {
    let poezio = "<iq type='get' id='n' to='relay.example'>\
                  <query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/></iq>";
    assert_eq!(refusal(poezio), ("cancel".into(), "item-not-found".into()));
}

#[test]
fn session_request_of_finch_is_done() {
    assert_done("<iq type='set' id='purple4c1' to='relay.example'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>");
    assert_done("<iq type='set' id='_xmpp_session1'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>");
}

#[test]
fn carbons_of_profanity_and_dino_are_enabled_and_disabled() {
    assert_done("<iq id='prof_carbons_3' type='set'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    assert_done("<iq id='c2' type='set' to='guest-7@relay.example'><disable xmlns='urn:xmpp:carbons:2'/></iq>");
}

#[test]
fn pings_are_answered_from_the_address_asked() {
    assert_done("<iq id='prof_ping_9' type='get' to='relay.example'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_done("<iq id='gajim' type='get'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_done("<iq id='conv' type='get' to='guest-7@relay.example'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_done("<iq id='contact' type='get' to='help@relay.example/outgate'><ping xmlns='urn:xmpp:ping'/></iq>");
}

#[test]
fn bookmarks_in_private_storage_are_empty_and_cannot_be_kept() {
    let profanity = "<iq id='prof_bookmark_4' type='get'>\
                     <query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query></iq>";
    let reply = reply(profanity);
    assert_eq!(
        reply.to_xml(),
        format!(
            "<iq to='{CLIENT}' id='prof_bookmark_4' type='result'><query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query></iq>"
        )
    );
    let kept = "<iq id='b' type='set'><query xmlns='jabber:iq:private'>\
                <storage xmlns='storage:bookmarks'><conference jid='room@muc.example'/></storage></query></iq>";
    assert_eq!(refusal(kept).1, "not-allowed");
    assert_eq!(refusal("<iq id='b' type='get'><query xmlns='jabber:iq:private'/></iq>").1, "bad-request");
}

#[test]
fn vcards_are_empty_for_oneself_and_named_for_the_queue() {
    let finch = "<iq type='get' id='purple8'><vCard xmlns='vcard-temp'/></iq>";
    assert_eq!(reply(finch).child("vCard", ns::VCARD).unwrap().elements().count(), 0);
    let contact = "<iq type='get' id='purple9' to='help@relay.example'><vCard xmlns='vcard-temp'/></iq>";
    let card = reply(contact).child("vCard", ns::VCARD).unwrap().clone();
    assert_eq!(card.child("FN", ns::VCARD).unwrap().text(), "Help & Billing");
    assert_eq!(refusal("<iq type='set' id='p'><vCard xmlns='vcard-temp'><FN>Me</FN></vCard></iq>").1, "not-allowed");
}

#[test]
fn block_list_of_profanity_is_empty_at_first() {
    let profanity = "<iq id='prof_blocked_list_2' type='get'><blocklist xmlns='urn:xmpp:blocking'/></iq>";
    assert_eq!(reply(profanity).child("blocklist", ns::BLOCKING).unwrap().elements().count(), 0);
}

#[test]
fn to_block_the_queue_is_to_leave_it() {
    let mut answers = Answers::default();
    told(&mut answers, "<iq id='l' type='get'><blocklist xmlns='urn:xmpp:blocking'/></iq>");
    let block = quoted("<iq id='b' type='set'><block xmlns='urn:xmpp:blocking'><item jid='Help@relay.example'/></block></iq>");
    let outcome = answers.handle_iq(&site(), &block);
    assert_eq!(outcome.blocked.as_deref(), Some("help@relay.example"));
    assert_eq!(
        outcome.replies.iter().map(Element::to_xml).collect::<Vec<_>>(),
        [
            format!("<iq to='{CLIENT}' id='b' type='result'/>"),
            format!(
                "<iq type='set' id='push-1' to='{CLIENT}'><block xmlns='urn:xmpp:blocking'><item jid='help@relay.example'/></block></iq>"
            ),
            format!("<presence from='help@relay.example' to='{CLIENT}' type='unavailable'/>"),
        ]
    );
    let again = answers.handle_iq(&site(), &block);
    assert_eq!((again.replies.len(), again.blocked), (1, None));
    let listed = told(&mut answers, "<iq id='l' type='get'><blocklist xmlns='urn:xmpp:blocking'/></iq>");
    assert!(listed[0].contains("<item jid='help@relay.example'/>"));
    let unblocked = told(&mut answers, "<iq id='u' type='set'><unblock xmlns='urn:xmpp:blocking'/></iq>");
    assert!(unblocked[1].ends_with("<unblock xmlns='urn:xmpp:blocking'/></iq>"), "{unblocked:?}");
    assert!(!told(&mut answers, "<iq id='l' type='get'><blocklist xmlns='urn:xmpp:blocking'/></iq>")[0].contains("item"));
}

#[test]
fn strangers_and_crowds_cannot_be_blocked() {
    let block = |items: &str| refusal(&format!("<iq id='b' type='set'><block xmlns='urn:xmpp:blocking'>{items}</block></iq>")).1;
    assert_eq!(block("<item jid='spam@jabber.example'/>"), "item-not-found");
    assert_eq!(block(""), "bad-request");
    assert_eq!(block("<item jid='help@relay.example'/><item jid='b@relay.example'/>"), "not-allowed");
}

#[test]
fn omemo_and_other_publishing_of_dino_is_unavailable() {
    assert_unavailable(
        "<iq id='d5' type='set'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <publish node='eu.siacs.conversations.axolotl.bundles:31415'><item id='current'>\
         <bundle xmlns='eu.siacs.conversations.axolotl'><signedPreKeyPublic signedPreKeyId='1'>QUJD</signedPreKeyPublic></bundle>\
         </item></publish></pubsub></iq>",
    );
    assert_unavailable(
        "<iq id='d6' type='get' to='guest-7@relay.example'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <items node='eu.siacs.conversations.axolotl.devicelist'/></pubsub></iq>",
    );
    assert_unavailable(
        "<iq id='g7' type='get' to='help@relay.example'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <items node='urn:xmpp:avatar:metadata'/></pubsub></iq>",
    );
}

#[test]
fn what_is_not_advertised_is_unavailable() {
    for (to, payload) in [
        ("", "<prefs xmlns='urn:xmpp:mam:2'/>"),
        (" to='relay.example'", "<services xmlns='urn:xmpp:extdisco:2'/>"),
        (" to='relay.example'", "<request xmlns='urn:xmpp:http:upload:0' filename='a.png' size='23'/>"),
        ("", "<enable xmlns='urn:xmpp:push:0' jid='push.example' node='x'/>"),
        (" to='relay.example'", "<query xmlns='jabber:iq:register'/>"),
        (" to='relay.example'", "<time xmlns='urn:xmpp:time'/>"),
        (" to='help@relay.example/x'", "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='a'/>"),
        (" to='help@relay.example/x'", "<query xmlns='jabber:iq:version'/>"),
        (" to='help@relay.example'", "<query xmlns='jabber:iq:roster'/>"),
    ] {
        for kind in ["get", "set"] {
            assert_unavailable(&format!("<iq id='x1' type='{kind}'{to}>{payload}</iq>"));
        }
    }
}

#[test]
fn disco_info_of_the_queue_lists_what_is_carried_and_no_encryption() {
    for jid in ["help@relay.example/outgate", "help@relay.example", "HELP@Relay.Example"] {
        let (identity, features) =
            disco(&format!("<iq type='get' id='q' to='{jid}'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"));
        assert_eq!((identity.attribute("category"), identity.attribute("name")), (Some("client"), Some("Help & Billing")));
        for feature in [ns::CHAT_STATES, ns::RECEIPTS, ns::CORRECTION, ns::MARKERS, ns::REPLY, ns::OOB] {
            assert!(features.iter().any(|known| known == feature), "{feature}");
        }
        assert!(!features.iter().any(|feature| feature.contains("axolotl") || feature.contains("jingle")));
    }
}

#[test]
fn the_server_says_its_own_version() {
    let converse = "<iq type='get' id='v' to='relay.example'><query xmlns='jabber:iq:version'/></iq>";
    let query = reply(converse).child("query", ns::VERSION).unwrap().clone();
    assert_eq!(query.child("name", ns::VERSION).unwrap().text(), "Outgate");
    assert_eq!(query.child("version", ns::VERSION).unwrap().text(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn results_and_errors_get_no_reply() {
    let mut answers = Answers::default();
    for stanza in ["<iq type='result' id='a'/>", "<iq type='error' id='a'><error type='cancel'/></iq>", "<iq type='result'/>"] {
        assert_eq!(answers.handle_iq(&site(), &quoted(stanza)), Outcome::default());
    }
}

#[test]
fn requests_against_the_rules_are_bad() {
    for stanza in [
        "<iq type='get'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='fetch' id='a'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq id='a'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='get' id='a'/>",
        "<iq type='get' id='a'><ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/></iq>",
    ] {
        assert_eq!(refusal(stanza), ("modify".into(), "bad-request".into()), "{stanza}");
    }
}

#[test]
fn nobody_is_where_nobody_lives() {
    let ping = |to: &str| refusal(&format!("<iq type='get' id='a' to='{to}'><ping xmlns='urn:xmpp:ping'/></iq>")).1;
    assert_eq!(ping("nobody@relay.example"), "service-unavailable");
    assert_eq!(ping("guest-8@relay.example/x"), "service-unavailable");
    assert_eq!(ping("guest-7@relay.example/another"), "service-unavailable");
    assert_eq!(ping("relay.example/x"), "service-unavailable");
    assert_eq!(ping("proxy.jabber.example"), "remote-server-not-found");
    assert_eq!(ping("friend@jabber.example"), "remote-server-not-found");
    for malformed in ["", "/x", "help@", "@/"] {
        assert_eq!(ping(malformed), "jid-malformed");
    }
}

#[test]
fn a_stanza_error_swaps_the_addresses_and_keeps_the_id() {
    let message = quoted("<message type='chat' id='m1' from='a@x/r' to='help@x'><body>hi</body></message>");
    assert_eq!(
        stanza_error(&message, "modify", "not-acceptable", Some("Too long.")).to_xml(),
        "<message type='error' from='help@x' to='a@x/r' id='m1'><error type='modify'>\
         <not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>Too long.</text></error></message>"
    );
}

#[test]
fn the_presence_of_a_contact_tells_state_words_and_name() {
    use crate::im::Availability;
    assert_eq!(
        contact_presence("help@x", "a@x/r", Availability::DoNotDisturb, Some("3 are waiting"), Some("Help")).to_xml(),
        "<presence from='help@x' to='a@x/r'><show>dnd</show><status>3 are waiting</status>\
         <nick xmlns='http://jabber.org/protocol/nick'>Help</nick></presence>"
    );
}

fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(words).prop_map(str::to_owned), 1 => "\\PC{0,12}"]
}

/// Any element, most of them made of the words that stanzas are made of.
pub(in crate::proto::xmpp) fn any_element() -> impl Strategy<Value = Element> {
    let name = word(&[
        "iq",
        "message",
        "presence",
        "query",
        "item",
        "body",
        "c",
        "identity",
        "block",
        "unblock",
        "blocklist",
        "vCard",
        "ping",
        "name",
        "version",
        "os",
        "received",
        "active",
        "x",
        "url",
        "show",
        "a",
        "resume",
        "enable",
        "replace",
        "reply",
        "displayed",
        "request",
        "storage",
    ]);
    let namespace = word(&[
        ns::CLIENT,
        ns::ROSTER,
        ns::DISCO_INFO,
        ns::VERSION,
        ns::BLOCKING,
        ns::CAPS,
        ns::PRIVATE,
        ns::VCARD,
        ns::PING,
        ns::OOB,
        ns::RECEIPTS,
        ns::MARKERS,
        ns::CHAT_STATES,
        ns::STREAM_MANAGEMENT,
        ns::CORRECTION,
        ns::REPLY,
    ]);
    let attribute = (
        word(&["type", "id", "to", "from", "jid", "node", "ver", "h", "previd", "name", "category", "subscription"]),
        word(&[
            "get",
            "set",
            "result",
            "error",
            "subscribe",
            "probe",
            "q-version",
            "q-disco",
            CLIENT,
            "help@relay.example",
            "relay.example",
            "http://profanity-im.github.io",
            "Profanity 0.13.1",
            "4294967295",
            "remove",
            "@",
            "/",
            "@/",
            "://",
        ]),
    );
    let bare = (name, namespace, prop::collection::vec(attribute, 0..5))
        .prop_map(|(name, namespace, attributes)| {
            attributes.into_iter().fold(Element::new(name, namespace), |element, (name, value)| element.with_attribute(name, value))
        })
        .boxed();
    let leaf = bare.clone().prop_map(Node::Element);
    let node = prop_oneof![leaf, "(\\PC|\\p{Cc}){0,20}".prop_map(Node::Text)];
    let inner = node.prop_recursive(3, 24, 4, move |node| {
        (bare.clone(), prop::collection::vec(node, 0..4)).prop_map(|(element, children)| Node::Element(with_nodes(element, children)))
    });
    prop::collection::vec(inner, 0..4).prop_flat_map(|children| {
        let stanza = prop::sample::select(&["iq", "message", "presence", "r"][..]);
        let kind = prop::sample::select(&["get", "set", "result", "error", "subscribe", "chat", "unsubscribe"][..]);
        let to = prop::sample::select(&["relay.example", "help@relay.example", CLIENT, "guest-7@relay.example", ""][..]);
        (stanza, kind, to, prop::sample::select(&["q-version", "q-disco", "x"][..])).prop_map(move |(stanza, kind, to, id)| {
            let element = Element::new(stanza, ns::CLIENT).with_attribute("type", kind).with_attribute("to", to).with_attribute("id", id);
            with_nodes(element, children.clone())
        })
    })
}

fn with_nodes(element: Element, nodes: Vec<Node>) -> Element {
    nodes.into_iter().fold(element, |element, node| match node {
        Node::Element(child) => element.with_child(child),
        Node::Text(text) => element.with_text(text),
    })
}

proptest! {
    #[test]
    fn every_get_or_set_has_exactly_one_answer_and_it_comes_first(iq in any_element()) {
        let (mut answers, site) = (Answers::default(), site());
        let outcome = answers.handle_iq(&site, &iq);
        let is_answer = |stanza: &&Element| matches!(stanza.attribute("type"), Some("result" | "error")) && stanza.name() == "iq";
        if matches!(iq.attribute("type"), Some("result" | "error")) {
            prop_assert_eq!(outcome, Outcome::default());
        } else {
            prop_assert_eq!(outcome.replies.iter().filter(is_answer).count(), 1);
            prop_assert_eq!(outcome.replies[0].attribute("id"), iq.attribute("id"));
            prop_assert_eq!(outcome.replies[0].attribute("from"), iq.attribute("to"));
        }
    }

    #[test]
    fn no_stanza_panics_anything(stanza in any_element()) {
        let (mut answers, site) = (Answers::default(), site());
        answers.handle_subscription(&site, &stanza);
        stanza_error(&stanza, "cancel", "not-acceptable", None).to_xml();
        let _rebuilt = super::super::im::events_of(&stanza);
        let _availability = super::super::im::availability_of(&stanza);
        for element in stanza.elements() {
            let _nonza = super::super::stream_management::nonza_of(element);
        }
    }
}
