//! `outgate check --reach` against a real relay over a wire that fails: each line, well and failing.

use std::path::Path;
use std::time::Duration;

use outgate::config::{ConnectorConfig, RelayConfig};
use outgate::connector::dial_relay::reach::{Line, Reach, Status, reach};
use outgate::net::inherited::Inherited;
use outgate::relay::Relay;
use outgate::relay::setup::settings_of;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::faults::site::{self, Plan, Site};
use crate::faults::{Kind, Wire};

const DAY: u64 = 86_400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_well_and_the_connector_that_runs_is_not_disturbed() {
    let site = Site::start(Plan::default()).await;
    site.carried_by("quic").await;
    let mut talk = site.talk().await;
    let found = look(site.home(), &Plan::default(), site.wire.addr(), 0).await;
    assert!(found.works, "{found:?}");
    for (check, status) in [
        ("dns", Status::Ok),
        ("udp", Status::Ok),
        ("tcp", Status::Ok),
        ("proxy", Status::Skipped),
        ("certificate", Status::Ok),
        ("clock", Status::Ok),
        ("version", Status::Ok),
        ("mtu", Status::Ok),
    ] {
        assert_eq!(line(&found, check).status, status, "{found:#?}");
    }
    assert!(line(&found, "version").found.contains("version 1"), "{found:?}");
    assert!(found.lines.iter().all(|line| line.remedy.is_none()));
    talk.burst(5);
    talk.settle().await;
    assert_eq!((site.tunnel().await["epoch"].as_u64(), site.tunnel().await["attachments"].as_u64()), (Some(1), Some(1)));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_prints_a_line_each_and_fails_where_nothing_gets_through() {
    let place = Place::start(1..=1);
    place.write(&Plan::default());
    let (code, text) = place.run(&["check", "--reach"]).await;
    assert_eq!((code, text.lines().count()), (Some(0), 9), "{text}");
    assert!(text.contains("can be reached\n  dns          ok "), "{text}");
    place.write(&Plan::with("transport = \"tls\""));
    place.wire.block(Kind::Tcp, true);
    let (code, text) = place.run(&["check", "--reach", "--json"]).await;
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["relays"][0]["works"]), (Some(1), &serde_json::json!(false)), "{text}");
    assert_eq!(told["relays"][0]["lines"][2]["check"], "tcp");
    assert_eq!(told["relays"][0]["lines"][2]["status"], "failed");
    assert!(told["relays"][0]["lines"][2]["remedy"].as_str().unwrap().contains("[relay.proxy]"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alternates_are_looked_at_like_the_relay_itself() {
    let place = Place::start(1..=1);
    let there = place.relay.tunnel_address().unwrap().to_string();
    let plan = Plan::with(&format!("transport = \"tls\"\nalternates = [\"{there}\", \"127.0.0.1:1\"]"));
    place.wire.block(Kind::Tcp, true);
    let found = reach(&place.config(&plan), unix_now()).await;
    let relay = Some(place.wire.addr().to_string());
    let told: Vec<_> = found.iter().map(|reach| (reach.relay.as_str(), &reach.alternate_of, reach.works)).collect();
    assert_eq!(told, [(relay.as_deref().unwrap(), &None, false), (&there, &relay, true), ("127.0.0.1:1", &relay, false)]);
    assert!(failed(&found[2], "tcp").contains("let TCP to 127.0.0.1:1 pass"), "{found:#?}");
    // One that cannot be dialled is told by the exit code while the relay itself is well.
    place.wire.block(Kind::Tcp, false);
    place.write(&plan);
    let (code, text) = place.run(&["check", "--reach"]).await;
    assert_eq!((code, text.lines().count()), (Some(1), 27), "{text}");
    assert!(text.contains(&format!("127.0.0.1:1 (alternate of {}): CANNOT BE REACHED\n", place.wire.addr())), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_does_not_resolve_and_udp_that_is_blocked_are_told_apart() {
    let place = Place::start(1..=1);
    let plan = Plan { address: Some("no-such-host.invalid:PORT".to_owned()), ..Plan::default() };
    let found = place.look(&plan).await;
    assert!(!found.works && failed(&found, "dns").contains("getent hosts no-such-host.invalid"), "{found:#?}");
    assert_eq!(line(&found, "udp").status, Status::Skipped);
    place.wire.block(Kind::Udp, true);
    let found = place.look(&Plan::default()).await;
    assert!(found.works && failed(&found, "udp").contains("let UDP"), "{found:#?}");
    assert_eq!((line(&found, "tcp").status, line(&found, "mtu").status), (Status::Ok, Status::Skipped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_asks_for_credentials_is_named() {
    let place = Place::start(1..=1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _request = stream.read(&mut [0; 1024]).await.unwrap();
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.read(&mut [0; 16]).await.unwrap()
    });
    let plan = Plan::with(&format!("transport = \"tls\"\n[relay.proxy]\nurl = \"http://{proxy}\""));
    let found = place.look(&plan).await;
    assert!(!found.works && failed(&found, "proxy").contains("credentials_file"), "{found:#?}");
    assert_eq!((line(&found, "tcp").status, line(&found, "udp").status), (Status::Skipped, Status::Skipped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_ca_an_expired_certificate_and_a_wrong_clock_are_told() {
    let place = Place::start(1..=1);
    let later = look(place.home.path(), &Plan::default(), place.wire.addr(), 400 * DAY).await;
    assert!(failed(&later, "certificate").contains("outgate ca issue"), "{later:#?}");
    let config = place.config(&Plan::default());
    let early = reach(&config, unix_now() - 2 * DAY).await.remove(0);
    assert!(failed(&early, "clock").contains("NTP"), "{early:#?}");
    let other = TempDir::new().unwrap();
    drop(site::certificates(other.path()));
    std::fs::copy(other.path().join("tunnel-ca.pem"), place.home.path().join("tunnel-ca.pem")).unwrap();
    let found = place.look(&Plan::default()).await;
    assert!(!found.works, "{found:#?}");
    assert!(line(&found, "certificate").status == Status::Failed && line(&found, "certificate").remedy.is_some(), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_differs_is_told_by_both_sides_and_is_no_failure() {
    let place = Place::start_with(|settings| settings.clock = an_hour_ahead);
    let found = place.look(&Plan::default()).await;
    let clock = line(&found, "clock");
    assert!(found.works && clock.status == Status::Warning, "{found:#?}");
    assert!(clock.found.contains("behind the relay's") && clock.remedy.is_some(), "{clock:?}");
    let plan = Plan::default();
    let settings = site::connector_settings(place.home.path(), &plan, place.wire.addr(), "127.0.0.1:0");
    let connector = outgate::connector::Connector::start(settings).await.unwrap();
    let counted = async || place.relay.status().await.counts.reasons.get("clock-differs").copied().unwrap_or(0) > 0;
    let waiting = async {
        while !counted().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "the relay counts it");
    connector.shutdown().await;
    let well = Place::start(1..=1);
    assert_eq!(line(&well.look(&Plan::default()).await, "clock").status, Status::Ok);
}

fn an_hour_ahead() -> u64 {
    outgate::net::wall_clock::unix_millis() + 3_600_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_of_another_version_is_told() {
    let place = Place::start(7..=8);
    let found = place.look(&Plan::default()).await;
    assert!(!found.works && failed(&found, "version").contains("releases"), "{found:#?}");
    assert_eq!((line(&found, "udp").status, line(&found, "certificate").status), (Status::Ok, Status::Ok), "the way itself is well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrow_path_is_told_and_is_no_failure() {
    let place = Place::start(1..=1);
    place.wire.every(|rule| rule.largest = Some(1252));
    let found = place.look(&Plan::default()).await;
    let mtu = line(&found, "mtu");
    assert!(found.works && mtu.status == Status::Warning && mtu.remedy.is_some(), "{found:#?}");
    assert!(mtu.found.contains("datagrams of 12"), "{mtu:?}");
    // Below what QUIC needs, TCP carries, and what to look for is told.
    place.wire.every(|rule| rule.largest = Some(1199));
    let found = place.look(&Plan::default()).await;
    assert!(found.works && failed(&found, "udp").contains("1280"), "{found:#?}");
    let mtu = line(&found, "mtu");
    assert!(mtu.status == Status::Skipped && mtu.found.contains("1280"), "{mtu:?}");
}

/// A relay that speaks these versions, a wire to it, and a connector's files.
struct Place {
    wire: Wire,
    home: TempDir,
    relay: Relay,
}

impl Place {
    fn start(versions: std::ops::RangeInclusive<u32>) -> Self {
        Self::start_with(|settings| settings.versions = versions)
    }

    fn start_with(change: impl FnOnce(&mut outgate::proto::tunnel::Settings)) -> Self {
        let home = TempDir::new().unwrap();
        drop(site::certificates(home.path()));
        std::fs::write(home.path().join("agents.toml"), site::accounts()).unwrap();
        let config = RelayConfig::parse(&home.path().join("relay.toml"), &site::relay_toml(&Plan::default())).unwrap();
        let mut settings = settings_of(&config, &mut Inherited::none()).unwrap();
        crate::setup::lift_limits(&mut settings);
        change(&mut settings.tunnel);
        let relay = Relay::start(settings).unwrap();
        Self { wire: Wire::to(relay.tunnel_address().unwrap()), home, relay }
    }

    fn config(&self, plan: &Plan) -> ConnectorConfig {
        ConnectorConfig::parse(&self.home.path().join("connector.toml"), &site::connector_toml(plan, self.wire.addr(), "127.0.0.1:0"))
            .unwrap()
    }

    fn write(&self, plan: &Plan) {
        std::fs::write(self.home.path().join("connector.toml"), site::connector_toml(plan, self.wire.addr(), "127.0.0.1:0")).unwrap();
    }

    /// Runs the program on what was written; its exit code and what it printed.
    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_outgate"));
        command.args(arguments).arg("connector.toml").current_dir(self.home.path());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    async fn look(&self, plan: &Plan) -> Reach {
        look(self.home.path(), plan, self.wire.addr(), 0).await
    }
}

/// What is found so much later than now.
async fn look(home: &Path, plan: &Plan, wire: std::net::SocketAddr, later: u64) -> Reach {
    let text = site::connector_toml(plan, wire, "127.0.0.1:0");
    let config = ConnectorConfig::parse(&home.join("connector.toml"), &text).unwrap();
    let looking = reach(&config, unix_now() + later);
    tokio::time::timeout(Duration::from_secs(30), looking).await.unwrap().remove(0)
}

fn line<'a>(found: &'a Reach, check: &str) -> &'a Line {
    found.lines.iter().find(|line| line.check == check).unwrap()
}

/// The remedy of a line that failed.
fn failed(found: &Reach, check: &str) -> String {
    let line = line(found, check);
    assert_eq!(line.status, Status::Failed, "{found:#?}");
    line.remedy.clone().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "certificates are judged by the clock")]
fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
