//! Two thousand bad connections beside a live conversation, which must not notice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outgate::proto::xmpp::client::Credentials;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::PATIENCE;
use super::garbage::{Case, cases};
use super::links::bad_links;
use super::site::Site;
use super::talker::Talker;
use crate::setup::{AGENTS, CUSTOMERS, PASSWORD};

const STRANGERS: usize = 2000;
const AT_ONCE: usize = 200;

/// The whole swarm is over by then, on a slow machine too.
const SWARM_WITHIN: Duration = Duration::from_secs(180);

/// Between two messages of the customer.
const PACE: Duration = Duration::from_millis(20);

/// What the relay may keep of it all: allocator slack, not a buffer for each stranger.
const KEPT: u64 = 32 << 20;

/// Generous: it must end the silent, and nobody else on a machine that is busy with two hundred handshakes.
const LOGIN_WITHIN: Duration = Duration::from_secs(10);

const QUEUE: &str = "support@chat.example.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_bad_connections_do_not_disturb_a_conversation() {
    let site = Arc::new(Site::start_with(LOGIN_WITHIN, LOGIN_WITHIN));
    let ca_pem = site.ca_pem();
    let alice = Credentials::Scram { user: "alice".to_owned(), password: PASSWORD.to_owned() };
    let mut agent = Talker::arrive(site.agents, AGENTS, &ca_pem, alice).await;
    let link = Credentials::Plain { user: "me".to_owned(), password: site.good_link() };
    let mut customer = Talker::arrive(site.door, CUSTOMERS, &ca_pem, link).await;
    customer.say(QUEUE, "hello").await;
    let proxy = timeout(PATIENCE, first_hello(&mut agent)).await.unwrap();

    let before = site.reasons();
    let (memory, files) = (resident(site.relay_pid()), open_files(site.relay_pid()));
    let (over, is_over) = watch::channel(false);
    let swarm = async {
        let expected = timeout(SWARM_WITHIN, swarm(&site)).await.expect("the swarm ends in time");
        over.send_replace(true);
        expected
    };
    let all = async { tokio::join!(swarm, say_and_time(&mut customer, is_over.clone()), echo(&mut agent, &proxy)) };
    let (expected, sent, heard) = timeout(SWARM_WITHIN + PATIENCE, all).await.expect("the conversation ends with the swarm");

    let (count, mut trips) = sent;
    assert_eq!(heard, (1..=count).map(|number| format!("customer {number}")).collect::<Vec<_>>(), "all, once, in order");
    trips.sort_unstable();
    let at = |share: usize| trips[(trips.len() - 1) * share / 100];
    eprintln!("{STRANGERS} bad connections, {count} messages each way: round trip p50 {:?}, p99 {:?}", at(50), at(99));

    site.until("the strangers' places to be given back", |status| status["connections"] == 1 && status["sessions"] == 1).await;
    for (reason, times) in expected {
        site.counted(&before, reason, times).await;
    }
    let settled = async {
        while open_files(site.relay_pid()) > files {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let files_now = timeout(PATIENCE, settled).await.map_err(|_late| open_files(site.relay_pid()));
    assert_eq!(files_now, Ok(()), "{files} files were open before the swarm");
    let memory_now = resident(site.relay_pid());
    eprintln!("the relay's memory: {} KiB before, {} KiB after", memory >> 10, memory_now >> 10);
    assert!(memory_now <= memory + KEPT, "{memory} bytes before, {memory_now} after");
}

/// The address under which the agent knows the customer.
async fn first_hello(agent: &mut Talker) -> String {
    loop {
        let heard = agent.hear().await;
        if heard.body == "hello" {
            return heard.from;
        }
    }
}

/// Numbered messages at a steady pace until the swarm is over, then one that says so. Gives their number and the round trips of
/// all, which must come back all, once, in order.
async fn say_and_time(customer: &mut Talker, is_over: watch::Receiver<bool>) -> (usize, Vec<Duration>) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sent, mut trips) = (Vec::new(), Vec::new());
    let mut last_word = Instant::now();
    loop {
        let is_done = *is_over.borrow();
        if is_done && trips.len() == sent.len() {
            customer.say(QUEUE, "that is all").await;
            return (sent.len(), trips);
        }
        assert!(last_word.elapsed() < PATIENCE, "{} of {} came back", trips.len(), sent.len());
        tokio::select! {
            heard = customer.hear() => {
                if let Some(number) = heard.body.strip_prefix("agent ") {
                    assert_eq!(number, (trips.len() + 1).to_string(), "all, once, in order");
                    trips.push(sent.get(trips.len()).map(Instant::elapsed).unwrap());
                    last_word = Instant::now();
                }
            }
            _ = pace.tick() => {
                if !is_done {
                    sent.push(Instant::now());
                    customer.say(QUEUE, &format!("customer {}", sent.len())).await;
                }
            }
        }
    }
}

/// The agent answers every numbered message with its number; gives what he was told.
async fn echo(agent: &mut Talker, proxy: &str) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let said = agent.hear().await;
        if said.body == "that is all" {
            return heard;
        }
        if let Some(number) = said.body.strip_prefix("customer ") {
            agent.say(proxy, &format!("agent {number}")).await;
            heard.push(said.body);
        }
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

/// Resident memory in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
