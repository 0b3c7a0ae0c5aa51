//! When a relay is dialled again: at once after an attachment that lived, else after a growing pause with full jitter; what the
//! relay asks for (`retry_after`) goes before both.

use std::time::{Duration, Instant};

/// First pause between dials, after the dial that follows a loss at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between dials.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// An attachment that lived this long was a good one: the next loss is dialled again at once. A relay that attaches and faults
/// at once is not hammered.
const GOOD_AFTER: Duration = Duration::from_secs(1);

/// When to dial.
#[derive(Debug)]
pub(super) struct Pace {
    dial_at: Option<Instant>,
    attached_at: Option<Instant>,
    failures: u32,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { dial_at: Some(now), attached_at: None, failures: 0 }
    }

    pub(super) fn dial_at(&self) -> Option<Instant> {
        self.dial_at
    }

    /// Whether to dial now; tells so once.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.dial_at.take_if(|at| *at <= now).is_some()
    }

    pub(super) fn attached(&mut self, now: Instant) {
        self.attached_at = Some(now);
        self.dial_at = None;
    }

    /// A carrier that stood is gone; `chance` is from 0 to 1.
    pub(super) fn lost(&mut self, now: Instant, chance: f64) {
        if self.attached_at.take().is_some_and(|at| now.saturating_duration_since(at) >= GOOD_AFTER) {
            self.failures = 0;
        }
        if self.failures == 0 {
            self.failures = 1;
            self.no_sooner(now);
        } else {
            self.failed(now, chance);
        }
    }

    /// A carrier was given up on purpose: no fault of the relay's to wait for.
    pub(super) fn given_up(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// A dial came to nothing; gives the pause.
    pub(super) fn failed(&mut self, now: Instant, chance: f64) -> Duration {
        let longest = LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(10)));
        self.failures = self.failures.saturating_add(1);
        let pause = longest.mul_f64(chance);
        self.no_sooner(now + pause);
        pause
    }

    /// Dials at `at` or later.
    pub(super) fn no_sooner(&mut self, at: Instant) {
        self.dial_at = Some(self.dial_at.map_or(at, |earlier| earlier.max(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn begun() -> (Pace, Instant) {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert!(pace.is_due(now) && !pace.is_due(now));
        (pace, now)
    }

    #[test]
    fn an_attachment_that_lived_is_dialled_again_at_once() {
        let (mut pace, now) = begun();
        for _ in 0..5 {
            pace.failed(now, 0.0);
        }
        pace.attached(now);
        assert!(!pace.is_due(now));
        pace.lost(now + GOOD_AFTER, 1.0);
        assert!(pace.is_due(now + GOOD_AFTER));
    }

    #[test]
    fn a_relay_that_attaches_and_faults_is_dialled_ever_more_slowly() {
        let (mut pace, now) = begun();
        for _ in 0..12 {
            pace.attached(now);
            pace.lost(now, 1.0);
        }
        pace.attached(now);
        pace.lost(now, 1.0);
        assert_eq!(pace.dial_at(), Some(now + LONGEST_PAUSE));
    }

    #[test]
    fn a_relay_that_asks_for_time_gets_it() {
        let (mut pace, now) = begun();
        let asked = now + Duration::from_secs(30);
        pace.no_sooner(asked);
        pace.lost(now, 1.0);
        assert_eq!(pace.dial_at(), Some(asked));
    }
}
