//! The audit log: one JSON line for each decision, for whoever must tell later who came, who was refused and why, and what changed.
//!
//! Flow: [`Audit::record`] counts an event against its kind's rate and hands it to the one thread that writes the [`file`]; it never
//! waits. What exceeds the rate, or finds the queue full, is counted by reason and told by a line of its own. Nothing that people say
//! stands in it, no link and no secret.

mod event;
mod file;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use ipnet::IpNet;
use tokio::time::Instant;

use crate::config::process::{AuditAddresses, AuditLog};
use crate::net::wall_clock::unix_millis;

use self::event::Kind;
pub use self::event::{By, Event, LinkMark};

/// Events that may wait for the file.
const DEPTH: usize = 4096;

/// Refusals in one window: whoever knocks a thousand times a second is counted a thousand times and written a few.
const REFUSALS: u32 = 50;

/// Other events in one window: far above what a relay's or connector's own limits let happen.
const OTHERS: u32 = 1000;

/// The window.
const WINDOW: Duration = Duration::from_secs(1);

/// How the file is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFile {
    /// Where.
    pub path: PathBuf,
    /// What is written of addresses.
    pub addresses: AuditAddresses,
    /// The size at which the file becomes `PATH.1`.
    pub rotate_at: u64,
}

/// Where events go; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    addresses: AuditAddresses,
    queue: SyncSender<file::Item>,
    rates: Mutex<Rates>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    left_out: AtomicU64,
    lost: AtomicU64,
}

/// How many events the audit log has had, for status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct AuditCounts {
    /// Lines in the file.
    pub written: u64,
    /// Events without a line of their own, because of the rate or a full queue.
    pub left_out: u64,
    /// Lines that the file did not take.
    pub lost: u64,
}

impl Audit {
    /// Writes nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// As configured.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn from_config(config: &AuditLog) -> io::Result<Self> {
        let Some(path) = config.file.clone() else { return Ok(Self::off()) };
        let told = |fault: io::Error| io::Error::new(fault.kind(), format!("{}: {fault}", path.display()));
        let rotate_at = u64::from(config.rotate_mib) << 20;
        Self::to_file(AuditFile { path: path.clone(), addresses: config.addresses, rotate_at }).map_err(told)
    }

    /// Writes `file`, which it makes where there is none, with a thread of its own.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn to_file(file: AuditFile) -> io::Result<Self> {
        let AuditFile { path, addresses, rotate_at } = file;
        let counts = Arc::new(Counts::default());
        let (queue, items) = sync_channel(DEPTH);
        let writer = file::Writer::open(path, rotate_at, Arc::clone(&counts))?;
        let shared = Arc::new(Shared { addresses, queue, rates: Mutex::new(Rates::new(Instant::now())), counts });
        let rest = Arc::downgrade(&shared);
        // It ends with the last handle.
        let look_after_rest = move || {
            if let Some(shared) = rest.upgrade() {
                drop(shared.tell_rest());
            }
        };
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&items, look_after_rest))?;
        Ok(Self(Some(shared)))
    }

    /// Takes an event.
    pub fn record(&self, event: Event) {
        let Some(shared) = &self.0 else { return };
        let mut rates = shared.tell_rest();
        if !rates.admits(event.kind()) {
            return shared.leave_out(&mut rates, event.word());
        }
        let word = event.word();
        if shared.queue.try_send(item(event)).is_err() {
            shared.leave_out(&mut rates, word);
        }
    }

    /// What may be written of this address.
    pub fn place(&self, address: IpAddr) -> Option<String> {
        let shared = self.0.as_ref()?;
        match shared.addresses {
            AuditAddresses::Full => Some(address.to_canonical().to_string()),
            AuditAddresses::Prefix => Some(prefix_of(address)),
            AuditAddresses::None => None,
        }
    }

    /// Waits until what was recorded so far is written, at most so long. It blocks.
    pub fn flush(&self, within: Duration) {
        let Some(shared) = &self.0 else { return };
        let mut rates = shared.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let remainder = std::mem::take(&mut rates.left_out);
        shared.tell(&mut rates, remainder);
        drop(rates);
        let (written, told) = sync_channel(1);
        if shared.queue.try_send(file::Item::Flush(written)).is_ok() {
            let _written_or_too_late = told.recv_timeout(within);
        }
    }

    /// The counts at this moment; `None` where nothing is written.
    pub fn counts(&self) -> Option<AuditCounts> {
        let counts = &self.0.as_ref()?.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Some(AuditCounts { written: of(&counts.written), left_out: of(&counts.left_out), lost: of(&counts.lost) })
    }
}

impl Shared {
    /// Tells what the last window left out, once it is over.
    fn tell_rest(&self) -> MutexGuard<'_, Rates> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let remainder = rates.roll(Instant::now());
        self.tell(&mut rates, remainder);
        rates
    }

    /// Writes what was left out; where the queue is full it is told later.
    fn tell(&self, rates: &mut Rates, left_out: BTreeMap<&'static str, u64>) {
        if left_out.is_empty() {
            return;
        }
        let line = Event::LeftOut { count: left_out.values().sum(), of: left_out.clone() };
        if self.queue.try_send(item(line)).is_err() {
            rates.left_out = left_out;
        }
    }

    fn leave_out(&self, rates: &mut Rates, word: &'static str) {
        *rates.left_out.entry(word).or_insert(0) += 1;
        self.counts.left_out.fetch_add(1, Ordering::Relaxed);
    }
}

fn item(event: Event) -> file::Item {
    file::Item::Event(Box::new(event), unix_millis())
}

/// What is written in the present window, and what was left out and not told yet, by reason.
#[derive(Debug)]
struct Rates {
    began: Instant,
    refusals: u32,
    others: u32,
    left_out: BTreeMap<&'static str, u64>,
}

impl Rates {
    fn new(now: Instant) -> Self {
        Self { began: now, refusals: 0, others: 0, left_out: BTreeMap::new() }
    }

    /// Begins a new window where it is time to; what the last ones left out.
    fn roll(&mut self, now: Instant) -> BTreeMap<&'static str, u64> {
        if now.duration_since(self.began) < WINDOW {
            return BTreeMap::new();
        }
        (self.began, self.refusals, self.others) = (now, 0, 0);
        std::mem::take(&mut self.left_out)
    }

    fn admits(&mut self, kind: Kind) -> bool {
        let (taken, most) = match kind {
            Kind::Refusal => (&mut self.refusals, REFUSALS),
            Kind::Other => (&mut self.others, OTHERS),
        };
        let admitted = *taken < most;
        *taken += u32::from(admitted);
        admitted
    }
}

/// The network that an address is of: /24, or /48 for IPv6.
fn prefix_of(address: IpAddr) -> String {
    let address = address.to_canonical();
    let length = if address.is_ipv4() { 24 } else { 48 };
    IpNet::new(address, length).map(|net| net.trunc().to_string()).unwrap_or_default()
}

/// Names a link without telling it: the same at the relay and the connector.
pub fn link_hash(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
