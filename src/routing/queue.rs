//! A queue's waiting line: first come, first served, by the time each session was first queued.

use std::collections::BTreeSet;

use crate::session::SessionId;

/// Sessions that wait, in order.
#[derive(Clone, Debug, Default)]
pub struct WaitingLine {
    waiting: BTreeSet<(u64, SessionId)>,
}

impl WaitingLine {
    /// Puts a session in at the place that `enqueued_at` (milliseconds since the Unix epoch) gives it.
    pub fn join(&mut self, enqueued_at: u64, session: SessionId) {
        self.waiting.insert((enqueued_at, session));
    }

    /// Takes a session out; tells whether it was there.
    pub fn leave(&mut self, enqueued_at: u64, session: SessionId) -> bool {
        self.waiting.remove(&(enqueued_at, session))
    }

    /// The place of a session, 1 for the next to be served.
    pub fn position(&self, enqueued_at: u64, session: SessionId) -> usize {
        self.waiting.range(..(enqueued_at, session)).count() + 1
    }

    /// The time of queueing that puts a session at the head: never later than its own.
    pub fn head_place(&self, enqueued_at: u64) -> u64 {
        self.waiting.first().map_or(enqueued_at, |(first, _)| enqueued_at.min(first.saturating_sub(1)))
    }

    /// All that wait, the next to be served first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, SessionId)> + '_ {
        self.waiting.iter().copied()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(n: u8) -> SessionId {
        SessionId::new(1, [n; 10])
    }

    #[test]
    fn place_follows_the_time_of_queueing_and_survives_leaving() {
        let mut line = WaitingLine::default();
        line.join(20, session(2));
        line.join(10, session(1));
        assert_eq!(line.position(20, session(2)), 2);
        assert!(line.leave(10, session(1)));
        assert_eq!(line.position(20, session(2)), 1);
        line.join(10, session(1));
        assert_eq!(line.iter().next(), Some((10, session(1))));
    }

    #[test]
    fn head_place_is_before_all_others() {
        let mut line = WaitingLine::default();
        assert_eq!(line.head_place(30), 30);
        line.join(20, session(2));
        line.join(line.head_place(30), session(1));
        assert_eq!(line.iter().next().map(|(_, first)| first), Some(session(1)));
    }
}
