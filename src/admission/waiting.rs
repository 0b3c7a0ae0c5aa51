//! Strangers who have a place and have not shown yet that they mean it. Where there are too many, one gives way to the newcomer.
//!
//! Who means it is through in a few round trips; who only waits must not keep him out. Whoever has waited longest gives way: of the
//! newcomer's own address or network where that has all that it may have, else of the network that has most places, so that a crowd makes
//! room before a neighbourhood of one does.

use std::collections::{BTreeMap, BTreeSet};

use super::headcount::Bounds;
use super::source::{Prefix, Source};

/// One's place; the later, the larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// All who wait, each with what is needed to send him away.
#[derive(Debug)]
pub struct Waiting<T> {
    in_all: usize,
    issued: u64,
    /// Without a source: of no prefix, but for the place he takes.
    places: BTreeMap<Ticket, (Option<Source>, T)>,
    of: BTreeMap<Prefix, BTreeSet<Ticket>>,
    /// Networks by how many wait of them.
    crowds: BTreeSet<(usize, Prefix)>,
}

impl<T> Waiting<T> {
    /// Nobody yet, and never more than `in_all`.
    pub fn new(in_all: usize) -> Self {
        Self { in_all, issued: 0, places: BTreeMap::new(), of: BTreeMap::new(), crowds: BTreeSet::new() }
    }

    /// A newcomer takes a place; second who gives way to him, if somebody must.
    pub fn enter(&mut self, source: Option<Source>, bounds: Bounds, newcomer: T) -> (Ticket, Option<T>) {
        let leaves = self.who_leaves(source, bounds).and_then(|ticket| self.leave(ticket));
        self.issued += 1;
        let ticket = Ticket(self.issued);
        self.places.insert(ticket, (source, newcomer));
        if let Some(Source { address, network }) = source {
            self.of.entry(address).or_default().insert(ticket);
            let neighbours = self.of.entry(network).or_default();
            self.crowds.remove(&(neighbours.len(), network));
            neighbours.insert(ticket);
            self.crowds.insert((neighbours.len(), network));
        }
        (ticket, leaves)
    }

    /// Gives a place back; nothing where it was lost to a newcomer.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let (source, left) = self.places.remove(&ticket)?;
        if let Some(Source { address, network }) = source {
            let before = self.of.get(&network).map_or(0, BTreeSet::len);
            self.crowds.remove(&(before, network));
            for prefix in [address, network] {
                if let Some(of) = self.of.get_mut(&prefix) {
                    of.remove(&ticket);
                    if of.is_empty() {
                        self.of.remove(&prefix);
                    }
                }
            }
            if before > 1 {
                self.crowds.insert((before - 1, network));
            }
        }
        Some(left)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn who_leaves(&self, newcomer: Option<Source>, bounds: Bounds) -> Option<Ticket> {
        if let Some(Source { address, network }) = newcomer {
            for (prefix, bound) in [(address, bounds.per_address), (network, bounds.per_network)] {
                if let Some(of) = self.of.get(&prefix).filter(|of| of.len() >= bound) {
                    return of.first().copied();
                }
            }
        }
        if self.places.len() < self.in_all {
            return None;
        }
        let crowd = self.crowds.last().filter(|(count, _)| *count > 1);
        let of_the_crowd = crowd.and_then(|(_, network)| self.of.get(network)?.first().copied());
        of_the_crowd.or_else(|| self.places.keys().next().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { per_address: 2, per_network: 3 };

    fn at(address: [u8; 4]) -> Option<Source> {
        Some(Source::of(address.into()))
    }

    #[test]
    fn the_longest_waiter_of_a_full_address_gives_way_then_of_a_full_network_then_of_the_largest_crowd() {
        let mut waiting = Waiting::new(6);
        let mut come = |address, name| waiting.enter(at(address), BOUNDS, name).1;
        assert_eq!(come([192, 0, 2, 1], "first"), None);
        assert_eq!(come([192, 0, 2, 1], "second"), None);
        assert_eq!(come([192, 0, 2, 1], "third of an address"), Some("first"));
        assert_eq!(come([192, 0, 2, 2], "neighbour"), None);
        assert_eq!(come([192, 0, 2, 3], "fourth of a network"), Some("second"));
        assert_eq!(come([198, 51, 100, 1], "alone, and here for longest by now"), None);
        assert_eq!(come([203, 0, 113, 1], "alone too"), None);
        assert_eq!(waiting.enter(None, BOUNDS, "of no prefix").1, None);
        let mut come = |address, name| waiting.enter(at(address), BOUNDS, name).1;
        assert_eq!(come([203, 0, 113, 9], "one too many in all"), Some("third of an address"));
        assert_eq!(come([100, 64, 0, 1], "again"), Some("alone too"), "of two crowds of equal size one gives way, not who is alone");
    }

    #[test]
    fn where_all_are_alone_who_has_waited_longest_gives_way() {
        let mut waiting = Waiting::new(2);
        let mut come = |third| waiting.enter(at([10, 0, third, 1]), BOUNDS, third);
        let (first, none) = come(1);
        assert_eq!((none, come(2).1, come(3).1), (None, None, Some(1)));
        assert_eq!(waiting.leave(first), None, "its place was lost already");
        assert_eq!(waiting.len(), 2);
    }

    proptest! {
        /// Beside a queue that is searched from end to end.
        #[test]
        fn it_never_holds_more_than_it_may_and_forgets_nobody(moves in prop::collection::vec((0..12u8, 0..3u8, any::<bool>()), 1..200)) {
            let mut waiting = Waiting::new(8);
            let mut beside: VecDeque<(Ticket, Option<Source>)> = VecDeque::new();
            for (host, network, goes) in moves {
                if goes && let Some((ticket, _)) = beside.remove(usize::from(host) % beside.len().max(1)) {
                    prop_assert_eq!(waiting.leave(ticket), Some(()));
                    continue;
                }
                let source = (host < 10).then(|| Source::of([10, 0, network, host].into()));
                let before: BTreeSet<_> = waiting.places.keys().copied().collect();
                let (ticket, left) = waiting.enter(source, BOUNDS, ());
                beside.push_back((ticket, source));
                let gone: Vec<_> = before.into_iter().filter(|ticket| !waiting.places.contains_key(ticket)).collect();
                prop_assert_eq!(gone.len(), usize::from(left.is_some()));
                beside.retain(|(ticket, _)| !gone.contains(ticket));
            }
            prop_assert_eq!(waiting.len(), beside.len());
            prop_assert!(waiting.len() <= 8);
            let mut of: BTreeMap<Prefix, usize> = BTreeMap::new();
            for Source { address, network } in beside.iter().filter_map(|(_, source)| *source) {
                *of.entry(address).or_default() += 1;
                *of.entry(network).or_default() += 1;
            }
            prop_assert_eq!(waiting.of.iter().map(|(prefix, of)| (*prefix, of.len())).collect::<BTreeMap<_, _>>(), of.clone());
            for (prefix, count) in of {
                match prefix {
                    Prefix::V4Address(_) | Prefix::V6Address(_) => prop_assert!(count <= BOUNDS.per_address),
                    Prefix::V4Network(_) | Prefix::V6Network(_) => {
                        prop_assert!(count <= BOUNDS.per_network);
                        prop_assert!(waiting.crowds.contains(&(count, prefix)));
                    }
                }
            }
            prop_assert!(waiting.crowds.len() <= 3);
        }
    }
}
