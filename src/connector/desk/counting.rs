//! What a client's `h` counts (XEP-0198), so that it says which outward events reached it, whoever wrote them.
//!
//! Each outward event is one stanza; the relay's own stanzas stand between them where OWN announced them before they were written.

use std::collections::VecDeque;

/// The outward account of one session whose client can resume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counting {
    /// The client's count stood at `count` right after outward event `event`.
    event: u64,
    count: u32,
    /// The relay's own stanzas after an event, from `event` on.
    own: VecDeque<(u64, u32)>,
}

/// What an `h` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// Events up to this one arrived.
    Event(u64),
    /// It is below one that was told before.
    Behind,
    /// It counts more than was ever written.
    Ahead,
}

impl Counting {
    /// The client's count begins, or goes on, at `count` after outward event `event`; `own` is in order.
    pub(super) fn new(event: u64, count: u32, own: impl IntoIterator<Item = (u64, u32)>) -> Self {
        Self { event, count, own: own.into_iter().filter(|(after, _)| *after >= event).collect() }
    }

    /// Where the count is anchored: an outward event, and the count right after it.
    pub(super) fn base(&self) -> (u64, u32) {
        (self.event, self.count)
    }

    /// The relay writes `count` stanzas of its own in all after outward event `after`.
    pub(super) fn own(&mut self, after: u64, count: u32) {
        if after < self.event {
            return;
        }
        match self.own.iter_mut().rev().find(|(at, _)| *at <= after) {
            Some((at, known)) if *at == after => *known = count.max(*known),
            Some(_) | None => {
                let index = self.own.iter().take_while(|(at, _)| *at < after).count();
                self.own.insert(index, (after, count));
            }
        }
    }

    /// What a client that counted `h` stanzas has, where outward events up to `last` were given.
    pub(super) fn reached(&self, h: u32, last: u64) -> Reached {
        let ahead = h.wrapping_sub(self.count);
        if ahead > u32::MAX / 2 {
            return Reached::Behind;
        }
        let (mut event, mut left) = (self.event, u64::from(ahead));
        for (after, own) in &self.own {
            let events = after - event;
            if left < events {
                return Reached::Event(event + left);
            }
            (event, left) = (*after, left - events);
            if left <= u64::from(*own) {
                return Reached::Event(event);
            }
            left -= u64::from(*own);
        }
        if event + left <= last { Reached::Event(event + left) } else { Reached::Ahead }
    }

    /// Whether own stanzas stand before outward event `number`.
    pub(super) fn has_own_before(&self, number: u64) -> bool {
        self.own.front().is_some_and(|(after, _)| *after < number)
    }

    /// Outward events up to `number` are confirmed: the account begins there. Tells whether it moved.
    pub(super) fn confirm(&mut self, number: u64) -> bool {
        if number <= self.event {
            return false;
        }
        let mut stanzas = number - self.event;
        while let Some((_, own)) = self.own.pop_front_if(|(after, _)| *after < number) {
            stanzas += u64::from(own);
        }
        self.event = number;
        // Counts wrap, as the XEP has them.
        self.count = self.count.wrapping_add(stanzas as u32);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two own, event 1, event 2, three own, event 3.
    fn account() -> Counting {
        let mut counting = Counting::new(0, 0, []);
        counting.own(0, 1);
        counting.own(0, 2);
        counting.own(2, 3);
        counting
    }

    #[test]
    fn a_count_names_the_last_event_within_it() {
        let reached: Vec<_> = (0..=8).map(|h| account().reached(h, 3)).collect();
        let event = Reached::Event;
        let ends = [event(0), event(0), event(0), event(1), event(2), event(2), event(2), event(2), event(3)];
        assert_eq!(reached, ends);
        assert_eq!(account().reached(9, 3), Reached::Ahead);
        assert_eq!(account().reached(9, 4), event(4));
        assert_eq!(account().reached(u32::MAX, 4), Reached::Behind);
    }

    #[test]
    fn wherever_the_account_begins_anew_a_count_names_the_same_event() {
        for confirmed in 0..=3 {
            let mut counting = account();
            assert_eq!(counting.confirm(confirmed), confirmed > 0);
            for h in 0..=9 {
                let before = account().reached(h, 4);
                let known = matches!(before, Reached::Event(event) if event >= confirmed);
                if known {
                    assert_eq!(counting.reached(h, 4), before, "h {h} with {confirmed} confirmed");
                }
            }
        }
    }

    #[test]
    fn own_stanzas_of_before_the_base_and_repetitions_change_nothing() {
        let mut counting = account();
        counting.confirm(2);
        counting.own(1, 9);
        counting.own(2, 1);
        assert_eq!((counting.base(), counting.reached(7, 3)), ((2, 4), Reached::Event(2)));
        assert_eq!(counting.reached(8, 3), Reached::Event(3));
    }

    #[test]
    fn counts_wrap() {
        let mut counting = Counting::new(5, u32::MAX - 1, []);
        assert_eq!(counting.reached(1, 9), Reached::Event(8));
        assert!(counting.confirm(8));
        assert_eq!(counting.base(), (8, 1));
        assert_eq!(counting.reached(u32::MAX, 9), Reached::Behind);
    }
}
