//! Wrong files: each fault names its place and its remedy, and all of a file come at once.

use std::path::Path;

use super::{AgentsConfig, ConnectorConfig, Fault, Kind, RelayConfig, SourceLines};

const RELAY: &str = include_str!("../../config/relay.toml");
const CONNECTOR: &str = include_str!("../../config/connector.toml");

#[test]
fn an_unknown_key_is_a_fault_with_a_suggestion() {
    let text = RELAY.replace("key = \"tls/", "kye = \"tls/");
    assert_at(
        &relay_faults(&text),
        &text,
        &[("[tls]", "`tls.key` is missing", "add `key = \"key.pem\"`"), ("kye", "unknown key `tls.kye`", "did you mean `key`?")],
    );
}

#[test]
fn a_value_of_another_kind_is_a_fault() {
    let text = RELAY.replace("public_queue = \"hello\"", "public_queue = 7");
    assert_at(
        &relay_faults(&text),
        &text,
        &[("7\n", "`domain.public_queue` is an integer, expected a string", "write `public_queue = \"hello\"`")],
    );
}

#[test]
fn a_wrong_address_in_a_list_is_a_fault_at_the_element() {
    let text = RELAY.replace("# client = [\"[::]:5222\"]", "client = [\"[::]:5222\", \"localhost\"]");
    assert_at(&relay_faults(&text), &text, &[("\"localhost\"", "\"localhost\" is not an address", "write, for example, \"[::]:5222\"")]);
}

#[test]
fn a_list_whose_only_element_is_wrong_is_not_also_empty() {
    let text = RELAY.replace("# client = [\"[::]:5222\"]", "client = [\"localhost\"]");
    assert_at(&relay_faults(&text), &text, &[("\"localhost\"", "\"localhost\" is not an address", "write, for example, \"[::]:5222\"")]);
}

#[test]
fn a_duration_without_a_unit_is_a_fault() {
    let text = RELAY.replace("# leeway = \"30s\"", "leeway = \"30\"");
    assert_at(&relay_faults(&text), &text, &[("\"30\"", "\"30\" is not a duration", "write, for example, \"30s\"")]);
}

#[test]
fn a_public_queue_that_does_not_exist_is_a_fault() {
    let text = RELAY.replace("public_queue = \"hello\"", "public_queue = \"helo\"");
    assert_at(&relay_faults(&text), &text, &[("\"helo\"", "is no queue of this domain", "name one of: hello, support")]);
}

#[test]
fn a_queue_is_shown_by_its_name_or_its_id_and_never_by_nothing() {
    let text = RELAY.replace("# name = \"hello\"", "name = \"Customer support\"");
    let config = RelayConfig::parse(Path::new("relay.toml"), &text).unwrap();
    let names: Vec<&str> = config.domains[0].queues.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(names, ["Customer support", "support"]);
    let text = RELAY.replace("# name = \"hello\"", "name = \"a\\u001bb\"");
    assert_at(&relay_faults(&text), &text, &[("\"a", "`name` has control characters", "write a line such as \"Customer support\"")]);
}

#[test]
fn a_relays_name_where_a_connectors_is_expected_is_a_fault() {
    let text = RELAY.replacen("outgate://example/connector/lan1", "outgate://example/relay/dmz1", 1);
    assert_at(
        &relay_faults(&text),
        &text,
        &[(
            "\"outgate://example/relay/dmz1\"",
            "is not a connector's identity",
            "write, for example, \"outgate://example/connector/lan1\"",
        )],
    );
}

#[test]
fn a_queue_with_two_connectors_is_a_fault_that_names_both() {
    let second = "[[connector]]\nidentity = \"outgate://example/connector/lan2\"\nqueues = [\"support\"]\n\n[[issuer]]";
    let text = RELAY.replace("[[issuer]]", second);
    assert_at(
        &relay_faults(&text),
        &text,
        &[(
            "[\"support\"]",
            "granted to two connectors: outgate://example/connector/lan1 and outgate://example/connector/lan2",
            "a queue belongs to one connector",
        )],
    );
    let text = RELAY.replace("id = \"support\"", "id = \"support\"\nconnector = \"outgate://example/connector/lan2\"");
    assert_at(
        &relay_faults(&text),
        &text,
        &[(
            "\"outgate://example/connector/lan2\"",
            "a queue does not name its connector",
            "write `queues = [\"support\"]` in the section `[[connector]]` with `identity = \"outgate://example/connector/lan2\"`",
        )],
    );
}

#[test]
fn a_queue_without_a_connector_and_a_grant_of_no_queue_are_faults() {
    let text = RELAY.replace("queues = [\"hello\", \"support\"]", "queues = [\"hello\", \"suport\"]");
    assert_at(
        &relay_faults(&text),
        &text,
        &[
            ("\"support\"\n", "no connector serves queue", "name it in `queues`"),
            ("[\"hello\", \"suport\"]", "which no domain has", "id@domain"),
        ],
    );
    let text = RELAY.replace("queues = [\"hello\", \"support\"]", "queues = []");
    let faults = relay_faults(&text);
    assert!(faults.iter().any(|fault| fault.message == "this connector is granted no queue"), "{faults:#?}");
}

#[test]
fn a_grant_may_name_its_domain() {
    let more = "[[domain]]\nname = \"chat.example.org\"\n[[domain.queue]]\nid = \"support\"\n\n[[connector]]\n\
                identity = \"outgate://example/connector/lan2\"\nqueues = [\"support@chat.example.org\"]\n\n[[issuer]]";
    let named = RELAY.replace("queues = [\"hello\", \"support\"]", "queues = [\"hello\", \"support@chat.example.com\"]");
    let config = RelayConfig::parse(Path::new("relay.toml"), &named.replace("[[issuer]]", more)).unwrap();
    let connector = |domain: usize, queue: usize| config.domains[domain].queues[queue].connector.clone();
    assert_eq!(connector(0, 1), "outgate://example/connector/lan1");
    assert_eq!(connector(1, 0), "outgate://example/connector/lan2");
}

#[test]
fn a_queue_that_nobody_can_enter_is_a_fault() {
    let cut = CONNECTOR.find("[[issuer]]").unwrap();
    let text = &CONNECTOR[..cut];
    assert_at(&connector_faults(text), text, &[("\"support\"", "needs a link, and no issuer may sign one", "add a section `[[issuer]]`")]);
}

#[test]
fn a_faulty_issuer_is_one_fault_and_not_nobody() {
    let text = CONNECTOR.replace("iss = \"https://example.com\"", "iss = true");
    assert_at(&connector_faults(&text), &text, &[("true\njwks", "`issuer.iss` is a boolean, expected a string", "write `iss = ")]);
}

#[test]
fn a_queue_of_an_unserved_domain_is_a_fault() {
    let text = CONNECTOR.replacen("domain = \"chat.example.com\"", "domain = \"chat.example.org\"", 1);
    assert_at(&connector_faults(&text), &text, &[("\"chat.example.org\"", "is not one of this file's domains", "add `[[domain]]`")]);
}

#[test]
fn a_relay_without_a_port_is_a_fault() {
    let text = CONNECTOR.replace("relay.example.com:7443", "relay.example.com");
    assert_at(&connector_faults(&text), &text, &[("\"relay.example.com\"\n", "is not HOST:PORT", "\"relay.example.com:7443\"")]);
}

#[test]
fn a_name_given_twice_is_a_fault() {
    let text = CONNECTOR.replace("id = \"support\"", "id = \"hello\"");
    let faults = connector_faults(&text);
    assert_eq!(faults[0].message, "`id = \"hello\"` is given twice");
    assert_eq!(faults[0].line, line_of(&text, text.rfind("\"hello\"").unwrap()));
    assert_eq!(faults[0].remedy, "rename or remove one of the two");
}

#[test]
fn a_password_in_the_clear_is_a_fault_that_does_not_repeat_it() {
    let text = "[[agent]]\nname = \"alice\"\npassword = \"hunter2\"\n";
    let faults = AgentsConfig::parse(Path::new("agents.toml"), text).unwrap_err();
    assert_at(&faults, text, &[("\"hunter2\"", "never the password itself", "run `outgate agent passwd alice`")]);
    assert_eq!(faults[0].source, SourceLines::Hidden);
    assert!(!format!("{faults:?}{}", faults[0]).contains("hunter2"));
}

#[test]
fn broken_syntax_does_not_hide_the_other_faults() {
    let text = RELAY
        .replace("public_queue = \"hello\"", "public_queue = ")
        .replace("# leeway = \"30s\"", "leeway = 30")
        .replace("[limits]", "[limit]");
    let faults = relay_faults(&text);
    let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
    for needle in ["public_queue =", "leeway = 30", "[limit]"] {
        let line = line_of(&text, text.find(needle).unwrap());
        assert!(lines.contains(&line), "no fault in line {line} ({needle}): {faults:#?}");
    }
}

#[test]
fn all_faults_of_a_file_come_at_once_in_its_order() {
    let text = "name = 'not a name'\n[agents]\nlisten = 5222\n[[relay]]\naddres = 'r:1'\n\
                [log]\nlevel = 'loud'\n[[queue]]\nid = 'A'\ndomain = 'x'\n";
    let faults = connector_faults(text);
    let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
    let mut sorted = lines.clone();
    sorted.sort_unstable();
    assert_eq!(lines, sorted);
    for message in [
        "`name = \"not a name\"` cannot stand in a certificate name",
        "`tunnel_tls` is missing",
        "`agents.listen` is an integer, expected an IP address and port",
        "`agents.domain` is missing",
        "`agents.tls` is missing",
        "`agents.accounts` is missing",
        "`relay.address` is missing",
        "unknown key `relay.addres`",
        "`log.level`: \"loud\" is no log level",
        "no domain is served",
        "`id = \"A\"` cannot stand in an address",
    ] {
        assert!(faults.iter().any(|fault| fault.message.starts_with(message)), "no fault says {message}: {faults:#?}");
    }
}

proptest::proptest! {
    #[test]
    fn a_changed_byte_gives_faults_and_no_panic(at in 0..RELAY.len(), byte in 0u8..128) {
        let mut bytes = RELAY.as_bytes().to_vec();
        bytes[at] = byte;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for kind in [Kind::Relay, Kind::Connector, Kind::Agents] {
            for fault in kind.faults(Path::new("f"), &text) {
                assert!(fault.span.end <= text.len() && !fault.message.is_empty());
            }
        }
    }
}

#[test]
fn any_bytes_give_faults_and_no_panic() {
    for cut in (0..CONNECTOR.len()).filter(|at| CONNECTOR.is_char_boundary(*at)) {
        for kind in [Kind::Relay, Kind::Connector, Kind::Agents] {
            for fault in kind.faults(Path::new("f"), &CONNECTOR[..cut]) {
                assert!(fault.line > 0 && fault.column > 0 && !fault.remedy.is_empty());
            }
        }
    }
}

fn relay_faults(text: &str) -> Vec<Fault> {
    RelayConfig::parse(Path::new("relay.toml"), text).unwrap_err()
}

fn connector_faults(text: &str) -> Vec<Fault> {
    ConnectorConfig::parse(Path::new("connector.toml"), text).unwrap_err()
}

/// Asserts that `faults` are exactly `expected`: text at fault, part of the message, part of the remedy.
#[track_caller]
fn assert_at(faults: &[Fault], text: &str, expected: &[(&str, &str, &str)]) {
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, (needle, message, remedy)) in faults.iter().zip(expected) {
        let at = text.find(needle).unwrap();
        let column = at - text[..at].rfind('\n').map_or(0, |newline| newline + 1) + 1;
        assert!(["relay.toml", "connector.toml", "agents.toml"].iter().any(|file| fault.file == Path::new(file)));
        assert_eq!((fault.line, fault.column), (line_of(text, at), column), "{fault:#?}");
        assert!(fault.message.contains(message), "{fault:#?}");
        assert!(fault.remedy.contains(remedy), "{fault:#?}");
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}
