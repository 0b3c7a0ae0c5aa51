//! One session at the relay: its OPEN, its numbers, and how its end stands.

use std::collections::VecDeque;
use std::time::Instant;

use crate::proto::tunnel::inflow::is_above;
use crate::proto::tunnel::line::Line;
use crate::proto::tunnel::memory::ReplayMemory;
use crate::proto::tunnel::outflow::{BadClaim, Progress};
use crate::proto::tunnel::{Assertion, Open, OpenKind, wire};
use crate::session::SessionSecret;

/// Announcements of the relay's own stanzas that may wait to be recorded.
pub(super) const MAX_OWN: usize = 256;

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: usize,
    pub(super) open: Box<Open>,
    /// Its channel on the present tunnel.
    pub(super) channel: Option<u32>,
    /// OPEN_OK came at least once.
    pub(super) was_answered: bool,
    /// OPEN_OK came on the present channel.
    pub(super) is_answered: bool,
    /// An OPEN of this session went out on an earlier channel.
    pub(super) was_asked: bool,
    /// When the last OPEN went out, and since when a session that stood has no answer.
    pub(super) asked_at: Option<Instant>,
    /// When its owner asked for it.
    came_at: Instant,
    pub(super) unanswered_since: Option<Instant>,
    /// The attachment that OPEN_OK told; 0 before.
    pub(super) attachment: u32,
    pub(super) line: Line,
    /// The client's stanza count with the newest inward event.
    pub(super) sm_event: u32,
    /// The client's stanza count that is handled.
    pub(super) sm_handled: Option<u32>,
    /// The connector has not said on this channel which count it has.
    pub(super) is_count_due: bool,
    /// What an ACK told before the answer to OPEN did.
    pub(super) handled_early: u64,
    pub(super) own: VecDeque<wire::Own>,
    /// Something worth a record was said: its OPEN is not withdrawn any more.
    pub(super) has_spoken: bool,
    /// Its owner ended it.
    pub(super) finished: bool,
    /// Number of the connector's FIN; its owner was told.
    pub(super) fin_out: Option<u64>,
}

impl Session {
    pub(super) fn new(peer: usize, open: Box<Open>, memory: &ReplayMemory, now: Instant) -> Self {
        let (in_next, out_next) = match open.kind {
            OpenKind::New { .. } => (1, 1),
            OpenKind::Attach { in_next, out_next, .. } => (in_next.max(1), out_next.max(1)),
        };
        let mut line = Line::new(in_next, out_next, memory);
        line.held_back = matches!(open.kind, OpenKind::Attach { .. });
        Self {
            peer,
            open,
            channel: None,
            was_answered: false,
            is_answered: false,
            was_asked: false,
            asked_at: None,
            came_at: now,
            unanswered_since: None,
            attachment: 0,
            line,
            sm_event: 0,
            sm_handled: None,
            is_count_due: false,
            handled_early: 0,
            own: VecDeque::new(),
            has_spoken: false,
            finished: false,
            fin_out: None,
        }
    }

    /// Its tunnel is gone, or its OPEN was given up on this channel.
    pub(super) fn leave_channel(&mut self, now: Instant) {
        self.channel = None;
        self.is_answered = false;
        self.line.held_back |= self.was_asked;
        if self.was_answered {
            self.unanswered_since.get_or_insert(now);
        }
    }

    /// A new session that was never answered.
    pub(super) fn is_new(&self) -> bool {
        !self.was_answered && matches!(self.open.kind, OpenKind::New { .. })
    }

    /// Whether its owner wants to hear no more of it.
    pub(super) fn is_over(&self) -> bool {
        self.finished || self.fin_out.is_some()
    }

    /// Whether the relay came to know of this session from its client alone: its numbers are the connector's to tell.
    pub(super) fn adopts_numbers(&self) -> bool {
        let unknown = matches!(self.open.kind, OpenKind::Attach { in_next: 0, out_next: 0, .. });
        unknown && !self.was_answered
    }

    /// The OPEN to send at `now`.
    pub(super) fn open_frame(&self, now: Instant) -> Open {
        let mut open = (*self.open).clone();
        open.waited = now.saturating_duration_since(self.came_at);
        if self.was_answered {
            let (in_next, out_next) = (self.line.out.first(), self.line.inn.next());
            open.kind = OpenKind::Attach { secret: self.secret(), in_next, out_next, client_h: None, attachment: self.attachment };
        }
        open
    }

    /// OPEN_OK: the connector expects `in_next`, and has what is below.
    pub(super) fn take_answer(&mut self, in_next: u64) -> Result<Option<Progress>, BadClaim> {
        let handled = if self.line.held_back {
            self.line.out.reattach(in_next, in_next - 1)?
        } else {
            // Events went out behind OPEN already; none of them goes again.
            self.line.out.skip_handled(in_next - 1)
        };
        self.line.held_back = false;
        self.is_answered = true;
        self.was_answered = true;
        self.unanswered_since = None;
        // The secret is what counts from now on; a link's token is long, and not ours to keep.
        self.open.admission.assertion = Assertion::Anonymous;
        Ok(handled)
    }

    /// The client's stanzas up to `count` are handled; tells whether that is news. It never goes back.
    pub(super) fn raise_handled_count(&mut self, count: u32) -> bool {
        let rose = self.sm_handled.is_none_or(|before| is_above(count, before));
        if rose {
            self.sm_handled = Some(count);
        }
        rose
    }

    /// Whether the first count on a channel is below what was handled once: it proves an older store.
    pub(super) fn is_count_lost(&mut self, count: u32) -> bool {
        std::mem::take(&mut self.is_count_due) && self.sm_handled.is_some_and(|before| is_above(before, count))
    }

    /// After an attachment: a COUNTED that may be lost is told again behind the log.
    pub(super) fn recount(&mut self) {
        let line = &mut self.line;
        line.sm_told = line.sm_latest;
        line.counted_due = line.sm_latest != self.sm_event && self.sm_handled != Some(line.sm_latest);
    }

    fn secret(&self) -> SessionSecret {
        match self.open.kind {
            OpenKind::New { secret, .. } | OpenKind::Attach { secret, .. } => secret,
        }
    }

    /// Where this session stands, for ATTACHED.
    pub(super) fn cursor(&self, channel: u32) -> wire::Cursor {
        let inn = &self.line.inn;
        let next = if self.adopts_numbers() { 0 } else { inn.next() };
        wire::Cursor { channel, next, handled: inn.handled(), answered: self.is_answered, confirmed: inn.confirmed(), sm_in: None }
    }
}
