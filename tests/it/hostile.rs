//! Bad input against the real product: `outgate relay` and `outgate connector` as two processes, made from the shipped files.
//!
//! [`links`] that are wrong in every way, [`garbage`] before and after login, captured peers at the [`tunnel`], and a [`swarm`] of all
//! of it beside a live conversation ([`talker`]). The known attacks on [`xml`] have a test
//! each. What the relay itself could do at worst is in [`confinement`]. What was refused is read where an admin reads it: `outgate status --json`.

mod audit;
mod confinement;
mod descriptors;
mod garbage;
mod links;
mod site;
mod swarm;
mod talker;
mod tunnel;
mod xml;

use std::time::Duration;

/// How long anything may take that is not timed by the relay itself.
const PATIENCE: Duration = Duration::from_secs(20);
