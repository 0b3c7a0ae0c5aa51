//! Wrong codes: how many of them a network, and everybody together, may try before nobody is asked any more.
//!
//! Codes cannot be guessed within any useful time; this keeps those who try from costing the connector a question each. An address
//! counts for itself and, at four times the allowance, for the network around it. Only answers that a code is wrong count, so that a
//! crowd behind one address comes in. What is remembered is bounded by the allowance of all together.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The time over which wrong codes count.
const WINDOW: Duration = Duration::from_secs(600);

/// Wrong codes of one address, an IPv6 /64, within the window: a person who mistypes needs fewer.
const PER_ADDRESS: u32 = 10;

/// Of the network around it, an IPv4 /24 or an IPv6 /48.
const PER_NETWORK: u32 = 40;

/// Wrong codes of everybody within the window: ten a second in the long run.
const OVERALL: u32 = 6000;

/// Prefixes remembered: an answer adds two, so that there is room for what `OVERALL` admits within a window and a half.
const MAX_PREFIXES: usize = 16_384;

/// Why nobody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooManyGuesses {
    /// This address or its network has tried too many.
    Prefix,
    /// All together have.
    Overall,
}

/// Wrong codes of late.
#[derive(Debug, Default)]
pub struct Guesses {
    /// Until when each prefix's allowance is in use: a wrong code moves that on by its share of the window.
    prefixes: HashMap<Prefix, Instant>,
    overall: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Prefix {
    Address(IpAddr),
    Network(IpAddr),
}

impl Guesses {
    /// Whether a code from `address` may be asked about.
    ///
    /// # Errors
    /// Too many were wrong of late.
    pub fn may_ask(&self, address: IpAddr, now: Instant) -> Result<(), TooManyGuesses> {
        let is_spent = |until: Option<&Instant>, allowance: u32| {
            let used = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
            used + WINDOW / allowance > WINDOW
        };
        if is_spent(self.overall.as_ref(), OVERALL) {
            return Err(TooManyGuesses::Overall);
        }
        let spent = prefixes_of(address).into_iter().any(|(prefix, allowance)| is_spent(self.prefixes.get(&prefix), allowance));
        if spent { Err(TooManyGuesses::Prefix) } else { Ok(()) }
    }

    /// A code from `address` was wrong.
    pub fn wrong(&mut self, address: IpAddr, now: Instant) {
        self.overall = Some(self.overall.map_or(now, |until| until.max(now)) + WINDOW / OVERALL);
        if self.prefixes.len() + 2 > MAX_PREFIXES {
            self.prefixes.retain(|_, until| *until > now);
        }
        for (prefix, allowance) in prefixes_of(address) {
            // Full of those who are being held off: all together are, before long.
            if self.prefixes.len() < MAX_PREFIXES || self.prefixes.contains_key(&prefix) {
                let until = self.prefixes.entry(prefix).or_insert(now);
                *until = now.max(*until) + WINDOW / allowance;
            }
        }
    }

    /// How many prefixes are remembered.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }
}

fn prefixes_of(address: IpAddr) -> [(Prefix, u32); 2] {
    let (address, network) = match address.to_canonical() {
        IpAddr::V4(v4) => (v4.into(), Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8)).into()),
        IpAddr::V6(v6) => {
            let cut = |bits: u32| IpAddr::from(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - bits))));
            (cut(64), cut(48))
        }
    };
    [(Prefix::Address(address), PER_ADDRESS), (Prefix::Network(network), PER_NETWORK)]
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many wrong codes get through before the address is held off.
    fn tries(guesses: &mut Guesses, from: &str, now: Instant) -> usize {
        (0..1000).take_while(|_| guesses.may_ask(address(from), now).map(|()| guesses.wrong(address(from), now)).is_ok()).count()
    }

    #[test]
    fn an_address_has_ten_tries_in_ten_minutes_and_others_are_not_hurt() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        assert_eq!(tries(&mut guesses, "192.0.2.1", now), 10);
        assert_eq!(guesses.may_ask(address("192.0.2.1"), now), Err(TooManyGuesses::Prefix));
        assert_eq!(guesses.may_ask(address("::ffff:192.0.2.1"), now), Err(TooManyGuesses::Prefix));
        assert_eq!(guesses.may_ask(address("192.0.2.2"), now), Ok(()));
        assert_eq!(tries(&mut guesses, "192.0.2.1", now + Duration::from_secs(60)), 1);
        assert_eq!(tries(&mut guesses, "192.0.2.1", now + Duration::from_secs(1200)), 10);
    }

    #[test]
    fn a_network_has_four_times_as_many() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        let in_all: usize = (1..=8).map(|host| tries(&mut guesses, &format!("192.0.2.{host}"), now)).sum();
        assert_eq!(in_all, 40);
        assert_eq!(tries(&mut guesses, "192.0.3.1", now), 10);
        // A /64 is one customer, whatever he makes of it; a /48 is his provider's or his company's.
        assert_eq!(tries(&mut guesses, "2001:db8::1", now), 10);
        assert_eq!(tries(&mut guesses, "2001:db8::ffff:2", now), 0);
        let in_all: usize = (1..=8).map(|net| tries(&mut guesses, &format!("2001:db8:0:{net}::1"), now)).sum();
        assert_eq!(in_all, 30);
        assert_eq!(tries(&mut guesses, "2001:db8:1::1", now), 10);
    }

    #[test]
    fn all_together_are_held_off_and_what_is_remembered_is_bounded() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        let mut in_all = 0;
        for n in 0..40_000u32 {
            let from = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + (n << 8)));
            match guesses.may_ask(from, now) {
                Ok(()) => guesses.wrong(from, now),
                Err(refusal) => {
                    assert_eq!(refusal, TooManyGuesses::Overall);
                    break;
                }
            }
            in_all += 1;
        }
        assert_eq!(in_all, 6000);
        assert_eq!(guesses.may_ask(address("192.0.2.1"), now), Err(TooManyGuesses::Overall));
        assert_eq!(guesses.may_ask(address("192.0.2.1"), now + Duration::from_secs(1)), Ok(()));
        // A relay that counted without asking first would be bounded all the same.
        for n in 0..100_000u32 {
            guesses.wrong(IpAddr::from(Ipv4Addr::from_bits(n << 8)), now);
        }
        assert!(guesses.len() <= MAX_PREFIXES);
        let later = now + 40 * WINDOW;
        guesses.wrong(address("192.0.2.1"), later);
        assert_eq!(guesses.len(), 2, "what is over is forgotten when there is no room");
    }
}
