use std::sync::Arc;

use super::*;
use crate::proto::xmpp::negotiation::{Action, Mechanism, Negotiation, NegotiationSettings, Transport};
use crate::proto::xmpp::sasl::{SaslCondition, SaslFailure, ScramKeys};

fn server(mechanisms: Vec<Mechanism>) -> Negotiation {
    let settings = NegotiationSettings {
        domains: vec![("example.org".to_owned(), mechanisms)],
        attempts: 3,
        stream_management: true,
        resumption: false,
        salt_secret: [1; 32],
    };
    Negotiation::new(Arc::new(settings), Transport::Tls, Box::new(|| [5; 16]))
}

/// Lets both sides talk until both are silent; the server lets in whoever knows "pw".
fn converse(client: &mut XmppClient, server: &mut Negotiation) -> Vec<ClientEvent> {
    let mut events = Vec::new();
    loop {
        let mut quiet = true;
        while let Some(event) = client.poll_event() {
            events.push(event);
        }
        while let Some(bytes) = client.poll_output() {
            quiet = false;
            server.handle_bytes(&bytes);
        }
        while let Some(bytes) = server.poll_output() {
            quiet = false;
            bytes.chunks(7).for_each(|piece| {
                client.handle_bytes(piece);
                events.extend(std::iter::from_fn(|| client.poll_event()));
            });
        }
        while let Some(action) = server.poll_action() {
            quiet = false;
            match action {
                Action::Verify(crate::proto::xmpp::negotiation::Login::Plain { password, .. }) if password != "pw" => {
                    let text = "No.".to_owned();
                    server.verdict(Err(SaslFailure { condition: SaslCondition::NotAuthorized, text }));
                }
                Action::Verify(_) => server.verdict(Ok(())),
                Action::FindScramKeys { .. } => server.scram_keys(Some(ScramKeys::derive("pw", b"salt", 8))),
                Action::Bind { user, resource, .. } => {
                    server.bound(&format!("{user}@example.org/{}", resource.unwrap_or_default()));
                }
                Action::StartTls | Action::Resume { .. } | Action::Established | Action::Close { .. } => {}
            }
        }
        if quiet {
            return events;
        }
    }
}

fn try_login(credentials: Credentials, mechanisms: Vec<Mechanism>) -> Vec<ClientEvent> {
    let mut client = XmppClient::new("example.org", credentials, Some("r".to_owned()), [2; 16]);
    converse(&mut client, &mut server(mechanisms))
}

fn ann(password: &str) -> (String, String) {
    ("ann".to_owned(), password.to_owned())
}

#[test]
fn every_mechanism_leads_to_an_address() {
    let all = || vec![Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Anonymous];
    let (user, password) = ann("pw");
    let ready = |jid: &str| vec![ClientEvent::Ready { jid: jid.to_owned() }];
    assert_eq!(try_login(Credentials::Anonymous, all()), ready("@example.org/r"));
    assert_eq!(try_login(Credentials::Plain { user: user.clone(), password: password.clone() }, all()), ready("ann@example.org/r"));
    assert_eq!(try_login(Credentials::Scram { user, password }, all()), ready("ann@example.org/r"));
}

#[test]
fn refusals_are_told_apart() {
    let (user, password) = ann("wrong");
    let refused = |text: &str| {
        let (condition, text) = ("not-authorized".to_owned(), text.to_owned());
        vec![ClientEvent::Failed(ClientFault::Login { condition, text })]
    };
    let plain = Credentials::Plain { user: user.clone(), password: password.clone() };
    assert_eq!(try_login(plain, vec![Mechanism::Plain]), refused("No."));
    let scram = Credentials::Scram { user, password };
    assert_eq!(try_login(scram.clone(), vec![Mechanism::ScramSha256]), refused("User name or password is wrong."));
    let missing = ClientFault::MechanismMissing("SCRAM-SHA-256");
    assert_eq!(try_login(scram, vec![Mechanism::Plain]), [ClientEvent::Failed(missing)]);
    let mut astray = XmppClient::new("other.org", Credentials::Anonymous, None, [2; 16]);
    let events = converse(&mut astray, &mut server(vec![Mechanism::Anonymous]));
    assert_eq!(events, [ClientEvent::Failed(ClientFault::Stream("host-unknown".to_owned()))]);
}

#[test]
fn a_server_that_knows_no_keys_is_not_believed() {
    let (user, password) = ann("pw");
    let mut client = XmppClient::new("example.org", Credentials::Scram { user, password }, None, [2; 16]);
    client.handle_bytes(
        b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'><stream:features>\
          <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-256</mechanism></mechanisms></stream:features>\
          <success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
    );
    assert_eq!(client.poll_event(), Some(ClientEvent::Failed(ClientFault::ServerUnproven)));
    assert_eq!(client.poll_event(), None);
}

#[test]
fn stanzas_pass_both_ways_once_ready() {
    let mut client = XmppClient::new("example.org", Credentials::Anonymous, None, [2; 16]);
    let mut server = server(vec![Mechanism::Anonymous]);
    let message = Element::new("message", ns::CLIENT).with_child(Element::new("body", ns::CLIENT).with_text("hi"));
    client.send(&message);
    let _ready = converse(&mut client, &mut server);
    client.send(&message);
    assert_eq!(client.poll_output().as_deref(), Some(&b"<message><body>hi</body></message>"[..]));
    client.handle_bytes(message.to_xml().as_bytes());
    assert_eq!(client.poll_event(), Some(ClientEvent::Stanza(message)));
    client.handle_bytes(b"</stream:stream>");
    assert_eq!(client.poll_event(), Some(ClientEvent::Closed));
    client.close();
    assert_eq!(client.poll_output(), None);
}
