//! Strangers who take their time: bytes that drip, silence after any of them, ends that are half closed, answers that nobody reads.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::PATIENCE;
use super::super::site::Site;
use super::{CLOCKS, HEADER, STARTTLS, Trial};

/// The beginning of a ClientHello of 512 bytes.
const HALF_A_HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowloris() {
    const STRANGERS: usize = 300;
    let trial = Trial::begin("slowloris").await;
    // So slowly that the header is never whole when the clock has run out.
    let each = CLOCKS.0 * 2 / u32::try_from(HEADER.len()).unwrap();
    trial
        .strangers_at_once(STRANGERS, STRANGERS, move |site, number| async move {
            match number % 3 {
                0 => {
                    let mut stranger = site.customer().await;
                    stranger.drip(HEADER, each).await;
                    stranger.end().await;
                }
                1 => {
                    let mut stranger = site.customer().await.direct_tls().await;
                    stranger.drip(HEADER, each).await;
                    stranger.end().await;
                }
                _ => {
                    let mut stranger = TcpStream::connect(site.door).await.unwrap();
                    for byte in [&HALF_A_HELLO[..], &[0; 300]].concat() {
                        if stranger.write_all(&[byte]).await.is_err() {
                            break;
                        }
                        tokio::time::sleep(each).await;
                    }
                    until_closed(stranger).await;
                }
            }
        })
        .await;
    trial.until_counted("login-timeout", STRANGERS * 2 / 3).await;
    trial.until_counted("tls-timeout", STRANGERS / 3).await;
    trial.end(STRANGERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence() {
    const STRANGERS: usize = 300;
    let trial = Trial::begin("silence").await;
    trial
        .strangers_at_once(STRANGERS, STRANGERS, |site, number| async move {
            match number % 5 {
                0 => until_closed(TcpStream::connect(site.door).await.unwrap()).await,
                1 => silent_after(&site, &HALF_A_HELLO).await,
                2 => drop(site.customer().await.direct_tls().await.end().await),
                3 => {
                    let mut stranger = site.customer().await;
                    stranger.open_stream().await;
                    stranger.say(STARTTLS).await;
                    stranger.until("<proceed").await;
                    stranger.end().await;
                }
                _ => silent_after(&site, &HEADER.as_bytes()[..40]).await,
            }
        })
        .await;
    trial.until_counted("login-timeout", STRANGERS * 3 / 5).await;
    trial.until_counted("tls-timeout", STRANGERS * 2 / 5).await;
    trial.end(STRANGERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_close() {
    const STRANGERS: usize = 400;
    let trial = Trial::begin("half-close").await;
    trial
        .strangers(STRANGERS, |site, number| async move {
            let mut stranger = site.customer().await;
            match number % 4 {
                0 => {}
                1 => stranger.send(&HALF_A_HELLO).await,
                2 => stranger.open_stream().await,
                _ => {
                    stranger = stranger.direct_tls().await;
                    stranger.log_in(&site.good_link()).await;
                }
            }
            stranger.half_close().await;
            let rest = timeout(CLOCKS.1, stranger.end()).await;
            assert!(rest.is_ok(), "stage {}: the relay hangs up at once", number % 4);
        })
        .await;
    trial.end(STRANGERS).await;
}

/// They ask and ask, and leave the answers lie: what is held for them is bounded, and they are not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_unread() {
    const STRANGERS: usize = 20;
    const QUESTION: &str = "<iq type='get' id='p1' to='chat.example.com'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    let trial = Trial::begin("answers unread").await;
    trial
        .strangers(STRANGERS, |site, _| async move {
            let mut stranger = site.customer().await.direct_tls().await;
            stranger.log_in(&site.good_link()).await;
            let questions = QUESTION.repeat(200);
            // Far more than the buffers on the way hold. He may be cut off before.
            let asking = async {
                for _ in 0..400 {
                    if !stranger.sends(questions.as_bytes()).await {
                        return false;
                    }
                }
                true
            };
            let all_asked = timeout(Duration::from_secs(3), asking).await;
            assert_ne!(all_asked, Ok(true), "the relay read on though nobody took its answers");
        })
        .await;
    trial.end(STRANGERS).await;
}

async fn silent_after(site: &Arc<Site>, bytes: &[u8]) {
    let mut stranger = TcpStream::connect(site.door).await.unwrap();
    stranger.write_all(bytes).await.unwrap();
    until_closed(stranger).await;
}

async fn until_closed(mut stranger: TcpStream) {
    let mut rest = Vec::new();
    let closed = timeout(PATIENCE, stranger.read_to_end(&mut rest)).await;
    drop(closed.expect("the relay ends who is silent"));
}
