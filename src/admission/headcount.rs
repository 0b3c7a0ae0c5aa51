//! How many stand, from each address and each network.

use std::collections::BTreeMap;

use super::source::{Full, Prefix, Source};

/// How many may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From one IPv4 address or IPv6 /64.
    pub per_address: usize,
    /// From one IPv4 /24 or IPv6 /48.
    pub per_network: usize,
}

impl Bounds {
    /// None.
    pub const NONE: Self = Self { per_address: usize::MAX, per_network: usize::MAX };
}

/// Who stands. It has as many entries as there are prefixes of those who do.
#[derive(Debug, Default)]
pub struct Headcount(BTreeMap<Prefix, usize>);

impl Headcount {
    /// One more, if there is room.
    ///
    /// # Errors
    /// Which prefix is full.
    pub fn enter(&mut self, source: Source, bounds: Bounds) -> Result<(), Full> {
        if self.of(source.address) >= bounds.per_address {
            return Err(Full::Address);
        }
        if self.of(source.network) >= bounds.per_network {
            return Err(Full::Network);
        }
        for prefix in [source.address, source.network] {
            *self.0.entry(prefix).or_insert(0) += 1;
        }
        Ok(())
    }

    /// One that entered goes.
    pub fn leave(&mut self, source: Source) {
        for prefix in [source.address, source.network] {
            if let Some(count) = self.0.get_mut(&prefix) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.0.remove(&prefix);
                }
            }
        }
    }

    fn of(&self, prefix: Prefix) -> usize {
        self.0.get(&prefix).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_then_its_network_is_full_until_somebody_goes_and_nothing_is_left_of_those_who_went() {
        let source = |host: u8| Source::of([192, 0, 2, host].into());
        let bounds = Bounds { per_address: 2, per_network: 3 };
        let mut count = Headcount::default();
        assert_eq!([1, 1, 1].map(|host| count.enter(source(host), bounds)), [Ok(()), Ok(()), Err(Full::Address)]);
        assert_eq!([2, 3].map(|host| count.enter(source(host), bounds)), [Ok(()), Err(Full::Network)]);
        count.leave(source(1));
        assert_eq!(count.enter(source(3), bounds), Ok(()));
        for host in [1, 2, 3] {
            count.leave(source(host));
        }
        assert!(count.0.is_empty());
    }
}
