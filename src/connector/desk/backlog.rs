//! A session's inward events that are not known to have reached anyone, in order.
//!
//! All that is asked for each message takes constant time: what was not written yet, how much is on which leg, how far delivery
//! has come. Only the end of a leg looks through it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::LegId;

/// An inward event that is not known to have reached anyone.
#[derive(Clone, Debug)]
pub(super) struct Undelivered {
    pub(super) body: Bytes,
    pub(super) at: u64,
    /// Whether it may have been shown before.
    pub(super) maybe_shown: bool,
    on: Option<LegId>,
}

impl Undelivered {
    pub(super) fn new(body: Bytes, at: u64, maybe_shown: bool) -> Self {
        Self { body, at, maybe_shown, on: None }
    }

    /// The leg it was written or queued to.
    pub(super) fn on(&self) -> Option<LegId> {
        self.on
    }
}

/// The events of one session.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    events: BTreeMap<u64, Undelivered>,
    /// Bytes of their bodies.
    bytes: usize,
    /// Numbers on no leg, in order.
    unwritten: VecDeque<u64>,
    /// How many are on each leg: one, or two while the work moves.
    written: Vec<(LegId, usize)>,
}

impl Backlog {
    /// Takes in the next event, which is on no leg.
    pub(super) fn push(&mut self, number: u64, event: Undelivered) {
        debug_assert!(event.on.is_none() && self.events.last_key_value().is_none_or(|(last, _)| *last < number));
        self.bytes += event.body.len();
        self.events.insert(number, event);
        self.unwritten.push_back(number);
    }

    /// The first event that is on no leg is on `leg` from now on: what to write there.
    pub(super) fn write_next(&mut self, leg: LegId) -> Option<(u64, Undelivered)> {
        let number = self.unwritten.pop_front()?;
        let event = self.events.get_mut(&number)?;
        let to_write = event.clone();
        event.on = Some(leg);
        event.maybe_shown = true;
        self.count(leg);
        Some((number, to_write))
    }

    /// Event `number` is known to be on `leg` already.
    pub(super) fn claim(&mut self, number: u64, leg: LegId) {
        let Some(event) = self.events.get_mut(&number).filter(|event| event.on.is_none()) else { return };
        event.on = Some(leg);
        self.count(leg);
        self.unwritten.retain(|unwritten| *unwritten != number);
    }

    /// Event `number` has reached the client of `leg`.
    pub(super) fn prove(&mut self, number: u64, leg: LegId) {
        if self.events.get(&number).is_some_and(|event| event.on == Some(leg)) {
            self.bytes -= self.events.remove(&number).map_or(0, |event| event.body.len());
            self.discount(leg, 1);
        }
    }

    /// `leg` is over: what it had not proven is on no leg.
    pub(super) fn release(&mut self, leg: LegId) {
        if self.written_on(leg) > 0 {
            self.take_back(|event| {
                if event.on == Some(leg) {
                    event.on = None;
                }
            });
        }
    }

    /// The next owner has seen nothing of it.
    pub(super) fn release_all(&mut self) {
        self.take_back(|event| {
            event.on = None;
            event.maybe_shown = false;
        });
    }

    /// What is on no leg was never written to one.
    pub(super) fn nothing_unwritten_was_shown(&mut self) {
        for number in &self.unwritten {
            if let Some(event) = self.events.get_mut(number) {
                event.maybe_shown = false;
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.events.contains_key(&number)
    }

    /// The lowest number in it.
    pub(super) fn first(&self) -> Option<u64> {
        self.events.first_key_value().map(|(first, _)| *first)
    }

    /// How many are on no leg, or on one that is down.
    pub(super) fn waiting(&self, is_up: impl Fn(LegId) -> bool) -> usize {
        let on_its_way: usize = self.written.iter().filter(|(leg, _)| is_up(*leg)).map(|(_, count)| count).sum();
        self.events.len() - on_its_way
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of those on no leg, or on one that is down. Looks through all: to be asked where [`Backlog::bytes`] is large.
    pub(super) fn waiting_bytes(&self, is_up: impl Fn(LegId) -> bool) -> usize {
        self.events.values().filter(|event| !event.on.is_some_and(&is_up)).map(|event| event.body.len()).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Undelivered)> {
        self.events.iter().map(|(number, event)| (*number, event))
    }

    fn take_back(&mut self, mut change: impl FnMut(&mut Undelivered)) {
        self.unwritten.clear();
        self.written.clear();
        let mut counts: Vec<LegId> = Vec::new();
        for (number, event) in &mut self.events {
            change(event);
            match event.on {
                Some(leg) => counts.push(leg),
                None => self.unwritten.push_back(*number),
            }
        }
        for leg in counts {
            self.count(leg);
        }
    }

    fn written_on(&self, leg: LegId) -> usize {
        self.written.iter().find(|(on, _)| *on == leg).map_or(0, |(_, count)| *count)
    }

    fn count(&mut self, leg: LegId) {
        match self.written.iter_mut().find(|(on, _)| *on == leg) {
            Some((_, count)) => *count += 1,
            None => self.written.push((leg, 1)),
        }
    }

    fn discount(&mut self, leg: LegId, by: usize) {
        if let Some((_, count)) = self.written.iter_mut().find(|(on, _)| *on == leg) {
            *count -= by;
        }
        self.written.retain(|(_, count)| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(numbers: std::ops::RangeInclusive<u64>) -> Backlog {
        let mut backlog = Backlog::default();
        numbers.for_each(|number| backlog.push(number, Undelivered::new(Bytes::new(), 0, false)));
        backlog
    }

    fn written(backlog: &mut Backlog, leg: LegId) -> Vec<u64> {
        std::iter::from_fn(|| backlog.write_next(leg)).map(|(number, _)| number).collect()
    }

    #[test]
    fn what_a_leg_did_not_prove_is_written_to_the_next_in_order_and_once() {
        let (old, new) = (LegId(1), LegId(2));
        let mut backlog = backlog(1..=4);
        assert_eq!(written(&mut backlog, old), [1, 2, 3, 4]);
        assert_eq!(written(&mut backlog, old), [0; 0]);
        backlog.prove(1, old);
        backlog.prove(2, new);
        backlog.push(5, Undelivered::new(Bytes::new(), 0, false));
        assert_eq!(written(&mut backlog, new), [5]);
        backlog.release(old);
        assert!(backlog.iter().all(|(number, event)| event.maybe_shown && (event.on() == Some(new)) == (number == 5)));
        assert_eq!(written(&mut backlog, new), [2, 3, 4]);
        assert_eq!((backlog.first(), backlog.len()), (Some(2), 4));
    }

    #[test]
    fn what_waits_is_what_no_leg_that_is_up_has() {
        let (down, up) = (LegId(1), LegId(2));
        let mut backlog = backlog(1..=6);
        backlog.claim(1, down);
        backlog.claim(2, down);
        backlog.claim(4, up);
        assert_eq!(backlog.waiting(|leg| leg == up), 5);
        assert_eq!(backlog.waiting(|_| true), 3);
        backlog.prove(4, up);
        assert_eq!(backlog.waiting(|leg| leg == up), 5);
        backlog.release_all();
        assert_eq!(backlog.waiting(|_| true), 5);
        assert_eq!(written(&mut backlog, up), [1, 2, 3, 5, 6]);
    }
}
