//! The agent's events on their way to the customer: how far they are proven to have come (TUNNEL, numbers, 3).
//!
//! Flow: `shown` for each stanza that carries an event, `own` for each of ours; a question follows a burst within
//! [`ASK_AFTER`]: `<r/>` once XEP-0198 is on, an iq ping before; at most one is open. Its answer confirms all that was written
//! before it. A client that leaves it open for [`SILENCE`] is mute: its events count as written once the transport took them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::proto::tunnel::Proof;
use crate::proto::xmpp::stream_management::Unacknowledged;

/// How long after an event the question may wait, so that one serves a burst.
const ASK_AFTER: Duration = Duration::from_millis(900);

/// How long the next question waits when an answer proved nothing.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Unproven events that end the wait.
const BURST: usize = 16;

/// Unacknowledged stanzas of ours that are worth a question although no event is among them.
const MANY_STANZAS: usize = 64;

/// Unacknowledged stanzas at which a stream ends: a client that never answers must not cost memory for ever.
/// A session's credit is 64 events; the rest are answers of ours.
const MAX_STANZAS: usize = 256;

/// How long a client may leave the question open before its events count as written.
const SILENCE: Duration = Duration::from_secs(30);

/// The question to put to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// `<r/>`.
    Request,
    /// An iq ping.
    Barrier,
}

/// Why the stream must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutwardFault {
    /// The client acknowledged more than it was sent.
    HandledTooHigh,
    /// The client acknowledges nothing.
    TooManyUnacknowledged,
}

/// The account of one session's outward events.
#[derive(Debug, Default)]
pub(super) struct Outward {
    pending: VecDeque<Pending>,
    managed: Option<Unacknowledged<Option<u64>>>,
    question: Option<Open>,
    ask_at: Option<Instant>,
    last_shown: u64,
    shown_before_enable: u64,
    drained: u64,
    is_mute: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    number: u64,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Stanza,
    Nothing,
}

#[derive(Debug)]
struct Open {
    barrier: Option<String>,
    covers: u64,
    since: Instant,
}

impl Outward {
    /// `<enable/>` was answered: what is written from now on is counted by the client.
    pub(super) fn enable(&mut self) {
        self.managed = Some(Unacknowledged::new());
        self.shown_before_enable = self.last_shown;
    }

    /// Event `number` is in the output.
    pub(super) fn shown(&mut self, number: u64, now: Instant) -> Result<(), OutwardFault> {
        self.pending.push_back(Pending { number, form: Form::Stanza });
        self.last_shown = number;
        self.written(Some(number), now)
    }

    /// Event `number` has nothing to show.
    pub(super) fn skipped(&mut self, number: u64) -> Option<(u64, Proof)> {
        self.pending.push_back(Pending { number, form: Form::Nothing });
        self.settle(0).map(|number| (number, Proof::Confirmed))
    }

    /// A stanza of ours is in the output.
    pub(super) fn own(&mut self, now: Instant) -> Result<(), OutwardFault> {
        self.written(None, now)
    }

    /// The transport took all output so far.
    pub(super) fn handle_drained(&mut self) -> Option<(u64, Proof)> {
        self.drained = self.last_shown;
        self.written_proof()
    }

    /// `<a h>` arrived.
    pub(super) fn handle_answer(&mut self, h: u32, now: Instant) -> Result<Option<(u64, Proof)>, OutwardFault> {
        let Some(managed) = &mut self.managed else { return Ok(None) };
        let tags = managed.acknowledged(h).map_err(|_too_high| OutwardFault::HandledTooHigh)?;
        if self.question.as_ref().is_some_and(|open| open.barrier.is_none()) {
            self.question = None;
        }
        let confirmed = tags.into_iter().flatten().max().unwrap_or(self.shown_before_enable);
        Ok(self.answered(confirmed, now))
    }

    /// An iq result or error arrived; tells whether it answers the barrier.
    pub(super) fn handle_barrier(&mut self, id: &str, now: Instant) -> Option<Option<(u64, Proof)>> {
        let open = self.question.take_if(|open| open.barrier.as_deref() == Some(id))?;
        Some(self.answered(open.covers, now))
    }

    /// Time passed: what became provable.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<(u64, Proof)> {
        if self.question.as_ref().is_some_and(|open| now >= open.since + SILENCE) {
            self.is_mute = true;
        }
        self.written_proof()
    }

    /// The question to put now; its id is given by `barrier_id` where it is a barrier.
    pub(super) fn poll_question(&mut self, barrier_id: impl FnOnce() -> String, now: Instant) -> Option<(Question, String)> {
        if self.question.is_some() || self.ask_at.is_none_or(|at| now < at) {
            return None;
        }
        self.ask_at = None;
        let (kind, id) = if self.managed.is_some() { (Question::Request, String::new()) } else { (Question::Barrier, barrier_id()) };
        let barrier = (kind == Question::Barrier).then(|| id.clone());
        self.question = Some(Open { barrier, covers: self.last_shown, since: now });
        Some((kind, id))
    }

    /// When time matters next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.question {
            Some(_) if self.is_mute => None,
            Some(open) => Some(open.since + SILENCE),
            None => self.ask_at,
        }
    }

    /// The stream ended after all was written: what its client is known to have, or not.
    pub(super) fn ended(&mut self, proof: Proof) -> Option<(u64, Proof)> {
        self.settle(self.last_shown).map(|number| (number, proof))
    }

    fn written(&mut self, tag: Option<u64>, now: Instant) -> Result<(), OutwardFault> {
        let mut wanted = tag.is_some();
        if let Some(managed) = &mut self.managed {
            managed.sent(tag);
            if managed.len() > MAX_STANZAS {
                return Err(OutwardFault::TooManyUnacknowledged);
            }
            wanted |= managed.len() >= MANY_STANZAS;
        }
        if wanted {
            self.want_question(now);
        }
        Ok(())
    }

    fn want_question(&mut self, now: Instant) {
        let at = if self.pending.len() >= BURST { now } else { now + ASK_AFTER };
        self.ask_at = Some(self.ask_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn answered(&mut self, up_to: u64, now: Instant) -> Option<(u64, Proof)> {
        self.is_mute = false;
        let settled = self.settle(up_to).map(|number| (number, Proof::Confirmed));
        if !self.pending.is_empty() {
            match settled {
                Some(_) => self.want_question(now),
                None => self.ask_at = Some(now + ASK_AGAIN_AFTER),
            }
        }
        settled
    }

    fn written_proof(&mut self) -> Option<(u64, Proof)> {
        if !self.is_mute {
            return None;
        }
        self.settle(self.drained).map(|number| (number, Proof::Written))
    }

    /// Takes off what is proven up to `up_to`, and the events without a stanza that follow it.
    fn settle(&mut self, up_to: u64) -> Option<u64> {
        let mut settled = None;
        while let Some(first) = self.pending.front() {
            if first.number > up_to && first.form == Form::Stanza {
                break;
            }
            settled = Some(first.number);
            self.pending.pop_front();
        }
        settled
    }
}
