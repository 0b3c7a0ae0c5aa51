//! What it costs to charge a newcomer: unknown ones by the million, known ones, one that is refused.

use std::hint::black_box;
use std::net::Ipv4Addr;

use divan::Bencher;
use divan::counter::ItemsCount;
use outgate::admission::source::Source;
use outgate::net::accept_rate::{AcceptRate, Frequency, Rates, Ticks};
use outgate::relay::settings::Strangers;

/// Newcomers in one round.
const NEWCOMERS: u32 = 65_536;

fn main() {
    divan::main();
}

fn rate() -> AcceptRate {
    let second = std::time::Duration::from_secs(1);
    let rates = Rates { in_all: Frequency { count: u32::MAX, within: second }, ..Strangers::default().rates };
    AcceptRate::new(rates, Ticks::start())
}

fn source(number: u32) -> Source {
    // Far apart, as a flood's are.
    Source::of(Ipv4Addr::from_bits(number.wrapping_mul(2_654_435_761)).into())
}

#[divan::bench]
fn unknown(bencher: Bencher<'_, '_>) {
    let rate = rate();
    let mut first = 0_u32;
    bencher.counter(ItemsCount::new(NEWCOMERS)).bench_local(|| {
        first = first.wrapping_add(NEWCOMERS);
        (0..NEWCOMERS).filter(|number| rate.admit(Some(source(black_box(first.wrapping_add(*number))))).is_ok()).count()
    });
}

#[divan::bench]
fn known_and_given_back(bencher: Bencher<'_, '_>) {
    let rate = rate();
    bencher.counter(ItemsCount::new(NEWCOMERS)).bench_local(|| {
        for number in 0..NEWCOMERS {
            let source = source(black_box(number));
            if rate.admit(Some(source)).is_ok() {
                rate.give_back(source);
            }
        }
    });
}

#[divan::bench]
fn refused(bencher: Bencher<'_, '_>) {
    let rate = rate();
    let flooder = Some(source(7));
    bencher.counter(ItemsCount::new(NEWCOMERS)).bench_local(|| (0..NEWCOMERS).filter(|_| rate.admit(black_box(flooder)).is_ok()).count());
}
