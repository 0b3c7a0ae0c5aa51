//! The customer's events on their way to the LAN: what waits for the connector's mark, and the `h` that may be told (XEP-0198 §4).
//!
//! Event numbers are the tunnel's and begin at 1 with the session; here they begin at 1 with the client. Stanza counts begin at 0 with `<enable/>`; an event without a
//! stanza of its own (software) or from before `<enable/>` moves the mark but not the count.

use std::collections::VecDeque;

use crate::proto::xmpp::stream_management::HandledPrefix;

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
}

impl Inward {
    /// `<enable/>` arrived: the stanzas that follow are counted. Tells whether it was the first.
    pub(super) fn enable(&mut self) -> bool {
        if self.counting.is_some() {
            return false;
        }
        self.counting = Some(Counting::default());
        true
    }

    /// A stanza arrived that becomes `events` events; returns the stanza count up to and including it.
    pub(super) fn stanza_arrived(&mut self, events: u32) -> u32 {
        let Some(counting) = &mut self.counting else { return 0 };
        counting.stanzas = counting.prefix.arrived(events);
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

    /// The connector committed the events up to `number`.
    pub(super) fn handled(&mut self, number: u64) {
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
        if let Some(counting) = &mut self.counting
            && counted > 0
        {
            counting.events_handled += counted;
            counting.prefix.handled(counting.events_handled);
        }
    }

    /// The `h` to tell, whatever was told before; `None` before `<enable/>`.
    pub(super) fn answer(&mut self) -> Option<u32> {
        let counting = self.counting.as_mut()?;
        counting.told = counting.prefix.h();
        Some(counting.told)
    }

    /// The `h` to push because it grew since it was last told.
    pub(super) fn growth(&mut self) -> Option<u32> {
        let counting = self.counting.as_mut()?;
        let h = counting.prefix.h();
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
