//! testssl.sh and sslscan from Debian against every port that speaks TLS: protocols, ciphers, and every vulnerability that they know.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::site::{Plan, Site};
use crate::interop::Needs;
use crate::setup::CUSTOMERS;

/// sslscan opens a stream to the host that it is given, which must have an address.
const LOCALHOST: &str = "[[domain]]\nname = \"localhost\"\n[[domain.queue]]\nid = \"local\"\n\
    [[connector]]\nidentity = \"outgate://example/connector/lan3\"\nqueues = [\"local\"]\n";

/// What a scan must have come to, so that one that ended early is not taken for clean.
const LOOKED_AT: [&str; 22] = [
    "SSLv2",
    "SSLv3",
    "TLS1",
    "TLS1_1",
    "TLS1_2",
    "TLS1_3",
    "cipherlist_NULL",
    "cipherlist_aNULL",
    "cipherlist_EXPORT",
    "cipherlist_3DES_IDEA",
    "heartbleed",
    "CCS",
    "ROBOT",
    "secure_renego",
    "secure_client_renego",
    "CRIME_TLS",
    "FREAK",
    "DROWN",
    "LOGJAM",
    "BEAST",
    "LUCKY13",
    "RC4",
];

#[test]
fn testssl_finds_nothing_at_the_customers_port_with_direct_tls() {
    testssl("direct TLS", |site| (site.door.port(), vec![]), &["TLS1_2", "TLS1_3"]);
}

#[test]
fn testssl_finds_nothing_at_the_customers_port_with_starttls() {
    testssl("STARTTLS", |site| (site.door.port(), vec!["--starttls", "xmpp", "--xmpphost", CUSTOMERS]), &["TLS1_2", "TLS1_3"]);
}

#[test]
fn testssl_finds_nothing_at_the_tunnel_port() {
    testssl("the tunnel", |site| (site.tunnel.port(), vec![]), &["TLS1_3"]);
}

/// Protocols, cipher categories, forward secrecy, the server's own order, and vulnerabilities: nothing but what is well.
fn testssl(name: &str, port: impl Fn(&Site) -> (u16, Vec<&'static str>), offered: &[&str]) {
    if !Needs::default().program("testssl").program("openssl").met(&format!("testssl.sh against {name}")) {
        return;
    }
    let site = start();
    let (port, more) = port(&site);
    let report = site.path("testssl.json");
    let mut command = Command::new("testssl");
    command.args(["--quiet", "--warnings", "off", "--color", "0", "--nodns", "none", "--ip", "127.0.0.1", "-p", "-s", "-f", "-P", "-U"]);
    command.args(more).arg("--jsonfile").arg(&report).arg(format!("{CUSTOMERS}:{port}")).stdin(Stdio::null());
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let report = std::fs::read_to_string(report).unwrap_or_else(|fault| panic!("no report: {fault}: {told}"));
    let findings: Vec<Value> = serde_json::from_str(&report).unwrap_or_else(|fault| panic!("{fault}: {told}"));
    let finding = |id: &str| findings.iter().find(|finding| finding["id"] == id);
    for id in LOOKED_AT {
        assert!(finding(id).is_some(), "{id} was not looked at: {told}");
    }
    for protocol in ["SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3"] {
        let found = finding(protocol).and_then(|finding| finding["finding"].as_str()).unwrap_or_default();
        assert_eq!(!found.starts_with("not offered"), offered.contains(&protocol), "{protocol}: {found}");
    }
    // What it says of itself and of this machine is none: WARN and DEBUG.
    let wrong =
        |finding: &&Value| ["LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"].contains(&finding["severity"].as_str().unwrap_or("FATAL"));
    let wrong: Vec<&Value> = findings.iter().filter(wrong).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");
}

#[test]
fn sslscan_finds_nothing_old_or_weak_at_any_port() {
    if !Needs::default().program("sslscan").met("sslscan") {
        return;
    }
    let site = start();
    for (port, more, offered) in [
        (site.door.port(), vec![], &["TLSv1.2", "TLSv1.3"][..]),
        (site.door.port(), vec!["--starttls-xmpp"], &["TLSv1.2", "TLSv1.3"]),
        (site.tunnel.port(), vec![], &["TLSv1.3"]),
    ] {
        let mut command = Command::new("sslscan");
        command.arg("--no-colour").args(more).arg(format!("localhost:{port}")).stdin(Stdio::null());
        let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
        for protocol in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"] {
            let wanted = if offered.contains(&protocol) { "enabled" } else { "disabled" };
            let line = told.lines().find(|line| line.starts_with(protocol)).unwrap_or_else(|| panic!("no {protocol}: {told}"));
            assert_eq!(line.split_whitespace().nth(1), Some(wanted), "{told}");
        }
        assert!(told.contains("not vulnerable to heartbleed") && told.contains("Session renegotiation not supported"), "{told}");
        let ciphers: Vec<Vec<&str>> = told
            .lines()
            .filter(|line| line.starts_with("Preferred") || line.starts_with("Accepted"))
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert!(ciphers.len() >= 3, "{told}");
        for cipher in ciphers {
            let (bits, name) = (cipher[2].parse::<u32>().unwrap(), cipher[4]);
            let is_modern = name.starts_with("TLS_") || name.starts_with("ECDHE-");
            let is_aead = name.contains("GCM") || name.contains("CHACHA20");
            assert!(bits >= 128 && is_modern && is_aead, "{cipher:?}: {told}");
        }
    }
}

/// With the shipped clocks.
fn start() -> Site {
    Site::start_as(Plan { login: Duration::from_secs(15), handshake: Duration::from_secs(5), sections: LOCALHOST, ..Plan::default() })
}
