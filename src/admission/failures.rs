//! Logins that failed, of one prefix. Each is charged before anything is looked at and given back if it succeeds, so that guesses side
//! by side cost as much as one after the other. Beyond what is free, each further failure shuts the prefix out for longer.

use std::time::Duration;

/// Longest time that one failure shuts out for.
pub const LONGEST: Duration = Duration::from_secs(600);

/// What the first failure too many shuts out for; each one after it twice as long.
const FIRST: Duration = Duration::from_secs(10);

/// Strikes that are told apart: from here on each shuts out for the longest time.
const MOST_STRIKES: u32 = 6;

/// How many may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// So many cost nothing but themselves,
    pub free: u32,
    /// within so long.
    pub within: Duration,
}

/// What is remembered of one prefix. Times count from any one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// When all is forgiven.
    pub forgiven_at: Duration,
    /// Until when nobody is listened to.
    pub shut_until: Duration,
    /// Failures too many.
    pub strikes: u32,
}

impl Failures {
    /// Charges an attempt.
    ///
    /// # Errors
    /// Nobody is listened to for so long.
    pub fn charge(&mut self, tolerance: Tolerance, now: Duration) -> Result<(), Duration> {
        if let Some(wait) = self.shut_until.checked_sub(now).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        if self.forgiven_at <= now {
            *self = Self { forgiven_at: now, ..Self::default() };
        }
        self.forgiven_at += tolerance.one();
        if self.forgiven_at.saturating_sub(now) > tolerance.within {
            let shut = self.next_shut();
            self.shut_until = now + shut;
            // Nothing is forgiven while it is shut.
            self.forgiven_at += shut;
            self.strikes = (self.strikes + 1).min(MOST_STRIKES);
        }
        Ok(())
    }

    /// The attempt did not fail: its charge, and what it shut, are given back.
    pub fn forgive(&mut self, tolerance: Tolerance, now: Duration) {
        self.forgiven_at = self.forgiven_at.saturating_sub(tolerance.one());
        if self.shut_until > now {
            self.strikes = self.strikes.saturating_sub(1);
            self.forgiven_at = self.forgiven_at.saturating_sub(self.next_shut());
            self.shut_until = Duration::ZERO;
        }
    }

    /// When nothing of it matters any more.
    pub fn over_at(&self) -> Duration {
        self.forgiven_at.max(self.shut_until)
    }

    fn next_shut(&self) -> Duration {
        (FIRST * 2_u32.pow(self.strikes)).min(LONGEST)
    }
}

impl Tolerance {
    fn one(self) -> Duration {
        self.within / self.free.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance { free: 20, within: Duration::from_secs(600) };
    const START: Duration = Duration::from_secs(7);

    fn spent() -> Failures {
        let mut failures = Failures::default();
        for _ in 0..20 {
            assert_eq!(failures.charge(TOLERANCE, START), Ok(()));
        }
        failures
    }

    #[test]
    fn twenty_are_free_and_each_one_more_shuts_out_for_longer() {
        let mut failures = spent();
        let (mut now, mut waits) = (START, Vec::new());
        for _ in 0..9 {
            assert_eq!(failures.charge(TOLERANCE, now), Ok(()));
            let wait = failures.charge(TOLERANCE, now).unwrap_err();
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        assert_eq!(failures.charge(TOLERANCE, failures.over_at()), Ok(()));
        assert_eq!(failures.strikes, 0, "in the end all is forgiven");
    }

    #[test]
    fn a_login_that_succeeds_costs_nothing_even_where_one_more_failure_would_have_shut_the_door() {
        let mut failures = spent();
        let before = failures;
        for _ in 0..1000 {
            assert_eq!(failures.charge(TOLERANCE, START), Ok(()));
            failures.forgive(TOLERANCE, START);
        }
        assert_eq!(failures, before);
    }

    #[test]
    fn guesses_side_by_side_are_charged_before_the_first_is_answered() {
        let mut failures = spent();
        let heard = (0..100).filter(|_| failures.charge(TOLERANCE, START).is_ok()).count();
        assert_eq!(heard, 1);
    }
}
