//! Which transport goes first, and when a tunnel that stands changes its carrier: what one relay has taught.
//!
//! QUIC goes first until it fails: the transport that won is remembered for an hour, and so is TCP after QUIC died twice of
//! silence within five minutes or this host's own firewall forbade it. On TCP, QUIC is tried every ten minutes. A change of the
//! carrier is made on a schedule too, so that the way of a change is walked before it is needed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::proxy::TransportChoice;
use crate::net::carrier::{Cause, Transport};

use super::race::{Field, Target};

/// How long the winner is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// How often QUIC is tried while the tunnel goes over TCP; a tenth more or less by chance.
pub const CLIMB_EVERY: Duration = Duration::from_secs(600);

/// Time between two carriers sought because the relay says that it goes.
const LEAVE_AT_MOST_EVERY: Duration = Duration::from_secs(5);

/// Two deaths of silence within this time, and QUIC is down.
const DEATHS_WITHIN: Duration = Duration::from_secs(300);

/// How long a way that only an admin can mend is left alone.
const CONFIGURATION_PAUSE: Duration = Duration::from_secs(300);

/// Why a carrier is sought beside the one that carries the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// QUIC may get through again.
    Climb,
    /// It is time to exercise a change.
    Scheduled,
    /// The relay said that this carrier, or itself, is about to go.
    Leaving,
}

/// What one relay has taught.
#[derive(Debug)]
pub(super) struct Preference {
    choice: TransportChoice,
    is_proxied: bool,
    switch_every: Duration,
    climb_every: Duration,
    winner: Option<Winner>,
    last_quic_death: Option<Instant>,
    /// TLS needs an admin's hand first.
    tls_barred_until: Option<Instant>,
    climb_at: Option<Instant>,
    switch_at: Option<Instant>,
    leave_at: Option<Instant>,
    last_left: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Winner {
    transport: Transport,
    address: Option<SocketAddr>,
    until: Instant,
}

impl Preference {
    /// Knows nothing yet. `switch_every` of zero means never.
    pub(super) fn new(choice: TransportChoice, is_proxied: bool, switch_every: Duration, climb_every: Duration) -> Self {
        Self {
            choice,
            is_proxied,
            switch_every,
            climb_every,
            winner: None,
            last_quic_death: None,
            tls_barred_until: None,
            climb_at: None,
            switch_at: None,
            leave_at: None,
            last_left: None,
        }
    }

    /// What the next round tries.
    pub(super) fn field(&self, now: Instant) -> Field {
        let winner = self.winner.filter(|winner| now < winner.until);
        let transports = match self.choice {
            TransportChoice::Quic => vec![Transport::Quic],
            TransportChoice::Tls => vec![Transport::Tls],
            TransportChoice::Auto if self.tls_barred_until.is_some_and(|until| now < until) => vec![Transport::Quic],
            TransportChoice::Auto if winner.is_some_and(|winner| winner.transport == Transport::Tls) => {
                vec![Transport::Tls, Transport::Quic]
            }
            TransportChoice::Auto => vec![Transport::Quic, Transport::Tls],
        };
        Field { transports, is_proxied: self.is_proxied, favourite: winner.and_then(|winner| winner.address) }
    }

    /// What is tried beside the carrier that stands, which goes over `current`.
    pub(super) fn field_for(&self, change: Change, current: Option<Transport>, now: Instant) -> Field {
        let field = self.field(now);
        match (change, current) {
            (Change::Climb, _) => Field { transports: vec![Transport::Quic], ..field },
            // An exercise is none if it ends on another transport, and a detour of an hour besides.
            (Change::Scheduled, Some(current)) => Field { transports: vec![current], ..field },
            (Change::Scheduled | Change::Leaving, _) => field,
        }
    }

    /// The relay says that the carrier is about to go. A relay that stops says so on every carrier: they are not changed at
    /// the speed of its words.
    pub(super) fn is_leaving(&mut self, now: Instant) {
        let earliest = self.last_left.map_or(now, |last| now.max(last + LEAVE_AT_MOST_EVERY));
        self.leave_at.get_or_insert(earliest);
    }

    /// A carrier attached; `chance` is from 0 to 1.
    pub(super) fn attached(&mut self, transport: Transport, target: Target, now: Instant, chance: f64) {
        let address = match target {
            Target::Address(address) => Some(address),
            Target::Proxy => None,
        };
        self.winner = Some(Winner { transport, address, until: now + REMEMBERED });
        self.leave_at = None;
        self.schedule_climb(transport, now, chance);
        self.switch_at = (!self.switch_every.is_zero()).then(|| now + jittered(self.switch_every, chance));
    }

    /// The carrier that carried the tunnel ended.
    pub(super) fn ended(&mut self, transport: Transport, cause: Cause, now: Instant) {
        self.climb_at = None;
        self.switch_at = None;
        self.leave_at = None;
        if (transport, cause) == (Transport::Quic, Cause::Silent) {
            let earlier = self.last_quic_death.replace(now);
            if earlier.is_some_and(|earlier| now.saturating_duration_since(earlier) < DEATHS_WITHIN) {
                self.quic_is_down(now);
            }
        }
    }

    /// A dial failed. Gives the time that must pass before the next round where this leaves nothing to try.
    pub(super) fn failed(&mut self, transport: Transport, cause: Cause, now: Instant) -> Option<Duration> {
        match (transport, cause) {
            (Transport::Quic, Cause::Blocked) => self.quic_is_down(now),
            (Transport::Tls, Cause::Configuration) => {
                self.tls_barred_until = Some(now + CONFIGURATION_PAUSE);
                return (self.choice == TransportChoice::Tls).then_some(CONFIGURATION_PAUSE);
            }
            _ => {}
        }
        None
    }

    /// The change that is due; told once.
    pub(super) fn due(&mut self, now: Instant) -> Option<Change> {
        if self.leave_at.take_if(|at| *at <= now).is_some() {
            self.last_left = Some(now);
            return Some(Change::Leaving);
        }
        if self.climb_at.take_if(|at| *at <= now).is_some() {
            return Some(Change::Climb);
        }
        self.switch_at.take_if(|at| *at <= now).map(|_| Change::Scheduled)
    }

    /// A change came to nothing: the carrier that stands stays, and it is tried again at the next turn.
    pub(super) fn unchanged(&mut self, transport: Transport, change: Change, now: Instant, chance: f64) {
        match change {
            Change::Climb => self.schedule_climb(transport, now, chance),
            Change::Leaving => self.leave_at = Some(now + LEAVE_AT_MOST_EVERY),
            Change::Scheduled => self.switch_at = Some(now + jittered(self.switch_every.min(self.climb_every), chance)),
        }
    }

    /// When `due` is wanted.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.climb_at.into_iter().chain(self.switch_at).chain(self.leave_at).min()
    }

    /// An operator wants a new start: nothing is barred any more.
    pub(super) fn forget_faults(&mut self) {
        self.tls_barred_until = None;
    }

    fn schedule_climb(&mut self, transport: Transport, now: Instant, chance: f64) {
        let climbs = self.choice == TransportChoice::Auto && transport == Transport::Tls;
        self.climb_at = climbs.then(|| now + jittered(self.climb_every, chance));
    }

    fn quic_is_down(&mut self, now: Instant) {
        if self.choice == TransportChoice::Auto {
            self.winner = Some(Winner { transport: Transport::Tls, address: None, until: now + REMEMBERED });
        }
    }
}

/// A tenth more or less.
fn jittered(time: Duration, chance: f64) -> Duration {
    time.mul_f64(0.9 + 0.2 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIC_FIRST: [Transport; 2] = [Transport::Quic, Transport::Tls];
    const TLS_FIRST: [Transport; 2] = [Transport::Tls, Transport::Quic];
    const DAY: Duration = Duration::from_secs(86_400);

    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn auto() -> (Preference, Instant) {
        (Preference::new(TransportChoice::Auto, false, DAY, CLIMB_EVERY), Instant::now())
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    fn address() -> Target {
        Target::Address(SocketAddr::from(([192, 0, 2, 1], 7443)))
    }

    #[test]
    fn a_winner_goes_first_for_an_hour() {
        let (mut preference, now) = auto();
        assert_eq!(preference.field(now).transports, QUIC_FIRST);
        preference.attached(Transport::Tls, address(), now, 0.5);
        let field = preference.field(now + minutes(59));
        assert_eq!((field.transports.as_slice(), field.favourite.map(Target::Address)), (&TLS_FIRST[..], Some(address())));
        let field = preference.field(now + minutes(60));
        assert_eq!((field.transports.as_slice(), field.favourite), (&QUIC_FIRST[..], None));
    }

    #[test]
    fn quic_is_down_after_two_deaths_of_silence_within_five_minutes() {
        let (mut preference, now) = auto();
        preference.attached(Transport::Quic, address(), now, 0.5);
        preference.ended(Transport::Quic, Cause::Silent, now);
        assert_eq!(preference.field(now).transports, QUIC_FIRST);
        preference.ended(Transport::Quic, Cause::Peer, now + minutes(1));
        assert_eq!(preference.field(now + minutes(1)).transports, QUIC_FIRST, "a relay that stops is no fault of UDP's");
        preference.ended(Transport::Quic, Cause::Silent, now + minutes(6));
        assert_eq!(preference.field(now + minutes(6)).transports, QUIC_FIRST, "too long ago");
        preference.ended(Transport::Quic, Cause::Silent, now + minutes(10));
        assert_eq!(preference.field(now + minutes(10)).transports, TLS_FIRST);
    }

    #[test]
    fn quic_is_down_at_once_where_this_host_forbids_it() {
        let (mut preference, now) = auto();
        assert_eq!(preference.failed(Transport::Quic, Cause::Unreachable, now), None);
        assert_eq!(preference.field(now).transports, QUIC_FIRST);
        preference.failed(Transport::Quic, Cause::Blocked, now);
        assert_eq!(preference.field(now).transports, TLS_FIRST);
    }

    #[test]
    fn on_tcp_quic_is_tried_every_ten_minutes_or_so() {
        let (mut preference, now) = auto();
        preference.attached(Transport::Tls, address(), now, 0.0);
        assert_eq!(preference.poll_timeout(), Some(now + minutes(9)));
        assert_eq!(preference.due(now + minutes(8)), None);
        assert_eq!(preference.due(now + minutes(9)), Some(Change::Climb));
        assert_eq!(preference.field_for(Change::Climb, Some(Transport::Tls), now).transports, [Transport::Quic]);
        preference.unchanged(Transport::Tls, Change::Climb, now + minutes(9), 1.0);
        assert_eq!(preference.poll_timeout(), Some(now + minutes(20)));
        preference.attached(Transport::Quic, address(), now, 0.5);
        assert_eq!(preference.poll_timeout(), Some(now + DAY), "on QUIC there is nothing to climb to");
        preference.ended(Transport::Quic, Cause::Peer, now);
        assert_eq!(preference.poll_timeout(), None);
    }

    #[test]
    fn a_change_is_exercised_on_a_schedule_unless_it_is_off() {
        let (mut preference, now) = auto();
        preference.attached(Transport::Quic, address(), now, 0.5);
        assert_eq!(preference.due(now + DAY), Some(Change::Scheduled));
        assert_eq!(preference.due(now + DAY), None);
        preference.unchanged(Transport::Quic, Change::Scheduled, now, 0.5);
        assert_eq!(preference.poll_timeout(), Some(now + CLIMB_EVERY), "tried again sooner than tomorrow");
        let mut off = Preference::new(TransportChoice::Auto, false, Duration::ZERO, CLIMB_EVERY);
        off.attached(Transport::Quic, address(), now, 0.5);
        assert_eq!(off.poll_timeout(), None);
    }

    #[test]
    fn a_relay_that_goes_is_left_at_once_but_not_again_and_again() {
        let (mut preference, now) = auto();
        preference.attached(Transport::Tls, address(), now, 0.5);
        assert_eq!(preference.field_for(Change::Scheduled, Some(Transport::Tls), now).transports, [Transport::Tls]);
        preference.is_leaving(now);
        assert_eq!(preference.due(now), Some(Change::Leaving));
        assert_eq!(preference.field_for(Change::Leaving, Some(Transport::Tls), now).transports, TLS_FIRST);
        preference.attached(Transport::Tls, address(), now, 0.5);
        preference.is_leaving(now);
        assert_eq!((preference.due(now), preference.poll_timeout()), (None, Some(now + LEAVE_AT_MOST_EVERY)));
        preference.ended(Transport::Tls, Cause::Peer, now);
        assert_eq!(preference.poll_timeout(), None);
    }

    #[test]
    fn a_proxy_that_wants_credentials_is_left_alone_for_five_minutes() {
        let (mut preference, now) = auto();
        assert_eq!(preference.failed(Transport::Tls, Cause::Configuration, now), None, "QUIC may still get through");
        assert_eq!(preference.field(now).transports, [Transport::Quic]);
        assert_eq!(preference.field(now + minutes(5)).transports, QUIC_FIRST);
        preference.forget_faults();
        assert_eq!(preference.field(now).transports, QUIC_FIRST);
        let mut alone = Preference::new(TransportChoice::Tls, true, DAY, CLIMB_EVERY);
        assert_eq!(alone.failed(Transport::Tls, Cause::Configuration, now), Some(minutes(5)));
        assert_eq!(alone.field(now).transports, [Transport::Tls]);
    }

    #[test]
    fn one_transport_alone_is_never_left() {
        let (_, now) = auto();
        for (choice, transport) in [(TransportChoice::Quic, Transport::Quic), (TransportChoice::Tls, Transport::Tls)] {
            let mut preference = Preference::new(choice, false, DAY, CLIMB_EVERY);
            preference.failed(Transport::Quic, Cause::Blocked, now);
            preference.attached(transport, address(), now, 0.5);
            assert_eq!(preference.field(now).transports, [transport]);
            assert_eq!(preference.poll_timeout(), Some(now + DAY));
        }
    }
}
