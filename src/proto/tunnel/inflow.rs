//! The receiving half of a session: the next number expected, what of it is handled, and the ACK that is owed.
//!
//! Numbers below `next` are duplicates; above it they are gaps. Bodies are not kept here: they go straight on. What is kept
//! is the cost of each unhandled item, so that a sender beyond its window is found out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::credit::{MAX_IN_FLIGHT, Pool, RESERVE};
use super::{Proof, wire};

/// Events after which an ACK leaves at once.
const ACK_EVERY: u32 = 16;

/// A window that shrank is still honoured for this long: whatever was sent under it has arrived or died with its carrier.
const SHRINK_GRACE: Duration = Duration::from_secs(15);

/// What to do with a numbered frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is the next: pass it on.
    Next,
    /// It came before: drop it.
    Duplicate,
    /// Numbers are missing, or the sender ignores its window: the channel is at fault.
    Fault,
}

/// Whether an ACK is owed, and how soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    Nothing,
    Later,
    Now,
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct Inflow {
    next: u64,
    handled: u64,
    confirmed: u64,
    sm_in: Option<u32>,
    costs: VecDeque<u32>,
    unhandled: u64,
    window: u32,
    /// The window before it shrank, and until when it is honoured.
    grace: Option<(u32, Instant)>,
    last_progress: Option<Instant>,
    owed: Owed,
    changes: u32,
    /// Cost handled since the last ACK.
    freed: u64,
}

impl Inflow {
    /// Expects `next`; everything below is handled.
    pub(super) fn new(next: u64) -> Self {
        let handled = next.saturating_sub(1);
        Self {
            next,
            handled,
            confirmed: handled,
            sm_in: None,
            costs: VecDeque::new(),
            unhandled: 0,
            window: RESERVE,
            grace: None,
            last_progress: None,
            owed: Owed::Nothing,
            changes: 0,
            freed: 0,
        }
    }

    /// A numbered frame of `cost` arrived. May widen the window out of `pool`.
    pub(super) fn arrive(&mut self, number: u64, cost: u32, pool: &mut Pool, now: Instant) -> Arrival {
        if number < self.next {
            self.owe(1);
            return Arrival::Duplicate;
        }
        if number > self.next || self.overruns(cost, now) {
            return Arrival::Fault;
        }
        self.next += 1;
        self.costs.push_back(cost);
        self.unhandled += u64::from(cost);
        self.owe(1);
        if self.unhandled * 2 > u64::from(self.window) {
            let last_progress = *self.last_progress.get_or_insert(now);
            if pool.widen(&mut self.window, last_progress, now) {
                self.owed = Owed::Now;
            }
        }
        Arrival::Next
    }

    /// Everything up to `number` is handled. False: it never arrived.
    #[must_use]
    pub(super) fn handle(&mut self, number: u64, proof: Proof, now: Instant) -> bool {
        if number >= self.next {
            return false;
        }
        if proof == Proof::Confirmed && number > self.confirmed {
            self.confirmed = number;
            self.owe(0);
        }
        let mut events = 0;
        while self.handled < number {
            self.handled += 1;
            let cost = u64::from(self.costs.pop_front().unwrap_or(0));
            self.unhandled = self.unhandled.saturating_sub(cost);
            self.freed += cost;
            events += 1;
        }
        if events > 0 {
            self.last_progress = Some(now);
            self.owe(events);
            if self.freed * 4 > u64::from(self.window) {
                self.owed = Owed::Now;
            }
        }
        true
    }

    /// The client's stanza count up to `sm_in` is handled; it never goes back (RFC 1982 order: it wraps).
    pub(super) fn handle_count(&mut self, sm_in: u32) {
        if self.sm_in.is_none_or(|before| is_above(sm_in, before)) {
            self.sm_in = Some(sm_in);
            self.owe(0);
        }
    }

    /// Makes the owed ACK leave at once.
    pub(super) fn owe_now(&mut self) {
        self.owed = Owed::Now;
    }

    /// Lets no ACK leave for what has changed so far.
    pub(super) fn owe_nothing(&mut self) {
        self.owed = Owed::Nothing;
    }

    /// The ACK as of now; nothing is owed afterwards.
    pub(super) fn take_ack(&mut self) -> wire::Ack {
        self.owed = Owed::Nothing;
        self.changes = 0;
        self.freed = 0;
        wire::Ack { handled: self.handled, received: self.next - 1, credit: self.window, confirmed: self.confirmed, sm_in: self.sm_in }
    }

    /// Gives the window beyond the reserve back if nothing is in flight; tells whether it did.
    pub(super) fn shrink(&mut self, pool: &mut Pool, now: Instant) -> bool {
        if self.window == RESERVE || self.unhandled > 0 {
            return false;
        }
        self.grace = Some((self.window, now + SHRINK_GRACE));
        pool.give_back(&mut self.window);
        self.owed = Owed::Now;
        true
    }

    /// A new carrier: the peer starts from the reserve again, and so do we. An ACK follows.
    pub(super) fn reattach(&mut self, pool: &mut Pool) {
        self.detach(pool);
        self.grace = None;
        // Windows count what was sent on one attachment: the peer may have forgotten what earlier bodies cost.
        self.costs.iter_mut().for_each(|cost| *cost = 0);
        self.unhandled = 0;
        self.freed = 0;
    }

    /// The channel is gone: its window goes back.
    pub(super) fn detach(&mut self, pool: &mut Pool) {
        pool.give_back(&mut self.window);
        self.owed = Owed::Nothing;
        self.changes = 0;
    }

    pub(super) fn owed(&self) -> Owed {
        self.owed
    }

    /// The next number expected.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Everything up to here is handled.
    pub(super) fn handled(&self) -> u64 {
        self.handled
    }

    /// Everything up to here is confirmed by the client.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// The client's stanza count that is handled.
    pub(super) fn sm_in(&self) -> Option<u32> {
        self.sm_in
    }

    /// Whether the window is above the reserve.
    pub(super) fn is_widened(&self) -> bool {
        self.window > RESERVE
    }

    fn owe(&mut self, events: u32) {
        self.changes += events;
        if self.changes >= ACK_EVERY {
            self.owed = Owed::Now;
        } else if self.owed == Owed::Nothing {
            self.owed = Owed::Later;
        }
    }

    fn overruns(&self, cost: u32, now: Instant) -> bool {
        let window = match self.grace {
            Some((before, until)) if now < until => before.max(self.window),
            Some(_) | None => self.window,
        };
        self.unhandled > 0 && (self.unhandled + u64::from(cost) > u64::from(window) || self.costs.len() as u64 >= MAX_IN_FLIGHT)
    }
}

/// Whether stanza count `a` is above `b`, in the wrapping order of XEP-0198 §4.
pub(super) fn is_above(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}
