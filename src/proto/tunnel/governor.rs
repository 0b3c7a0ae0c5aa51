//! A rate: so many a second, so many at once. What is refused is told when to come again, each one later than the one before.

use std::time::{Duration, Instant};

/// Furthest ahead that a refused one is sent.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// So many a second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// Holds to a [`Rate`].
#[derive(Debug)]
pub(super) struct Governor {
    interval: Duration,
    burst: Duration,
    /// When everything admitted so far is paid for.
    paid_at: Option<Instant>,
    /// The time that was told to the last one refused.
    told: Option<Instant>,
}

impl Governor {
    pub(super) fn new(rate: Rate) -> Self {
        let interval = Duration::from_secs(1) / rate.per_second.max(1);
        Self { interval, burst: interval * rate.burst.saturating_sub(1), paid_at: None, told: None }
    }

    /// Admits one, if it may pass now.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let paid_at = self.paid_at.map_or(now, |at| at.max(now));
        let admitted = paid_at <= now + self.burst;
        if admitted {
            self.paid_at = Some(paid_at + self.interval);
        }
        admitted
    }

    /// When the next one may pass; none was admitted before: at once.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.paid_at.and_then(|at| at.checked_sub(self.burst))
    }

    /// How long one that was refused should wait: those that come together are spread.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        let next = self.next_at().unwrap_or(now).max(now).max(self.told.map_or(now, |told| told + self.interval));
        let told = next.min(now + MAX_WAIT);
        self.told = Some(told);
        told.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn a_burst_passes_and_then_the_rate_holds_and_the_refused_are_spread() {
        let start = Instant::now();
        let mut governor = Governor::new(Rate { per_second: 10, burst: 3 });
        let passed = (0..5).filter(|_| governor.admit(start)).count();
        assert_eq!(passed, 3);
        let waits: Vec<Duration> = (0..3).map(|_| governor.wait(start)).collect();
        assert_eq!(waits, [100, 200, 300].map(Duration::from_millis));
        assert_eq!(governor.next_at(), Some(start + Duration::from_millis(100)));
        let later: usize = (1..=10).filter(|tenth| governor.admit(start + Duration::from_millis(100 * tenth))).count();
        assert_eq!(later, 10);
        assert!(!governor.admit(start + Duration::from_secs(1)));
        assert!((0..1000).map(|_| governor.wait(start)).all(|wait| wait <= MAX_WAIT));
    }
}
