//! What is no conversation: each gets its proper error, within its deadline, and a counted reason.

use std::time::Duration;

use tokio::time::Instant;

use super::site::{LOGIN_WITHIN, Site};

const HEADER: &str =
    "<stream:stream to='chat.example.com' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

/// Longer than any deadline of the relay here, shorter than a test's patience.
const SOON: Duration = Duration::from_secs(5);

/// How far the stranger gets before he misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// A TCP connection.
    Open,
    /// Direct TLS.
    Tls,
    /// `<proceed/>` has come.
    Proceed,
    /// Logged in and bound.
    Session,
}

/// What he sends, what he must hear last, and what is counted.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) stage: Stage,
    pub(super) bytes: Vec<u8>,
    pub(super) answer: &'static str,
    pub(super) reason: &'static str,
}

impl Case {
    /// Plays it to its end; what was heard.
    pub(super) async fn play(&self, site: &Site) -> String {
        let mut stranger = site.customer().await;
        match self.stage {
            Stage::Open => {}
            Stage::Tls => stranger = stranger.direct_tls().await,
            Stage::Proceed => {
                stranger.open_stream().await;
                stranger.say(STARTTLS).await;
                stranger.until("<proceed").await;
            }
            Stage::Session => {
                stranger = stranger.direct_tls().await;
                stranger.log_in(&site.good_link()).await;
            }
        }
        stranger.send(&self.bytes).await;
        stranger.end().await
    }
}

#[tokio::test]
async fn whatever_is_no_stream_gets_its_error_and_is_counted() {
    let site = Site::start();
    let mut wrong = Vec::new();
    for case in cases().into_iter().chain(cases_within_a_session()) {
        let before = site.reasons();
        let began = Instant::now();
        let answer = case.play(&site).await;
        let shown = String::from_utf8_lossy(&case.bytes).chars().take(160).collect::<String>();
        if !answer.contains(case.answer) || began.elapsed() > SOON {
            wrong.push(format!("{:?} {shown:?}: wanted {}, got {answer:?} in {:?}", case.stage, case.answer, began.elapsed()));
            continue;
        }
        site.counted(&before, case.reason, 1).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    site.until("every place to be given back", |status| status["connections"] == 0 && status["sessions"] == 0).await;
}

#[tokio::test]
async fn the_answer_to_http_is_as_long_as_it_says() {
    let site = Site::start();
    let request = Case { stage: Stage::Open, bytes: b"GET / HTTP/1.1\r\n\r\n".to_vec(), answer: "HTTP/1.1 404", reason: "http" };
    let answer = request.play(&site).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{answer}");
}

#[tokio::test]
async fn the_slow_and_the_silent_are_ended_by_a_clock_that_data_does_not_extend() {
    let site = Site::start();
    let began = Instant::now();
    let before = site.reasons();
    let (mut silent, mut slow, mut slow_inside, mut half_tls) =
        (site.customer().await, site.customer().await, site.customer().await.direct_tls().await, site.customer().await);
    half_tls.send(&[22, 3, 1, 2]).await;
    let each = LOGIN_WITHIN / 20;
    let (_silent, slow, slow_inside, half_tls) = tokio::join!(
        async { (silent.end().await, within(began)) },
        async {
            slow.drip(HEADER, each).await;
            (slow.end().await, within(began))
        },
        async {
            slow_inside.drip(HEADER, each).await;
            (slow_inside.end().await, within(began))
        },
        async {
            let end = half_tls.end().await;
            assert!(began.elapsed() < LOGIN_WITHIN, "TLS has a shorter clock of its own");
            end
        },
    );
    assert_eq!(half_tls, "", "nothing that a half-open handshake would understand");
    for heard in [slow.0, slow_inside.0] {
        assert!(heard.contains("<connection-timeout") && heard.contains("Logging in took too long."), "{heard}");
    }
    site.counted(&before, "login-timeout", 3).await;
    site.counted(&before, "tls-timeout", 1).await;
    drop(site.customer().await);
    site.counted(&before, "closed-early", 1).await;
    site.until("every place to be given back", |status| status["connections"] == 0).await;
}

#[track_caller]
fn within(began: Instant) {
    let took = began.elapsed();
    assert!((LOGIN_WITHIN..SOON).contains(&took), "ended after {took:?}");
}

/// Everything that may be tried without a link.
pub(super) fn cases() -> Vec<Case> {
    use Stage::{Open, Proceed, Tls};
    let case = |stage, bytes: &[u8], answer, reason| Case { stage, bytes: bytes.to_vec(), answer, reason };
    let mut cases = vec![
        case(Open, b"\x01\x02\x03 garbage", "<not-well-formed", "not-well-formed"),
        case(Open, b"GET / HTTP/1.1\r\nHost: chat.example.com\r\n\r\n", "HTTP/1.1 404 Not Found", "http"),
        case(Tls, b"GET / HTTP/1.1\r\nHost: chat.example.com\r\n\r\n", "HTTP/1.1 404 Not Found", "http"),
        case(Open, b"SSH-2.0-OpenSSH_9.9\r\n", "", "ssh"),
        case(Open, format!("{HEADER}{STARTTLS}{HEADER}").as_bytes(), "<policy-violation", "bytes-after-starttls"),
        case(Open, &[HEADER.as_bytes(), &[22, 3, 1, 2, 0, 1]].concat(), "<bad-format", "bad-format"),
        case(Open, &[22, 3, 1, 0, 5, b'h', b'e', b'l', b'l', b'o'], "", "tls-handshake"),
        case(Proceed, HEADER.as_bytes(), "", "tls-handshake"),
    ];
    for stage in [Open, Tls] {
        for (bytes, answer, reason) in [
            ("<html><body>hello</body></html>".to_owned(), "<invalid-namespace", "invalid-namespace"),
            (HEADER.replace("chat.example.com", "chat.example.org"), "<host-unknown", "host-unknown"),
            (HEADER.replace("version='1.0'", ""), "<unsupported-version", "unsupported-version"),
            (format!("{HEADER}<message to='support@chat.example.com'><body>hi</body></message>"), "<not-authorized", "not-authorized"),
            (format!("<?xml version='1.0'?><!DOCTYPE x [<!ENTITY y 'z'>]>{HEADER}"), "<restricted-xml", "restricted-xml"),
        ] {
            cases.push(case(stage, bytes.as_bytes(), answer, reason));
        }
        cases.extend(within_a_stream(stage, HEADER, (9_000, 33, 9)));
    }
    cases
}

fn cases_within_a_session() -> Vec<Case> {
    within_a_stream(Stage::Session, "", (300_000, 2_001, 33))
}

/// What ends a stream at any stage: syntax that XMPP forbids, and one more than each limit.
fn within_a_stream(stage: Stage, header: &str, (bytes, elements, depth): (usize, usize, usize)) -> Vec<Case> {
    let violations =
        [format!("<message><body>{}", "x".repeat(bytes)), format!("<message>{}</message>", "<b/>".repeat(elements)), "<a>".repeat(depth)];
    let restricted = ["<!-- hello -->", "<?php echo 1 ?>", "<!DOCTYPE x>", "<message><body>&unknown;</body></message>"];
    let malformed = ["<message></wrong>", "<message a='1' a='2'/>", "<message><body>]]></body></message>", "<message a=1/>"];
    let case = |middle: &[u8], answer, reason| Case { stage, bytes: [header.as_bytes(), middle].concat(), answer, reason };
    let mut cases = Vec::new();
    cases.extend(violations.iter().map(|text| case(text.as_bytes(), "<policy-violation", "policy-violation")));
    cases.extend(restricted.iter().map(|text| case(text.as_bytes(), "<restricted-xml", "restricted-xml")));
    cases.extend(malformed.iter().map(|text| case(text.as_bytes(), "<not-well-formed", "not-well-formed")));
    cases.push(case(b"<message><body>\xff\xfe</body></message>", "<unsupported-encoding", "unsupported-encoding"));
    cases
}
