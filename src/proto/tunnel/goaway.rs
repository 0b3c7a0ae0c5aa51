//! GOAWAY: one side says that it, or the carrier, is about to go, so that the replacement is built first.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::open::{BadValue, text};
use super::wire::{self, kind};

/// Most other addresses that are told.
pub const MAX_ALTERNATES: usize = 8;

/// The longest of them in bytes.
pub const MAX_ALTERNATE_BYTES: usize = 255;

/// Longest time that a GOAWAY speaks of.
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// What is about to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GoAwayReason {
    /// The process: the tunnel ends with it. Until then it works as before.
    Stopping,
    /// This carrier alone: another one to the same process resumes the tunnel.
    CarrierEnds,
}

/// GOAWAY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoAway {
    /// What goes.
    pub reason: GoAwayReason,
    /// In how much time.
    pub deadline: Duration,
    /// `HOST:PORT` of others that may be dialled instead.
    pub alternates: Vec<String>,
}

/// A GOAWAY that was said and holds for every carrier that attaches from now on.
#[derive(Debug)]
pub(super) struct Leaving {
    reason: GoAwayReason,
    until: Instant,
    alternates: Vec<String>,
}

impl Leaving {
    pub(super) fn new(goaway: GoAway, now: Instant) -> Self {
        Self { reason: goaway.reason, until: now + goaway.deadline.min(MAX_DEADLINE), alternates: goaway.alternates }
    }

    /// The frame, with the time that is left.
    pub(super) fn frame(&self, now: Instant) -> Bytes {
        let deadline = self.until.saturating_duration_since(now);
        goaway_frame(&GoAway { reason: self.reason, deadline, alternates: self.alternates.clone() })
    }
}

pub(super) fn goaway_frame(goaway: &GoAway) -> Bytes {
    let body = wire::GoAway {
        reason: match goaway.reason {
            GoAwayReason::Stopping => 1,
            GoAwayReason::CarrierEnds => 2,
        },
        deadline_millis: u64::try_from(goaway.deadline.min(MAX_DEADLINE).as_millis()).unwrap_or(u64::MAX),
        alternates: goaway.alternates.iter().take(MAX_ALTERNATES).cloned().collect(),
    };
    wire::encoded(kind::GOAWAY, 0, 0, &body)
}

pub(super) fn goaway_from_wire(goaway: wire::GoAway) -> Result<GoAway, BadValue> {
    if goaway.alternates.len() > MAX_ALTERNATES {
        return Err(BadValue);
    }
    let alternates = goaway.alternates.into_iter().map(|address| text(address, MAX_ALTERNATE_BYTES));
    Ok(GoAway {
        // A reason of a later version: the carrier goes in any case.
        reason: if goaway.reason == 1 { GoAwayReason::Stopping } else { GoAwayReason::CarrierEnds },
        deadline: Duration::from_millis(goaway.deadline_millis).min(MAX_DEADLINE),
        alternates: alternates.collect::<Result<_, _>>()?,
    })
}
