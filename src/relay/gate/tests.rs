use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::admission::allow_list::{Access, AllowList, Entry};
use crate::config::relay::limits;

const WINDOW: Duration = Duration::from_secs(600);

/// A clock that goes when it is told to.
#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

fn started(limits: &Limits, strangers: Strangers) -> (Arc<Gate>, Time) {
    let time = Time::default();
    let clock = time.clone();
    let ticks = Ticks::told_by(move || Duration::from_millis(clock.0.load(Ordering::Relaxed)));
    (Arc::new(Gate::new(limits, strangers, ticks)), time)
}

/// As shipped, but for `change`, and after the first two minutes.
fn gate(change: impl FnOnce(&mut Limits, &mut Strangers)) -> (Arc<Gate>, Time) {
    let (mut limits, mut strangers) = (Limits::default(), Strangers::default());
    change(&mut limits, &mut strangers);
    let returning = strangers.returning;
    let (gate, time) = started(&limits, strangers);
    time.pass(returning);
    (gate, time)
}

fn client(number: u32) -> Knocker {
    Knocker::Client(Ipv4Addr::from_bits(number).into())
}

const OFFICE: Knocker = Knocker::Client(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));

/// Whoever was told to go is gone.
fn staying(permits: &mut Vec<Permit>) -> usize {
    permits.retain(|permit| permit.call.reason.get().is_none());
    permits.len()
}

fn knocks(gate: &Arc<Gate>, knocker: Knocker, times: usize) -> (Vec<Permit>, Vec<&'static str>) {
    let (mut permits, mut refusals) = (Vec::new(), Vec::new());
    for _ in 0..times {
        match gate.knock(knocker) {
            Ok(permit) => permits.push(permit),
            Err(reason) => refusals.push(reason),
        }
    }
    (permits, refusals)
}

#[test]
fn of_one_address_16_wait_64_stand_and_32_come_in_ten_minutes() {
    let (gate, time) = gate(|_, _| {});
    let (mut permits, refusals) = knocks(&gate, OFFICE, 40);
    assert_eq!((permits.len(), refusals), (32, vec!["address-rate"; 8]));
    assert_eq!(staying(&mut permits), 16, "the others gave way");
    let mut standing = permits;
    for _ in 0..6 {
        standing.iter_mut().for_each(|permit| assert_eq!(permit.log_in(), Ok(())));
        if standing.len() == 64 {
            break;
        }
        standing.iter_mut().for_each(Permit::give_back);
        time.pass(WINDOW);
        standing.extend(knocks(&gate, OFFICE, 16).0);
    }
    assert_eq!(standing.len(), 64);
    time.pass(WINDOW);
    let mut late = gate.knock(OFFICE).unwrap();
    assert_eq!(late.log_in(), Err("address-full"));
    standing.pop();
    assert_eq!(late.log_in(), Ok(()));
    drop((late, standing));
    assert!(gate.crowd().before_login.is_empty(), "all places are given back");
}

#[test]
fn an_exempt_office_and_ipv6_neighbours_are_counted_as_they_should() {
    let prefix = "192.0.2.0/24".parse().unwrap();
    let exempt = Entry { prefix, access: Access::Allow, file: "relay.toml".into(), line: 1 };
    let (gate, _time) = gate(|_, strangers| strangers.exempt = AllowList::new(vec![exempt], Access::Deny));
    let (mut permits, refusals) = knocks(&gate, OFFICE, 1000);
    assert_eq!((staying(&mut permits), refusals.len()), (1000, 0));
    permits.iter_mut().for_each(|permit| assert_eq!((permit.log_in(), permit.attempt()), (Ok(()), Ok(()))));
    let home = |host: u16| Knocker::Client(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into());
    let came = (0..100).filter(|host| gate.knock(home(*host)).is_ok()).count();
    assert_eq!(came, 32, "one /64 is one address");
}

#[test]
fn after_a_restart_two_hundred_come_back_from_behind_one_address_and_a_flood_after_that_does_not() {
    let (gate, time) = started(&Limits::default(), Strangers::default());
    let (mut permits, refusals) = knocks(&gate, OFFICE, 200);
    assert_eq!((staying(&mut permits), refusals.len()), (200, 0));
    permits.iter_mut().for_each(|permit| assert_eq!(permit.log_in(), Ok(())));
    assert!(gate.status().is_returning);
    time.pass(Duration::from_secs(120));
    assert!(!gate.status().is_returning);
    let (mut flood, refusals) = knocks(&gate, OFFICE, 200);
    assert_eq!((flood.len(), refusals.len(), staying(&mut flood)), (32, 168, 16));
    assert_eq!(staying(&mut permits), 200, "who came back stays");
}

#[test]
fn who_comes_again_with_a_good_link_is_not_counted_as_new() {
    let (gate, _time) = gate(|_, _| {});
    for _ in 0..1000 {
        let mut permit = gate.knock(OFFICE).unwrap();
        assert_eq!(permit.log_in(), Ok(()));
        permit.give_back();
        permit.give_back();
    }
    assert_eq!(knocks(&gate, OFFICE, 100).0.len(), 32);
}

#[test]
fn a_crowd_of_strangers_gives_way_before_a_customer_who_is_alone_does() {
    let (gate, _time) = gate(|limits, _| limits.before_login = 100);
    let customer = gate.knock(OFFICE).unwrap();
    let mut crowd: Vec<_> =
        (0..10_000).filter_map(|number| gate.knock(client(0x0a00_0000 + ((number % 50) << 8) + number / 50)).ok()).collect();
    assert_eq!(customer.call.reason.get(), None);
    assert!(!gate.has_room(), "nobody is let in before some have gone");
    assert_eq!((staying(&mut crowd), gate.crowd().before_login.len()), (99, 100));
    assert!(gate.has_room() && gate.crowd().leaving == 0);
}

#[test]
fn handshakes_are_bounded_and_the_oldest_gives_way() {
    let (gate, _time) = gate(|limits, _| limits.handshakes = 10);
    let mut permits: Vec<_> = (0..11).map(|number| gate.knock(client(number << 8)).unwrap()).collect();
    permits.iter_mut().for_each(|permit| permit.handshake(Handshake::Begins));
    assert_eq!(permits[0].call.reason.get(), Some(&"handshake-gave-way"));
    assert_eq!(gate.status().handshakes, 10);
    permits[1].handshake(Handshake::Over);
    assert_eq!(gate.status().handshakes, 9);
    assert_eq!(staying(&mut permits), 10);
    drop(permits);
    assert_eq!(gate.status().handshakes, 0);
}

#[test]
fn a_proxy_is_not_counted_and_those_behind_it_are() {
    let (gate, _time) = gate(|_, _| {});
    let (mut permits, refusals) = knocks(&gate, Knocker::Proxy, 100);
    assert_eq!((permits.len(), refusals.len()), (100, 0));
    let office = Ipv4Addr::new(192, 0, 2, 1).into();
    let told: Vec<_> = permits.iter_mut().map(|permit| permit.identify(office)).collect();
    assert_eq!(told.iter().filter(|told| told.is_ok()).count(), 32);
    assert_eq!(staying(&mut permits) - told.iter().filter(|told| told.is_err()).count(), 16);
}

#[test]
fn failures_shut_the_address_out_for_a_while() {
    let (gate, time) = gate(|_, _| {});
    let mut permit = gate.knock(OFFICE).unwrap();
    let heard = (0..100).filter(|_| permit.attempt().is_ok()).count();
    assert_eq!(heard, 21);
    let mut neighbour = gate.knock(client(0xc000_0202)).unwrap();
    assert_eq!(neighbour.attempt(), Ok(()));
    time.pass(permit.attempt().unwrap_err());
    assert_eq!(permit.attempt(), Ok(()));
}

#[test]
fn the_shipped_numbers_are_those_of_the_guide() {
    let Strangers { before_login, logged_in, .. } = Strangers::of(&limits::Limits::default());
    assert_eq!([before_login.per_address, before_login.per_network, logged_in.per_address, logged_in.per_network], [16, 64, 64, 512]);
}
