//! Whose turn it is on the data lane: deficit round robin over the channels that have something to send.
//!
//! Idle channels are not in the ring and cost nothing. A channel is in it at most once.

use std::collections::{HashMap, VecDeque};

/// Bytes a channel may send per turn.
const QUANTUM: usize = 16 * 1024;

/// The ring of active channels.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    ring: VecDeque<u32>,
    deficits: HashMap<u32, usize>,
}

impl Scheduler {
    /// The channel has something to send.
    pub(super) fn activate(&mut self, channel: u32) {
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.deficits.entry(channel) {
            vacant.insert(QUANTUM);
            self.ring.push_back(channel);
        }
    }

    /// The channel whose turn it is and what it may still send in this turn.
    pub(super) fn turn(&self) -> Option<(u32, usize)> {
        let channel = *self.ring.front()?;
        Some((channel, self.deficits.get(&channel).copied().unwrap_or(QUANTUM)))
    }

    /// The channel has `deficit` left and still has something to send: it keeps its turn, or goes to the back with a new quantum.
    pub(super) fn used(&mut self, deficit: usize) {
        let Some(&channel) = self.ring.front() else { return };
        if deficit == 0 {
            self.ring.rotate_left(1);
            self.deficits.insert(channel, QUANTUM);
        } else {
            self.deficits.insert(channel, deficit);
        }
    }

    /// The channel has nothing more to send.
    pub(super) fn rest(&mut self) {
        if let Some(channel) = self.ring.pop_front() {
            self.deficits.remove(&channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_sender_yields_to_small_ones_after_its_quantum() {
        let mut scheduler = Scheduler::default();
        scheduler.activate(1);
        scheduler.activate(3);
        scheduler.activate(1);
        assert_eq!(scheduler.turn(), Some((1, QUANTUM)));
        scheduler.used(100);
        assert_eq!(scheduler.turn(), Some((1, 100)));
        scheduler.used(0);
        assert_eq!(scheduler.turn(), Some((3, QUANTUM)));
        scheduler.rest();
        assert_eq!(scheduler.turn(), Some((1, QUANTUM)));
        scheduler.rest();
        assert_eq!(scheduler.turn(), None);
    }
}
