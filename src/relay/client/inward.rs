//! The customer's events on their way to the LAN: what waits for the connector's mark, and the `h` that may be told (XEP-0198 §4).
//!
//! Event numbers are the tunnel's and begin at 1 with the session; here they begin at 1 with the client. Stanza counts begin at 0 with `<enable/>`; an event without a
//! stanza of its own (software) or from before `<enable/>` moves the mark but not the count.
//!
//! A client that can resume is told no count but the one that the connector has committed: whichever relay it comes to next tells
//! the same, so that what it lets go of is nowhere lost.

use std::collections::VecDeque;

use crate::proto::xmpp::stream_management::{HandledPrefix, is_above};

/// Events a customer may have on their way before his socket is left unread.
const MAX_WAITING: usize = 64;

/// Bytes a customer may have on their way before his socket is left unread.
const MAX_WAITING_BYTES: usize = 64 * 1024;

/// The account of one session's inward events.
#[derive(Debug, Default)]
pub(super) struct Inward {
    sent: u64,
    /// What the session had said before this client came.
    before: u64,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    counting: Option<Counting>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    bytes: usize,
    origin: Origin,
}

/// Whether a waiting event holds back the count of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Counted,
    Uncounted,
}

#[derive(Debug, Default)]
struct Counting {
    prefix: HandledPrefix,
    stanzas: u32,
    events_handled: u64,
    told: u32,
    /// The count as the connector has it, where the client can resume.
    committed: Option<u32>,
    /// The count that the connector was told.
    reported: u32,
}

impl Counting {
    fn h(&self) -> u32 {
        self.committed.unwrap_or_else(|| self.prefix.h())
    }
}

impl Inward {
    /// Goes on after `events` and `stanzas` that are handled.
    pub(super) fn resumed_at(events: u64, stanzas: u32) -> Self {
        let counting = Counting {
            prefix: HandledPrefix::resumed_at(stanzas, 0),
            stanzas,
            told: stanzas,
            committed: Some(stanzas),
            reported: stanzas,
            ..Counting::default()
        };
        Self { sent: events, counting: Some(counting), ..Self::default() }
    }

    /// `<enable/>` arrived: the stanzas that follow are counted. Tells whether it was the first.
    pub(super) fn enable(&mut self, is_resumable: bool) -> bool {
        if self.counting.is_some() {
            return false;
        }
        self.counting = Some(Counting { committed: is_resumable.then_some(0), ..Counting::default() });
        true
    }

    /// The stanza count that is not with an event, to be reported by itself.
    pub(super) fn take_unreported(&mut self) -> Option<u32> {
        let counting = self.counting.as_mut().filter(|counting| counting.committed.is_some())?;
        let is_news = std::mem::replace(&mut counting.reported, counting.stanzas) != counting.stanzas;
        is_news.then_some(counting.stanzas)
    }

    /// Whether the connector has committed all stanzas that came.
    pub(super) fn is_settled(&self) -> bool {
        self.counting.as_ref().is_some_and(|counting| counting.h() == counting.stanzas)
    }

    /// A stanza arrived that becomes `events` events; returns the stanza count up to and including it.
    pub(super) fn stanza_arrived(&mut self, events: u32) -> u32 {
        let Some(counting) = &mut self.counting else { return 0 };
        counting.stanzas = counting.prefix.arrived(events);
        if events > 0 {
            counting.reported = counting.stanzas;
        }
        counting.stanzas
    }

    /// One event of a stanza leaves.
    pub(super) fn event_sent(&mut self, bytes: usize) {
        let origin = if self.counting.is_some() { Origin::Counted } else { Origin::Uncounted };
        self.push(bytes, origin);
    }

    /// An event without a stanza leaves; returns the stanza count at this moment.
    pub(super) fn bare_event_sent(&mut self, bytes: usize) -> u32 {
        self.push(bytes, Origin::Uncounted);
        self.counting.as_ref().map_or(0, |counting| counting.stanzas)
    }

    /// The session stands, and this client's first event has number `first` in it.
    pub(super) fn opened(&mut self, first: u64) {
        self.before = first.saturating_sub(1);
    }

    /// The connector committed the events up to `number`, and the stanza count `sm_in`.
    pub(super) fn handled(&mut self, number: u64, sm_in: u32) {
        let number = number.saturating_sub(self.before);
        let mut counted = 0;
        while let Some(first) = self.waiting.front() {
            if first.number > number {
                break;
            }
            self.bytes -= first.bytes;
            counted += u64::from(first.origin == Origin::Counted);
            self.waiting.pop_front();
        }
        let Some(counting) = &mut self.counting else { return };
        counting.events_handled += counted;
        counting.prefix.handled(counting.events_handled);
        if let Some(committed) = &mut counting.committed
            && is_above(sm_in, *committed)
        {
            *committed = sm_in;
        }
    }

    /// The `h` to tell, whatever was told before; `None` before `<enable/>`.
    pub(super) fn answer(&mut self) -> Option<u32> {
        let counting = self.counting.as_mut()?;
        counting.told = counting.h();
        Some(counting.told)
    }

    /// The `h` to push because it grew since it was last told.
    pub(super) fn growth(&mut self) -> Option<u32> {
        let counting = self.counting.as_mut()?;
        let h = counting.h();
        if h == counting.told {
            return None;
        }
        counting.told = h;
        Some(h)
    }

    /// Whether as much is on its way as one customer may have.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING || self.bytes >= MAX_WAITING_BYTES
    }

    fn push(&mut self, bytes: usize, origin: Origin) {
        self.sent += 1;
        self.bytes += bytes;
        self.waiting.push_back(Waiting { number: self.sent, bytes, origin });
    }
}
