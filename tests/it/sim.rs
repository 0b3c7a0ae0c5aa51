//! Seeded simulation of the tunnel core: two real ends, a model desk with a store that lags and crashes, customers, and
//! carriers that delay and break at any byte; an oracle that wants every event once and in order.
//!
//! `OUTGATE_SIM_SEED=n` replays one schedule and shows what happens in it; `OUTGATE_SIM_SCHEDULES=n` sets how many are run, over all
//! processors, and `OUTGATE_SIM_FROM=n` the first.

mod faults;
mod limits;
mod model;
mod pair;
mod resume;
mod returns;
mod rules;
mod switch;
mod versions;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use outgate_sim::{Faults, Outcome, Plant};

/// Schedules of the main test where nothing else is asked for.
const SCHEDULES: u64 = 600;

/// Schedules within which each planted bug must be found.
const PLANT_SCHEDULES: u64 = 1000;

const ALL: Faults =
    Faults { cuts: 20, connector_crashes: 8, relay_crashes: 3, switches: 30, goaways: 5, holes: 3, duplicates: 5, moves: 6, regresses: 12 };

#[expect(clippy::disallowed_methods, reason = "virtual time counts from some instant")]
fn began() -> Instant {
    Instant::now()
}

fn schedule(seed: u64, plant: Option<Plant>, faults: Faults) -> Outcome {
    outgate_sim::schedule(seed, plant, faults, began())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
#[expect(clippy::print_stderr, reason = "how many schedules replayed is part of the proof")]
fn every_event_arrives_once_and_in_order_whatever_breaks() {
    if let Some(seed) = number("OUTGATE_SIM_SEED") {
        let outcome = outgate_sim::traced_schedule(seed, ALL, began());
        assert!(outcome.violations.is_empty(), "seed {seed}: {outcome:#?}");
        return;
    }
    let (from, count) = (number("OUTGATE_SIM_FROM").unwrap_or(0), number("OUTGATE_SIM_SCHEDULES").unwrap_or(SCHEDULES));
    let tally = run(from..from + count);
    assert!(tally.failed.is_empty(), "replay with OUTGATE_SIM_SEED=n: {:#?}", tally.failed);
    eprintln!("sim: {count} schedules: {tally:?}");
    assert!(tally.with_replay * 2 > count, "few schedules replayed anything: {tally:?}");
    assert!(tally.with_switch * 5 > count, "few schedules switched: {tally:?}");
    assert!(tally.with_move * 5 > count, "in few schedules a session went on elsewhere: {tally:?}");
    assert!(tally.with_regress * 100 > count, "in few schedules an older store ended a session: {tally:?}");
    let words = format!("{count} schedules, a replay in {}", tally.with_replay);
    crate::fault_table::tallied(43, usize::try_from(tally.delivered).unwrap(), None, &words);
}

/// Runs schedules on all processors; stops soon after one has failed.
fn run(seeds: Range<u64>) -> Tally {
    let (next, end) = (AtomicU64::new(seeds.start), seeds.end);
    let worker = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return tally;
            }
            let outcome = schedule(seed, None, ALL);
            if !outcome.violations.is_empty() {
                next.store(end, Ordering::Relaxed);
                tally.failed.push((seed, outcome.violations));
                return tally;
            }
            tally.add(&outcome);
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let mut started = Vec::with_capacity(workers);
        started.resize_with(workers, || scope.spawn(worker));
        started.into_iter().fold(Tally::default(), |sum, worker| sum.with(worker.join().expect("a schedule panicked: see above")))
    })
}

/// What many schedules came to; `with_` counts schedules.
#[derive(Debug, Default)]
struct Tally {
    with_replay: u64,
    with_switch: u64,
    with_move: u64,
    with_regress: u64,
    with_governed_attach: u64,
    replayed: u64,
    duplicates: u64,
    attached: u64,
    switched: u64,
    moved: u64,
    regressed: u64,
    delivered: u64,
    lost: u64,
    /// Seeds, and what was wrong.
    failed: Vec<(u64, Vec<String>)>,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        self.with_replay += u64::from(outcome.replayed > 0);
        self.with_switch += u64::from(outcome.switched > 0);
        self.with_move += u64::from(outcome.moved > 0);
        self.with_regress += u64::from(outcome.regressed > 0);
        self.with_governed_attach += u64::from(outcome.governed > 0);
        self.replayed += outcome.replayed;
        self.duplicates += outcome.duplicates;
        self.attached += outcome.attached;
        self.switched += outcome.switched;
        self.moved += outcome.moved;
        self.regressed += outcome.regressed;
        self.delivered += outcome.delivered;
        self.lost += outcome.lost;
    }

    fn with(mut self, other: Self) -> Self {
        self.with_replay += other.with_replay;
        self.with_switch += other.with_switch;
        self.with_move += other.with_move;
        self.with_regress += other.with_regress;
        self.with_governed_attach += other.with_governed_attach;
        self.replayed += other.replayed;
        self.duplicates += other.duplicates;
        self.attached += other.attached;
        self.switched += other.switched;
        self.moved += other.moved;
        self.regressed += other.regressed;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.failed.extend(other.failed);
        self
    }
}

#[test]
fn nothing_is_replayed_or_doubled_while_nothing_breaks() {
    for seed in 0..20 {
        let outcome = schedule(seed, None, Faults::default());
        assert!(outcome.violations.is_empty(), "seed {seed}: {outcome:#?}");
        assert_eq!((outcome.replayed, outcome.duplicates), (0, 0), "seed {seed}");
        assert!(outcome.delivered > 0, "seed {seed}");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "how soon each bug is found is part of the proof")]
fn every_planted_bug_is_found() {
    let plants = [
        Plant::ForwardBeforeCommit,
        Plant::ReusedNumber,
        Plant::EphemeralWithoutMark,
        Plant::OutEphemeralWithoutTombstone,
        Plant::EventAboveWindow,
        Plant::DataBeforeOpen,
        Plant::CountGoesBack,
        Plant::RenumberedAfterRegress,
        Plant::EpochReused,
        Plant::AcksLostAfterSwitch,
        Plant::StaleAttachmentTaken,
        Plant::NumberGivenTwice,
    ];
    for plant in plants {
        let found = (0..PLANT_SCHEDULES).find_map(|seed| {
            let outcome = schedule(seed, Some(plant), ALL);
            outcome.violations.into_iter().next().map(|violation| (seed, violation))
        });
        let (seed, violation) = found.unwrap_or_else(|| panic!("{plant:?} was not found in {PLANT_SCHEDULES} schedules"));
        eprintln!("sim: {plant:?} found with seed {seed}: {violation}");
    }
}
