//! The table of the tunnel's faults: what each costs, measured by one oracle.
//!
//! A case runs in a process of its own ([`alone`]), so that its descriptors, tasks and memory are nobody else's. It starts a
//! [`town::Town`], begins a [`Trial`], breaks something, waits until all is well, and ends the trial with the town's [`Tally`]: what
//! was said, lost and doubled. Each trial leaves a line in a folder of the run; `tests/fault_table` prints them as one table and names
//! the faults of which none ran. A test elsewhere that plays a fault is named `fault_NN…`, or adds its line with [`proven`].

mod clients;
mod drain;
mod herd;
mod sides;
mod soak;
mod town;
mod wires;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::faults::udp::OUTSIDE;

/// Set in the process of a case.
const ALONE: &str = "OUTGATE_FAULT_ALONE";

/// Descriptors and tasks are back to base, at the latest: a QUIC connection whose peer fell silent is kept for 15 s.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// Growth of memory that allocators and logs of the clients explain, in KiB.
const GROWTH: i64 = 48 * 1024;

/// What became of all that was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) said: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    /// Shown, but not in its order.
    pub(crate) disordered: usize,
}

impl Tally {
    /// Compares what was shown with the numbers from 1 to `said`.
    pub(crate) fn of(shown: &[usize], said: usize) -> Self {
        let mut count = vec![0usize; said + 1];
        for number in shown.iter().filter(|number| **number <= said) {
            count[*number] += 1;
        }
        let lost = count.iter().skip(1).filter(|count| **count == 0).count();
        let doubled = count.iter().skip(1).map(|count| count.saturating_sub(1)).sum();
        let disordered = shown.windows(2).filter(|pair| pair[1] < pair[0]).count();
        Self { said, lost, doubled, disordered }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            said: self.said + other.said,
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
            disordered: self.disordered + other.disordered,
        }
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    kib: i64,
    descriptors: i64,
    tasks: i64,
}

impl Held {
    fn now() -> Self {
        let pages: i64 = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        // SQLite keeps a database's descriptors as long as another of its connections to that file lives.
        let is_counted =
            |link: std::io::Result<std::path::PathBuf>| !link.is_ok_and(|link| link.to_string_lossy().contains("store.sqlite"));
        let open = std::fs::read_dir("/proc/self/fd").unwrap().filter(|one| is_counted(std::fs::read_link(one.as_ref().unwrap().path())));
        let descriptors = i64::try_from(open.count()).unwrap() - OUTSIDE.load(std::sync::atomic::Ordering::Relaxed);
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        Self { kib: pages * 4, descriptors, tasks: i64::try_from(tasks).unwrap() }
    }
}

/// One fault, from a town at rest to a town at rest.
#[derive(Debug)]
pub(crate) struct Trial {
    number: u8,
    before: Held,
    began: Instant,
}

impl Trial {
    pub(crate) fn begin(number: u8) -> Self {
        Self { number, before: Held::now(), began: Instant::now() }
    }

    /// Since the fault.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until the process holds no more than before, writes the line, and judges.
    pub(crate) async fn end(self, tally: Tally, took: Duration, note: &str) {
        let deadline = Instant::now() + BACK_WITHIN;
        let growth = loop {
            let now = Held::now();
            let growth = (now.kib - self.before.kib, now.descriptors - self.before.descriptors, now.tasks - self.before.tasks);
            if growth.1 <= 0 && growth.2 <= 0 || Instant::now() > deadline {
                break growth;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let (kib, descriptors, tasks) = growth;
        let Tally { said, lost, doubled, disordered } = tally;
        let took = took.as_millis();
        line(self.number, &format!("{said}\t{lost}\t{doubled}\t{took}\t{kib}\t{descriptors}\t{tasks}\t{note}"));
        assert_eq!((lost, doubled, disordered), (0, 0, 0), "fault {}: lost, doubled, out of order", self.number);
        assert!(descriptors <= 0 && tasks <= 0, "fault {}: {descriptors} descriptors and {tasks} tasks more than before", self.number);
        assert!(kib < GROWTH, "fault {}: {kib} KiB more than before", self.number);
    }
}

/// Notes that this test has played fault `number`, where nothing but its own judgement is to be told. Called at its end.
pub(crate) fn proven(number: u8, note: &str) {
    line(number, &format!("\t\t\t\t\t\t\t{note}"));
}

/// The same for a test that compared numbers.
pub(crate) fn tallied(number: u8, said: usize, took: Option<Duration>, note: &str) {
    let took = took.map_or_else(String::new, |took| took.as_millis().to_string());
    line(number, &format!("{said}\t0\t0\t{took}\t\t\t\t{note}"));
}

/// Adds the line of a test named `fault_NN…` whose conversation was found whole; of others nothing.
pub(crate) fn settled(said: usize) {
    let thread = std::thread::current();
    let name = thread.name().and_then(|name| name.split("::").last()?.strip_prefix("fault_"));
    if let Some(number) = name.and_then(|name| name.split('_').next()?.parse().ok()) {
        tallied(number, said, None, "");
    }
}

/// Writes a line of the table; a test writes one for each fault, and the last counts.
fn line(number: u8, rest: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("main").to_owned();
    let test = std::env::var(ALONE).unwrap_or(test);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
    let file = folder.join(format!("{number:02}-{}", test.replace("::", ".")));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(file, format!("{number}\t{test}\t{rest}\n")));
    match written {
        // A test that runs once more as a user without rights proves what it proves; the table has its line from the first run.
        Err(fault) if fault.kind() == std::io::ErrorKind::PermissionDenied => {}
        written => written.unwrap(),
    }
}

/// Runs a case in a process of its own: this test again, alone.
pub(crate) fn alone<C: Future<Output = ()>>(case: impl FnOnce() -> C) {
    alone_within("", case);
}

/// The figure that the environment asks for with `name`, or the suite's own.
fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |figure| figure.parse().unwrap())
}

/// The same, with a shell's words before it, such as a limit.
fn alone_within<C: Future<Output = ()>>(limits: &str, case: impl FnOnce() -> C) {
    if std::env::var(ALONE).is_ok() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(case());
    }
    let test = std::thread::current().name().unwrap().to_owned();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{limits}\nexec \"$@\"")).arg("sh").arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "--test-threads", "1", &test]).env(ALONE, &test).stdin(Stdio::null());
    let output = command.output().unwrap();
    let mut told = String::new();
    for part in [&output.stdout, &output.stderr] {
        writeln!(told, "{}", String::from_utf8_lossy(part)).unwrap();
    }
    assert!(output.status.success(), "{test}, alone:\n{told}");
    assert!(told.contains("test result: ok. 1 passed"), "{test} did not run:\n{told}");
}

/// Runs the printer on what a run has left: a runner's words and the lines of its tests.
fn printed(results: &str, lines: &[&str]) -> (bool, String) {
    let target = tempfile::tempdir().unwrap();
    let folder = target.path().join("tmp/faults");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(target.path().join("tmp/results"), results).unwrap();
    for (number, line) in lines.iter().enumerate() {
        std::fs::write(folder.join(number.to_string()), line).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fault_table");
    let output = Command::new(script).arg("whole").env("CARGO_TARGET_DIR", target.path()).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_fault_that_no_test_played_is_named_and_fails_a_whole_run() {
    let all = (1..=43).filter(|number| *number != 28);
    let ran: String = all.map(|number| format!("test a::fault_{number:02}_b ... ok\n")).collect();
    let (whole, table) = printed(&ran, &[]);
    assert!(whole && !table.contains("Missing"), "{table}");

    // Its line tells of it as well as its name; one that was ignored or did not end tells nothing.
    let without = ran.replace("test a::fault_07_b ... ok\n", "");
    let (whole, table) = printed(&without, &["7\ta::b\t4\t0\t0\t12\t\t\t\tquic\n"]);
    assert!(whole, "{table}");
    for instead in ["", "test a::fault_07_b ... ignored\n", "test a::fault_07_b ... ", "test a::fault_7b ... ok\n"] {
        let (whole, table) = printed(&format!("{without}{instead}"), &[]);
        assert!(!whole && table.contains("no test of these ran: 7 (black hole towards the connector)\n"), "{instead}: {table}");
    }
    // The runner breaks its line where a test runs alone or prints, and may colour it.
    for instead in [
        "test a::fault_07_b ... a word of the test\nok\n",
        "\u{1b}[0mtest a::fault_07_b ... \u{1b}[32mok\u{1b}[0m\n",
        "test a::fault_07_b - should panic ... ok\n",
        "test a::fault_07_b has been running for over 60 seconds\ntest a::fault_07_b ... ok <61.2s>\n",
    ] {
        let (whole, table) = printed(&format!("{without}{instead}"), &[]);
        assert!(whole, "{instead}: {table}");
    }
    let (_, table) = printed(&format!("{without}test a::fault_07_b ... FAILED\n"), &["7\ta::fault_07_b\t4\t1\t0\t12\t\t\t\tquic\n"]);
    let row = table.lines().find(|row| row.starts_with(" 7 ")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().skip(6).collect();
    assert_eq!(cells, ["1", "4", "1", "0", "12", "–", "–", "–", "FAILED", "quic"], "one test: {row}");
}

#[test]
fn the_tally_finds_what_is_lost_doubled_or_out_of_order() {
    let tally = |shown: &[usize]| {
        let Tally { lost, doubled, disordered, .. } = Tally::of(shown, 3);
        (lost, doubled, disordered)
    };
    assert_eq!(tally(&[1, 2, 3]), (0, 0, 0));
    assert_eq!(tally(&[1, 3]), (1, 0, 0));
    assert_eq!(tally(&[1, 2, 2, 3]), (0, 1, 0));
    assert_eq!(tally(&[1, 3, 2]), (0, 0, 1));
}
