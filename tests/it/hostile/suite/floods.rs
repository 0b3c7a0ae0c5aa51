//! Strangers who come in numbers: connections, handshakes, logins, stanzas.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Trial;
use super::conversation::QUEUE;

/// Connections that are closed or reset as soon as they stand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_flood() {
    const STRANGERS: usize = 10_000;
    let trial = Trial::begin("connection flood").await;
    trial
        .strangers(STRANGERS, |site, number| async move {
            let stranger = TcpStream::connect(site.door).await.unwrap();
            if number % 2 == 0 {
                socket2::SockRef::from(&stranger).set_linger(Some(Duration::ZERO)).unwrap();
            }
        })
        .await;
    trial.end(STRANGERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshake_flood() {
    const STRANGERS: usize = 1500;
    let trial = Trial::begin("handshake flood").await;
    trial.strangers_at_once(STRANGERS, 40, |site, _| async move { drop(site.customer().await.direct_tls().await) }).await;
    trial.end(STRANGERS).await;
}

/// Sessions that begin and are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_flood() {
    const STRANGERS: usize = 400;
    let trial = Trial::begin("login flood").await;
    trial
        .strangers_at_once(STRANGERS, 20, |site, _| async move {
            let mut stranger = site.customer().await.direct_tls().await;
            stranger.log_in(&site.good_link()).await;
        })
        .await;
    trial.end(STRANGERS).await;
}

/// Customers with good links who write as fast as they can: messages, questions, presences, marks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stanza_flood() {
    const STRANGERS: usize = 12;
    let trial = Trial::begin("stanza flood").await;
    trial
        .strangers(STRANGERS, |site, number| async move {
            let mut stranger = site.customer().await.direct_tls().await;
            stranger.log_in(&site.good_link()).await;
            let (stanza, times) = match number % 4 {
                0 => (format!("<message to='{QUEUE}' type='chat'><body>again</body></message>"), 500),
                1 => ("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>".to_owned(), 3000),
                2 => ("<presence><show>away</show></presence><presence/>".to_owned(), 500),
                _ => (format!("<message to='{QUEUE}'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"), 500),
            };
            // Whoever is slowed down or cut off has not sent it all: that is the relay's to decide.
            let flood = async {
                for _ in 0..times / 10 {
                    stranger.send(stanza.repeat(10).as_bytes()).await;
                }
            };
            drop(timeout(Duration::from_secs(4), flood).await);
        })
        .await;
    trial.end(STRANGERS).await;
}
