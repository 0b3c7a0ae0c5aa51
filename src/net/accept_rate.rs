//! How often strangers may come: new connections of each address, each network and in all, logins with one link, logins that fail.
//!
//! Time is charged by governor (GCRA). What it remembers lies in [`table::Table`]s of a fixed size, because keys are the strangers'
//! choice: where one is full, whoever matters least is forgotten, and the rate in all holds for those nobody remembers.

mod table;

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use self::table::Table;
use crate::admission::failures::{Failures, Tolerance};
use crate::admission::source::{Full, Source};

/// Addresses and networks whose new connections are remembered: 16 MiB.
const SOURCES: usize = 1 << 20;

/// Addresses and networks whose failures are remembered: 4 MiB.
const FAILING: usize = 1 << 17;

/// Links whose logins are remembered: 1 MiB.
const LINKS: usize = 1 << 16;

/// Links that are known again: 1 MiB.
const KNOWN: usize = 1 << 16;

/// How long a link that let somebody in is known again: who comes back after a night's sleep comes back.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);

/// So many within so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// How many.
    pub count: u32,
    /// Within.
    pub within: Duration,
}

impl Frequency {
    fn quota(self) -> Quota {
        let count = NonZeroU32::new(self.count).unwrap_or(NonZeroU32::MIN);
        let one = (self.within / count.get()).max(Duration::from_nanos(1));
        // A period that is not zero makes a quota.
        Quota::with_period(one).map_or_else(|| Quota::per_second(count), |quota| quota.allow_burst(count))
    }
}

/// All rates of one relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// New connections of one address,
    pub address: Frequency,
    /// of one network,
    pub network: Frequency,
    /// in all.
    pub in_all: Frequency,
    /// Logins that fail, of one address,
    pub failures_of_address: Tolerance,
    /// and of one network.
    pub failures_of_network: Tolerance,
    /// Logins with one link.
    pub link: Frequency,
}

/// Which rate a newcomer is beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// His address's or network's.
    Source(Full),
    /// That of all.
    InAll,
}

/// Whether a link has let somebody in before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented {
    /// Not that anybody remembers.
    First,
    /// It has.
    Again,
}

/// Charges newcomers.
#[derive(Debug)]
pub struct AcceptRate {
    ticks: Ticks,
    hasher: RandomState,
    sources: Charged,
    address: Keyed,
    network: Keyed,
    one_of_address: Nanos,
    one_of_network: Nanos,
    in_all: Direct,
    /// As many again, of those who come from where nobody came of late.
    alone: Direct,
    failing: Table<3>,
    tolerances: [Tolerance; 2],
    links: Charged,
    link: Keyed,
    known: Table<1>,
}

type Direct = RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Duration>>;

type Keyed = RateLimiter<u64, Charged, Ticks, NoOpMiddleware<Duration>>;

impl AcceptRate {
    /// Nobody has come yet.
    pub fn new(rates: Rates, ticks: Ticks) -> Self {
        let [sources, links] = [SOURCES, LINKS].map(|keys| Charged { table: Arc::new(Table::new(keys)), ticks: ticks.clone() });
        let direct = || RateLimiter::new(rates.in_all.quota(), InMemoryState::default(), ticks.clone());
        let keyed = |rate: Frequency, charged: &Charged| RateLimiter::new(rate.quota(), charged.clone(), ticks.clone());
        Self {
            hasher: RandomState::new(),
            address: keyed(rates.address, &sources),
            network: keyed(rates.network, &sources),
            one_of_address: rates.address.quota().replenish_interval().into(),
            one_of_network: rates.network.quota().replenish_interval().into(),
            in_all: direct(),
            alone: direct(),
            sources,
            failing: Table::new(FAILING),
            tolerances: [rates.failures_of_address, rates.failures_of_network],
            link: keyed(rates.link, &links),
            links,
            known: Table::new(KNOWN),
            ticks,
        }
    }

    /// Charges a new connection: to its address and network where it has a source that is charged, and to all. Beyond the rate of
    /// all, as many again come in from networks from which nobody came of late: crowds are shed before who is alone.
    ///
    /// # Errors
    /// The rate that it is beyond; then nothing is charged.
    pub fn admit(&self, source: Option<Source>) -> Result<(), Beyond> {
        let mut is_alone = false;
        if let Some(source) = source {
            let [address, network] = self.keys(source);
            self.address.check_key(&address).map_err(|_| Beyond::Source(Full::Address))?;
            is_alone = self.sources.is_paid(network);
            if self.network.check_key(&network).is_err() {
                self.sources.give_back(address, self.one_of_address);
                return Err(Beyond::Source(Full::Network));
            }
        }
        if self.in_all.check().is_err() && !(is_alone && self.alone.check().is_ok()) {
            source.inspect(|source| self.give_back(*source));
            return Err(Beyond::InAll);
        }
        Ok(())
    }

    /// Takes back what a new connection was charged to its address and network.
    pub fn give_back(&self, source: Source) {
        let [address, network] = self.keys(source);
        self.sources.give_back(address, self.one_of_address);
        self.sources.give_back(network, self.one_of_network);
    }

    /// Charges a login before anything of it is looked at.
    ///
    /// # Errors
    /// Too many have failed: nobody from there is listened to for so long.
    pub fn attempt(&self, source: Source) -> Result<(), Duration> {
        let [address, network] = self.keys(source);
        let [of_address, of_network] = self.tolerances;
        self.with_failures(address, |failures, now| failures.charge(of_address, now))?;
        self.with_failures(network, |failures, now| failures.charge(of_network, now)).inspect_err(|_| {
            self.with_failures(address, |failures, now| failures.forgive(of_address, now));
        })
    }

    /// The login did not fail.
    pub fn forgive(&self, source: Source) {
        for (key, tolerance) in self.keys(source).into_iter().zip(self.tolerances) {
            self.with_failures(key, |failures, now| failures.forgive(tolerance, now));
        }
    }

    /// Charges a login with a link that holds; `None` where it was used too often of late.
    pub fn present(&self, link: &impl Hash) -> Option<Presented> {
        let key = self.hasher.hash_one(link);
        self.link.check_key(&key).ok()?;
        let now = self.ticks.nanos();
        let until = now.saturating_add(nanos(KNOWN_FOR));
        Some(self.known.change(key, now, |known| {
            let presented = if known.is_some_and(|[until]| until > now) { Presented::Again } else { Presented::First };
            (presented, Some([until]))
        }))
    }

    /// Forgets what matters no more, and gives its memory back. To be called now and then.
    pub fn clean(&self) {
        let now = self.ticks.nanos();
        self.sources.table.clean(now);
        self.failing.clean(now);
        self.links.table.clean(now);
        self.known.clean(now);
    }

    /// Addresses, networks and links that are remembered.
    pub fn remembered(&self) -> usize {
        self.sources.table.len() + self.failing.len() + self.links.table.len() + self.known.len()
    }

    /// How often one had to be forgotten that still mattered.
    pub fn forgotten(&self) -> u64 {
        self.sources.table.forgotten() + self.failing.forgotten() + self.links.table.forgotten() + self.known.forgotten()
    }

    /// The address's and the network's.
    fn keys(&self, source: Source) -> [u64; 2] {
        [source.address, source.network].map(|prefix| self.hasher.hash_one(prefix))
    }

    fn with_failures<T>(&self, key: u64, act: impl FnOnce(&mut Failures, Duration) -> T) -> T {
        let now = self.ticks.now();
        self.failing.change(key, nanos(now), |held| {
            let mut failures = held.map_or_else(Failures::default, |[_, forgiven_at, shut]| Failures {
                forgiven_at: Duration::from_nanos(forgiven_at),
                // The strikes lie in the bits that a time in eight nanoseconds leaves free.
                shut_until: Duration::from_nanos(shut & !7),
                strikes: u32::try_from(shut & 7).unwrap_or(0),
            });
            let outcome = act(&mut failures, now);
            let shut = nanos(failures.shut_until) & !7 | u64::from(failures.strikes.min(7));
            (outcome, Some([nanos(failures.over_at()), nanos(failures.forgiven_at), shut]))
        })
    }
}

/// When everything charged to a key is paid for.
#[derive(Clone, Debug)]
struct Charged {
    table: Arc<Table<1>>,
    ticks: Ticks,
}

impl StateStore for Charged {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.table.change(*key, self.ticks.nanos(), |paid| match judge(paid.map(|[at]| Nanos::new(at))) {
            Ok((outcome, paid)) => (Ok(outcome), Some([paid.as_u64()])),
            Err(refused) => (Err(refused), None),
        })
    }
}

impl Charged {
    fn is_paid(&self, key: u64) -> bool {
        let now = self.ticks.nanos();
        self.table.change(key, now, |paid| (paid.is_none_or(|[at]| at <= now), None))
    }

    fn give_back(&self, key: u64, one: Nanos) {
        self.table.change(key, 0, |paid| ((), paid.map(|[at]| [at.saturating_sub(one.as_u64())])));
    }
}

/// Tells the time since a start of its own.
#[derive(Clone)]
pub struct Ticks(Arc<dyn Fn() -> Duration + Send + Sync>);

impl std::fmt::Debug for Ticks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticks({:?})", self.now())
    }
}

impl Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        (self.0)()
    }
}

impl Ticks {
    /// The runtime's clock, from now on.
    pub fn start() -> Self {
        let start = Instant::now();
        Self(Arc::new(move || start.elapsed()))
    }

    /// Time as `tell` has it.
    pub fn told_by(tell: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.now()
    }

    fn nanos(&self) -> u64 {
        nanos(self.now())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
