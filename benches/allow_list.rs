//! What it costs to ask an allow-list of 100,000 prefixes, and to make one.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use divan::Bencher;
use divan::counter::ItemsCount;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use outgate::admission::allow_list::{Access, AllowList, Entry};

const PREFIXES: u32 = 100_000;

/// Addresses asked for, half of them in a prefix.
const QUESTIONS: u64 = 4096;

fn main() {
    divan::main();
}

/// xorshift64*, so that every run asks the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn v4(&mut self) -> Ipv4Addr {
        Ipv4Addr::from((self.next() >> 32) as u32)
    }

    /// Global unicast, as it is handed out (2000::/3).
    fn v6(&mut self) -> Ipv6Addr {
        Ipv6Addr::from((1 << 125) | ((u128::from(self.next()) << 64 | u128::from(self.next())) >> 3))
    }
}

fn v4_list(random: &mut Random) -> Vec<Entry> {
    entries(|| IpNet::V4(Ipv4Net::new_assert(random.v4(), 16 + (random.next() % 9) as u8).trunc()))
}

fn v6_list(random: &mut Random) -> Vec<Entry> {
    entries(|| IpNet::V6(Ipv6Net::new_assert(random.v6(), 32 + (random.next() % 33) as u8).trunc()))
}

fn entries(mut prefix: impl FnMut() -> IpNet) -> Vec<Entry> {
    (1..=PREFIXES).map(|line| Entry { prefix: prefix(), access: Access::Allow, file: "list".into(), line }).collect()
}

/// Half of the questions are for addresses within a prefix.
fn questions(random: &mut Random, list: &[Entry], mut elsewhere: impl FnMut(&mut Random) -> IpAddr) -> Vec<IpAddr> {
    let mut ask = |number: u64| {
        let within = &list[(random.next() % u64::from(PREFIXES)) as usize];
        if number.is_multiple_of(2) { within.prefix.addr() } else { elsewhere(random) }
    };
    (0..QUESTIONS).map(&mut ask).collect()
}

#[divan::bench]
fn ask_v4(bencher: Bencher<'_, '_>) {
    let mut random = Random(1);
    let entries = v4_list(&mut random);
    let questions = questions(&mut random, &entries, |random| random.v4().into());
    ask(bencher, entries, questions);
}

#[divan::bench]
fn ask_v6(bencher: Bencher<'_, '_>) {
    let mut random = Random(1);
    let entries = v6_list(&mut random);
    let questions = questions(&mut random, &entries, |random| random.v6().into());
    ask(bencher, entries, questions);
}

fn ask(bencher: Bencher<'_, '_>, entries: Vec<Entry>, questions: Vec<IpAddr>) {
    let list = AllowList::new(entries, Access::Deny);
    bencher
        .counter(ItemsCount::new(QUESTIONS))
        .bench_local(|| questions.iter().filter(|address| list.allows(black_box(**address))).count());
}

#[divan::bench]
fn make_of_both(bencher: Bencher<'_, '_>) {
    let mut random = Random(1);
    let mut both = v4_list(&mut random);
    both.extend(v6_list(&mut random));
    bencher.with_inputs(|| both.clone()).bench_local_values(|entries| AllowList::new(entries, Access::Deny));
}
