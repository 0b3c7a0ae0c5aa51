//! What the program says about itself to those who run it.

pub mod audit;
pub mod log;
pub mod readiness;
mod utc;

pub use utc::utc;

/// The log target of a message's hops: TRACE, one event a hop, never what was said.
pub const HOP: &str = "outgate::hop";
