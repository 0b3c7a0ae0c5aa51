//! Through proxies: those that help, those that refuse, and those that do neither.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outgate::config::proxy::Proxy as ProxyConfig;
use outgate::net::carrier::{CarrierInput, Carriers, Cause, TlsDialler};
use outgate::net::certificates::Live;
use outgate::net::dial::Route;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use self::scripted::{Script, Scripted};
use crate::fault_table::{proven, tallied};
use crate::faults::site::{Plan, Site};
use crate::faults::{Kind, Way};
use crate::interop::Needs;
use crate::net::authority::Authority;

mod scripted;

/// Above the deadlines of a dial.
const PATIENCE: Duration = Duration::from_secs(25);

#[tokio::test]
async fn fault_17_each_refusal_is_told_in_words_and_only_wrong_credentials_wait_for_an_admin() {
    let basic = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
    let ntlm = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM\r\n\r\n";
    for (answer, cause, words) in [
        (basic, Cause::Configuration, "the proxy asks for credentials (407): name a file"),
        (ntlm, Cause::Configuration, "of another kind than Basic (407)"),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", Cause::Unreachable, "forbids the way to the relay (403)"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", Cause::Unreachable, "cannot reach the relay (502)"),
        ("SSH-2.0-OpenSSH_9.2\r\n", Cause::Unreachable, "is no HTTP"),
        ("HTTP/1.1 200 OK\r\n\r\nhello there", Cause::Unreachable, "bytes of its own"),
        ("", Cause::Unreachable, "hung up"),
    ] {
        let proxy = Scripted::start(Script::Says(answer.into())).await;
        assert_fault(dial(&format!("http://{}", proxy.addr)).await, cause, words);
    }
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "X-Padding: 0123456789\r\n".repeat(2000));
    let proxy = Scripted::start(Script::Says(endless)).await;
    assert_fault(dial(&format!("http://{}", proxy.addr)).await, Cause::Unreachable, "more than 16 KiB");
    for (answer, cause, words) in [
        (&b"\x05\xff"[..], Cause::Configuration, "the proxy asks for credentials"),
        (b"\x05\x00\x05\x02\x00\x01", Cause::Unreachable, "forbids the way"),
        (b"\x05\x00\x05\x05\x00\x01", Cause::Unreachable, "SOCKS reply 5"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Cause::Unreachable, "is no SOCKS 5"),
    ] {
        let proxy = Scripted::start(Script::SaysBytes(answer.to_vec())).await;
        assert_fault(dial(&format!("socks5://{}", proxy.addr)).await, cause, words);
    }
    proven(17, "407, 403, 502, oversized header, chatter, no HTTP: told in words");
}

#[tokio::test]
async fn fault_17_a_proxy_that_is_silent_or_drips_is_given_up() {
    let (silent, drip) = (Scripted::start(Script::Silent).await, Scripted::start(Script::Drips).await);
    let began = Instant::now();
    let [silent, drip] = [silent.addr, drip.addr].map(|addr| async move { dial(&format!("http://{addr}")).await });
    let (silent, drip) = tokio::join!(silent, drip);
    assert_fault(silent, Cause::Unreachable, "did not open the way in time");
    assert_fault(drip, Cause::Unreachable, "did not open the way in time");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    proven(17, "silent and dripping proxies: given up after 10 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_17_a_proxy_that_cuts_idle_and_old_connections_costs_nothing_but_a_carrier() {
    for script in [Script::Passes { cut_idle: Some(Duration::from_millis(350)), max_life: None, credentials: None }, Script::MAX_LIFE] {
        let proxy = Scripted::start(script.clone()).await;
        let site = through(&format!("http://{}", proxy.addr), "").await;
        site.carried_by("tls through an http proxy").await;
        let mut talk = site.talk().await;
        for _ in 0..8 {
            talk.burst(5);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        talk.settle().await;
        let tunnel = site.until("a second carrier", |tunnel| tunnel["epoch"].as_u64() > Some(1)).await.1;
        assert!(tunnel["last_end"].as_str().unwrap().starts_with("tls: "), "{script:?}: {tunnel}");
        tallied(17, talk.said(), None, "a proxy that cuts idle and old connections");
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_asks_for_credentials_gets_them_from_the_file_and_from_nowhere_else() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, "lan1:open sesame\n").unwrap();
    let lines = format!("credentials_file = \"{}\"", file.display());
    let script = Script::Passes { cut_idle: None, max_life: None, credentials: Some("lan1:open sesame") };
    let proxy = Scripted::start(script).await;
    let site = through(&format!("http://{}", proxy.addr), &lines).await;
    site.carried_by("tls through an http proxy").await;
    let mut talk = site.talk().await;
    talk.burst(20);
    talk.settle().await;
    site.stop().await;

    // With wrong ones nobody knocks again until an admin has had time to act.
    std::fs::write(&file, "lan1:open barley\n").unwrap();
    let before = proxy.connections();
    let site = through(&format!("http://{}", proxy.addr), &lines).await;
    let words = "tls: the proxy does not take these credentials (407): correct `proxy.credentials_file`";
    let (_, tunnel) = site.until("its words", |tunnel| tunnel["last_end"] == words).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(proxy.connections(), before + 1, "{tunnel}");
    assert!(!format!("{tunnel}").contains("barley"));
    // Corrected, it counts when an operator asks.
    std::fs::write(&file, "lan1:open sesame\n").unwrap();
    site.reattach().await;
    site.carried_by("tls through an http proxy").await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socks_proxy_carries_a_conversation_with_and_without_credentials() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, "lan1:open sesame\n").unwrap();
    for (credentials, lines) in [(None, String::new()), (Some("lan1:open sesame"), format!("credentials_file = \"{}\"", file.display()))] {
        let proxy = Scripted::start(Script::Socks { credentials }).await;
        let site = through(&format!("socks5://{}", proxy.addr), &lines).await;
        site.carried_by("tls through a socks5 proxy").await;
        let mut talk = site.talk().await;
        talk.burst(20);
        talk.settle().await;
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_udp_is_blocked_the_proxy_carries_and_where_it_is_not_quic_does() {
    let proxy = Scripted::start(Script::Passes { cut_idle: None, max_life: None, credentials: None }).await;
    let lines = format!("[relay.proxy]\nurl = \"http://{}\"", proxy.addr);
    let site = Site::start(Plan::with(&lines)).await;
    site.carried_by("quic").await;
    site.stop().await;
    let site = Site::start_on(Plan::with(&lines), |wire| wire.block(Kind::Udp, true)).await;
    let (took, _) = site.carried_by("tls through an http proxy").await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    site.stop().await;
}

#[tokio::test]
async fn fault_18_an_inspecting_proxy_is_named() {
    let inspector = Authority::named("Example Corp Web Gateway");
    let proxy = Scripted::start(Script::Inspects(inspector.web_server("relay.test"))).await;
    assert_fault(
        dial(&format!("http://{}", proxy.addr)).await,
        Cause::Inspected,
        "the certificate was issued by `CN=Example Corp Web Gateway`, not by the tunnel CA: something on the way inspects TLS",
    );
    proven(18, "named by its issuer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_tinyproxy_carries_a_conversation() {
    if !Needs::default().program("tinyproxy").met("a_real_tinyproxy_carries_a_conversation") {
        return;
    }
    let home = TempDir::new().unwrap();
    let port = free_port();
    let file = home.path().join("credentials");
    std::fs::write(&file, "lan1:sesame\n").unwrap();
    let config = format!("Port {port}\nListen 127.0.0.1\nMaxClients 20\nBasicAuth lan1 sesame\nTimeout 600\nLogLevel Critical\n");
    std::fs::write(home.path().join("tinyproxy.conf"), config).unwrap();
    let _proxy = Real::start(Command::new("tinyproxy").arg("-d").arg("-c").arg(home.path().join("tinyproxy.conf")), port).await;
    let site = through(&format!("http://127.0.0.1:{port}"), &format!("credentials_file = \"{}\"", file.display())).await;
    site.carried_by("tls through an http proxy").await;
    let mut talk = site.talk().await;
    talk.burst(50);
    talk.settle().await;
    site.stop().await;

    std::fs::write(&file, "lan1:barley\n").unwrap();
    let site = through(&format!("http://127.0.0.1:{port}"), &format!("credentials_file = \"{}\"", file.display())).await;
    site.until("its words", |tunnel| {
        tunnel["last_end"].as_str().is_some_and(|words| words.contains("does not take these credentials (401)"))
    })
    .await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_squid_carries_a_conversation_and_its_407_is_told_in_words() {
    const HELPER: &str = "/usr/lib/squid/basic_ncsa_auth";
    let needs = Needs::default().program("squid").program("openssl").file(Path::new(HELPER), HELPER);
    if !needs.met("a_real_squid_carries_a_conversation_and_its_407_is_told_in_words") {
        return;
    }
    let home = TempDir::new().unwrap();
    // Started by root it becomes another user, who has to find its files.
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (port, file, users) = (free_port(), home.path().join("credentials"), home.path().join("users"));
    std::fs::write(&file, "lan1:sesame\n").unwrap();
    let hash = Command::new("openssl").args(["passwd", "-apr1", "sesame"]).output().unwrap().stdout;
    std::fs::write(&users, [b"lan1:", &hash[..]].concat()).unwrap();
    let config = home.path().join("squid.conf");
    let text = format!(
        "http_port 127.0.0.1:{port}\nauth_param basic program {HELPER} {}\nauth_param basic realm way out\n\
        acl known proxy_auth REQUIRED\nacl CONNECT method CONNECT\nhttp_access allow CONNECT known\nhttp_access deny all\n\
        cache deny all\ncache_mem 1 MB\naccess_log none\ncache_log /dev/null\npid_filename none\nnetdb_filename none\n\
        pinger_enable off\nmax_filedescriptors 1024\nshutdown_lifetime 0 seconds\n",
        users.display()
    );
    std::fs::write(&config, text).unwrap();
    let _proxy = Real::start(Command::new("squid").arg("-N").arg("-f").arg(&config), port).await;
    let url = format!("http://127.0.0.1:{port}");
    let lines = format!("credentials_file = \"{}\"", file.display());
    let site = through(&url, &lines).await;
    site.carried_by("tls through an http proxy").await;
    let mut talk = site.talk().await;
    talk.burst(50);
    talk.settle().await;
    site.stop().await;

    std::fs::write(&file, "lan1:barley\n").unwrap();
    for (lines, words) in [(&*lines, "does not take these credentials (407)"), ("", "the proxy asks for credentials (407)")] {
        let site = through(&url, lines).await;
        site.until(words, |tunnel| tunnel["last_end"].as_str().is_some_and(|told| told.contains(words))).await;
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_haproxy_before_the_relay_passes_the_tunnel_on() {
    if !Needs::default().program("haproxy").met("a_real_haproxy_before_the_relay_passes_the_tunnel_on") {
        return;
    }
    let home = TempDir::new().unwrap();
    let port = free_port();
    let plan = Plan { address: Some(format!("127.0.0.1:{port}")), ..Plan::with("transport = \"tls\"") };
    let site = Site::start(plan).await;
    let config = home.path().join("haproxy.cfg");
    let text = format!(
        "defaults\n mode tcp\n timeout connect 2s\n timeout client 60s\n timeout server 60s\n\
        listen tunnel\n bind 127.0.0.1:{port}\n server relay {}\n",
        site.tunnel
    );
    std::fs::write(&config, text).unwrap();
    let proxy = Real::start(Command::new("haproxy").arg("-db").arg("-f").arg(&config), port).await;
    site.carried_by("tls").await;
    let mut talk = site.talk().await;
    talk.burst(50);
    talk.settle().await;
    // It restarts: the carrier goes, the conversation does not.
    drop(proxy);
    talk.burst(20);
    let _proxy = Real::start(Command::new("haproxy").arg("-db").arg("-f").arg(&config), port).await;
    talk.settle().await;
    assert!(site.tunnel().await["epoch"].as_u64() > Some(1));
    assert_eq!(site.wire.passed(Kind::Tcp, Way::ToRelay), 0, "nothing went another way");
    site.stop().await;
}

/// A site whose connector goes through this proxy alone.
async fn through(url: &str, lines: &str) -> Site {
    Site::start(Plan::with(&format!("transport = \"tls\"\n[relay.proxy]\nurl = \"{url}\"\n{lines}"))).await
}

/// Dials a relay that is not there through a proxy that will not let it come to that.
async fn dial(url: &str) -> (Cause, String) {
    let (mut carriers, mut inputs) = Carriers::new();
    let dialler = TlsDialler::new(&Live::new(&Authority::new().connector()).unwrap()).unwrap();
    let proxy = ProxyConfig { url: url.parse().unwrap(), credentials_file: None };
    let route = Route::Proxied { proxy, relay: "relay.test:7443".into() };
    let _dial = carriers.dial_tls(&dialler, route, "relay.test");
    match timeout(PATIENCE, inputs.recv()).await.unwrap().unwrap() {
        CarrierInput::Lost { cause, why, .. } => (cause, why),
        other @ (CarrierInput::Frames { .. } | CarrierInput::Opened { .. } | CarrierInput::Refused { .. }) => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_fault((cause, why): (Cause, String), expected: Cause, words: &str) {
    assert_eq!(cause, expected, "{why}");
    assert!(why.contains(words), "{why}");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A proxy that somebody else wrote. Dropping it ends it.
pub(crate) struct Real(Child);

impl Real {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(command: &Command, port: u16) -> Self {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let program = PathBuf::from(command.get_program());
        let found = path.split(':').map(|folder| Path::new(folder).join(&program)).find(|candidate| candidate.exists()).unwrap();
        let mut full = Command::new(found);
        full.args(command.get_args()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let proxy = Self(full.spawn().unwrap());
        let listens = async {
            while tokio::net::TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, listens).await.unwrap();
        proxy
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}
