//! One round of dials: over which transports and to which addresses, and when each begins. Whoever is attached first has won.
//!
//! The preferred transport begins. The other joins after 300 ms, or as soon as the first has nothing left to try. Within a
//! transport the addresses of the name take turns between IPv6 and IPv4 (RFC 8305): the next begins after 250 ms, or as soon as
//! one has failed. What has begun goes on until it fails by itself or somebody has won.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::net::carrier::Transport;

/// How long the preferred transport has the field to itself.
const JOIN_AFTER: Duration = Duration::from_millis(300);

/// How long one address has its transport to itself.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Addresses of a name that are tried in one round.
const MAX_ADDRESSES: usize = 8;

/// Where an attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To an address of the relay.
    Address(SocketAddr),
    /// To the proxy, which finds the relay itself.
    Proxy,
}

/// One dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) transport: Transport,
    pub(super) target: Target,
}

/// What a round tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// The transports, the preferred one first; one or two.
    pub(super) transports: Vec<Transport>,
    /// Whether TCP goes through a proxy.
    pub(super) is_proxied: bool,
    /// The address that won last time goes first.
    pub(super) favourite: Option<SocketAddr>,
}

/// One round.
#[derive(Debug)]
pub(super) struct Race {
    runners: Vec<Runner>,
    favourite: Option<SocketAddr>,
}

#[derive(Debug)]
struct Runner {
    transport: Transport,
    targets: Targets,
    begins_at: Option<Instant>,
    running: usize,
}

#[derive(Debug)]
enum Targets {
    /// The name is being looked up.
    Awaited,
    Known(VecDeque<Target>),
}

impl Race {
    /// Lines up; `addresses` must follow, or `no_addresses`.
    pub(super) fn new(field: Field, now: Instant) -> Self {
        let Field { transports, is_proxied, favourite } = field;
        let runner = |(place, transport): (usize, Transport)| {
            let needs_no_name = is_proxied && transport == Transport::Tls;
            Runner {
                transport,
                targets: if needs_no_name { Targets::Known(VecDeque::from([Target::Proxy])) } else { Targets::Awaited },
                // Whoever awaits the name cannot begin before; of others the second waits for the first's sake.
                begins_at: needs_no_name.then(|| if place == 0 { now } else { now + JOIN_AFTER }),
                running: 0,
            }
        };
        Self { runners: transports.into_iter().enumerate().map(runner).collect(), favourite }
    }

    /// The name has these addresses.
    pub(super) fn addresses(&mut self, found: &[SocketAddr], now: Instant) {
        let targets: VecDeque<Target> = in_turns(found, self.favourite).into_iter().map(Target::Address).collect();
        for (place, runner) in self.runners.iter_mut().enumerate() {
            if matches!(runner.targets, Targets::Awaited) {
                runner.targets = Targets::Known(targets.clone());
                runner.begins_at = Some(if place == 0 { now } else { now + JOIN_AFTER });
            }
        }
        self.let_join(now);
    }

    /// The name could not be looked up.
    pub(super) fn no_addresses(&mut self, now: Instant) {
        self.addresses(&[], now);
    }

    /// The next dial that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Attempt> {
        for runner in &mut self.runners {
            let Targets::Known(targets) = &mut runner.targets else { continue };
            if runner.begins_at.is_none_or(|at| at > now) {
                continue;
            }
            if let Some(target) = targets.pop_front() {
                runner.running += 1;
                runner.begins_at = Some(now + NEXT_ADDRESS_AFTER);
                return Some(Attempt { transport: runner.transport, target });
            }
        }
        None
    }

    /// A dial, or what came of it, failed before it won.
    pub(super) fn failed(&mut self, transport: Transport, now: Instant) {
        if let Some(runner) = self.runners.iter_mut().find(|runner| runner.transport == transport) {
            runner.running = runner.running.saturating_sub(1);
            runner.begins_at = runner.begins_at.map(|at| at.min(now));
        }
        self.let_join(now);
    }

    /// When a dial is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.runners.iter().filter(|runner| runner.has_targets()).filter_map(|runner| runner.begins_at).min()
    }

    /// Whether nothing is left to try and nothing runs.
    pub(super) fn is_over(&self) -> bool {
        self.runners.iter().all(Runner::is_exhausted)
    }

    /// Where the first has nothing left, the second need not wait.
    fn let_join(&mut self, now: Instant) {
        if let [first, second] = self.runners.as_mut_slice()
            && first.is_exhausted()
        {
            second.begins_at = second.begins_at.map(|at| at.min(now));
        }
    }
}

impl Runner {
    fn has_targets(&self) -> bool {
        matches!(&self.targets, Targets::Known(targets) if !targets.is_empty())
    }

    fn is_exhausted(&self) -> bool {
        self.running == 0 && matches!(&self.targets, Targets::Known(targets) if targets.is_empty())
    }
}

/// The favourite, then the families by turns, that of the first address first: the resolver has put the likeliest first.
fn in_turns(found: &[SocketAddr], favourite: Option<SocketAddr>) -> Vec<SocketAddr> {
    let mut distinct: Vec<SocketAddr> = Vec::new();
    for address in favourite.filter(|favourite| found.contains(favourite)).iter().chain(found) {
        if !distinct.contains(address) {
            distinct.push(*address);
        }
    }
    let first_is_v6 = distinct.first().is_some_and(SocketAddr::is_ipv6);
    let (mut these, mut those): (VecDeque<_>, VecDeque<_>) = distinct.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut turns = Vec::new();
    while turns.len() < MAX_ADDRESSES {
        let Some(next) = these.pop_front() else {
            turns.extend(those.into_iter().take(MAX_ADDRESSES - turns.len()));
            break;
        };
        turns.push(next);
        std::mem::swap(&mut these, &mut those);
        if these.is_empty() {
            std::mem::swap(&mut these, &mut those);
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "192.0.2.1:7443";
    const V6: &str = "[2001:db8::1]:7443";

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn begun() -> Instant {
        Instant::now()
    }

    fn field(transports: &[Transport], is_proxied: bool) -> Field {
        Field { transports: transports.to_vec(), is_proxied, favourite: None }
    }

    fn auto() -> Field {
        field(&[Transport::Quic, Transport::Tls], false)
    }

    fn attempt(transport: Transport, address: &str) -> Option<Attempt> {
        Some(Attempt { transport, target: Target::Address(at(address)) })
    }

    /// All dials of a race in which nothing ever answers, with the milliseconds at which they begin.
    fn timetable(race: &mut Race, begun: Instant) -> Vec<(u128, Transport, Target)> {
        let mut table = Vec::new();
        while let Some(next) = race.poll_timeout() {
            while let Some(Attempt { transport, target }) = race.due(next) {
                table.push((next.saturating_duration_since(begun).as_millis(), transport, target));
            }
        }
        table
    }

    #[test]
    fn tcp_joins_after_300_ms_and_the_families_take_turns_every_250() {
        let now = begun();
        let mut race = Race::new(auto(), now);
        assert_eq!(race.poll_timeout(), None, "the name is awaited");
        race.addresses(&[at(V6), at("[2001:db8::2]:7443"), at(V4)], now);
        let (v6, v4, second) = (Target::Address(at(V6)), Target::Address(at(V4)), Target::Address(at("[2001:db8::2]:7443")));
        let (quic, tls) = (Transport::Quic, Transport::Tls);
        assert_eq!(
            timetable(&mut race, now),
            [(0, quic, v6), (250, quic, v4), (300, tls, v6), (500, quic, second), (550, tls, v4), (800, tls, second)]
        );
    }

    #[test]
    fn a_failure_lets_the_next_begin_at_once_and_the_last_lets_the_other_transport_join() {
        let now = begun();
        let mut race = Race::new(auto(), now);
        race.addresses(&[at(V6), at(V4)], now);
        assert_eq!(race.due(now), attempt(Transport::Quic, V6));
        assert_eq!(race.due(now), None);
        race.failed(Transport::Quic, now);
        assert_eq!(race.due(now), attempt(Transport::Quic, V4));
        assert_eq!(race.due(now), None);
        race.failed(Transport::Quic, now);
        assert_eq!(race.due(now), attempt(Transport::Tls, V6));
        race.failed(Transport::Tls, now);
        assert_eq!(race.due(now), attempt(Transport::Tls, V4));
        assert!(!race.is_over());
        race.failed(Transport::Tls, now);
        assert!(race.is_over() && race.poll_timeout().is_none());
    }

    #[test]
    fn the_proxy_needs_no_name_and_waits_its_turn_all_the_same() {
        let now = begun();
        let mut race = Race::new(field(&[Transport::Quic, Transport::Tls], true), now);
        let later = now + JOIN_AFTER;
        assert_eq!(race.due(now), None);
        assert_eq!(race.due(later), Some(Attempt { transport: Transport::Tls, target: Target::Proxy }));
        race.no_addresses(later);
        assert!(!race.is_over(), "the proxy is still being asked");

        let mut unnamed = Race::new(field(&[Transport::Quic, Transport::Tls], true), now);
        unnamed.no_addresses(now);
        assert_eq!(unnamed.due(now).map(|attempt| attempt.target), Some(Target::Proxy), "nothing to wait for");
    }

    #[test]
    fn a_name_without_addresses_is_the_end_of_the_round() {
        let now = begun();
        let mut race = Race::new(auto(), now);
        assert!(!race.is_over());
        race.no_addresses(now);
        assert!(race.is_over());
    }

    #[test]
    fn the_favourite_goes_first_and_no_name_costs_more_than_eight_dials() {
        let many: Vec<SocketAddr> = (1..=20).map(|host| SocketAddr::from(([192, 0, 2, host], 7443))).collect();
        let turns = in_turns(&many, Some(many[15]));
        assert_eq!((turns.len(), turns[0], turns[1]), (MAX_ADDRESSES, many[15], many[0]));
        assert_eq!(in_turns(&[at(V4), at(V4), at(V6)], Some(at("198.51.100.1:1"))), [at(V4), at(V6)]);
        let mixed: Vec<SocketAddr> = many.iter().take(6).copied().chain([at(V6), at("[2001:db8::2]:7443")]).collect();
        let families: Vec<bool> = in_turns(&mixed, None).iter().map(SocketAddr::is_ipv6).collect();
        assert_eq!(families, [false, true, false, true, false, false, false, false]);
    }
}
