//! Seeded simulation of the tunnel core: two real ends, a model desk with a store that lags and crashes, customers, and
//! carriers that delay and break at any byte; an oracle that wants every event once and in order.
//!
//! `OUTGATE_SIM_SEED=n` replays one schedule, `OUTGATE_SIM_SCHEDULES=n` sets how many are run.

mod carrier;
mod customer;
mod desk;
mod rng;
mod rules;
mod world;

use std::time::Instant;

use self::world::{Faults, Outcome, World};

/// Schedules of the main test where nothing else is asked for.
const SCHEDULES: u64 = 600;

/// Schedules within which each planted bug must be found.
const PLANT_SCHEDULES: u64 = 60;

const ALL: Faults = Faults { cuts: 12, connector_crashes: 5, relay_crashes: 1 };

/// A bug for the oracle to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    ForwardBeforeCommit,
    ReusedNumber,
    EphemeralWithoutMark,
    OutEphemeralWithoutTombstone,
    EventAboveWindow,
    DataBeforeOpen,
    CountGoesBack,
}

#[expect(clippy::disallowed_methods, reason = "virtual time counts from some instant")]
fn schedule(seed: u64, plant: Option<Plant>, faults: Faults) -> Outcome {
    World::new(seed, plant, Instant::now()).run(faults)
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
    let (mut with_replay, mut total) = (0, Outcome::default());
    for seed in 0..count {
        let outcome = schedule(seed, None, ALL);
        assert!(outcome.violations.is_empty(), "replay with OUTGATE_SIM_SEED={seed}: {outcome:#?}");
        with_replay += u64::from(outcome.replayed > 0);
        total.replayed += outcome.replayed;
        total.duplicates += outcome.duplicates;
        total.attached += outcome.attached;
        total.delivered += outcome.delivered;
    }
    eprintln!("sim: {count} schedules, a replay in {with_replay}: {total:?}");
    assert!(with_replay * 2 > count, "only {with_replay} of {count} schedules replayed anything");
}

#[test]
fn nothing_is_replayed_or_doubled_while_nothing_breaks() {
    for seed in 0..20 {
        let outcome = schedule(seed, None, Faults { cuts: 0, connector_crashes: 0, relay_crashes: 0 });
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
