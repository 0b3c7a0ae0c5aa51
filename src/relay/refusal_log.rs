//! Log lines about strangers, at a bounded rate: whoever knocks a thousand times a second is counted a thousand times and logged a few.
//! Each refusal goes to the audit log too, which has a rate of its own.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::audit::{Audit, Event};

/// Lines in one window.
const LINES: u32 = 50;

/// The window.
const WINDOW: Duration = Duration::from_secs(1);

/// Writes refusals to the log as far as the rate allows.
#[derive(Debug)]
pub(super) struct RefusalLog {
    window: Mutex<Window>,
    audit: Audit,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl RefusalLog {
    pub(super) fn new(audit: Audit) -> Self {
        Self { window: Mutex::new(Window { began: Instant::now(), lines: 0, left_out: 0 }), audit }
    }

    /// One line about a refusal; its address is for debugging only.
    pub(super) fn write(&self, stage: &'static str, reason: &'static str, peer: SocketAddr) {
        self.write_with_link(stage, reason, peer, None);
    }

    /// As [`RefusalLog::write`], with the hash of the link that was shown.
    pub(super) fn write_with_link(&self, stage: &'static str, reason: &'static str, peer: SocketAddr, link: Option<String>) {
        self.audit.record(Event::Refused { stage, reason, address: self.audit.place(peer.ip()), queue: None, link });
        let Some(left_out) = self.admit(Instant::now()) else { return };
        tracing::info!(stage, reason, left_out, "refused");
        tracing::debug!(stage, reason, %peer, "refused address");
    }

    /// Where everything else is told that must be found again.
    pub(super) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Whether a line may be written, and how many were left out before it.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.began) >= WINDOW {
            window.began = now;
            window.lines = 0;
        }
        if window.lines >= LINES {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_costs_a_bounded_number_of_lines() {
        let log = RefusalLog::new(Audit::off());
        let start = Instant::now();
        let written = (0..1000).filter(|_| log.admit(start).is_some()).count();
        assert_eq!(written, 50);
        assert_eq!(log.admit(start + WINDOW), Some(950));
    }
}
