//! The relay on real sockets: customers speak bytes, the connector is a [`ConnectorEnd`] behind an in-memory carrier.

pub(crate) mod connector;
pub(crate) mod customer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outgate::config::Confinement;
use outgate::link::{Label, LinkRefusal, LinkTerms};
use outgate::net::allow_files::AllowFiles;
use outgate::net::listener::Listener;
use outgate::proto::tunnel::{self, Identity, RefusalCode};
use outgate::relay::Relay;
use outgate::relay::settings::{AllowLists, Leave, Limits, RelaySettings, ServedDomain, ServedQueue};
use outgate::session::CloseReason;
use outgate::telemetry::audit::Audit;
use tokio::net::UnixStream;

use self::connector::Connector;
use self::customer::{Customer, certificate};
use crate::setup::exempt_strangers;

const IDENTITY: &str = "outgate://example/connector/lan1";
pub(crate) const DOMAIN: &str = "chat.example";

#[tokio::test]
async fn a_customer_with_a_link_talks_through_starttls_and_back() {
    let mut rig = Rig::start(Limits::default()).await;
    let mut customer = rig.customer().await.starttls().await;
    customer.log_in("good-link").await;
    customer
        .say("<message to='billing@chat.example' type='chat' id='m1'><body>hello &lt;there&gt;</body><evil xmlns='e'/></message>")
        .await;
    assert_eq!(rig.connector.next_body().await, "hello <there>");
    let reply = customer.until("</message>").await;
    assert!(reply.contains("echo: hello &lt;there&gt;") && reply.contains("from='billing@chat.example/desk'"), "{reply}");
    let status = rig.relay.status().await;
    assert_eq!((status.counts.sessions, status.counts.before_login, status.counts.dropped_elements), (1, 0, 1));
    assert!(status.tunnels.iter().any(|tunnel| tunnel.identity == IDENTITY && tunnel.is_attached && tunnel.channels == 1));
}

#[tokio::test]
async fn a_customer_without_a_link_comes_to_the_public_queue_over_direct_tls() {
    let mut rig = Rig::start(Limits::default()).await;
    let mut customer = rig.customer().await.direct_tls().await;
    customer.log_in_anonymously().await;
    customer.say("<message to='hello@chat.example' type='chat'><body>hi</body></message>").await;
    assert_eq!(rig.connector.next_body().await, "hi");
}

#[tokio::test]
async fn leaving_and_vanishing_are_told_to_the_connector() {
    let mut rig = Rig::start(Limits::default()).await;
    let mut leaving = rig.customer().await.direct_tls().await;
    leaving.log_in("good-link").await;
    leaving.say("</stream:stream>").await;
    leaving.until("</stream:stream>").await;
    assert_eq!(rig.connector.next_end().await, CloseReason::CustomerLeft);

    let mut vanishing = rig.customer().await.direct_tls().await;
    vanishing.log_in("good-link").await;
    drop(vanishing);
    assert_eq!(rig.connector.next_end().await, CloseReason::CustomerLost);
}

#[tokio::test]
async fn a_bad_link_is_refused_with_its_condition_and_the_stream_stays_open_for_two_more_tries() {
    let rig = Rig::start(Limits::default()).await;
    let mut customer = rig.customer().await.direct_tls().await;
    customer.open_stream().await;
    customer.plain("expired-link").await;
    let refusal = customer.until("</failure>").await;
    assert!(refusal.contains("credentials-expired") && refusal.contains("expired"), "{refusal}");
    customer.plain("rubbish").await;
    assert!(customer.until("</failure>").await.contains("not-authorized"));
    customer.plain("good-link").await;
    customer.until("<success").await;

    let mut unlucky = rig.customer().await.direct_tls().await;
    unlucky.open_stream().await;
    for _attempt in 0..3 {
        unlucky.plain("wrong-queue").await;
        unlucky.until("</failure>").await;
    }
    unlucky.end().await;
    rig.counted("link-expired", 1).await;
    rig.counted("link-malformed", 1).await;
    rig.counted("link-queue", 3).await;
}

#[tokio::test]
async fn what_only_the_connector_can_refuse_is_refused_inside_sasl() {
    let rig = Rig::start(Limits::default()).await;
    rig.connector.refuse_checks(RefusalCode::BadLink, "This link was used up.");
    let mut customer = rig.customer().await.direct_tls().await;
    customer.open_stream().await;
    customer.plain("good-link").await;
    let refusal = customer.until("</failure>").await;
    assert!(refusal.contains("not-authorized") && refusal.contains("used up"), "{refusal}");
    rig.counted("check-bad-link", 1).await;
}

#[tokio::test]
async fn without_a_tunnel_a_login_is_refused_for_the_moment() {
    let rig = Rig::start_without_connector(Limits::default());
    let mut customer = rig.customer().await.direct_tls().await;
    customer.open_stream().await;
    customer.plain("good-link").await;
    assert!(customer.until("</failure>").await.contains("temporary-auth-failure"));
    rig.counted("no-tunnel", 1).await;
}

#[tokio::test]
async fn garbage_of_every_kind_ends_with_its_stream_error_and_a_counted_reason() {
    let rig = Rig::start(Limits::default()).await;
    let header = "<stream:stream to='chat.example' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    let oversized = format!("{header}<message>{}", "x".repeat(9000));
    let deep = format!("{header}{}", "<a>".repeat(20));
    let many = format!("{header}<a>{}</a>", "<b/>".repeat(40));
    let cases = [
        ("<?xml version='1.0'?><!DOCTYPE x [<!ENTITY y 'z'>]>".to_owned(), "restricted-xml"),
        (format!("{header}<!-- hello -->"), "restricted-xml"),
        (format!("{header}</wrong>"), "not-well-formed"),
        (oversized, "policy-violation"),
        (deep, "policy-violation"),
        (many, "policy-violation"),
    ];
    for (bytes, condition) in cases {
        let mut customer = rig.customer().await;
        customer.say(&bytes).await;
        let answer = customer.end().await;
        assert!(answer.contains(condition), "{bytes:.60} gave {answer}");
        rig.counted(condition, 1).await;
    }
}

#[tokio::test]
async fn a_stream_broken_after_login_ends_with_its_error_and_the_session_with_it() {
    let mut rig = Rig::start(Limits::default()).await;
    let mut customer = rig.customer().await.direct_tls().await;
    customer.log_in("good-link").await;
    customer.say(&"<a>".repeat(40)).await;
    assert!(customer.end().await.contains("policy-violation"));
    assert_eq!(rig.connector.next_end().await, CloseReason::CustomerLost);
    rig.counted("policy-violation", 1).await;
}

#[tokio::test]
async fn a_slow_login_is_ended_by_a_clock_that_data_does_not_extend() {
    let limits = Limits { login_within: Duration::from_millis(500), ..Limits::default() };
    let rig = Rig::start(limits).await;
    let mut customer = rig.customer().await;
    customer.drip("<stream:stream to='chat.example' version='1.0' ", Duration::from_millis(50)).await;
    assert!(customer.end().await.contains("connection-timeout"));
    rig.counted("login-timeout", 1).await;
}

#[tokio::test]
async fn a_half_open_tls_handshake_is_ended_and_holds_up_nobody() {
    let limits = Limits { tls_within: Duration::from_millis(300), ..Limits::default() };
    let rig = Rig::start(limits).await;
    let mut half_open = rig.customer().await;
    half_open.send(&[22, 3, 1]).await;
    let mut other = rig.customer().await.direct_tls().await;
    other.log_in("good-link").await;
    half_open.end().await;
    rig.counted("tls-timeout", 1).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_or_hangs_up_is_counted() {
    let limits = Limits { login_within: Duration::from_millis(300), ..Limits::default() };
    let rig = Rig::start(limits).await;
    drop(rig.customer().await);
    rig.counted("closed-early", 1).await;
    let mut silent = rig.customer().await;
    silent.end().await;
    rig.counted("login-timeout", 1).await;
}

#[tokio::test]
async fn http_is_answered_politely_in_the_open_and_inside_tls() {
    let rig = Rig::start(Limits::default()).await;
    let mut open = rig.customer().await;
    open.say("GET / HTTP/1.1\r\n\r\n").await;
    assert!(open.end().await.starts_with("HTTP/1.1 404 "));
    let mut inside = rig.customer().await.direct_tls().await;
    inside.say("GET / HTTP/1.1\r\n\r\n").await;
    assert!(inside.end().await.starts_with("HTTP/1.1 404 "));
    rig.counted("http", 2).await;
}

#[tokio::test]
async fn who_has_waited_longest_gives_way_and_connections_beyond_the_cap_are_closed_at_once_and_places_come_back() {
    let limits = Limits { before_login: 2, connections: 4, ..Limits::default() };
    let rig = Rig::start(limits).await;
    let mut first = rig.customer().await;
    let mut logged_in = rig.customer().await.direct_tls().await;
    logged_in.log_in("good-link").await;
    let second = rig.customer().await;
    let third = rig.customer().await;
    first.end().await;
    rig.counted("gave-way", 1).await;
    let mut another = rig.customer().await.direct_tls().await;
    another.log_in("good-link").await;
    let fourth = rig.customer().await;
    rig.customer().await.end().await;
    rig.counted("too-many-connections", 1).await;
    drop((second, third, fourth));
    rig.counted("closed-early", 1).await;
    rig.customer().await.direct_tls().await.log_in("good-link").await;
}

#[tokio::test]
async fn a_stopping_relay_tells_its_customers_and_the_connector() {
    let mut rig = Rig::start(Limits::default()).await;
    let mut customer = rig.customer().await.direct_tls().await;
    customer.log_in("good-link").await;
    // A session that the connector has not answered would be withdrawn, not ended.
    customer.say("<message to='billing@chat.example' type='chat'><body>hi</body></message>").await;
    assert_eq!(rig.connector.next_body().await, "hi");
    let Rig { relay, connector, .. } = &mut rig;
    let relay = std::mem::replace(relay, Rig::start_without_connector(Limits::default()).relay);
    let ((), farewell, reason) = tokio::join!(relay.stop(), customer.end(), connector.next_end());
    assert!(farewell.contains("system-shutdown"), "{farewell}");
    assert_eq!(reason, CloseReason::Shutdown);
}

#[tokio::test]
async fn the_admin_socket_answers_status_and_refuses_the_rest() {
    let rig = Rig::start(Limits::default()).await;
    let status: serde_json::Value = serde_json::from_str(&rig.admin("{\"get\":\"status\"}\n").await).unwrap();
    assert_eq!(status["role"], "relay");
    assert_eq!(status["tunnels"][0]["identity"], IDENTITY);
    assert_eq!(status["sessions"], 0);
    for asked in ["{\"cut\":\"carriers\"}\n", "{\"do\":\"reattach\"}\n"] {
        let refused: serde_json::Value = serde_json::from_str(&rig.admin(asked).await).unwrap();
        assert!(refused["error"].is_string(), "{refused}");
    }
}

/// A relay with its fake connector.
pub(crate) struct Rig {
    relay: Relay,
    pub(crate) connector: Connector,
    roots: Arc<rustls::RootCertStore>,
    folder: tempfile::TempDir,
}

impl Rig {
    pub(crate) async fn start(limits: Limits) -> Self {
        let mut rig = Self::start_without_connector(limits);
        rig.connector.attach().await;
        let attached = async { while !rig.relay.status().await.tunnels.iter().any(|tunnel| tunnel.is_attached) {} };
        tokio::time::timeout(Duration::from_secs(10), attached).await.unwrap();
        rig
    }

    fn start_without_connector(limits: Limits) -> Self {
        let (connector, carriers, writable) = Connector::new(Identity(IDENTITY.to_owned()));
        let (tls, roots) = certificate(DOMAIN);
        let folder = tempfile::tempdir().unwrap();
        let settings = RelaySettings {
            domains: vec![ServedDomain {
                name: DOMAIN.to_owned(),
                public_queue: Some("hello".to_owned()),
                queues: vec![queue("billing"), queue("hello")],
            }],
            labels: BTreeMap::from([(Label::parse("k").unwrap(), Identity(IDENTITY.to_owned()))]),
            verify_link: Some(Arc::new(verify)),
            link_files: None,
            leeway: Duration::ZERO,
            tls,
            software: Arc::default(),
            access: AllowLists { client: Arc::new(AllowFiles::open_to_all()), tunnel: Arc::new(AllowFiles::open_to_all()) },
            clients: vec![Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap()],
            admin: Some(tokio::net::UnixListener::bind(folder.path().join("admin.sock")).unwrap()),
            acceptor: None,
            carriers,
            writable,
            tunnel_address: None,
            leave: Leave { within: Duration::ZERO, alternates: Vec::new() },
            limits,
            strangers: exempt_strangers(),
            tunnel: tunnel::Settings::default(),
            certificates: None,
            shown: Vec::new(),
            look_every: Duration::from_secs(30),
            file: None,
            confinement: Confinement::Off,
            audit: Audit::off(),
        };
        Self { relay: Relay::start(settings).unwrap(), connector, roots, folder }
    }

    pub(crate) async fn customer(&self) -> Customer {
        Customer::connect(self.relay.client_addresses()[0], DOMAIN, Arc::clone(&self.roots)).await
    }

    /// Waits until `reason` was counted `count` times.
    pub(crate) async fn counted(&self, reason: &str, count: u64) {
        let reached = async {
            while self.relay.status().await.counts.reasons.get(reason).is_none_or(|seen| *seen < count) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), reached).await;
        assert!(in_time.is_ok(), "{reason} × {count}: {:?}", self.relay.status().await.counts.reasons);
    }

    async fn admin(&self, request: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = UnixStream::connect(self.folder.path().join("admin.sock")).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn queue(id: &str) -> ServedQueue {
    ServedQueue { id: id.to_owned(), name: id.to_owned(), identity: Identity(IDENTITY.to_owned()) }
}

/// Links by their names: the signature is another test's matter.
fn verify(token: &str, _domain: &str, _now: u64) -> Result<LinkTerms, LinkRefusal> {
    let queue = match token {
        "good-link" => "billing",
        "wrong-queue" => "elsewhere",
        "expired-link" => return Err(LinkRefusal::Expired),
        _ => return Err(LinkRefusal::Malformed),
    };
    Ok(LinkTerms {
        issuer: "test".to_owned(),
        kid: "key".to_owned(),
        jti: "1".to_owned(),
        subject: None,
        queue: queue.to_owned(),
        skills: Vec::new(),
        lang: None,
        reason: None,
        max_sessions: None,
        expires: u64::MAX,
        lapsed: false,
    })
}
