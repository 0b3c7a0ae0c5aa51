//! What the relay counts: refusals and endings by reason code, connections by stage. Read by `outgate status`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// All counters of one relay. Reason codes are a closed list of words in this program, never a stranger's text.
#[derive(Debug, Default)]
pub struct Counters {
    reasons: Mutex<BTreeMap<&'static str, u64>>,
    connections: Arc<AtomicU64>,
    before_login: Arc<AtomicU64>,
    sessions: Arc<AtomicU64>,
    dropped_elements: AtomicU64,
}

/// A place in a gauge; given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicU64>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    /// Counts one refusal or ending.
    pub fn count(&self, reason: &'static str) {
        *self.reasons.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_insert(0) += 1;
    }

    /// Counts elements that were dropped on their way to the LAN.
    pub fn dropped(&self, elements: u64) {
        self.dropped_elements.fetch_add(elements, Ordering::Relaxed);
    }

    /// Takes a place among all connections, unless `limit` are taken.
    pub fn connection(&self, limit: usize) -> Option<Place> {
        take(&self.connections, limit)
    }

    /// Takes a place among the connections that are not logged in.
    pub fn before_login(&self) -> Place {
        add(&self.before_login)
    }

    /// Takes a place among the sessions.
    pub fn session(&self) -> Place {
        add(&self.sessions)
    }

    /// The counts at this moment.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            connections: self.connections.load(Ordering::Relaxed),
            before_login: self.before_login.load(Ordering::Relaxed),
            sessions: self.sessions.load(Ordering::Relaxed),
            dropped_elements: self.dropped_elements.load(Ordering::Relaxed),
            reasons: self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// All counts at one moment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Connections of customers.
    pub connections: u64,
    /// Those of them that are not logged in.
    pub before_login: u64,
    /// Sessions.
    pub sessions: u64,
    /// Elements dropped on their way to the LAN.
    pub dropped_elements: u64,
    /// Refusals and endings by reason code.
    pub reasons: BTreeMap<&'static str, u64>,
}

fn add(gauge: &Arc<AtomicU64>) -> Place {
    gauge.fetch_add(1, Ordering::Relaxed);
    Place(Arc::clone(gauge))
}

fn take(gauge: &Arc<AtomicU64>, limit: usize) -> Option<Place> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let taken = gauge.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < limit).then_some(count + 1));
    taken.is_ok().then(|| Place(Arc::clone(gauge)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gauge_gives_no_place_until_one_is_given_back() {
        let counters = Counters::default();
        let first = counters.connection(1);
        assert!(first.is_some());
        assert!(counters.connection(1).is_none());
        drop(first);
        assert!(counters.connection(1).is_some());
        assert_eq!(counters.snapshot().connections, 0);
    }
}
