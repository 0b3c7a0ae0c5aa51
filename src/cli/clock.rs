//! The wall clock and times, as all verbs read and write them.

pub use crate::net::wall_clock::unix_now;
pub(super) use crate::telemetry::utc as rfc3339;
