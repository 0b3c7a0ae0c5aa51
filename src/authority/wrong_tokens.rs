//! How often somebody may try a token that is wrong: guessing 256 bits is hopeless, trying to is noise and load.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::net::crowd::source_of;

/// Wrong tokens that one address may show at once.
const BURST: u32 = 5;

/// After so long one more.
const ONE_MORE: Duration = Duration::from_secs(12);

/// Wrong tokens that all addresses together may show at once: each is a read of the CA's files.
const BURST_IN_ALL: u32 = 60;

/// After so long all of them one more.
const ONE_MORE_IN_ALL: Duration = Duration::from_secs(1);

/// Addresses that are remembered; beyond them the one is forgotten that has waited longest.
const ADDRESSES: usize = 1024;

/// The addresses that showed wrong tokens.
#[derive(Debug, Default)]
pub(super) struct WrongTokens {
    sources: HashMap<IpAddr, Count>,
    in_all: Option<Count>,
}

/// How many wrong tokens weigh, and since when the first of them is being forgiven.
#[derive(Clone, Copy, Debug)]
struct Count {
    tokens: u32,
    since: Instant,
}

impl WrongTokens {
    /// How long `address` has to wait before it may try again, if it has to.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let own = self.sources.get(&source_of(address)).and_then(|count| count.wait(BURST, ONE_MORE, now));
        own.max(self.in_all.and_then(|count| count.wait(BURST_IN_ALL, ONE_MORE_IN_ALL, now)))
    }

    /// `address` showed a wrong token.
    pub(super) fn count(&mut self, address: IpAddr, now: Instant) {
        let source = source_of(address);
        let new = Count { tokens: 0, since: now };
        if self.sources.len() >= ADDRESSES && !self.sources.contains_key(&source) {
            self.sources.retain(|_, count| count.left(ONE_MORE, now).tokens > 0);
            if self.sources.len() >= ADDRESSES
                && let Some(oldest) = self.sources.iter().min_by_key(|(_, count)| count.since).map(|(source, _)| *source)
            {
                self.sources.remove(&oldest);
            }
        }
        self.sources.entry(source).or_insert(new).add(ONE_MORE, now);
        self.in_all.get_or_insert(new).add(ONE_MORE_IN_ALL, now);
    }
}

impl Count {
    /// What still weighs.
    fn left(self, one_more: Duration, now: Instant) -> Self {
        let forgiven = now.saturating_duration_since(self.since).as_secs() / one_more.as_secs();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        if forgiven >= self.tokens {
            return Self { tokens: 0, since: now };
        }
        Self { tokens: self.tokens - forgiven, since: self.since + one_more * forgiven }
    }

    fn wait(self, burst: u32, one_more: Duration, now: Instant) -> Option<Duration> {
        let left = self.left(one_more, now);
        (left.tokens >= burst).then(|| (left.since + one_more).saturating_duration_since(now).max(Duration::from_secs(1)))
    }

    fn add(&mut self, one_more: Duration, now: Instant) {
        *self = self.left(one_more, now);
        self.tokens += 1;
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
        assert!(wrong.sources.len() <= ADDRESSES);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test starts its clock anywhere")]
    fn sixty_wrong_tokens_at_once_from_everywhere_then_one_in_a_second() {
        let (mut wrong, now) = (WrongTokens::default(), Instant::now());
        let host = |host: u32| IpAddr::from(host.to_be_bytes());
        for guess in 0..BURST_IN_ALL {
            assert_eq!(wrong.wait(host(guess), now), None, "{guess}");
            wrong.count(host(guess), now);
        }
        let newcomer = host(9999);
        assert_eq!(wrong.wait(newcomer, now), Some(ONE_MORE_IN_ALL));
        let later = now + ONE_MORE_IN_ALL;
        assert_eq!(wrong.wait(newcomer, later), None);
        wrong.count(newcomer, later);
        assert_eq!(wrong.wait(host(9998), later), Some(ONE_MORE_IN_ALL));
        assert_eq!(wrong.wait(host(9998), later + ONE_MORE_IN_ALL * BURST_IN_ALL), None);
    }
}
