//! What is remembered of keys that strangers choose: so many at the most, in memory that is taken when it is first written.
//!
//! A key has a few slots to choose from, and is found in one look. The first word of what it holds tells until when that matters;
//! where all of its slots are taken, the one that matters least long makes room.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Slots that a key may lie in: their names fill a line of the processor's cache.
const WAYS: usize = 8;

/// Parts with a lock each.
const SHARDS: usize = 16;

/// Words by key.
#[derive(Debug)]
pub(super) struct Table<const W: usize> {
    shards: Vec<Mutex<Shard<W>>>,
    len: AtomicUsize,
    forgotten: AtomicU64,
}

#[derive(Debug)]
struct Shard<const W: usize> {
    /// Slots by key; 0 where nothing lies.
    keys: Vec<u64>,
    words: Vec<[u64; W]>,
    used: usize,
}

impl<const W: usize> Shard<W> {
    /// All zeroes: the kernel gives each page when it is first written.
    fn new(slots: usize) -> Self {
        Self { keys: vec![0; slots], words: vec![[0; W]; slots], used: 0 }
    }
}

impl<const W: usize> Table<W> {
    /// For `capacity` keys, rounded up.
    pub(super) fn new(capacity: usize) -> Self {
        let slots = capacity.div_ceil(SHARDS).next_multiple_of(WAYS);
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new(slots))).collect(),
            len: AtomicUsize::new(0),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Shows what is remembered of `key`, a good hash, and remembers what comes back, if anything does.
    pub(super) fn change<T>(&self, key: u64, now: u64, change: impl FnOnce(Option<[u64; W]>) -> (T, Option<[u64; W]>)) -> T {
        let key = key.max(1);
        let (Ok(low), Ok(high)) = (usize::try_from(key & 0xffff_ffff), usize::try_from(key >> 32)) else { return change(None).0 };
        let Some(shard) = self.shards.get(low % SHARDS) else { return change(None).0 };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let Shard { keys, words, used } = &mut *shard;
        let first = high % (keys.len() / WAYS) * WAYS;
        let range = first..first + WAYS;
        let (Some(keys), Some(words)) = (keys.get_mut(range.clone()), words.get_mut(range)) else { return change(None).0 };
        let slot = keys.iter_mut().zip(words.iter_mut());
        let found = keys_position(slot, key);
        match found {
            Found::Here(held) => {
                let (outcome, new) = change(Some(*held));
                if let Some(new) = new {
                    *held = new;
                }
                outcome
            }
            Found::Instead(name, held) => {
                let (outcome, new) = change(None);
                if let Some(new) = new {
                    if *name == 0 {
                        *used += 1;
                        self.len.fetch_add(1, Ordering::Relaxed);
                    } else if first_word(held) > now {
                        self.forgotten.fetch_add(1, Ordering::Relaxed);
                    }
                    (*name, *held) = (key, new);
                }
                outcome
            }
            Found::Nowhere => change(None).0,
        }
    }

    /// Forgets all that does not matter any more at `now`.
    pub(super) fn clean(&self, now: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            if shard.used == 0 {
                continue;
            }
            let before = shard.used;
            let Shard { keys, words, used } = &mut *shard;
            for (name, held) in keys.iter_mut().zip(words.iter()) {
                if *name != 0 && first_word(held) <= now {
                    *name = 0;
                    *used -= 1;
                }
            }
            if *used == 0 {
                let slots = keys.len();
                *shard = Shard::new(slots);
            }
            self.len.fetch_sub(before - shard.used, Ordering::Relaxed);
        }
    }

    /// Keys that are remembered.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// How often one made room that still mattered.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }
}

enum Found<'a, const W: usize> {
    Here(&'a mut [u64; W]),
    Instead(&'a mut u64, &'a mut [u64; W]),
    Nowhere,
}

/// Where the key lies, else the slot that matters least.
fn keys_position<'a, const W: usize>(slots: impl Iterator<Item = (&'a mut u64, &'a mut [u64; W])>, key: u64) -> Found<'a, W> {
    let mut least: Option<(&mut u64, &mut [u64; W])> = None;
    for (name, held) in slots {
        if *name == key {
            return Found::Here(held);
        }
        let worth = |name: &u64, held: &[u64; W]| if *name == 0 { 0 } else { first_word(held) };
        if least.as_ref().is_none_or(|(other, theirs)| worth(name, held) < worth(other, theirs)) {
            least = Some((name, held));
        }
    }
    least.map_or(Found::Nowhere, |(name, held)| Found::Instead(name, held))
}

fn first_word<const W: usize>(held: &[u64; W]) -> u64 {
    held.first().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// A key of its own for each number, spread as a hash is.
    fn spread(number: u64) -> u64 {
        (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    }

    #[test]
    fn a_full_table_forgets_what_matters_least_and_never_grows() {
        let table: Table<1> = Table::new(1024);
        for number in 0..100_000 {
            table.change(spread(number), 0, |_| ((), Some([5])));
        }
        let slots: usize = table.shards.iter().map(|shard| shard.lock().unwrap().keys.len()).sum();
        assert!(table.len() <= slots && slots == 1024, "{} of {slots}", table.len());
        assert_eq!(table.forgotten(), 100_000 - table.len() as u64);
        // What matters for long outlives a flood of what does not.
        table.change(spread(7_777_777), 0, |_| ((), Some([1_000_000])));
        for number in 100_000..200_000 {
            table.change(spread(number), 0, |_| ((), Some([6])));
        }
        assert_eq!(table.change(spread(7_777_777), 0, |held| (held, None)), Some([1_000_000]));
    }

    #[test]
    fn what_is_over_is_cleaned_and_what_is_not_stays() {
        let table: Table<2> = Table::new(1024);
        for number in 0..100 {
            table.change(spread(number), 0, |_| ((), Some([number, 1])));
        }
        table.clean(49);
        assert_eq!(table.len(), 50);
        assert_eq!(table.change(spread(49), 0, |held| (held, None)), None);
        assert_eq!(table.change(spread(50), 0, |held| (held, None)), Some([50, 1]));
        table.clean(1000);
        assert_eq!((table.len(), table.forgotten()), (0, 0));
    }

    proptest! {
        /// Until something has to be forgotten it is a map; and what it finds is always what was put there last.
        #[test]
        fn it_tells_what_was_last_remembered_or_nothing(puts in prop::collection::vec((0..400u64, 1..1000u64), 0..600), now in 0..1000u64) {
            let table: Table<1> = Table::new(256);
            let mut map = HashMap::new();
            for (number, worth) in &puts {
                let before = table.change(spread(*number), 0, |held| (held, Some([*worth])));
                if let Some([before]) = before {
                    prop_assert_eq!(map.get(number), Some(&before));
                }
                map.insert(*number, *worth);
                prop_assert_eq!(table.change(spread(*number), 0, |held| (held, None)), Some([*worth]));
            }
            prop_assert!(table.len() <= 256);
            prop_assert!(table.len() as u64 + table.forgotten() >= map.len() as u64);
            table.clean(now);
            for (number, worth) in map {
                let held = table.change(spread(number), 0, |held| (held, None));
                prop_assert!(held.is_none() || (held == Some([worth]) && worth > now));
                prop_assert!(held.is_some() || worth <= now || table.forgotten() > 0);
            }
        }
    }
}
