//! What all tunnels of a process hold for replay, and how much they may.
//!
//! One [`ReplayMemory`] is handed to every end of the process. When it is full, new sessions are refused and no window is
//! widened: what stands goes on within its reserve, and nothing is evicted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The replay memory of a process; clones are the same memory.
#[derive(Clone, Debug)]
pub struct ReplayMemory {
    limit: u64,
    held: Arc<AtomicU64>,
}

impl ReplayMemory {
    /// A memory of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, held: Arc::default() }
    }

    /// Bytes that it may hold.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether it holds what it may, or more.
    pub fn is_full(&self) -> bool {
        self.held() >= self.limit
    }

    pub(super) fn share(&self) -> Share {
        Share { held: self.held.clone(), mine: 0 }
    }
}

impl Default for ReplayMemory {
    /// Without a limit.
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

/// What one log holds of the memory; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    held: Arc<AtomicU64>,
    mine: u64,
}

impl Share {
    pub(super) fn add(&mut self, bytes: u64) {
        self.mine += bytes;
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn sub(&mut self, bytes: u64) {
        let bytes = bytes.min(self.mine);
        self.mine -= bytes;
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.fetch_sub(self.mine, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let memory = ReplayMemory::new(100);
        let (mut one, mut two) = (memory.share(), memory.share());
        one.add(60);
        two.add(60);
        assert!(memory.is_full());
        two.sub(30);
        assert_eq!((memory.held(), memory.is_full()), (90, false));
        drop(one);
        drop(two);
        assert_eq!(memory.held(), 0);
    }
}
