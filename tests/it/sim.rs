//! Seeded simulation of the tunnel core: two real ends, a model desk with a store that lags and crashes, customers, and
//! carriers that delay and break at any byte; an oracle that wants every event once and in order.
//!
//! `OUTGATE_SIM_SEED=n` replays one schedule, `OUTGATE_SIM_SCHEDULES=n` sets how many are run.

mod faults;
mod limits;
mod model;
mod pair;
mod rules;
mod switch;
mod versions;

use std::time::Instant;

use outgate_sim::{Faults, Outcome, Plant};

/// Schedules of the main test where nothing else is asked for.
const SCHEDULES: u64 = 600;

/// Schedules within which each planted bug must be found.
const PLANT_SCHEDULES: u64 = 1000;

const ALL: Faults =
    Faults { cuts: 20, connector_crashes: 8, relay_crashes: 3, switches: 30, goaways: 5, holes: 3, duplicates: 5, moves: 6, regresses: 12 };

#[expect(clippy::disallowed_methods, reason = "virtual time counts from some instant")]
fn schedule(seed: u64, plant: Option<Plant>, faults: Faults) -> Outcome {
    outgate_sim::schedule(seed, plant, faults, Instant::now())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
#[expect(clippy::print_stderr, reason = "how many schedules replayed is part of the proof")]
fn every_event_arrives_once_and_in_order_whatever_breaks() {
    if let Some(seed) = number("OUTGATE_SIM_SEED") {
        let outcome = schedule(seed, None, ALL);
        assert!(outcome.violations.is_empty(), "seed {seed}: {outcome:#?}");
        return;
    }
    let count = number("OUTGATE_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let mut tally = Tally::default();
    for seed in 0..count {
        let outcome = schedule(seed, None, ALL);
        assert!(outcome.violations.is_empty(), "replay with OUTGATE_SIM_SEED={seed}: {outcome:#?}");
        tally.add(&outcome);
    }
    eprintln!("sim: {count} schedules: {tally:?}");
    assert!(tally.with_replay * 2 > count, "few schedules replayed anything: {tally:?}");
    assert!(tally.with_switch * 5 > count, "few schedules switched: {tally:?}");
    assert!(tally.with_move * 5 > count, "in few schedules a session went on elsewhere: {tally:?}");
    assert!(tally.with_regress * 100 > count, "in few schedules an older store ended a session: {tally:?}");
    let words = format!("{count} schedules, a replay in {}", tally.with_replay);
    crate::fault_table::tallied(43, usize::try_from(tally.delivered).unwrap(), None, &words);
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
