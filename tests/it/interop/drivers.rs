//! The drivers prove themselves against Prosody before anything is said about Outgate.

use super::driver::{bare, texts};
use super::prosody::{Prosody, certificates};
use super::{Driver, Event, Kind, Login, Needs, Tls};

const MESSAGES: usize = 20;

#[test]
fn profanity_and_slixmpp_exchange_numbered_messages() {
    converse(Kind::Profanity, Tls::Starttls, Kind::Slixmpp, Tls::Direct);
}

#[test]
fn slixmpp_and_profanity_exchange_numbered_messages() {
    converse(Kind::Slixmpp, Tls::Starttls, Kind::Profanity, Tls::Direct);
}

#[test]
fn profanity_and_finch_exchange_numbered_messages() {
    converse(Kind::Profanity, Tls::Direct, Kind::Finch, Tls::Starttls);
}

#[test]
fn slixmpp_and_finch_exchange_numbered_messages() {
    converse(Kind::Slixmpp, Tls::Direct, Kind::Finch, Tls::Direct);
}

#[test]
fn slixmpp_and_xmpp_js_exchange_numbered_messages() {
    converse(Kind::Slixmpp, Tls::Starttls, Kind::XmppJs, Tls::Direct);
}

#[test]
fn profanity_and_xmpp_js_exchange_numbered_messages() {
    converse(Kind::Profanity, Tls::Direct, Kind::XmppJs, Tls::Starttls);
}

#[test]
fn every_client_refuses_the_certificate_of_another_ca() {
    for_every_client("every_client_refuses_the_certificate_of_another_ca", |kind, prosody| {
        let elsewhere = tempfile::tempdir().unwrap();
        certificates(elsewhere.path(), &["desk.example"]);
        for tls in [Tls::Starttls, Tls::Direct] {
            let mut login = prosody.login(Some("alice"), tls);
            login.ca_file = elsewhere.path().join("ca.pem");
            let mut client = Driver::start(kind, "a stranger to this CA", &login.ca_file);
            client.try_connect(&login);
            client.expect("the certificate's refusal", |events| events.iter().find_map(complaint));
            assert!(!client.events().iter().any(|event| matches!(event, Event::Connected { .. })), "{kind:?} logged in");
        }
    });
}

#[test]
fn every_client_shows_a_refused_login() {
    for_every_client("every_client_shows_a_refused_login", |kind, prosody| {
        let mut login = prosody.login(Some("alice"), Tls::Starttls);
        login.password = Some("wrong".to_owned());
        let mut client = Driver::start(kind, "alice with a wrong password", &login.ca_file);
        client.try_connect(&login);
        let condition = client.expect("the refusal", |events| {
            events.iter().find_map(|event| if let Event::AuthFailed { condition, .. } = event { condition.clone() } else { None })
        });
        assert_eq!(condition, "not-authorized");
    });
}

/// One is an agent with an account, the other a guest where it can be one; both say twenty things at once.
fn converse(ours: Kind, our_tls: Tls, theirs: Kind, their_tls: Tls) {
    let name = format!("{ours:?} and {theirs:?} on Prosody");
    if !Needs::clients(&[ours, theirs]).program("prosody").met(&name) {
        return;
    }
    let prosody = Prosody::start();
    let mut alice = Driver::start(ours, "alice", &prosody.ca_file());
    let alice_jid = arrive(&mut alice, &prosody.login(Some("alice"), our_tls));
    let mut guest = Driver::start(theirs, "the other", &prosody.ca_file());
    // Finch knows no ANONYMOUS.
    let account = (theirs == Kind::Finch).then_some("bob");
    let guest_jid = arrive(&mut guest, &prosody.login(account, their_tls));
    for number in 1..=MESSAGES {
        alice.send(bare(&guest_jid), &format!("alice says {number:02} \"<&>\" ä"));
        guest.send(bare(&alice_jid), &format!("guest says {number:02}; "));
    }
    guest.expect_texts("alice says", MESSAGES);
    alice.expect_texts("guest says", MESSAGES);
    assert_numbered(&guest.quit_without_errors(), "alice says");
    assert_numbered(&alice.quit_without_errors(), "guest says");
}

/// Logs in and waits until the server counts the client as available: what comes before goes back to its sender.
fn arrive(client: &mut Driver, login: &Login) -> String {
    let jid = client.connect(login);
    let own = |event: &Event| matches!(event, Event::Presence { from: Some(from), show } if *from == jid && show == "available");
    client.expect("its own presence", |events| events.iter().any(own).then_some(()));
    jid
}

fn assert_numbered(events: &[Event], prefix: &str) {
    let shown: Vec<String> = texts(events, prefix).iter().filter_map(|text| text.split(' ').nth(2).map(ToOwned::to_owned)).collect();
    let wanted: Vec<String> = (1..=MESSAGES).map(|number| format!("{number:02}")).collect();
    let shown: Vec<&str> = shown.iter().map(|number| number.trim_end_matches(';')).collect();
    assert_eq!(shown, wanted, "not complete, once and in order");
}

fn for_every_client(test: &str, check: impl Fn(Kind, &Prosody)) {
    let kinds = [Kind::Slixmpp, Kind::Profanity, Kind::Finch, Kind::XmppJs];
    if !Needs::clients(&kinds).program("prosody").met(test) {
        return;
    }
    let prosody = Prosody::start();
    for kind in kinds {
        check(kind, &prosody);
    }
}

fn complaint(event: &Event) -> Option<String> {
    if let Event::Error { text } = event { Some(text.clone()) } else { None }
}
