//! Strangers who guess a link, and many who have the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::Barrier;
use tokio::time::timeout;

use super::super::site::{Plan, Site};
use super::conversation::QUEUE;
use super::{Random, Trial};
use crate::relay::customer::Customer;

/// Signatures under good claims, keys, and short codes, at random.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_brute_force() {
    const STRANGERS: usize = 300;
    let trial = Trial::begin("token brute force").await;
    trial
        .strangers(STRANGERS, |site, number| async move {
            let mut random = Random::new(number);
            let mut stranger = site.customer().await.direct_tls().await;
            stranger.open_stream().await;
            for _ in 0..3 {
                stranger.plain(&guess(&site, &mut random)).await;
                match stranger.hears(&["<success", "</failure>"]).await {
                    Some(answer) => assert!(!answer.contains("<success"), "a guess was right"),
                    None => return,
                }
            }
            stranger.silence().await;
        })
        .await;
    let refused = trial.counted("link-bad-signature") + trial.counted("link-malformed") + trial.counted("link-algorithm");
    assert!(refused >= STRANGERS as u64, "{refused} of {STRANGERS}");
    trial.end(STRANGERS).await;
}

fn guess(site: &Site, random: &mut Random) -> String {
    let good = site.good_link();
    let (signed, _) = good.rsplit_once('.').unwrap();
    let payload = signed.split_once('.').unwrap().1;
    let signature = URL_SAFE_NO_PAD.encode(random.bytes(64));
    match random.next() % 3 {
        0 => format!("{signed}.{signature}"),
        1 => {
            let header = format!("{{\"alg\":\"ES256\",\"typ\":\"JWT\",\"kid\":\"{}\"}}", site.key.kid());
            format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(header))
        }
        _ => random.bytes(26).iter().map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte % 32)])).collect(),
    }
}

/// Each link is for one session; three present it at each of two relays, all at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_links_raced_over_two_relays() {
    const LINKS: usize = 16;
    const PRESENTERS: usize = 6;
    let trial = Trial::begin_at("once-links raced", Plan { two_relays: true, ..Plan::default() }).await;
    let links: Vec<String> = (0..LINKS)
        .map(|_| {
            let mut claims = trial.site.claims();
            claims.outgate.once = true;
            trial.site.key.mint(&claims).unwrap()
        })
        .collect();
    let starts: Vec<Arc<Barrier>> = (0..LINKS).map(|_| Arc::new(Barrier::new(PRESENTERS))).collect();
    trial
        .strangers(LINKS * PRESENTERS, |site, number| {
            let (link, start) = (links[number / PRESENTERS].clone(), Arc::clone(&starts[number / PRESENTERS]));
            async move {
                let door = if number % 2 == 0 { site.door } else { site.second_door.unwrap() };
                let mut customer = site.customer_at(door).await.direct_tls().await;
                customer.open_stream().await;
                start.wait().await;
                let racing = race(&mut customer, &link, number / PRESENTERS);
                assert!(timeout(Duration::from_secs(30), racing).await.is_ok(), "neither let in nor refused");
            }
        })
        .await;
    let site = Arc::clone(&trial.site);
    let talk = trial.end(LINKS * PRESENTERS).await;
    let mut winners: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for heard in talk.others.iter().filter(|heard| heard.body.starts_with("newcomer link ")) {
        winners.entry(&heard.body).or_default().insert(&heard.from);
    }
    assert_eq!(winners.len(), LINKS, "somebody came in with each");
    assert!(winners.values().all(|sessions| sessions.len() == 1), "and nobody else: {winners:?}");
    let opened = site.connector_status()["counters"]["sessions_opened"].as_u64();
    assert_eq!(opened, Some((1 + talk.newcomers + LINKS) as u64), "the conversation, the newcomers, and one session for each link");
}

/// One try: until he is greeted in a session, or refused at any step.
async fn race(customer: &mut Customer, link: &str, number: usize) {
    customer.plain(link).await;
    let answer = customer.hears(&["<success", "</failure>"]).await;
    if !answer.is_some_and(|answer| answer.contains("<success")) {
        return;
    }
    customer.bind().await;
    customer.say(&format!("<message to='{QUEUE}' type='chat'><body>newcomer link {number}</body></message>")).await;
    customer.hears(&[&format!("welcome link {number}<")]).await;
}
