//! The wall clock, for the times of certificates and what HELLO tells.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 where the clock is before that.
#[expect(clippy::disallowed_methods, reason = "shells read the clock here and hand the time on")]
pub fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Seconds since 1970; 0 where the clock is before that.
#[expect(clippy::disallowed_methods, reason = "shells read the clock here and hand the time on")]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
