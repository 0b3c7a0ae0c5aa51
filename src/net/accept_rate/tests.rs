use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const WINDOW: Duration = Duration::from_secs(600);

fn rates() -> Rates {
    Rates {
        address: Frequency { count: 32, within: WINDOW },
        network: Frequency { count: 512, within: WINDOW },
        in_all: Frequency { count: 1_000_000, within: Duration::from_secs(1) },
        failures_of_address: Tolerance { free: 20, within: WINDOW },
        failures_of_network: Tolerance { free: 160, within: WINDOW },
        link: Frequency { count: 600, within: WINDOW },
    }
}

/// A clock that goes when it is told to.
#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(nanos(time), Ordering::Relaxed);
    }
}

fn begin(rates: Rates) -> (AcceptRate, Time) {
    let time = Time::default();
    let clock = time.clone();
    (AcceptRate::new(rates, Ticks::told_by(move || Duration::from_nanos(clock.0.load(Ordering::Relaxed)))), time)
}

fn source(address: &str) -> Source {
    Source::of(address.parse().unwrap())
}

fn v4(number: u32) -> Source {
    Source::of(IpAddr::V4(Ipv4Addr::from_bits(number)))
}

#[test]
fn an_address_may_come_32_times_and_then_every_19_seconds_and_its_neighbours_are_not_held_up() {
    let (rate, time) = begin(rates());
    let office = Some(source("192.0.2.1"));
    let came = (0..100).filter(|_| rate.admit(office).is_ok()).count();
    assert_eq!(came, 32);
    assert_eq!(rate.admit(office), Err(Beyond::Source(Full::Address)));
    assert_eq!(rate.admit(Some(source("192.0.2.2"))), Ok(()));
    time.pass(WINDOW / 32);
    assert_eq!((rate.admit(office), rate.admit(office)), (Ok(()), Err(Beyond::Source(Full::Address))));
    time.pass(WINDOW);
    assert_eq!((0..100).filter(|_| rate.admit(office).is_ok()).count(), 32);
    let hosts = |host: u16| Some(Source::of(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, host))));
    assert_eq!((0..100).filter(|host| rate.admit(hosts(*host)).is_ok()).count(), 32, "a /64 is one");
}

#[test]
fn a_network_is_held_to_its_own_rate_and_what_it_is_refused_costs_its_addresses_nothing() {
    let (rate, _time) = begin(rates());
    let crowd = |number: u32| Some(v4(0x0a00_0000 | (number % 256)));
    assert_eq!((0..2000).filter(|number| rate.admit(crowd(*number)).is_ok()).count(), 512);
    assert_eq!(rate.admit(crowd(0)), Err(Beyond::Source(Full::Network)));
    let site = |number: u16| Some(Source::of(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, number, 0, 0, 0, 1))));
    assert_eq!((0..2000).filter(|number| rate.admit(site(*number)).is_ok()).count(), 512, "a /48 is one network");
}

#[test]
fn what_is_given_back_may_come_again_and_a_rate_in_all_holds_for_those_of_no_source_too() {
    let (rate, _time) = begin(rates());
    let office = source("192.0.2.1");
    for _ in 0..1000 {
        assert_eq!(rate.admit(Some(office)), Ok(()));
        rate.give_back(office);
    }
    for _ in 0..5 {
        rate.give_back(office);
    }
    assert_eq!((0..100).filter(|_| rate.admit(Some(office)).is_ok()).count(), 32, "nobody saves up more than a burst");

    let few = Rates { in_all: Frequency { count: 10, within: Duration::from_secs(1) }, ..rates() };
    let (rate, time) = begin(few);
    assert_eq!((0..100).filter(|_| rate.admit(None).is_ok()).count(), 10);
    assert_eq!((rate.admit(Some(office)), rate.admit(Some(office))), (Ok(()), Err(Beyond::InAll)), "a crowd is shed before who is alone");
    time.pass(WINDOW);
    for _ in 0..3 {
        assert_eq!((0..20).filter(|_| rate.admit(Some(office)).is_ok()).count(), 10);
        time.pass(Duration::from_secs(1));
    }
}

#[test]
fn failures_shut_an_address_then_its_network_and_a_login_that_succeeds_costs_nothing() {
    let (rate, time) = begin(rates());
    let office = source("192.0.2.1");
    for _ in 0..1000 {
        assert_eq!(rate.attempt(office), Ok(()));
        rate.forgive(office);
    }
    assert_eq!((0..100).filter(|_| rate.attempt(office).is_ok()).count(), 21);
    let wait = rate.attempt(office).unwrap_err();
    assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10), "{wait:?}");
    assert_eq!(rate.attempt(source("192.0.2.2")), Ok(()));
    time.pass(wait);
    assert_eq!(rate.attempt(office), Ok(()));
    assert!(rate.attempt(office).unwrap_err() > Duration::from_secs(19), "the next one shuts out for twice as long");
    assert_eq!((0..1000).filter(|number| rate.attempt(v4(0x0a00_0000 | (number % 256))).is_ok()).count(), 161);
}

#[test]
fn a_link_is_held_to_its_rate_and_known_again() {
    let (rate, time) = begin(Rates { link: Frequency { count: 3, within: WINDOW }, ..rates() });
    let presented: Vec<_> = (0..5).map(|_| rate.present(&("issuer", "jti"))).collect();
    assert_eq!(presented, [Some(Presented::First), Some(Presented::Again), Some(Presented::Again), None, None]);
    assert_eq!(rate.present(&("issuer", "another")), Some(Presented::First));
    time.pass(WINDOW);
    rate.clean();
    assert_eq!(rate.present(&("issuer", "jti")), Some(Presented::Again));
    time.pass(KNOWN_FOR + WINDOW);
    rate.clean();
    assert_eq!((rate.remembered(), rate.present(&("issuer", "jti"))), (0, Some(Presented::First)));
}

/// The table holds half of them: the worst offender is still known, and all of it takes the memory it was given.
#[test]
fn two_million_sources_take_no_more_memory_than_one_and_do_not_wash_a_flooder_clean() {
    let (rate, time) = begin(Rates { in_all: Frequency { count: u32::MAX, within: Duration::from_secs(1) }, ..rates() });
    let flooder = Some(source("2001:db8::1"));
    assert_eq!((0..100).filter(|_| rate.admit(flooder).is_ok()).count(), 32);
    let mut came = 0;
    for number in 0..1_000_000_u64 {
        // Every one of its own /24, so two keys each.
        let address = Ipv4Addr::from_bits(u32::try_from(number % (1 << 24)).unwrap() << 8);
        came += usize::from(rate.admit(Some(Source::of(address.into()))).is_ok());
    }
    assert_eq!(came, 1_000_000, "strangers who come once are let in");
    assert!(rate.remembered() <= SOURCES + FAILING + LINKS + KNOWN);
    assert!(rate.remembered() > SOURCES * 9 / 10 && rate.forgotten() > 0, "{} {}", rate.remembered(), rate.forgotten());
    assert_eq!(rate.admit(flooder), Err(Beyond::Source(Full::Address)), "the flooder is still known");
    time.pass(WINDOW * 2);
    rate.clean();
    assert_eq!(rate.remembered(), 0);
}
