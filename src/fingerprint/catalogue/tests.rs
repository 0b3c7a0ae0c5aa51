use super::*;

const OPENSSL: &str = "t13d3112xt_aaaaaaaaaaaa_111111111111";
const GNUTLS: &str = "t13d3010xt_bbbbbbbbbbbb_222222222222";
const NODE: &str = "t13d3010xt_cccccccccccc_333333333333";

fn library(ja4: &str, name: &str, software: &str) -> Library {
    Library { ja4: Ja4::parse(ja4).unwrap(), name: name.into(), software: software.into() }
}

fn rule(name: &str, versions: &str, opinion: Opinion) -> Rule {
    Rule { name: name.into(), versions: (!versions.is_empty()).then(|| VersionRange::parse(versions).unwrap()), opinion }
}

fn catalogue() -> Catalogue {
    let lacks = Features::named(["corrections"]).unwrap();
    Catalogue::new(
        vec![library(OPENSSL, "OpenSSL", ""), library(GNUTLS, "GnuTLS", ""), library(NODE, "OpenSSL of Node.js", "Node.js")],
        vec![
            Software { name: "Gajim".into(), libraries: vec!["GnuTLS".into()], caps: vec![("hash=".into(), "2.1".into())] },
            Software { name: "Chatty".into(), libraries: Vec::new(), caps: Vec::new() },
        ],
        vec![
            rule("Chatty", "<0.9", Opinion::Refuse("Please update Chatty.".into())),
            rule("chatty", "<0.13.1", Opinion::Degrade(lacks)),
            rule("Spambot", "", Opinion::Refuse(String::new())),
        ],
    )
}

fn says(name: &str, version: &str) -> ClientSoftware {
    let (source, confidence) = (SoftwareSource::Asked, Confidence::Stated);
    ClientSoftware { name: name.into(), version: version.into(), source, confidence, ..ClientSoftware::unknown() }
}

fn hello(ja4: &str) -> Fingerprint {
    let ja4 = Ja4::parse(ja4).unwrap();
    Fingerprint { ja4, stable: ja4 }
}

#[test]
fn whoever_says_gajim_over_the_tls_of_another_library_is_flagged_and_nobody_else() {
    let weigh = |said, ja4| catalogue().weigh(said, Some(&hello(ja4)));
    let honest = weigh(says("gajim", "2.1"), GNUTLS);
    assert!(!honest.is_contradicted && honest.library == "GnuTLS" && honest.ja4 == Ja4::parse(GNUTLS));
    let posing = weigh(says("Gajim", "2.1"), OPENSSL);
    assert!(posing.is_contradicted && posing.confidence == Confidence::Stated);
    assert_eq!(posing.to_string(), "Gajim 2.1 (doubtful: its TLS is that of OpenSSL)");
    assert!(!weigh(says("Gajim", "2.1"), "t13d3010xt_dddddddddddd_444444444444").is_contradicted, "a hello that is not known says nothing");
    assert!(!weigh(says("Chatty", "1"), OPENSSL).is_contradicted, "whose library is not known");
    assert!(!weigh(says("Whoever", "1"), OPENSSL).is_contradicted);
    assert_eq!(catalogue().weigh(says("Gajim", "2.1"), None), says("Gajim", "2.1"));
}

#[test]
fn what_is_before_the_hashes_of_a_hello_does_not_matter() {
    let without_name = catalogue().weigh(says("Gajim", "2.1"), Some(&hello(&OPENSSL.replace("t13d3112xt", "t13i311100"))));
    assert!(without_name.is_contradicted);
    let resumed = Fingerprint { stable: Ja4::parse("t13d3010xt_dddddddddddd_444444444444").unwrap(), ..hello(OPENSSL) };
    assert!(catalogue().weigh(says("Gajim", "2.1"), Some(&resumed)).is_contradicted, "a row may have a JA4 as a session shows it");
}

#[test]
fn a_client_that_says_nothing_is_named_by_its_hello_where_only_one_says_hello_so() {
    let named = catalogue().weigh(ClientSoftware::unknown(), Some(&hello(NODE)));
    assert_eq!((named.name.as_str(), named.source, named.confidence), ("Node.js", SoftwareSource::Ja4, Confidence::Inferred));
    let unnamed = catalogue().weigh(ClientSoftware::unknown(), Some(&hello(GNUTLS)));
    assert_eq!((unnamed.name.as_str(), unnamed.source, unnamed.library.as_str()), ("", SoftwareSource::None, "GnuTLS"));
}

#[test]
fn the_first_rule_that_speaks_of_a_version_decides() {
    let judge = |name, version| catalogue().judge(says(name, version), &[]);
    assert_eq!(judge("CHATTY", "0.8.9").unwrap_err(), Refusal { reason: "client-refused", sentence: "Please update Chatty.".into() });
    let degraded = judge("Chatty", "0.13.1-rc1").unwrap();
    assert_eq!(degraded.to_string(), "Chatty 0.13.1-rc1 (lacks corrections)");
    assert!(judge("Chatty", "0.13.1").unwrap().lacks.is_empty());
    assert!(judge("Chatty", "").unwrap().lacks.is_empty(), "a rule of versions says nothing of one that is not known");
    assert!(judge("Spambot", "").unwrap_err().sentence.contains("not accepted here"));
    assert!(judge("", "").is_ok());
}

#[test]
fn a_connector_can_refuse_more_and_never_less() {
    let denied = [Denial { software: "Gajim".into(), version: Some("2.1".into()), text: "No Gajim 2.1.".into() }];
    let refusal = catalogue().judge(says("Gajim", "2.1.3"), &denied).unwrap_err();
    assert_eq!((refusal.reason, refusal.sentence.as_str()), ("client-denied", "No Gajim 2.1."));
    assert!(catalogue().judge(says("Gajim", "2.2"), &denied).is_ok());
    assert_eq!(catalogue().judge(says("Chatty", "0.1"), &denied).unwrap_err().reason, "client-refused");
}

#[test]
fn rows_of_ones_own_come_before_those_that_they_lie_over() {
    let own = Catalogue::new(vec![library(OPENSSL, "Mine", "")], Vec::new(), vec![rule("Chatty", "", Opinion::Allow)]);
    let both = own.over(catalogue());
    assert_eq!(both.weigh(says("x", "1"), Some(&hello(OPENSSL))).library, "Mine");
    assert_eq!(both.weigh(says("x", "1"), Some(&hello(GNUTLS))).library, "GnuTLS");
    assert!(both.judge(says("Chatty", "0.1"), &[]).is_ok());
    assert!(both.judge(says("Spambot", "1"), &[]).is_err());
    assert_eq!(both.caps("hash=").unwrap().to_string(), "Gajim 2.1");
    assert_eq!(both.caps("other="), None);
}
