//! What one session may send: bytes and messages, each so many a second and so many at once.
//!
//! What has arrived is charged, and then nothing more is read until it is paid for: the client's own transport holds it back. Whoever
//! presses against that for long without a pause is cut.

use std::time::{Duration, Instant};

/// So many a second in the long run, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once.
    pub at_once: u32,
}

/// What a session may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Bytes of any kind.
    pub bytes: Rate,
    /// Messages and presences: what may go on to the LAN. What the relay answers by itself is charged as bytes.
    pub messages: Rate,
    /// How long a client may press against either.
    pub patience: Duration,
}

impl Default for Allowance {
    /// Dino sends 24 kB in 53 stanzas within two seconds of bind, few of them messages; nobody types five messages a second.
    fn default() -> Self {
        Self {
            bytes: Rate { per_second: 10_000, at_once: 64 * 1024 },
            messages: Rate { per_second: 5, at_once: 10 },
            patience: Duration::from_secs(300),
        }
    }
}

/// One session's account.
#[derive(Debug)]
pub struct Quota {
    bytes: Bucket,
    messages: Bucket,
    patience: Duration,
    pressed_since: Option<Instant>,
}

impl Quota {
    /// Nothing is charged yet.
    pub fn new(allowance: Allowance) -> Self {
        let Allowance { bytes, messages, patience } = allowance;
        Self { bytes: Bucket::new(bytes), messages: Bucket::new(messages), patience, pressed_since: None }
    }

    /// Charges bytes that were read.
    pub fn charge_bytes(&mut self, count: usize, now: Instant) {
        self.bytes.charge(u32::try_from(count).unwrap_or(u32::MAX), now);
        self.mind_pressure(now);
    }

    /// Charges a message that was read.
    pub fn charge_message(&mut self, now: Instant) {
        self.messages.charge(1, now);
        self.mind_pressure(now);
    }

    /// Until when nothing more is to be read, where that is so.
    pub fn held_until(&self, now: Instant) -> Option<Instant> {
        self.bytes.free_at().max(self.messages.free_at()).filter(|free| *free > now)
    }

    /// Whether the client has pressed against its allowance for too long.
    pub fn is_over(&self, now: Instant) -> bool {
        self.pressed_since.is_some_and(|since| now.saturating_duration_since(since) >= self.patience)
    }

    /// Pressure begins when an allowance is used up, and ends once half of each is there again.
    fn mind_pressure(&mut self, now: Instant) {
        if self.held_until(now).is_some() {
            self.pressed_since.get_or_insert(now);
        } else if self.bytes.is_half_free(now) && self.messages.is_half_free(now) {
            self.pressed_since = None;
        }
    }
}

/// Fills with time and is emptied by charges; it may be charged beyond what it has.
#[derive(Debug)]
struct Bucket {
    one: Duration,
    burst: Duration,
    /// When all that was charged is paid for.
    paid_at: Option<Instant>,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        let one = Duration::from_secs(1) / rate.per_second.max(1);
        Self { one, burst: one * rate.at_once.max(1), paid_at: None }
    }

    fn charge(&mut self, count: u32, now: Instant) {
        let from = self.paid_at.map_or(now, |paid| paid.max(now));
        self.paid_at = from.checked_add(self.one * count);
    }

    /// When one more may come.
    fn free_at(&self) -> Option<Instant> {
        self.paid_at?.checked_sub(self.burst)?.checked_add(self.one)
    }

    fn is_half_free(&self, now: Instant) -> bool {
        self.paid_at.is_none_or(|paid| paid.saturating_duration_since(now) <= self.burst / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test starts its clock anywhere")]
    fn begin() -> (Quota, Instant) {
        (Quota::new(Allowance::default()), Instant::now())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn ten_messages_pass_at_once_then_five_a_second() {
        let (mut quota, start) = begin();
        for _ in 0..10 {
            assert_eq!(quota.held_until(start), None);
            quota.charge_message(start);
        }
        assert_eq!(quota.held_until(start), Some(start + SECOND / 5));
        let mut now = start;
        let mut passed = 0;
        while now < start + 10 * SECOND {
            now = quota.held_until(now).unwrap_or(now);
            quota.charge_message(now);
            passed += 1;
        }
        assert_eq!(passed, 50);
    }

    #[test]
    fn what_a_client_sends_at_login_passes_and_a_flood_of_bytes_is_held_to_its_rate() {
        let (mut quota, start) = begin();
        for _ in 0..3 {
            quota.charge_bytes(8192, start);
        }
        assert_eq!(quota.held_until(start), None, "24 kB at once");
        let (mut now, mut sent) = (start, 0);
        while now < start + 60 * SECOND {
            quota.charge_bytes(8192, now);
            sent += 8192;
            now = quota.held_until(now).unwrap_or(now);
        }
        assert!((600_000..700_000).contains(&sent), "{sent} bytes in a minute");
    }

    #[test]
    fn who_presses_without_a_pause_is_cut_in_the_end_and_who_pauses_is_not() {
        let (mut quota, start) = begin();
        let mut now = start;
        while now < start + 302 * SECOND {
            quota.charge_message(now);
            assert!(!quota.is_over(now) || now >= start + 300 * SECOND);
            now = quota.held_until(now).unwrap_or(now);
        }
        assert!(quota.is_over(now));

        let (mut quota, mut now) = begin();
        for _ in 0..600 {
            for _ in 0..6 {
                now = quota.held_until(now).unwrap_or(now);
                quota.charge_message(now);
            }
            now += 2 * SECOND;
            assert!(!quota.is_over(now));
        }
    }
}
