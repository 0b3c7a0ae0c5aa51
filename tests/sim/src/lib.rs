//! Seeded simulation of the tunnel's pure core.
//!
//! The core is pure, so it compiles without the rest: its sources are linked in here as they are, and Cargo.toml has this package
//! alone optimised under `cargo test`. `tests/it/sim.rs` runs the schedules.

#![allow(dead_code, reason = "only a part of the product is compiled here")]

pub mod fingerprint;
pub mod im;
/// Links, as far as the core names them.
pub mod link {
    mod revoked;
    pub use self::revoked::{NEVER_EXPIRES, RevokedLink};
}
pub mod session;
/// Floor 1, as far as it is simulated.
pub mod proto {
    pub mod tunnel;
}

mod carrier;
mod customer;
mod desk;
pub mod model;
mod oracle;
mod people;
mod rng;
mod trace;
mod world;

use std::time::Instant;

pub use self::world::{Faults, Outcome};

/// A bug for the oracle to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Plant {
    ForwardBeforeCommit,
    ReusedNumber,
    EphemeralWithoutMark,
    OutEphemeralWithoutTombstone,
    EventAboveWindow,
    DataBeforeOpen,
    CountGoesBack,
    RenumberedAfterRegress,
    EpochReused,
    AcksLostAfterSwitch,
    StaleAttachmentTaken,
    NumberGivenTwice,
}

/// Runs one schedule; virtual time counts from `start`.
pub fn schedule(seed: u64, plant: Option<Plant>, faults: Faults, start: Instant) -> Outcome {
    world::World::new(seed, plant, faults, start).run()
}

/// Runs one schedule and writes down what happens in it.
pub fn traced_schedule(seed: u64, faults: Faults, start: Instant) -> Outcome {
    world::World::new(seed, None, faults, start).traced().run()
}
