//! What one relay may ask for, should it be captured: new sessions at a bounded rate, a bounded number of them unanswered, a share
//! of these for strangers without a signed link, and none while the store has no room.
//!
//! Returns of known sessions are never held back here: that a customer is known is proven by his secret.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::proto::tunnel::RefusalCode;

use super::admission::Refusal;

/// New sessions that may be unanswered at one time, for one relay: as many as a relay asks for.
const MAX_PENDING: usize = 1024;

/// Those of them without a verified signature.
const MAX_PENDING_UNSIGNED: usize = MAX_PENDING / 4;

/// How many CHECKs there may be for each OPEN: a customer has three tries, and the honest ones use one.
const CHECKS_PER_OPEN: u32 = 4;

/// How fast one relay may open new sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRate {
    /// In the long run.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

impl Default for OpenRate {
    fn default() -> Self {
        Self { per_second: 50, burst: 500 }
    }
}

/// Room on the store's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// How much of the store's disk is kept free of new sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceFloor {
    /// Bytes.
    pub bytes: u64,
    /// Hundredths of the whole.
    pub percent: u32,
}

impl Default for SpaceFloor {
    fn default() -> Self {
        Self { bytes: 1 << 30, percent: 5 }
    }
}

impl SpaceFloor {
    /// Whether there is less room than this.
    pub(super) fn is_undercut(&self, space: Space) -> bool {
        let percent = u128::from(space.total) * u128::from(self.percent) / 100;
        space.free < self.bytes || u128::from(space.free) < percent
    }
}

/// A new session that is accepted and whose answer has not left yet; dropped when it has.
#[derive(Clone, Debug)]
pub struct Pending {
    _place: Arc<()>,
}

/// The account of one relay.
#[derive(Debug)]
pub(super) struct RelayDoor {
    opens: Bucket,
    checks: Bucket,
    signed: Arc<()>,
    unsigned: Arc<()>,
}

impl RelayDoor {
    pub(super) fn new(rate: OpenRate, now: Instant) -> Self {
        let times = |count: u32| count.saturating_mul(CHECKS_PER_OPEN);
        let checks = OpenRate { per_second: times(rate.per_second), burst: times(rate.burst) };
        Self { opens: Bucket::new(rate, now), checks: Bucket::new(checks, now), signed: Arc::default(), unsigned: Arc::default() }
    }

    /// Takes a new session from the relay's rate.
    pub(super) fn open(&mut self, now: Instant) -> Result<(), Refusal> {
        if self.opens.take(now) { Ok(()) } else { Err(busy("opens-too-fast")) }
    }

    /// Takes a question from the relay's rate.
    pub(super) fn check(&mut self, now: Instant) -> Result<(), Refusal> {
        if self.checks.take(now) { Ok(()) } else { Err(busy("checks-too-fast")) }
    }

    /// A place among the unanswered sessions.
    pub(super) fn admit(&self, signature: Signature) -> Result<Pending, Refusal> {
        let (signed, unsigned) = (held(&self.signed), held(&self.unsigned));
        if signed + unsigned >= MAX_PENDING {
            return Err(busy("opens-pending"));
        }
        match signature {
            Signature::Verified => Ok(Pending { _place: Arc::clone(&self.signed) }),
            Signature::None if unsigned >= MAX_PENDING_UNSIGNED => Err(busy("opens-unsigned")),
            Signature::None => Ok(Pending { _place: Arc::clone(&self.unsigned) }),
        }
    }
}

/// Whether a link was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signature {
    /// Here, with a trusted key.
    Verified,
    /// There is none: the queue is public.
    None,
}

/// Clones of `place` that are out.
fn held(place: &Arc<()>) -> usize {
    Arc::strong_count(place) - 1
}

pub(super) fn busy(reason: &'static str) -> Refusal {
    let text = "Too many people are waiting at the moment. Please try again soon.".to_owned();
    Refusal { code: RefusalCode::Busy, reason, text }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    rate: OpenRate,
    tokens: u32,
    /// Up to when tokens were given.
    filled: Instant,
}

impl Bucket {
    fn new(rate: OpenRate, now: Instant) -> Self {
        Self { rate, tokens: rate.burst, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let each = Duration::from_secs(1) / self.rate.per_second.max(1);
        let due = now.saturating_duration_since(self.filled).as_nanos() / each.as_nanos().max(1);
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        if due >= self.rate.burst - self.tokens {
            self.tokens = self.rate.burst;
            self.filled = now;
        } else {
            self.tokens += due;
            self.filled += each * due;
        }
        let has_one = self.tokens > 0;
        self.tokens -= u32::from(has_one);
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn a_relay_has_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(OpenRate::default(), start);
        assert_eq!((0..2000).filter(|_| bucket.take(start)).count(), 500);
        let second = |n: u64| (0..1000).map(move |ms| start + Duration::from_millis(1000 * n + ms));
        assert_eq!(second(1).filter(|at| bucket.take(*at)).count(), 99, "what the first second gave, and 50 less one step");
        assert_eq!(second(2).filter(|at| bucket.take(*at)).count(), 50);
        assert_eq!((0..2000).filter(|_| bucket.take(start + Duration::from_secs(3600))).count(), 500);
    }

    #[test]
    fn either_floor_is_enough_to_be_low() {
        let floor = SpaceFloor::default();
        let space = |free: u64, total: u64| Space { free: free << 30, total: total << 30 };
        assert!(!floor.is_undercut(space(6, 100)));
        assert!(floor.is_undercut(space(4, 100)), "below 5 %");
        assert!(floor.is_undercut(Space { free: (1 << 30) - 1, total: 4 << 30 }), "below 1 GiB");
        assert!(!floor.is_undercut(Space { free: u64::MAX, total: u64::MAX }));
    }
}
