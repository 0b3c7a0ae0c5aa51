//! Credit that adds up: what a receiver may promise to its senders.
//!
//! A channel's *window* is how many bytes of numbered frames its sender may have sent and not yet seen handled. Every channel
//! has [`RESERVE`]; a channel with nothing in flight may always send one event, however large. All above that comes out of
//! one [`Pool`] per tunnel and direction, in steps, and goes back when the channel is idle and another wants it.

use std::time::{Duration, Instant};

use super::memory::ReplayMemory;

/// Every channel's window, always.
pub(super) const RESERVE: u32 = 2 * 1024;

/// A busy channel's first and second wider window.
const STEPS: [u32; 2] = [64 * 1024, 256 * 1024];

/// Widest window; what a sender believes at most.
pub(super) const WIDEST: u32 = STEPS[1];

/// Most events in flight on one channel.
pub(super) const MAX_IN_FLIGHT: u64 = 64;

/// What an event costs beside its body: its entry in a log.
const ENTRY_COST: u32 = 32;

/// Bytes of the pool.
const POOL_BYTES: u64 = 64 * 1024 * 1024;

/// Without progress for this long a channel gets nothing while the pool is short.
const STALLED: Duration = Duration::from_secs(5);

/// What one event costs of its channel's window.
pub(super) fn cost(body_len: usize) -> u32 {
    u32::try_from(body_len).unwrap_or(u32::MAX).saturating_add(ENTRY_COST)
}

/// The shared part of all windows of one tunnel and direction.
#[derive(Debug)]
pub(super) struct Pool {
    free: u64,
    memory: ReplayMemory,
}

impl Pool {
    pub(super) fn new(memory: &ReplayMemory) -> Self {
        Self { free: POOL_BYTES, memory: memory.clone() }
    }

    /// Widens `window` by a step if there is room; tells whether it grew.
    pub(super) fn widen(&mut self, window: &mut u32, last_progress: Instant, now: Instant) -> bool {
        let Some(next) = STEPS.into_iter().find(|step| step > window) else { return false };
        let want = u64::from(next - *window);
        let stalled = now.saturating_duration_since(last_progress) >= STALLED;
        if want > self.free || (stalled && self.free < POOL_BYTES / 4) || self.memory.is_full() {
            return false;
        }
        self.free -= want;
        *window = next;
        true
    }

    /// Whether idle channels should give back what they have beyond their reserve.
    pub(super) fn is_short(&self) -> bool {
        self.free < POOL_BYTES / 2
    }

    /// Takes back all of `window` beyond the reserve.
    pub(super) fn give_back(&mut self, window: &mut u32) {
        self.free = (self.free + u64::from(window.saturating_sub(RESERVE))).min(POOL_BYTES);
        *window = RESERVE;
    }

    /// Bytes promised beyond the reserves.
    #[cfg(test)]
    pub(super) fn promised(&self) -> u64 {
        POOL_BYTES - self.free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn the_pool_never_promises_more_than_it_has() {
        let now = Instant::now();
        let mut pool = Pool::new(&ReplayMemory::default());
        let mut windows = vec![RESERVE; 20_000];
        for _ in 0..2 {
            for window in &mut windows {
                pool.widen(window, now, now);
            }
        }
        let promised: u64 = windows.iter().map(|window| u64::from(window - RESERVE)).sum();
        assert_eq!(promised, pool.promised());
        assert!(promised <= POOL_BYTES && promised > POOL_BYTES / 2);
        for window in &mut windows {
            pool.give_back(window);
        }
        assert_eq!(pool.promised(), 0);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn a_short_pool_gives_nothing_to_a_stalled_channel() {
        let start = Instant::now();
        let mut pool = Pool { free: POOL_BYTES / 4 - 1, memory: ReplayMemory::default() };
        let mut window = RESERVE;
        assert!(!pool.widen(&mut window, start, start + STALLED));
        assert!(pool.widen(&mut window, start, start));
    }
}
