//! The audit log of a relay and a connector as they run: who came, by which link, who was refused and why, what changed; and nothing
//! of what was said, no link and no password.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use outgate::telemetry::audit::link_hash;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::Instant;

use super::PATIENCE;
use super::site::Site;
use crate::setup::outgate;

const SECRET: &str = "the customer's secret";

#[tokio::test]
async fn the_audit_log_tells_who_came_who_was_refused_and_what_changed_and_no_secret() {
    let site = Site::start();
    let mut claims = site.claims();
    claims.exp = 1000;
    claims.nbf = None;
    let (expired, good) = (site.key.mint(&claims).unwrap(), site.good_link());

    let mut stranger = site.customer().await.direct_tls().await;
    stranger.open_stream().await;
    stranger.plain(&expired).await;
    stranger.until("</failure>").await;
    stranger.plain("hunter2").await;
    stranger.until("</failure>").await;
    drop(stranger);
    let refused = told(&site, "relay", |line| line["event"] == "refused" && line["reason"] == "link-expired").await;
    assert_eq!((&refused["stage"], &refused["address"]), (&"login".into(), &"127.0.0.0/24".into()));
    assert_eq!(refused["link"], link_hash(&expired));
    let typed = told(&site, "relay", |line| line["reason"] == "link-malformed").await;
    assert_eq!(typed.get("link"), None, "a password typed by mistake leaves no trace");

    let mut customer = site.customer().await.direct_tls().await;
    customer.log_in(&good).await;
    customer.say(&format!("<message to='support@chat.example.com' type='chat'><body>{SECRET}</body></message>")).await;
    customer.until("</message>").await;
    customer.say("</stream:stream>").await;
    customer.end().await;
    let admitted = told(&site, "relay", |line| line["event"] == "admitted").await;
    assert_eq!((&admitted["queue"], &admitted["link"]["hash"]), (&"support@chat.example.com".into(), &link_hash(&good).into()));
    assert_eq!(admitted["link"]["issuer"], "https://example.com");
    let left = told(&site, "relay", |line| line["event"] == "left").await;
    assert_eq!(left["reason"], "customer-left");
    let used = told(&site, "connector", |line| line["event"] == "link-used").await;
    assert_eq!((&used["link"], &used["uses"]), (&admitted["link"], &1.into()), "one link, one name on both sides");
    let closed = told(&site, "connector", |line| line["event"] == "session-closed").await;
    assert_eq!((&closed["session"], &closed["reason"]), (&used["session"], &"customer-left".into()));

    let relay = Pid::from_raw(i32::try_from(site.relay_pid()).unwrap()).unwrap();
    kill_process(relay, Signal::HUP).unwrap();
    told(&site, "relay", |line| line["event"] == "reloaded" && line["by"] == "signal").await;
    std::fs::write(site.path("dmz/deny"), "127.6.6.6\n").unwrap();
    let config = std::fs::read_to_string(site.path("dmz/relay.toml")).unwrap();
    std::fs::write(site.path("dmz/relay.toml"), format!("{config}\n[access.client]\ndeny_files = [\"deny\"]\n")).unwrap();
    outgate(&["reload", "--socket", site.path("relay.sock").to_str().unwrap()]);
    let reloaded = told(&site, "relay", |line| line["event"] == "reloaded" && line["by"] == "command").await;
    assert_eq!(reloaded["changed"], serde_json::json!(["access.client"]));

    cut_tunnels(&site);
    for side in ["relay", "connector"] {
        told(&site, side, |line| line["event"] == "tunnel-detached").await;
        told(&site, side, |line| line["event"] == "tunnel-attached" && line["epoch"] == 2).await;
        let text = std::fs::read_to_string(site.path(&format!("{side}-audit.jsonl"))).unwrap();
        for secret in [SECRET, expired.as_str(), good.as_str(), "hunter2", "127.0.0.1\""] {
            assert!(!text.contains(secret), "{side}: {secret}: {text}");
        }
    }
    let counts = &site.status()["audit"];
    assert!(counts["written"].as_u64() > Some(5) && counts["lost"] == 0, "{counts}");
}

#[tokio::test]
async fn a_flood_of_refusals_costs_the_audit_log_few_lines_and_one_that_counts_the_rest() {
    let site = Site::start();
    let before = site.reasons();
    for _ in 0..300 {
        let mut stranger = site.customer().await;
        stranger.say("SSH-2.0-OpenSSH_9.9\r\n").await;
        stranger.end().await;
    }
    site.counted(&before, "ssh", 300).await;
    let began = Instant::now();
    loop {
        let lines = lines(&site, "relay");
        let refused = lines.iter().filter(|line| line["reason"] == "ssh").count() as u64;
        let told: u64 = lines.iter().filter_map(|line| line["of"]["ssh"].as_u64()).sum();
        if refused + told == 300 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{refused} lines and {told} told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn cut_tunnels(site: &Site) {
    let mut socket = UnixStream::connect(site.path("connector.sock")).unwrap();
    socket.write_all(b"{\"do\":\"reattach\"}\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("reattach"), "{answer}");
}

fn lines(site: &Site, side: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(site.path(&format!("{side}-audit.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The first line that is as wanted.
async fn told(site: &Site, side: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let lines = lines(site, side);
        if let Some(line) = lines.iter().find(|line| wanted(line)) {
            return line.clone();
        }
        assert!(began.elapsed() < PATIENCE, "the {side} never tells it: {lines:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
