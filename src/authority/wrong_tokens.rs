//! How often somebody may try a token that is wrong: guessing 256 bits is hopeless, trying to is noise and load.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Wrong tokens that one address may show at once.
const BURST: u32 = 5;

/// After so long one more.
const ONE_MORE: Duration = Duration::from_secs(12);

/// Addresses that are remembered; beyond them the one is forgotten that has waited longest.
const ADDRESSES: usize = 1024;

/// The addresses that showed wrong tokens.
#[derive(Debug, Default)]
pub(super) struct WrongTokens(HashMap<IpAddr, (u32, Instant)>);

impl WrongTokens {
    /// How long `address` has to wait before it may try again, if it has to.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let (count, since) = self.0.get(&prefix(address))?;
        (left(*count, *since, now) >= BURST).then(|| (*since + ONE_MORE).saturating_duration_since(now).max(Duration::from_secs(1)))
    }

    /// `address` showed a wrong token.
    pub(super) fn count(&mut self, address: IpAddr, now: Instant) {
        let address = prefix(address);
        if self.0.len() >= ADDRESSES && !self.0.contains_key(&address) {
            self.0.retain(|_, (count, since)| left(*count, *since, now) > 0);
            if self.0.len() >= ADDRESSES
                && let Some(oldest) = self.0.iter().min_by_key(|(_, (_, since))| *since).map(|(address, _)| *address)
            {
                self.0.remove(&oldest);
            }
        }
        let (count, since) = self.0.entry(address).or_insert((0, now));
        let left = left(*count, *since, now);
        (*count, *since) = (left + 1, now);
    }
}

/// How many of `count` still weigh.
fn left(count: u32, since: Instant, now: Instant) -> u32 {
    let forgiven = now.saturating_duration_since(since).as_secs() / ONE_MORE.as_secs();
    count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
}

/// An IPv6 host has a whole /64 to try from.
fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test starts its clock anywhere")]
    fn five_wrong_tokens_at_once_then_one_in_twelve_seconds_and_others_are_not_held_up() {
        let (mut wrong, start) = (WrongTokens::default(), Instant::now());
        let [bad, other] = ["2001:db8::1", "192.0.2.1"].map(|address| address.parse::<IpAddr>().unwrap());
        for _ in 0..BURST {
            assert_eq!(wrong.wait(bad, start), None);
            wrong.count(bad, start);
        }
        assert_eq!(wrong.wait(bad, start), Some(ONE_MORE));
        assert_eq!(wrong.wait("2001:db8::2".parse().unwrap(), start), Some(ONE_MORE), "the same /64");
        assert_eq!(wrong.wait(other, start), None);
        let later = start + ONE_MORE;
        assert_eq!(wrong.wait(bad, later), None);
        wrong.count(bad, later);
        assert!(wrong.wait(bad, later).is_some());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test starts its clock anywhere")]
    fn many_addresses_cost_bounded_memory() {
        let (mut wrong, now) = (WrongTokens::default(), Instant::now());
        for host in 0..5000u32 {
            wrong.count(IpAddr::from(host.to_be_bytes()), now);
        }
        assert!(wrong.0.len() <= ADDRESSES);
    }
}
