//! Limits over real sockets: what strangers, and customers, may take, and that a flood of the former does not keep the latter out.

mod crowds;
mod flood;
mod memory;

use std::process::Command;

use outgate::net::proxy_protocol::SIGNATURE;
use outgate::relay::Relay;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Duration, Instant, timeout};

use crate::relay::customer::Customer;
use crate::trust::company::{Company, all_pushed};

const GRANTS: [(&str, &[&str]); 1] = [("lan1", &["hello", "support"])];

/// Longer than anything here takes that is no clock of the relay's own.
const PATIENCE: Duration = Duration::from_secs(60);

const HERE: [u8; 4] = [127, 0, 0, 1];
const ELSEWHERE: [u8; 4] = [127, 9, 9, 9];

/// A company whose relay counts from its first second on, with these limits; and its connector, attached.
async fn company(limits: &str) -> (Company, Relay, outgate::connector::Connector) {
    let company = Company::new();
    let relay = company.limited_relay("dmz1", &GRANTS, &format!("[limits]\nreturning = \"0s\"\n{limits}"));
    let connector = company.connector("lan1", &[relay.tunnel_address().unwrap()], &["hello", "support"]).await;
    company.until("lan1", "the tunnel", all_pushed).await;
    (company, relay, connector)
}

async fn connect(source: [u8; 4], relay: &Relay) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    timeout(PATIENCE, socket.connect(relay.client_addresses()[0])).await.unwrap().unwrap()
}

/// What comes until the relay closes.
async fn end_of(socket: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    // A reset is an end too.
    drop(timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("the relay closes"));
    heard
}

fn count(status: &serde_json::Value, reason: &str) -> u64 {
    status["reasons"][reason].as_u64().unwrap_or(0)
}

/// What SASL says to this link.
async fn try_link(customer: &mut Customer, link: &str) -> String {
    customer.plain(link).await;
    customer.until_any(&["</failure>", "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"]).await
}

#[tokio::test]
async fn an_address_that_comes_too_often_gets_not_a_byte_and_its_network_and_all_the_others_come_in() {
    let (company, relay, _connector) = company("[limits.address]\nnew_connections = 5\n").await;
    for number in 0..8 {
        let mut knocking = connect(HERE, &relay).await;
        if number >= 5 {
            assert_eq!(end_of(&mut knocking).await, b"");
        }
    }
    let status = company.until("dmz1", "the refusals", |status| count(status, "address-rate") == 3).await;
    assert!(status["gate"]["remembered"].as_u64().unwrap() >= 2 && status["gate"]["is_returning"] == false, "{status}");
    for source in [[127, 0, 0, 2], ELSEWHERE] {
        let mut customer = company.customer_from(source, &relay).await;
        customer.log_in_anonymously().await;
        customer.until("This is lan1.").await;
    }
}

#[tokio::test]
async fn an_ipv6_host_is_one_address_however_it_calls_itself_behind_a_proxy() {
    let limits = "[limits.address]\nnew_connections = 5\n[limits.network]\nnew_connections = 12\n\
                  [access.client]\ntrusted_proxies = [\"127.0.0.2\"]\n";
    let (company, relay, _connector) = company(limits).await;
    let knock = async |subnet: u8, host: u8| {
        let mut socket = connect([127, 0, 0, 2], &relay).await;
        let mut addresses = [0_u8; 36];
        addresses[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        (addresses[7], addresses[15]) = (subnet, host);
        addresses[16..20].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        let header = [&SIGNATURE[..], &[0x21, 0x21, 0, 36], &addresses].concat();
        let stream = b"<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                       xmlns:stream='http://etherx.jabber.org/streams'></stream:stream>";
        drop(socket.write_all(&[&header[..], stream].concat()).await);
        !end_of(&mut socket).await.is_empty()
    };
    let mut served = Vec::new();
    for subnet in [1, 2, 3] {
        let mut of_subnet = 0;
        for host in 0..8 {
            of_subnet += u32::from(knock(subnet, host).await);
        }
        served.push(of_subnet);
    }
    assert_eq!(served, [5, 5, 2], "five of a /64, twelve of the /48");
    let status = company.until("dmz1", "all refusals", |status| count(status, "network-rate") == 6).await;
    assert_eq!(count(&status, "address-rate"), 6, "{status}");
    let mut customer = company.customer_from(HERE, &relay).await;
    customer.log_in_anonymously().await;
}

#[tokio::test]
async fn wrong_links_shut_their_address_out_with_a_sentence_and_nobody_else() {
    let (company, relay, _connector) = company("[limits.address]\nfailed_logins = 6\n").await;
    let good = company.link("support");
    let mut answers = Vec::new();
    for _connection in 0..3 {
        let mut stranger = company.customer_from(HERE, &relay).await;
        stranger.open_stream().await;
        for _attempt in 0..3 {
            answers.push(try_link(&mut stranger, "no.link.atall").await);
        }
    }
    assert!(answers[..7].iter().all(|answer| answer.contains("<not-authorized")), "{answers:#?}");
    let said = "Too many logins from your network have failed. Please try again in";
    assert!(answers[7..].iter().all(|answer| answer.contains("<temporary-auth-failure") && answer.contains(said)), "{answers:#?}");
    let mut honest = company.customer_from(HERE, &relay).await;
    honest.open_stream().await;
    assert!(try_link(&mut honest, &good).await.contains(said), "a good link is not looked at either");
    let mut neighbour = company.customer_from(ELSEWHERE, &relay).await;
    neighbour.log_in(&good).await;
    company.until("dmz1", "the refusals", |status| count(status, "too-many-failures") == 3).await;
}

#[tokio::test]
async fn a_link_is_good_for_so_many_logins_and_who_comes_again_with_it_is_not_new() {
    let (company, relay, _connector) = company("logins_per_link = 6\n[limits.address]\nnew_connections = 3\n").await;
    let link = company.link("support");
    for _login in 0..6 {
        let mut customer = company.customer_from(HERE, &relay).await;
        customer.log_in(&link).await;
    }
    let mut customer = company.customer_from(HERE, &relay).await;
    customer.open_stream().await;
    let answer = try_link(&mut customer, &link).await;
    assert!(answer.contains("<temporary-auth-failure") && answer.contains("used too often"), "{answer}");
    assert!(try_link(&mut customer, &company.link("support")).await.contains("<success"), "another link is good");
    let _third = connect(HERE, &relay).await;
    assert_eq!(end_of(&mut connect(HERE, &relay).await).await, b"", "three were new: the first, that with another link, and one more");
    company.until("dmz1", "the refusals", |status| count(status, "link-rate") == 1 && count(status, "address-rate") >= 1).await;
}

#[tokio::test]
async fn so_many_stand_from_one_address_and_who_waits_longest_gives_way() {
    let (company, relay, _connector) = company("[limits.address]\nconnections = 3\npre_auth_connections = 2\n").await;
    let mut standing = Vec::new();
    for _customer in 0..3 {
        let mut customer = company.customer_from(HERE, &relay).await;
        customer.log_in_anonymously().await;
        standing.push(customer);
    }
    let mut fourth = company.customer_from(HERE, &relay).await;
    fourth.open_stream().await;
    fourth.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>").await;
    let answer = fourth.until("</failure>").await;
    assert!(answer.contains("<temporary-auth-failure") && answer.contains("Too many people are connected from your network."), "{answer}");
    let mut elsewhere = company.customer_from(ELSEWHERE, &relay).await;
    elsewhere.log_in_anonymously().await;

    standing.pop().unwrap().say("</stream:stream>").await;
    company.until("dmz1", "one to leave", |status| status["sessions"] == 3).await;
    fourth.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>").await;
    fourth.until("<success").await;

    let mut silent = [connect(HERE, &relay).await, connect(HERE, &relay).await];
    company.until("dmz1", "both", |status| status["before_login"].as_u64() >= Some(3)).await;
    let mut newcomer = company.customer_from(HERE, &relay).await;
    assert_eq!(end_of(&mut silent[0]).await, b"", "it has waited longest");
    newcomer.open_stream().await;
    company.until("dmz1", "the reasons", |status| count(status, "address-full") == 1 && count(status, "gave-way") == 1).await;
}

#[tokio::test]
async fn a_customer_who_sends_too_much_is_held_back_and_loses_nothing_and_one_who_goes_on_is_cut() {
    let limits = "[limits.session]\nmessages_per_second = 20\nmessages_at_once = 5\npatience = \"4s\"\n";
    let (company, relay, _connector) = company(limits).await;
    let mut hasty = company.customer_from(HERE, &relay).await;
    hasty.log_in_anonymously().await;
    hasty.until("This is lan1.").await;
    hasty.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    hasty.until("<enabled").await;
    let message = "<message to='hello@localhost' type='chat'><body>quick</body></message>";
    let began = Instant::now();
    hasty.say(&format!("{}<r xmlns='urn:xmpp:sm:3'/>", message.repeat(40))).await;
    let mut calm = company.customer_from(HERE, &relay).await;
    calm.log_in_anonymously().await;
    calm.until("This is lan1.").await;
    while !hasty.until("/>").await.contains("<a xmlns='urn:xmpp:sm:3' h='40'") {}
    assert!(began.elapsed() >= Duration::from_millis(1500), "35 at 20 a second: {:?}", began.elapsed());
    company.until("dmz1", "the note", |status| count(status, "session-held") == 1 && status["sessions"] == 2).await;

    let flood = message.repeat(500);
    hasty.say(&flood).await;
    let end = hasty.end().await;
    assert!(end.contains("<policy-violation") && end.contains("You send more than is admitted here."), "{end}");
    company.until("dmz1", "the cut", |status| count(status, "session-rate") == 1 && status["sessions"] == 1).await;
    calm.say(message).await;
}

#[test]
fn the_demo_converses_within_the_limits_of_a_relay_as_shipped() {
    let output = Command::new(env!("CARGO_BIN_EXE_outgate")).args(["demo", "--once", "--limits"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
