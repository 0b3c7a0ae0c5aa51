//! A captured relay, a captured connector: what each can ask for, and that it gets no more. Each side under test is the real one over
//! a real QUIC carrier; the captured one is its tunnel end driven by hand, or frames by hand.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test waits for a few of many events")]

mod captured_connector;
mod captured_relay;
pub(crate) mod company;
mod fake;
mod several;

use std::time::Duration;

/// Far above what anything here takes: a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
