//! Allow-lists: whoever they deny gets not a byte, and a changed list closes what it does not allow any more, and nothing else.

use std::process::Command;
use std::time::Duration;

use outgate::relay::Relay;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;

use crate::fault_table::tallied;
use crate::relay::customer::Customer;
use crate::trust::company::{Company, all_pushed};

const GRANTS: [(&str, &[&str]); 1] = [("lan1", &["hello"])];

/// Both addresses are this host's.
const OFFICE: [u8; 4] = [127, 0, 0, 1];
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

async fn talk(customer: &mut Customer, number: u32) {
    customer.say(&format!("<message to='hello@localhost' type='chat'><body>number {number}</body></message>")).await;
    customer.say("<r xmlns='urn:xmpp:sm:3'/>").await;
}

async fn logged_in(company: &Company, relay: &Relay, source: [u8; 4]) -> Customer {
    let mut customer = company.customer_from(source, relay).await;
    customer.log_in_anonymously().await;
    customer.until("This is lan1.").await;
    customer.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    customer.until("<enabled").await;
    customer
}

/// Reads until all `wanted` stanzas of the customer are handled on the LAN.
async fn handled(customer: &mut Customer, wanted: u32) {
    loop {
        let answer = customer.until("/>").await;
        if answer.contains(&format!("<a xmlns='urn:xmpp:sm:3' h='{wanted}'")) {
            return;
        }
    }
}

#[tokio::test]
async fn fault_33_an_allow_list_that_changes_ends_the_sessions_it_denies_and_no_other() {
    let company = Company::new();
    company.write("offices.cidr", "127.0.0.0/30 # all\n");
    let relay = company.relay_with("dmz1", &GRANTS, "[access.client]\nallow_files = [\"offices.cidr\"]\n");
    let _connector = company.connector("lan1", &[relay.tunnel_address().unwrap()], &["hello"]).await;
    company.until("lan1", "the tunnel", all_pushed).await;
    let mut stays = logged_in(&company, &relay, OFFICE).await;
    let mut leaves = logged_in(&company, &relay, ELSEWHERE).await;

    company.write("offices.cidr", "127.0.0.1\n");
    let told = company.ask("dmz1", "{\"do\":\"reload\"}").await;
    assert_eq!(told, serde_json::json!({"changed": ["access.client"], "needs_restart": []}));
    let last = leaves.until("</stream:stream>").await;
    assert!(last.contains("<policy-violation") && last.contains("not admitted here any more"), "{last}");
    for number in 1..=20 {
        talk(&mut stays, number).await;
    }
    handled(&mut stays, 20).await;
    company.until("dmz1", "one session", |status| status["sessions"] == 1).await;
    tallied(33, 20, None, "a list denies one of two live sessions: the other loses nothing");

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((std::net::Ipv4Addr::from(ELSEWHERE), 0).into()).unwrap();
    let mut refused = socket.connect(relay.client_addresses()[0]).await.unwrap();
    let mut bytes = Vec::new();
    let heard = tokio::time::timeout(Duration::from_secs(10), refused.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.is_empty(), "{heard:?} {bytes:?}");
    let status = company.until("dmz1", "the refusal", |status| status["reasons"]["address-denied"] == 2).await;
    assert_eq!(status["allow_lists"]["access.client"], 1);
}

#[tokio::test]
async fn a_list_that_is_wrong_changes_nothing_and_says_what_waits_for_a_restart() {
    let company = Company::new();
    company.write("offices.cidr", "127.0.0.1\n");
    let sections = "[access.client]\nallow_files = [\"offices.cidr\"]\n";
    let relay = company.relay_with("dmz1", &GRANTS, sections);
    let file = company.path("dmz1.toml");
    let text = std::fs::read_to_string(&file).unwrap();

    company.write("dmz1.toml", &format!("{text}deny = [\"127.0.0.1\"]\n[access.tunnel]\nallow = [\"127.0.0.1/8\"]\n"));
    let told = company.ask("dmz1", "{\"do\":\"reload\"}").await;
    assert!(told["error"].as_str().unwrap().contains("write 127.0.0.0/8"), "{told}");
    company.customer_from(OFFICE, &relay).await;

    company.write("dmz1.toml", &format!("{text}deny = [\"127.0.0.1\"]\n[access.tunnel]\nallow_files = [\"none.cidr\"]\n"));
    let told = company.ask("dmz1", "{\"do\":\"reload\"}").await;
    assert!(told["error"].as_str().unwrap().contains("none.cidr: No such file"), "{told}");
    company.customer_from(OFFICE, &relay).await;

    company.write("dmz1.toml", &format!("{text}deny = [\"127.0.0.3\"]\n[limits]\nconnections = 7\n"));
    let told = company.ask("dmz1", "{\"do\":\"reload\"}").await;
    assert_eq!(told, serde_json::json!({"changed": ["access.client"], "needs_restart": ["limits"]}));
}

#[tokio::test]
async fn a_connector_that_a_list_denies_loses_its_carrier_and_comes_back_when_it_is_allowed() {
    let company = Company::new();
    company.write("tunnels.cidr", "127.0.0.0/8\n");
    let relay = company.relay_with("dmz1", &GRANTS, "[access.tunnel]\nallow_files = [\"tunnels.cidr\"]\n");
    let _connector = company.connector("lan1", &[relay.tunnel_address().unwrap()], &["hello"]).await;
    company.until("lan1", "the tunnel", all_pushed).await;
    let mut customer = logged_in(&company, &relay, OFFICE).await;

    company.write("tunnels.cidr", "127.0.0.2\n");
    company.ask("dmz1", "{\"do\":\"reload\"}").await;
    company.until("dmz1", "the carrier's end", |status| status["tunnels"][0]["is_attached"] == false).await;
    company.until("dmz1", "a refused carrier", |status| status["reasons"]["address-denied"].as_u64() > Some(0)).await;
    for number in 1..=20 {
        talk(&mut customer, number).await;
    }
    company.write("tunnels.cidr", "127.0.0.0/8\n");
    company.ask("dmz1", "{\"do\":\"reload\"}").await;
    handled(&mut customer, 20).await;
}

#[test]
fn the_line_that_decides_is_told() {
    let company = Company::new();
    company.write("offices.cidr", "# offices\n192.0.2.0/24\n");
    company.write("relay.toml", &relay_toml());
    let test = |arguments: &[&str]| {
        let config = company.path("relay.toml");
        let output = Command::new(env!("CARGO_BIN_EXE_outgate"))
            .args(["allow", "test", "--config", config.to_str().unwrap()])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = test(&["192.0.2.7"]);
    assert!(code == 0 && said.contains("192.0.2.7: allow (") && said.contains("offices.cidr:2: allow 192.0.2.0/24)"), "{code} {said}");
    let (code, said) = test(&["::ffff:192.0.2.66"]);
    assert!(code == 1 && said.contains("deny (") && said.contains("relay.toml:15: deny 192.0.2.66/32)"), "{code} {said}");
    let (code, said) = test(&["198.51.100.1"]);
    assert!(code == 1 && said.contains("in no prefix, and [access.client] allows none but those it names"), "{code} {said}");
    let (code, said) = test(&["198.51.100.1", "--listener", "tunnel", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["access"], &told["prefix"]), (0, &"allow".into(), &serde_json::Value::Null));
    let (code, said) = test(&["example.com"]);
    assert!(code == 2 && said.contains("invalid IP address"), "{code} {said}");
    company.write("offices.cidr", "192.0.2.0/24\n192.0.2/24\n");
    let (code, said) = test(&["192.0.2.7"]);
    assert!(code == 1 && said.contains("offices.cidr:2:1:"), "{code} {said}");
}

fn relay_toml() -> String {
    "[listen]\nclient = [\"127.0.0.1:0\"]\n[tls]\ncertificate = \"a\"\nkey = \"b\"\n\
     [tunnel_tls]\ncertificate = \"c\"\nkey = \"d\"\nca = \"e\"\n[[domain]]\nname = \"localhost\"\n\
     [access.client]\nallow_files = [\"offices.cidr\"]\n\ndeny = [\"192.0.2.66\"]\n[[domain.queue]]\nid = \"hello\"\n\
     [[connector]]\nidentity = \"outgate://example/connector/lan1\"\nqueues = [\"hello\"]\n"
        .to_owned()
}
