//! What is remembered of strangers takes no more memory than it may, however many come.

use std::net::{Ipv6Addr, SocketAddr};

use outgate::admission::source::Source;
use outgate::net::accept_rate::{AcceptRate, Frequency, Rates, Ticks};
use outgate::relay::settings::Strangers;

use super::*;
use crate::fault_table::alone;

/// Each with four keys: its address and its network, as newcomers and as failures.
const SOURCES: u32 = 800_000;

/// Of all tables at their fullest.
const MOST: u64 = 64 << 20;

#[test]
fn three_million_keys_take_less_than_64_mib() {
    alone(async || {
        let time = Instant::now();
        let in_all = Frequency { count: u32::MAX, within: Duration::from_secs(1) };
        let rate = AcceptRate::new(Rates { in_all, ..Strangers::default().rates }, Ticks::told_by(move || time.elapsed()));
        let (before, began, mut came) = (resident(), Instant::now(), 0);
        for number in 0..SOURCES {
            let [a, b, c, d] = number.to_be_bytes();
            let segments = [u16::from_be_bytes([0x20, a]), u16::from_be_bytes([b, c]), u16::from(d), 0, 0, 0, 0, 1];
            let source = Source::of(SocketAddr::from((Ipv6Addr::from(segments), 1)).ip());
            came += u32::from(rate.admit(Some(source)).is_ok() && rate.attempt(source).is_ok());
        }
        let (took, each) = (resident().saturating_sub(before), began.elapsed() / SOURCES);
        eprintln!("{SOURCES} sources: {} KiB, {each:?} each, {} remembered, {} forgotten", took >> 10, rate.remembered(), rate.forgotten());
        assert_eq!(came, SOURCES, "each of its own network");
        assert!(took < MOST, "{took}");
        assert!(rate.remembered() > 1_000_000 && rate.forgotten() > 500_000);
    });
}

/// Resident memory in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
