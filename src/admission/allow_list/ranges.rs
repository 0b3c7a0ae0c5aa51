//! Nested prefixes laid out for lookups.

use std::collections::BTreeMap;

use super::Decider;

/// What is said of a prefix.
pub(super) trait Layer: Copy + PartialEq {
    /// Of two that say something of the same prefix, the one of higher rank lies on top.
    fn rank(self) -> u8;
}

/// Nested prefixes laid out flat: from each start on, up to the next, one of them speaks or none.
#[derive(Clone, Debug)]
pub(super) struct Ranges<A, L> {
    /// Each start with what is said there, side by side for the sake of the cache.
    starts: Vec<(A, Option<L>)>,
    /// How many starts lie below each of equally wide slices of what they span, so that the search has few of them before it.
    slices: Vec<u32>,
    /// Bits of an address, counted from the first start, that are within a slice.
    within: u32,
}

/// IPv6 by halves: most prefixes are of 64 bits or fewer, and eight bytes a start are quicker to search than sixteen.
#[derive(Clone, Debug)]
pub(super) struct V6Ranges {
    highs: Ranges<u64, High>,
    /// The starts within all those networks of 64 bits that hold longer prefixes, one network behind the other.
    lows: Vec<(u64, Option<Decider>)>,
    /// Where in `lows` each network begins, and where the last one ends.
    networks: Vec<u32>,
}

/// What is said of the upper half of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum High {
    /// It is enough.
    Decided(Decider),
    /// The lower half matters: the place of the network.
    Network(u32),
}

impl Layer for High {
    fn rank(self) -> u8 {
        match self {
            Self::Decided(decider) => decider.rank(),
            Self::Network(_) => u8::MAX,
        }
    }
}

/// An address, or half of one, as a number.
pub(super) trait Number: Copy + Ord {
    /// The address behind it; none behind the last of all.
    fn next(self) -> Option<Self>;
    /// How many bits the distance from `first` to it has.
    fn width_from(self, first: Self) -> u32;
    /// The slice that it is in, where slices begin at `first` and are 2 to the power of `within` wide; none below `first`.
    fn slice(self, first: Self, within: u32) -> Option<usize>;
}

impl Number for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn width_from(self, first: Self) -> u32 {
        Self::BITS - self.abs_diff(first).leading_zeros()
    }

    fn slice(self, first: Self, within: u32) -> Option<usize> {
        usize::try_from(self.checked_sub(first)?.checked_shr(within).unwrap_or(0)).ok()
    }
}

impl Number for u64 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn width_from(self, first: Self) -> u32 {
        Self::BITS - self.abs_diff(first).leading_zeros()
    }

    fn slice(self, first: Self, within: u32) -> Option<usize> {
        usize::try_from(self.checked_sub(first)?.checked_shr(within).unwrap_or(0)).ok()
    }
}

impl<A: Number, L: Layer> Ranges<A, L> {
    /// Lays out `prefixes`: first address, last address, what is said.
    pub(super) fn of(prefixes: Vec<(A, A, L)>) -> Self {
        let mut ranges = Self { starts: flat(prefixes), slices: Vec::new(), within: 0 };
        ranges.cut();
        ranges
    }

    /// Cuts what the starts span into about as many slices as there are starts, 65,536 at the most.
    fn cut(&mut self) {
        let (Some(&(first, _)), Some(&(last, _))) = (self.starts.first(), self.starts.last()) else { return };
        self.within = last.width_from(first).saturating_sub(self.starts.len().ilog2().min(16));
        let mut begun: u32 = 0;
        for (start, _) in &self.starts {
            let slice = start.slice(first, self.within).unwrap_or(0);
            self.slices.resize(self.slices.len().max(slice + 1), begun);
            begun += 1;
        }
        self.slices.push(begun);
    }

    /// What is said of an address.
    pub(super) fn at(&self, address: A) -> Option<L> {
        let slice = address.slice(self.starts.first()?.0, self.within)?.min(self.slices.len().checked_sub(2)?);
        let [from, to] = [slice, slice + 1].map(|slice| self.slices.get(slice).map_or(0, |count| *count as usize));
        let behind = from + begun(self.starts.get(from..to)?, address);
        self.starts.get(behind.checked_sub(1)?)?.1
    }
}

impl V6Ranges {
    /// Lays out `prefixes`: first address, last address, decider.
    pub(super) fn of(prefixes: Vec<(u128, u128, Decider)>) -> Self {
        let mut highs = Vec::new();
        let mut longer: BTreeMap<u64, Vec<(u64, u64, Decider)>> = BTreeMap::new();
        for (first, last, decider) in prefixes {
            let [(high, low), (last_high, last_low)] = [halves(first), halves(last)];
            if (low, last_low) == (0, u64::MAX) {
                highs.push((high, last_high, decider));
            } else {
                longer.entry(high).or_default().push((low, last_low, decider));
            }
        }
        let around = Ranges::of(highs.clone());
        let mut highs: Vec<_> = highs.into_iter().map(|(first, last, decider)| (first, last, High::Decided(decider))).collect();
        let (mut lows, mut networks) = (Vec::new(), vec![0]);
        for (place, (high, mut prefixes)) in (0..).zip(longer) {
            prefixes.extend(around.at(high).map(|decider| (0, u64::MAX, decider)));
            lows.extend(flat(prefixes));
            networks.push(u32::try_from(lows.len()).unwrap_or(u32::MAX));
            highs.push((high, high, High::Network(place)));
        }
        Self { highs: Ranges::of(highs), lows, networks }
    }

    /// What decides about an address.
    pub(super) fn at(&self, address: u128) -> Option<Decider> {
        let (high, low) = halves(address);
        match self.highs.at(high)? {
            High::Decided(decider) => Some(decider),
            High::Network(place) => self.within(place as usize, low),
        }
    }

    fn within(&self, network: usize, low: u64) -> Option<Decider> {
        let starts = self.lows.get(*self.networks.get(network)? as usize..*self.networks.get(network + 1)? as usize)?;
        starts.get(begun(starts, low).checked_sub(1)?)?.1
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is asked for")]
fn halves(address: u128) -> (u64, u64) {
    ((address >> 64) as u64, address as u64)
}

/// How many of `starts` lie at or below an address.
fn begun<A: Number, L>(starts: &[(A, L)], address: A) -> usize {
    starts.partition_point(|(start, _)| *start <= address)
}

/// Starts in their order, each with what is said from there on.
fn flat<A: Number, L: Layer>(mut prefixes: Vec<(A, A, L)>) -> Vec<(A, Option<L>)> {
    // An outer prefix comes before those within it; of equals the last lies on top.
    prefixes.sort_by(|left, right| left.0.cmp(&right.0).then(right.1.cmp(&left.1)).then(left.2.rank().cmp(&right.2.rank())));
    let mut starts = Vec::new();
    let mut open = Vec::new();
    for (first, last, layer) in prefixes {
        close(&mut starts, &mut open, Some(first));
        begin(&mut starts, first, Some(layer));
        open.push((last, layer));
    }
    close(&mut starts, &mut open, None);
    starts
}

/// Ends the prefixes that end before `first`, or all of them.
fn close<A: Number, L: Layer>(starts: &mut Vec<(A, Option<L>)>, open: &mut Vec<(A, L)>, first: Option<A>) {
    while let Some((last, _)) = open.pop_if(|(last, _)| first.is_none_or(|first| *last < first)) {
        if let Some(behind) = last.next() {
            begin(starts, behind, open.last().map(|(_, outer)| *outer));
        }
    }
}

fn begin<A: Number, L: Layer>(starts: &mut Vec<(A, Option<L>)>, start: A, layer: Option<L>) {
    starts.pop_if(|(last, _)| *last == start);
    if starts.last().is_none_or(|(_, last)| *last != layer) {
        starts.push((start, layer));
    }
}
