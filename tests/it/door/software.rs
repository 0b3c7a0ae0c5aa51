//! What real clients show of themselves, recorded by tests/drivers/record.py, and what a relay makes of it; and what the lists of
//! `[clients]` and clients.toml do to a customer at the door.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use outgate::config::clients::shipped;
use outgate::fingerprint::ja4::Over;
use outgate::fingerprint::{ClientSoftware, Confidence, Fingerprint, Knowledge, SoftwareSource};
use outgate::proto::client_hello::RecordReader;
use outgate::proto::xmpp::reader::{AFTER_LOGIN, ReadEvent, Reader};
use outgate::proto::xmpp::software::SoftwareQuery;
use outgate::proto::xmpp::stanza::Element;
use outgate::relay::Relay;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::relay::customer::Customer;
use crate::trust::company::{Company, all_pushed};

const GRANTS: [(&str, &[&str]); 1] = [("lan1", &["hello"])];

const RELOAD: &str = "{\"do\":\"reload\"}";

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/clients");

/// One recording.
#[derive(Debug, Deserialize)]
struct Recorded {
    hellos: BTreeMap<String, String>,
    presence: Option<String>,
    disco: Option<String>,
    version: Option<String>,
}

impl Recorded {
    fn read(name: &str) -> Self {
        serde_json::from_str(&std::fs::read_to_string(format!("{FIXTURES}/{name}.json")).unwrap()).unwrap()
    }

    fn hello(&self, over: &str) -> Fingerprint {
        let hex = &self.hellos[over];
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        Fingerprint::of(&RecordReader::default().push(&bytes).unwrap().unwrap(), Over::Tcp)
    }

    /// What a relay with `knowledge` makes of it, its own questions answered as they were when it was recorded.
    fn replay(&self, knowledge: &Knowledge) -> ClientSoftware {
        let now = now();
        let client = "guest@chat.example/r";
        let (mut query, mut open) = SoftwareQuery::new("hello@chat.example", client, "q", knowledge.clone(), now);
        if let Some(presence) = &self.presence {
            query.handle_stanza(&element(presence), &mut open);
        }
        let mut ignored = Vec::new();
        for question in open {
            let id = question.attribute("id").unwrap().to_owned();
            let answer = if id.ends_with("-version") { &self.version } else { &self.disco };
            if let Some(answer) = answer {
                assert!(query.handle_stanza(&element(answer).with_attribute("id", id), &mut ignored));
            }
        }
        query.handle_timeout(now + outgate::proto::xmpp::software::ANSWER_WITHIN);
        knowledge.catalogue.weigh(query.poll_result().unwrap(), Some(&self.hello("direct")))
    }
}

#[test]
fn each_recorded_client_is_known_by_what_it_shows() {
    for (name, told, source, library) in [
        ("profanity", "Profanity 0.13.1 (lacks read markers, replies)", SoftwareSource::Asked, "OpenSSL"),
        ("finch", "Finch 2.14.12 (libpurple 2.14.12) (lacks receipts, read markers, corrections, replies)", SoftwareSource::Asked, "NSS"),
        ("slixmpp_client", "Slixmpp 1.17.0", SoftwareSource::Asked, "OpenSSL"),
        ("xmppjs", "Node.js", SoftwareSource::Ja4, "OpenSSL"),
        // The library alone: Gajim sets what it answers.
        ("nbxmpp_client", "unknown software", SoftwareSource::None, "GnuTLS"),
    ] {
        let recorded = Recorded::read(name);
        let knowledge = built_in();
        let known = knowledge.catalogue.judge(recorded.replay(&knowledge), &[]).unwrap();
        assert_eq!((known.to_string().as_str(), known.source, known.library.as_str()), (told, source, library));
        assert!(!known.is_contradicted, "{name}");
        assert_eq!(recorded.hello("direct").stable.hashes(), recorded.hello("starttls").stable.hashes(), "{name} says hello in one way");
    }
}

#[test]
fn a_client_that_hides_its_version_is_known_by_the_hash_of_its_capabilities_without_a_question() {
    for (name, told) in [("profanity", "Profanity 0.13.1"), ("finch", "Finch 2.14.12")] {
        let shy = Recorded { version: None, disco: None, ..Recorded::read(name) };
        let known = shy.replay(&built_in());
        assert_eq!((known.to_string().as_str(), known.confidence), (told, Confidence::Inferred));
    }
}

#[test]
fn what_is_not_in_the_list_is_learned_from_the_first_that_shows_it() {
    // Profanity lists a feature (mood+notify) that the hash in its first presence is without: that list is never remembered.
    for (name, told) in [("profanity", "Profanity"), ("finch", "Finch")] {
        let knowledge = Knowledge::default();
        let recorded = Recorded::read(name);
        assert!(recorded.disco.is_some());
        recorded.replay(&knowledge);
        let next = Recorded { version: None, disco: None, ..recorded }.replay(&knowledge);
        assert_eq!((next.to_string().as_str(), next.source), (told, SoftwareSource::Caps));
        assert_eq!(next.confidence == Confidence::Stated, name == "finch", "the hash of its own list was right");
    }
}

#[test]
fn who_names_itself_after_software_of_another_library_is_flagged() {
    let posing = Recorded { hellos: Recorded::read("xmppjs").hellos, ..Recorded::read("finch") };
    let known = posing.replay(&built_in());
    assert!(known.is_contradicted && known.to_string().contains("its TLS is that of OpenSSL"), "{known}");
    let says_gajim = |hello: &str| {
        let version = Recorded::read("slixmpp_client").version.map(|answer| answer.replace("Slixmpp", "Gajim"));
        Recorded { version, ..Recorded::read(hello) }.replay(&built_in()).is_contradicted
    };
    assert!(says_gajim("slixmpp_client"));
    assert!(!says_gajim("nbxmpp_client"));
}

/// No row without a recording of a real client, and none that a client has outgrown.
#[test]
fn every_row_of_the_built_in_list_is_shown_by_a_recorded_client() {
    let catalogue = shipped();
    let recorded: Vec<_> = ["profanity", "finch", "slixmpp_client", "xmppjs", "nbxmpp_client"].map(Recorded::read).into();
    let known: Vec<_> = recorded.iter().map(|recorded| recorded.replay(&built_in())).collect();
    let mut names: BTreeSet<_> = known.iter().map(|software| software.name.as_str()).collect();
    // Its library was recorded.
    names.insert("Gajim");
    for software in catalogue.software() {
        assert!(names.contains(software.name.as_str()), "{} was not recorded", software.name);
        for (ver, _) in &software.caps {
            let announced = |recorded: &Recorded| recorded.presence.as_ref().is_some_and(|presence| presence.contains(ver.as_str()));
            assert!(recorded.iter().any(announced), "nobody announced {ver}");
        }
    }
    for rule in catalogue.rules() {
        let speaks = |software: &ClientSoftware| {
            software.name == rule.name && rule.versions.as_ref().is_none_or(|versions| versions.holds(&software.version))
        };
        assert!(known.iter().any(speaks), "no recorded client is {rule:?}");
    }
    for library in catalogue.libraries() {
        let says = |recorded: &Recorded| recorded.hello("direct").stable.hashes() == library.ja4.hashes();
        assert!(recorded.iter().any(says), "nobody says hello as {library:?}");
    }
}

fn built_in() -> Knowledge {
    Knowledge { catalogue: shipped().into(), ..Knowledge::default() }
}

fn element(xml: &str) -> Element {
    let mut reader = Reader::new(AFTER_LOGIN);
    reader.push(b"<stream:stream version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>");
    reader.push(xml.as_bytes());
    loop {
        if let ReadEvent::Stanza(stanza) = reader.poll().unwrap().unwrap() {
            return stanza;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn a_hello_that_is_denied_is_refused_before_tls_stands_in_direct_tls_and_after_starttls_and_nobody_else_is() {
    let company = Company::new();
    let relay = company.relay_with("dmz1", &GRANTS, "");
    let _connector = company.connector("lan1", &[relay.tunnel_address().unwrap()], &["hello"]).await;
    company.until("lan1", "the tunnel", all_pushed).await;
    let mut stays = company.customer(&relay).await;
    stays.log_in_anonymously().await;
    stays.until("This is lan1.").await;
    let status = company.until("lan1", "its session", |status| status["sessions"][0]["software_ja4"].is_string()).await;
    let ja4 = status["sessions"][0]["software_ja4"].as_str().unwrap().to_owned();

    let file = company.path("dmz1.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    company.write("dmz1.toml", &format!("{text}[clients]\ndeny_ja4 = [\"{ja4}\"]\n"));
    assert_eq!(company.ask("dmz1", RELOAD).await, json!({"changed": ["clients"], "needs_restart": []}));
    for starttls in [false, true] {
        let mut refused = company.plain_customer(&relay).await;
        if starttls {
            refused.open_stream().await;
            refused.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
            refused.until("<proceed").await;
        }
        assert!(refused.try_direct_tls().await.err().unwrap().contains("AccessDenied"));
    }
    company.until("dmz1", "both refusals", |status| status["reasons"]["ja4-denied"] == 2).await;
    stays.say("<message to='hello@localhost' type='chat'><body>still here</body></message><r xmlns='urn:xmpp:sm:3'/>").await;
    stays.say("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    stays.until("id='p'").await;

    company.write("dmz1.toml", &text);
    assert_eq!(company.ask("dmz1", RELOAD).await["changed"], json!(["clients"]));
    company.customer(&relay).await.log_in_anonymously().await;
}

#[tokio::test]
async fn a_list_that_is_reloaded_refuses_with_a_sentence_degrades_and_flags() {
    let company = Company::new();
    let relay = company.relay_with("dmz1", &GRANTS, "");
    let _connector = company.connector("lan1", &[relay.tunnel_address().unwrap()], &["hello"]).await;
    company.until("lan1", "the tunnel", all_pushed).await;
    // rustls is none of the libraries that are built in.
    let mut first = company.customer(&relay).await;
    says(&mut first, "Old", "1.1").await;
    let told = company.until("lan1", "what it said", |status| software(status) == "Old 1.1").await;
    let ja4 = told["sessions"][0]["software_ja4"].as_str().unwrap().to_owned();

    let list = format!(
        "[[client]]\nname = \"old\"\nversion = \"<1.2\"\nverdict = \"refuse\"\ntext = \"Please update Old.\"\n\
         [[client]]\nname = \"Old\"\nversion = \"1.2\"\nverdict = \"degrade\"\nlacks = [\"corrections\"]\n\
         [[client]]\nname = \"Chatty\"\nverdict = \"allow\"\n\
         [[software]]\nname = \"Gajim\"\nlibraries = [\"GnuTLS\"]\n[[tls]]\nja4 = \"{ja4}\"\nlibrary = \"rustls\"\n"
    );
    company.write("clients.toml", &list.replace("\"<1.2\"", "\"before 1.2\""));
    let fault = company.ask("dmz1", RELOAD).await["error"].as_str().unwrap().to_owned();
    assert!(fault.contains("clients.toml:3:11") && fault.contains("names no versions"), "{fault}");
    company.write("clients.toml", &list);
    assert_eq!(company.ask("dmz1", RELOAD).await, json!({"changed": ["clients"], "needs_restart": []}));

    let last = refused(&company, &relay, "Old", "1.1.9").await;
    let (message, error) = last.split_once("</message>").unwrap();
    assert!(
        message.contains("Please update Old.") && error.contains("<policy-violation") && error.contains("Please update Old."),
        "{last}"
    );
    // A connector's own word stands, whatever the relay's list says.
    assert!(refused(&company, &relay, "Chatty", "9").await.contains("not accepted here"));
    company
        .until("dmz1", "both refusals", |status| status["reasons"]["client-refused"] == 1 && status["reasons"]["client-denied"] == 1)
        .await;
    let mut newer = company.customer(&relay).await;
    says(&mut newer, "Old", "1.2.7").await;
    let mut posing = company.customer(&relay).await;
    says(&mut posing, "Gajim", "2.1").await;
    let both = ["Old 1.2.7 (lacks corrections)", "Gajim 2.1 (doubtful: its TLS is that of rustls)"];
    company
        .until("lan1", "both", |status| {
            let told: Vec<_> = status["sessions"].as_array().unwrap().iter().map(|session| session["software"].clone()).collect();
            both.iter().all(|wanted| told.iter().any(|told| told == wanted))
        })
        .await;
}

async fn refused(company: &Company, relay: &Relay, name: &str, version: &str) -> String {
    let mut customer = company.customer(relay).await;
    says(&mut customer, name, version).await;
    customer.end().await
}

/// Logs in, and answers what it is asked as this software.
async fn says(customer: &mut Customer, name: &str, version: &str) {
    customer.log_in_anonymously().await;
    customer.say("<presence/>").await;
    let asked = customer.until("<query xmlns='jabber:iq:version'/>").await;
    let id = asked.rsplit(" id='").next().unwrap().split('\'').next().unwrap();
    customer
        .say(&format!(
            "<iq type='result' id='{id}' to='hello@localhost'><query xmlns='jabber:iq:version'><name>{name}</name>\
             <version>{version}</version></query></iq>"
        ))
        .await;
}

fn software(status: &Value) -> &Value {
    &status["sessions"][0]["software"]
}
