//! Strangers whose bytes are too many, too large, too small or nonsense.

use std::time::Duration;

use tokio::time::timeout;

use super::super::site::Site;
use super::{HEADER, Random, STARTTLS, Trial};
use crate::relay::customer::Customer;

/// XML that asks for more than it brings, before login and within a session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xml_bombs() {
    const ROUNDS: usize = 12;
    let bombs = bombs();
    let strangers = bombs.len() * ROUNDS;
    let trial = Trial::begin("XML bombs").await;
    trial
        .strangers(strangers, move |site, number| {
            let (bomb, answer) = bombs[number % bombs.len()].clone();
            let is_inside = (number / bombs.len()).is_multiple_of(3);
            async move {
                let mut stranger = site.customer().await.direct_tls().await;
                if is_inside {
                    stranger.log_in(&site.good_link()).await;
                } else {
                    stranger.say(HEADER).await;
                }
                stranger.say(&bomb).await;
                let end = stranger.end().await;
                assert!(answer.iter().any(|answer| end.contains(answer)), "{}…: {end}", &bomb[..60]);
            }
        })
        .await;
    let refused: u64 = ["restricted-xml", "policy-violation", "not-well-formed"].iter().map(|reason| trial.counted(reason)).sum();
    assert_eq!(refused, strangers as u64);
    trial.end(strangers).await;
}

/// What each must be answered with.
fn bombs() -> Vec<(String, &'static [&'static str])> {
    const RESTRICTED: &[&str] = &["<restricted-xml"];
    const TOO_MUCH: &[&str] = &["<policy-violation"];
    let entities: String = (1..10).map(|level| format!("<!ENTITY l{level} \"{}\">", format!("&l{};", level - 1).repeat(10))).collect();
    let attributes: String = (0..5000).map(|number| format!(" a{number}='1'")).collect();
    let prefixes: String = (0..5000).map(|number| format!(" xmlns:n{number}='urn:{number}'")).collect();
    vec![
        (format!("<!DOCTYPE lolz [<!ENTITY l0 \"lol\">{entities}]><message><body>&l9;</body></message>"), RESTRICTED),
        (format!("<!DOCTYPE x [<!ENTITY a \"{}\">]><message><body>{}</body></message>", "a".repeat(5000), "&a;".repeat(5000)), RESTRICTED),
        ("<!DOCTYPE x SYSTEM \"file:///etc/passwd\"><message/>".to_owned() + &" ".repeat(60), RESTRICTED),
        (format!("<message><body>{}</body></message>", "&lol;".repeat(1000)), RESTRICTED),
        (format!("<message>{}</message>", "<?pi x?>".repeat(1000)), RESTRICTED),
        (format!("<message>{}</message>", "<!-- x -->".repeat(1000)), RESTRICTED),
        ("<a>".repeat(100_000), TOO_MUCH),
        (format!("<message>{}</message>", "<b/>".repeat(100_000)), TOO_MUCH),
        (format!("<message{attributes}/>"), TOO_MUCH),
        (format!("<message{prefixes}/>"), TOO_MUCH),
        (format!("<message {}='1'/>", "n".repeat(400_000)), TOO_MUCH),
        (format!("<message a='{}'/>", "v".repeat(400_000)), TOO_MUCH),
        (format!("<message><body>{}</body></message>", "&#x26;".repeat(60_000)), TOO_MUCH),
        (format!("<message><![CDATA[{}]]></message>", "]]".repeat(200_000)), TOO_MUCH),
    ]
}

/// Bytes without any sense, the same in each run, at each stage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage() {
    const STRANGERS: usize = 600;
    let trial = Trial::begin("garbage").await;
    trial
        .strangers(STRANGERS, |site, number| async move {
            let mut random = Random::new(number);
            let bytes = random.bytes(200 + number % 3000);
            let mut stranger = at_stage(&site, number % 6).await;
            stranger.send(&bytes).await;
            // What it takes for an unfinished beginning it would wait for.
            stranger.half_close().await;
            stranger.silence().await;
        })
        .await;
    trial.end(STRANGERS).await;
}

async fn at_stage(site: &Site, stage: usize) -> Customer {
    let mut stranger = site.customer().await;
    match stage {
        0 => {}
        // A record of TLS with nonsense in it, and a stream's beginning.
        1 => stranger.send(&[22, 3, 1, 0x0b, 0xff, 1, 0]).await,
        2 => stranger.say(HEADER).await,
        3 => {
            stranger.open_stream().await;
            stranger.say(STARTTLS).await;
            stranger.until("<proceed").await;
        }
        4 => stranger = stranger.direct_tls().await,
        _ => {
            stranger = stranger.direct_tls().await;
            stranger.log_in(&site.good_link()).await;
        }
    }
    stranger
}

/// A write of megabytes, before login and within a session: read no further than the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giant_writes() {
    const STRANGERS: usize = 60;
    const MEGABYTES: usize = 8;
    let trial = Trial::begin("giant writes").await;
    trial
        .strangers(STRANGERS, |site, number| async move {
            let mut stranger = site.customer().await;
            let opening = match number % 4 {
                0 => format!("{HEADER}<message><body>"),
                1 => {
                    stranger = stranger.direct_tls().await;
                    format!("{HEADER}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>")
                }
                2 => {
                    stranger = stranger.direct_tls().await;
                    stranger.log_in(&site.good_link()).await;
                    "<message to='support@chat.example.com' type='chat'><body>".to_owned()
                }
                _ => {
                    stranger = stranger.direct_tls().await;
                    stranger.log_in(&site.good_link()).await;
                    "<iq type='set' id='v'><vCard xmlns='vcard-temp'><PHOTO><BINVAL>".to_owned()
                }
            };
            let bytes = [opening.as_bytes(), &vec![b'A'; MEGABYTES << 20]].concat();
            timeout(Duration::from_secs(10), stranger.send(&bytes)).await.expect("it is not taken byte by byte");
            stranger.silence().await;
        })
        .await;
    trial.until_counted("policy-violation", STRANGERS).await;
    trial.end(STRANGERS).await;
}

/// Every byte in a TLS record of its own: white space without end before login; and a customer of that kind, who is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_writes() {
    const STRANGERS: usize = 40;
    let trial = Trial::begin("tiny writes").await;
    trial
        .strangers(STRANGERS, |site, number| async move {
            let mut stranger = site.customer().await.direct_tls().await;
            if number % 2 == 0 {
                stranger.drip(HEADER, Duration::ZERO).await;
                stranger.until("</stream:features>").await;
                stranger.drip(&" ".repeat(20_000), Duration::ZERO).await;
                stranger.half_close().await;
                stranger.silence().await;
                return;
            }
            stranger.log_in(&site.good_link()).await;
            stranger.drip("<message to='support@chat.example.com' type='chat'><body>newcomer 0</body></message>", Duration::ZERO).await;
            stranger.until("welcome 0").await;
        })
        .await;
    trial.end(STRANGERS).await;
}
