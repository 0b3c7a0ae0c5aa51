//! Two thousand bad connections beside a live conversation, which must not notice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::garbage::{Case, cases};
use super::links::bad_links;
use super::site::Site;
use super::suite::Trial;

const STRANGERS: usize = 2000;
const AT_ONCE: usize = 200;

/// The whole swarm is over by then, on a slow machine too.
const SWARM_WITHIN: Duration = Duration::from_secs(180);

/// Generous: it must end the silent, and nobody else on a machine that is busy with two hundred handshakes.
const LOGIN_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_bad_connections_do_not_disturb_a_conversation() {
    let trial = Trial::begin_on("all at once", Site::start_with(LOGIN_WITHIN, LOGIN_WITHIN)).await;
    let (site, before) = (Arc::clone(&trial.site), trial.reasons.clone());
    let expected = timeout(SWARM_WITHIN, swarm(&site)).await.expect("the swarm ends in time");
    trial.end(STRANGERS).await;
    for (reason, times) in expected {
        site.counted(&before, reason, times).await;
    }
}

/// One stranger's way of being wrong.
enum Wrong {
    Garbage(Case),
    Link(String),
    Silence,
    HangUp,
}

/// Sends them all, and tells what must have been counted.
async fn swarm(site: &Arc<Site>) -> BTreeMap<&'static str, u64> {
    let garbage = cases().into_iter().map(|case| (vec![(case.reason, 1)], Wrong::Garbage(case)));
    let links = bad_links(site).into_iter().map(|bad| (vec![(bad.reason, 3), ("too-many-attempts", 1)], Wrong::Link(bad.token)));
    let quiet = [(vec![("login-timeout", 1)], Wrong::Silence), (vec![("closed-early", 1)], Wrong::HangUp)];
    let kinds: Vec<_> = garbage.chain(links).chain(quiet).map(|(counts, wrong)| (counts, Arc::new(wrong))).collect();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut strangers = JoinSet::new();
    let mut expected = BTreeMap::new();
    for (counts, wrong) in kinds.iter().cycle().take(STRANGERS) {
        for (reason, times) in counts {
            *expected.entry(*reason).or_insert(0) += times;
        }
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let (site, wrong) = (Arc::clone(site), Arc::clone(wrong));
        strangers.spawn(async move {
            knock(&site, &wrong).await;
            drop(place);
        });
    }
    while let Some(ended) = strangers.join_next().await {
        ended.unwrap();
    }
    expected
}

async fn knock(site: &Site, wrong: &Wrong) {
    match wrong {
        Wrong::Garbage(case) => {
            let answer = case.play(site).await;
            assert!(answer.contains(case.answer), "{case:?}: {answer}");
        }
        Wrong::Link(token) => {
            let mut customer = site.customer().await.direct_tls().await;
            customer.open_stream().await;
            for _attempt in 0..3 {
                customer.plain(token).await;
                customer.until("</failure>").await;
            }
            let end = customer.end().await;
            assert!(end.contains("Too many login attempts."), "{end}");
        }
        Wrong::Silence => {
            site.customer().await.end().await;
        }
        Wrong::HangUp => drop(site.customer().await),
    }
}
