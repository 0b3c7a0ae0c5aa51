//! What the clients in use answer, in the order in which they do.

use proptest::prelude::*;

use super::*;
use crate::{
    fingerprint::{Confidence, MAX_SOFTWARE_BYTES, SoftwareSource},
    proto::xmpp::server::{quoted::quoted, tests::any_element},
};

const CLIENT: &str = "guest-7@relay.example/profanity.a1B2";

/// A query that began at `now`, and its first question.
fn begun(now: Instant) -> (SoftwareQuery, Element) {
    begun_with(Knowledge::default(), now)
}

fn begun_with(knowledge: Knowledge, now: Instant) -> (SoftwareQuery, Element) {
    let (query, mut ask) = SoftwareQuery::new("help@relay.example", CLIENT, "q", knowledge, now);
    assert_eq!(ask.len(), 1);
    (query, ask.remove(0))
}

#[expect(clippy::disallowed_methods, reason = "a test's own origin of time; nothing waits for it")]
fn now() -> Instant {
    Instant::now()
}

/// Hands in a stanza: whether it answered us, and what is asked next.
fn hear(query: &mut SoftwareQuery, xml: &str) -> (bool, Vec<Element>) {
    let mut ask = Vec::new();
    let is_ours = query.handle_stanza(&quoted(xml), &mut ask);
    (is_ours, ask)
}

fn software(name: &str, version: &str, system: &str, source: SoftwareSource, confidence: Confidence) -> ClientSoftware {
    ClientSoftware { name: name.into(), version: version.into(), system: system.into(), source, confidence, ..ClientSoftware::unknown() }
}

const PROFANITY_VERSION: &str = "<iq id='q-version' type='result' to='help@relay.example'><query xmlns='jabber:iq:version'>\
                                 <name>Profanity</name><version>0.13.1</version><os>Linux</os></query></iq>";
const REFUSED: &str =
    "<iq id='q-version' type='error'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>";
const DINO_PRESENCE: &str =
    "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://dino.im' ver='J5qYaA2Vp3u1='/></presence>";

#[test]
fn the_version_is_asked_from_the_queue_at_once() {
    let (_, ask) = begun(now());
    assert_eq!(
        ask.to_xml(),
        "<iq type='get' id='q-version' from='help@relay.example' to='guest-7@relay.example/profanity.a1B2'><query xmlns='jabber:iq:version'/></iq>"
    );
}

#[test]
fn the_answer_of_profanity_is_the_result_and_nothing_more_is_asked() {
    let (mut query, _) = begun(now());
    assert_eq!(query.poll_result(), None);
    assert_eq!(hear(&mut query, PROFANITY_VERSION), (true, vec![]));
    let stated = software("Profanity", "0.13.1", "Linux", SoftwareSource::Asked, Confidence::Stated);
    assert_eq!(query.poll_result(), Some(stated));
    assert_eq!((query.poll_result(), query.poll_timeout()), (None, None));
    assert_eq!(hear(&mut query, DINO_PRESENCE), (false, vec![]));
    assert_eq!(query.poll_result(), None);
}

#[test]
fn dino_refuses_the_version_and_is_known_by_its_identity() {
    let (mut query, _) = begun(now());
    assert_eq!(hear(&mut query, REFUSED), (true, vec![]));
    assert_eq!(query.poll_result(), None, "its presence may still tell");
    let (is_ours, ask) = hear(&mut query, DINO_PRESENCE);
    assert!(!is_ours, "presence goes on");
    assert_eq!(
        ask[0].to_xml(),
        format!(
            "<iq type='get' id='q-disco' from='help@relay.example' to='{CLIENT}'>\
             <query xmlns='http://jabber.org/protocol/disco#info' node='https://dino.im#J5qYaA2Vp3u1='/></iq>"
        )
    );
    assert_eq!(hear(&mut query, DINO_PRESENCE).1, [], "asked once");
    let disco = format!(
        "<iq id='q-disco' type='result' from='{CLIENT}' to='help@relay.example'><query xmlns='http://jabber.org/protocol/disco#info'>\
         <identity category='account' type='registered' name='Someone'/><identity category='client' type='pc' name='Dino'/>\
         <feature var='urn:xmpp:ping'/></query></iq>"
    );
    assert_eq!(hear(&mut query, &disco), (true, vec![]));
    // Stated, but not with the list whose hash it announced.
    assert_eq!(query.poll_result(), Some(software("Dino", "", "", SoftwareSource::Caps, Confidence::Inferred)));
}

#[test]
fn an_identity_that_holds_a_version_is_taken_apart_as_a_guess() {
    let identity = |name: &str| {
        let query = Element::new("query", ns::DISCO_INFO)
            .with_child(Element::new("identity", ns::DISCO_INFO).with_attribute("category", "client").with_attribute("name", name));
        let found = claims::of_identity(&query).unwrap();
        (found.name, found.version, found.confidence)
    };
    assert_eq!(identity("Profanity 0.13.1"), ("Profanity".into(), "0.13.1".into(), Confidence::Inferred));
    assert_eq!(identity("Psi+ v1.5"), ("Psi+".into(), "1.5".into(), Confidence::Inferred));
    assert_eq!(identity("Finch"), ("Finch".into(), String::new(), Confidence::Stated));
    assert_eq!(identity("My Client"), ("My Client".into(), String::new(), Confidence::Stated));
    assert_eq!(identity("42"), ("42".into(), String::new(), Confidence::Stated));
}

#[test]
fn a_silent_client_is_unknown_at_the_deadline_and_known_when_it_speaks_late() {
    let start = now();
    let (mut query, _) = begun(start);
    assert_eq!(query.poll_timeout(), Some(start + ANSWER_WITHIN));
    query.handle_timeout(start + ANSWER_WITHIN - Duration::from_millis(1));
    assert_eq!(query.poll_result(), None);
    query.handle_timeout(start + ANSWER_WITHIN);
    assert_eq!(query.poll_result(), Some(ClientSoftware::unknown()));
    assert_eq!((query.poll_result(), query.poll_timeout()), (None, None));
    assert_eq!(hear(&mut query, DINO_PRESENCE).1.len(), 1);
    assert_eq!(query.poll_result(), Some(software("Dino", "", "", SoftwareSource::Caps, Confidence::Inferred)));
    assert!(hear(&mut query, PROFANITY_VERSION).0);
    assert_eq!(query.poll_result().unwrap().source, SoftwareSource::Asked);
    assert_eq!(query.poll_result(), None);
}

#[test]
fn at_the_deadline_capabilities_stand_for_the_missing_answer() {
    let start = now();
    let (mut query, _) = begun(start);
    hear(
        &mut query,
        "<presence><priority>0</priority><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://profanity-im.github.io' ver='k+x'/></presence>",
    );
    query.handle_timeout(start + ANSWER_WITHIN);
    assert_eq!(query.poll_result(), Some(software("Profanity", "", "", SoftwareSource::Caps, Confidence::Inferred)));
}

#[test]
fn a_worse_answer_after_a_better_one_changes_nothing() {
    let (mut query, _) = begun(now());
    assert_eq!(hear(&mut query, DINO_PRESENCE).1.len(), 1);
    hear(&mut query, PROFANITY_VERSION);
    assert_eq!(query.poll_result().unwrap().name, "Profanity");
    let disco = "<iq id='q-disco' type='result'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' name='X'/></query></iq>";
    assert_eq!(hear(&mut query, disco), (true, vec![]), "swallowed, for it answered us");
    assert_eq!(query.poll_result(), None);
}

#[test]
fn only_the_client_itself_can_answer_and_only_what_was_asked() {
    let (mut query, _) = begun(now());
    for xml in [
        "<iq id='q-version' type='result' from='evil@relay.example/x'><query xmlns='jabber:iq:version'><name>Evil</name></query></iq>",
        "<iq id='q-version2' type='result'><query xmlns='jabber:iq:version'><name>Evil</name></query></iq>",
        "<iq type='result'><query xmlns='jabber:iq:version'><name>Evil</name></query></iq>",
        "<iq id='q-version' type='get'><query xmlns='jabber:iq:version'/></iq>",
        "<iq id='q-disco' type='result'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' name='Evil'/></query></iq>",
        "<message id='q-version' type='result'><query xmlns='jabber:iq:version'><name>Evil</name></query></message>",
        "<presence type='unavailable'><c xmlns='http://jabber.org/protocol/caps' node='https://dino.im' ver='x'/></presence>",
    ] {
        assert_eq!(hear(&mut query, xml), (false, vec![]), "{xml}");
    }
    assert!(hear(&mut query, PROFANITY_VERSION).0);
    assert!(!hear(&mut query, PROFANITY_VERSION).0, "a second answer is nobody's");
}

#[test]
fn fields_are_cut_and_cleaned() {
    let name = format!("\u{1b}[31mBad\nName{}", "ö".repeat(MAX_SOFTWARE_BYTES));
    let query = Element::new("query", ns::VERSION).with_child(Element::new("name", ns::VERSION).with_text(name));
    let found = claims::of_version(&query).unwrap();
    assert!(found.name.starts_with("[31mBad Nameö"));
    assert!(found.name.len() <= MAX_SOFTWARE_BYTES && !found.name.contains(char::is_control));
}

#[test]
fn an_answer_without_a_name_is_none() {
    let (mut query, _) = begun(now());
    let empty = "<iq id='q-version' type='result'><query xmlns='jabber:iq:version'><name> </name><version>1</version></query></iq>";
    assert!(hear(&mut query, empty).0);
    assert_eq!(query.poll_result(), None);
}

#[test]
fn well_known_homes_name_their_client_and_others_do_not() {
    for (node, name) in [
        ("http://pidgin.im/", "Pidgin"),
        ("https://gajim.org", "Gajim"),
        ("http://slixmpp.com/ver/1.17.0", "Slixmpp"),
        ("https://DINO.im", "Dino"),
    ] {
        assert_eq!(claims::of_node(node).unwrap().name, name);
    }
    for node in ["", "dino.im", "https://dino.im.evil.example", "https://example/dino.im"] {
        assert_eq!(claims::of_node(node), None, "{node}");
    }
}

proptest! {
    #[test]
    fn whatever_a_client_sends_it_is_asked_at_most_once_more_and_told_within_bounds(stanzas in prop::collection::vec(any_element(), 1..6)) {
        let start = now();
        let (mut query, _) = begun(start);
        let mut ask = Vec::new();
        let mut results = 0;
        for stanza in &stanzas {
            query.handle_stanza(stanza, &mut ask);
            results += query.poll_result().iter().count();
        }
        query.handle_timeout(start + ANSWER_WITHIN);
        results += query.poll_result().iter().count();
        prop_assert!(ask.len() <= 1);
        prop_assert!((1..=4).contains(&results));
    }
}

const EXODUS_PRESENCE: &str =
    "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:exodus' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/></presence>";

/// A list of capabilities, whose hash the presence above has where `more` is nothing (XEP-0115 §5.2).
fn exodus(more: &str) -> String {
    format!(
        "<iq id='q-disco' type='result'><query xmlns='http://jabber.org/protocol/disco#info'>\
         <identity category='client' name='Exodus 0.9.1' type='pc'/><feature var='http://jabber.org/protocol/caps'/>\
         <feature var='http://jabber.org/protocol/disco#info'/><feature var='http://jabber.org/protocol/disco#items'/>\
         <feature var='http://jabber.org/protocol/muc'/>{more}</query></iq>"
    )
}

#[test]
fn whose_capabilities_have_a_hash_is_asked_once_and_known_from_then_on() {
    let knowledge = Knowledge::default();
    let (mut first, _) = begun_with(knowledge.clone(), now());
    assert_eq!(hear(&mut first, EXODUS_PRESENCE).1.len(), 1);
    hear(&mut first, &exodus(""));
    let (mut second, _) = begun_with(knowledge, now());
    assert_eq!(hear(&mut second, EXODUS_PRESENCE).1, [], "no question");
    hear(&mut second, REFUSED);
    assert_eq!(second.poll_result().unwrap().to_string(), "Exodus 0.9.1");
}

#[test]
fn a_list_without_the_announced_hash_is_its_senders_word_and_never_remembered() {
    let knowledge = Knowledge::default();
    let (mut liar, _) = begun_with(knowledge.clone(), now());
    hear(&mut liar, EXODUS_PRESENCE);
    hear(&mut liar, &exodus("<feature var='more'/>"));
    hear(&mut liar, REFUSED);
    assert_eq!(liar.poll_result().unwrap().confidence, Confidence::Inferred);
    let (mut next, _) = begun_with(knowledge, now());
    assert_eq!(hear(&mut next, EXODUS_PRESENCE).1.len(), 1, "it is asked");
}
