//! The hostile suite: each attack over real sockets against a relay and a connector as processes, beside a live [`conversation`] between
//! a customer and an agent and beside newcomers with good links.
//!
//! A [`Trial`] begins with a site at rest. When the attack is over, all that was said must be complete and in its order, every newcomer
//! must have been served, and both processes must hold no more connections, sessions and descriptors than before. Each trial leaves a
//! line in a folder of the run; `tests/hostile_table` prints them as one table.

mod bombs;
mod conversation;
mod floods;
mod forgery;
mod guesses;
mod slow;
mod wire;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::conversation::{Conversation, Talk};
use super::PATIENCE;
use super::site::{Plan, Site};

/// Clocks that end the slow within a test, and nobody else on a machine that is busy with their handshakes.
const CLOCKS: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(4));

/// An attack is over by then, on a slow machine too.
const ATTACK_WITHIN: Duration = Duration::from_secs(120);

/// Strangers of one attack that are there at once.
const AT_ONCE: usize = 150;

/// What a process may keep of an attack: allocator slack, not a buffer for each stranger.
const KEPT: i64 = 32 << 10;

/// Prints the table.
const TABLE: &str = include_str!("../../hostile_table");

/// How a stream begins.
const HEADER: &str =
    "<stream:stream to='chat.example.com' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

/// Bytes that look random and are the same in each run (xorshift64).
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// What one process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    kib: i64,
    descriptors: usize,
}

impl Held {
    fn of(pid: u32) -> Self {
        Self { kib: memory(pid, "VmRSS:"), descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() }
    }
}

/// One attack, from a site at rest to a site at rest.
pub(super) struct Trial {
    attack: &'static str,
    pub(super) site: Arc<Site>,
    before: [Held; 2],
    pub(super) reasons: BTreeMap<String, u64>,
    epoch: serde_json::Value,
    talk: Conversation,
}

impl Trial {
    /// On a site with the suite's clocks.
    async fn begin(attack: &'static str) -> Self {
        Self::begin_at(attack, Plan::default()).await
    }

    async fn begin_at(attack: &'static str, plan: Plan) -> Self {
        let (login, handshake) = CLOCKS;
        Self::begin_on(attack, Site::start_as(Plan { login, handshake, ..plan })).await
    }

    pub(super) async fn begin_on(attack: &'static str, site: Site) -> Self {
        let site = Arc::new(site);
        let talk = Conversation::begin(&site).await;
        let pids = [site.relay_pid(), site.connector_pid()];
        // From here on the peak counts. Where that is not permitted, it counts from the start of the process.
        pids.iter().for_each(|pid| drop(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")));
        let (before, reasons) = (pids.map(Held::of), site.reasons());
        let epoch = site.status()["tunnels"][0]["epoch"].clone();
        Self { attack, site, before, reasons, epoch, talk }
    }

    /// Lets `count` strangers come, each with his number.
    async fn strangers<F>(&self, count: usize, stranger: impl Fn(Arc<Site>, usize) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.strangers_at_once(count, AT_ONCE, stranger).await;
    }

    /// The same, so many at once.
    async fn strangers_at_once<F>(&self, count: usize, at_once: usize, stranger: impl Fn(Arc<Site>, usize) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(at_once));
        let mut strangers = JoinSet::new();
        let all = async {
            for number in 0..count {
                let place = Arc::clone(&places).acquire_owned().await.unwrap();
                let stranger = stranger(Arc::clone(&self.site), number);
                strangers.spawn(async move {
                    stranger.await;
                    drop(place);
                });
            }
            while let Some(ended) = strangers.join_next().await {
                ended.unwrap();
            }
        };
        timeout(ATTACK_WITHIN, all).await.unwrap_or_else(|_| panic!("{}: the strangers are still there", self.attack));
    }

    /// How often a reason was counted since the trial began.
    fn counted(&self, reason: &str) -> u64 {
        let now = self.site.reasons().get(reason).copied().unwrap_or(0);
        now - self.reasons.get(reason).copied().unwrap_or(0)
    }

    /// Waits until it was counted so often at least.
    async fn until_counted(&self, reason: &str, times: usize) {
        let wanted = self.reasons.get(reason).copied().unwrap_or(0) + times as u64;
        self.site.until(&format!("{reason} to reach {wanted}"), |status| status["reasons"][reason].as_u64().unwrap_or(0) >= wanted).await;
    }

    /// The attack of so many strangers is over: waits until the site is at rest, writes the line, and judges.
    pub(super) async fn end(self, strangers: usize) -> Talk {
        let Self { attack, site, before, reasons, epoch, talk } = self;
        let talk = talk.end().await;
        let pids = [site.relay_pid(), site.connector_pid()];
        let peaks = pids.map(|pid| memory(pid, "VmHWM:"));
        site.until("the strangers' places to be given back", |status| status["connections"] == 1 && status["sessions"] == 1).await;
        let growth = at_rest(&pids, &before).await;
        let told: Vec<String> = told(&site, &reasons).into_iter().take(3).collect();
        let [first, _] = &talk.tallies;
        let tally = talk.tallies.iter().skip(1).fold(*first, |sum, tally| sum.and(*tally));
        let row = [
            strangers.to_string(),
            tally.said.to_string(),
            tally.lost.to_string(),
            tally.doubled.to_string(),
            talk.trip(50).as_micros().to_string(),
            talk.trip(99).as_micros().to_string(),
            talk.newcomers.to_string(),
            talk.served.to_string(),
            before[0].kib.to_string(),
            peaks[0].to_string(),
            before[1].kib.to_string(),
            peaks[1].to_string(),
            growth.iter().map(|(kib, _)| *kib).max().unwrap_or(0).to_string(),
            growth.iter().map(|(_, descriptors)| *descriptors).max().unwrap_or(0).to_string(),
            told.join(", "),
        ];
        line(attack, &row.join("\t"));
        assert_eq!((tally.lost, tally.doubled, tally.disordered), (0, 0, 0), "{attack}: lost, doubled, out of order");
        assert_eq!(talk.served, talk.newcomers, "{attack}: customers with good links who were served");
        assert_eq!(site.status()["tunnels"][0]["epoch"], epoch, "{attack}: the tunnel noticed nothing");
        for ((kib, descriptors), role) in growth.into_iter().zip(["relay", "connector"]) {
            assert!(descriptors <= 0, "{attack}: the {role} has {descriptors} descriptors more than before");
            assert!(kib <= KEPT, "{attack}: the {role} has {kib} KiB more than before");
        }
        talk
    }
}

/// What the rest is measured against.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody() {
    let trial = Trial::begin("nobody").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    trial.end(0).await;
}

/// Waits until both hold no more descriptors than before; what they hold more, in KiB and descriptors.
async fn at_rest(pids: &[u32; 2], before: &[Held; 2]) -> Vec<(i64, i64)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let more = |(pid, before): (&u32, &Held)| {
            let now = Held::of(*pid);
            (now.kib - before.kib, now.descriptors as i64 - before.descriptors as i64)
        };
        let growth: Vec<_> = pids.iter().zip(before).map(more).collect();
        if growth.iter().all(|(_, descriptors)| *descriptors <= 0) || Instant::now() > deadline {
            return growth;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the relay counted meanwhile, the most frequent first.
fn told(site: &Site, before: &BTreeMap<String, u64>) -> Vec<String> {
    let more = |(reason, count): (String, u64)| (count - before.get(&reason).copied().unwrap_or(0), reason);
    let usual = |reason: &str| ["customer-left", "customer-lost"].contains(&reason);
    let mut counts: Vec<(u64, String)> =
        site.reasons().into_iter().map(more).filter(|(more, reason)| *more > 0 && !usual(reason)).collect();
    counts.sort_by(|a, b| b.cmp(a));
    counts.into_iter().map(|(count, reason)| format!("{count} {reason}")).collect()
}

/// A figure of `/proc/PID/status` in KiB.
fn memory(pid: u32, name: &str) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Writes a line of the table.
fn line(attack: &str, row: &str) {
    assert!(attacks().contains(&attack), "tests/hostile_table names {attack}");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(attack.replace(' ', "-")), format!("{attack}\t{row}\n")).unwrap();
}

/// Those that the table has a row for.
fn attacks() -> Vec<&'static str> {
    let (_, rest) = TABLE.split_once("\nattacks='").unwrap();
    rest.split_once('\'').unwrap().0.lines().collect()
}

#[test]
fn an_attack_that_no_test_played_is_named_and_fails_a_whole_run() {
    let target = tempfile::tempdir().unwrap();
    let folder = target.path().join("tmp/hostile");
    std::fs::create_dir_all(&folder).unwrap();
    let attacks = attacks();
    for (number, attack) in attacks.iter().enumerate() {
        let row = format!("{attack}\t10\t100\t0\t0\t1500\t2500\t7\t6\t1024\t2048\t1024\t3072\t5\t0\t9 reason\n");
        std::fs::write(folder.join(number.to_string()), row).unwrap();
    }
    let print = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile_table");
        let output = std::process::Command::new(script).arg("whole").env("CARGO_TARGET_DIR", target.path()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (whole, table) = print();
    assert!(whole && !table.contains("Missing"), "{table}");
    let row = table.lines().find(|line| line.starts_with("nobody ")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells.join(" "), "nobody 10 100 0 0 1.5 2.5 7 6 1 1.0 → 2.0 1.0 → 3.0 5 0 9 reason", "{table}");
    std::fs::remove_file(folder.join("3")).unwrap();
    let (whole, table) = print();
    assert!(!whole && table.contains(&format!("to its end: {}\n", attacks[3])), "{table}");
}
