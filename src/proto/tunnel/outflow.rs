//! The sending half of a session: a log of numbered items, kept until the peer has handled them.
//!
//! Numbers are the session's and outlive every channel. `first` names the front of the log, `next_send` the item that goes
//! out next. A new attachment moves `next_send` back to what the peer expects; what was ephemeral and had been sent is then
//! only a tombstone.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::credit::{self, MAX_IN_FLIGHT, RESERVE, WIDEST};
use super::memory::{ReplayMemory, Share};
use super::open::fin_to_wire;
use super::wire::{self, kind};
use super::{Fin, Payload};

/// Most items and bytes that wait in one log; a sender beyond it has ignored its own bound.
const MAX_LOG_ITEMS: usize = 1024;
const MAX_LOG_BYTES: usize = 1024 * 1024;

/// What a number stands for.
#[derive(Debug)]
pub(super) enum Item {
    Payload(Payload),
    Fin(Box<Fin>),
}

#[derive(Debug)]
struct Entry {
    item: Item,
    sm_in: u32,
}

impl Entry {
    fn body_len(&self) -> usize {
        match &self.item {
            Item::Payload(Payload::Event(body) | Payload::Ephemeral(body)) => body.len(),
            Item::Payload(Payload::Tombstone) | Item::Fin(_) => 0,
        }
    }

    fn cost(&self) -> u32 {
        credit::cost(self.body_len())
    }
}

/// The peer claimed what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadClaim;

/// Handled now, by an ACK or an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Highest number handled.
    pub(super) handled: u64,
    /// The client's stanza count with it.
    pub(super) sm_in: u32,
    /// Whether the end of the session was among it.
    pub(super) fin: bool,
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Outflow {
    first: u64,
    log: VecDeque<Entry>,
    next_send: u64,
    /// Highest number that was ever sent; an ACK above it is a lie.
    sent: u64,
    window: u32,
    /// Cost of what was sent on this attachment, from number `charged_from`, and is not handled.
    in_flight: u64,
    charged_from: u64,
    held: usize,
    share: Share,
    ended: bool,
    /// Highest number that the peer said it has received.
    received: u64,
    /// Since when something that was sent on this attachment is not known to be received.
    unreceived_since: Option<Instant>,
    /// The trunk looks at this log from time to time.
    pub(super) is_watched: bool,
}

impl Outflow {
    /// An empty log whose next item has number `first`.
    pub(super) fn new(first: u64, memory: &ReplayMemory) -> Self {
        Self {
            first,
            log: VecDeque::new(),
            next_send: first,
            sent: first.saturating_sub(1),
            window: RESERVE,
            in_flight: 0,
            charged_from: first,
            held: 0,
            share: memory.share(),
            ended: false,
            received: first.saturating_sub(1),
            unreceived_since: None,
            is_watched: false,
        }
    }

    /// Appends an item; it gets number [`Outflow::next_number`]. False: the log is full or ended.
    #[must_use]
    pub(super) fn push(&mut self, item: Item, sm_in: u32) -> bool {
        if self.ended || self.log.len() >= MAX_LOG_ITEMS || self.held >= MAX_LOG_BYTES {
            return false;
        }
        self.push_unbounded(item, sm_in);
        true
    }

    /// As [`Outflow::push`], for what its owner already holds in a store.
    pub(super) fn push_unbounded(&mut self, item: Item, sm_in: u32) {
        self.ended = matches!(item, Item::Fin(_));
        let entry = Entry { item, sm_in };
        self.held += entry.body_len();
        self.share.add(entry.cost().into());
        self.log.push_back(entry);
    }

    /// Renumbers a log of which nothing was ever sent.
    pub(super) fn rebase(&mut self, first: u64) {
        self.first = first;
        self.next_send = first;
        self.charged_from = first;
        self.sent = first.saturating_sub(1);
        self.received = self.sent;
    }

    /// The peer received and handled so much and offers a window. Older claims are ignored.
    pub(super) fn acknowledge(&mut self, ack: &wire::Ack, now: Instant) -> Result<Option<Progress>, BadClaim> {
        let (handled, window) = (ack.handled, ack.credit);
        if handled > self.sent || ack.received > self.sent {
            return Err(BadClaim);
        }
        if ack.received > self.received {
            self.received = ack.received;
            self.unreceived_since = if ack.received + 1 >= self.next_send { None } else { Some(now) };
        }
        if handled.saturating_add(1) < self.first {
            return Ok(None);
        }
        self.window = window.clamp(RESERVE, WIDEST);
        Ok(self.drop_handled(handled))
    }

    /// A new attachment: the peer expects `next` and has handled what is below.
    pub(super) fn reattach(&mut self, next: u64, handled: u64) -> Result<Option<Progress>, BadClaim> {
        let end = self.first + self.log.len() as u64;
        if next < self.first || next > end || handled >= next || handled > self.sent.max(next.saturating_sub(1)) {
            return Err(BadClaim);
        }
        let progress = self.drop_handled(handled);
        self.next_send = next.max(self.first);
        self.bury_ephemeral();
        self.sent = self.sent.max(next.saturating_sub(1));
        self.window = RESERVE;
        self.charged_from = self.next_send;
        self.in_flight = 0;
        self.received = self.next_send - 1;
        self.unreceived_since = None;
        self.is_watched = false;
        Ok(progress)
    }

    /// Everything up to `handled` is handled, without a new attachment.
    pub(super) fn skip_handled(&mut self, handled: u64) -> Option<Progress> {
        self.drop_handled(handled)
    }

    /// Writes items until `out` holds `max` bytes, the window is full or `deficit` is spent; gives how many went out before.
    pub(super) fn write(&mut self, channel: u32, deficit: &mut usize, max: usize, out: &mut BytesMut, now: Instant) -> u64 {
        let mut again = 0;
        while *deficit > 0 && out.len() < max && self.can_send() {
            let Some(entry) = self.unsent() else { break };
            let cost = entry.cost();
            let before = out.len();
            write_entry(entry, channel, self.next_send, out);
            *deficit = deficit.saturating_sub(out.len() - before);
            self.in_flight += u64::from(cost);
            again += u64::from(self.next_send <= self.sent);
            self.sent = self.sent.max(self.next_send);
            self.unreceived_since.get_or_insert(now);
            self.next_send += 1;
        }
        again
    }

    /// Whether the next item may go out now.
    pub(super) fn can_send(&self) -> bool {
        let Some(entry) = self.unsent() else { return false };
        self.in_flight == 0
            || (self.in_flight + u64::from(entry.cost()) <= u64::from(self.window) && self.next_send - self.first < MAX_IN_FLIGHT)
    }

    /// Whether everything in the log went out.
    pub(super) fn is_drained(&self) -> bool {
        self.unsent().is_none()
    }

    /// Number of the oldest item that is not handled.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Number that the next item gets.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// Whether the log ends with FIN.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Since when the peer has not said that it received what was sent.
    pub(super) fn unreceived_since(&self) -> Option<Instant> {
        self.unreceived_since
    }

    /// Bytes of bodies held.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    fn unsent(&self) -> Option<&Entry> {
        self.log.get(usize::try_from(self.next_send.checked_sub(self.first)?).ok()?)
    }

    fn drop_handled(&mut self, handled: u64) -> Option<Progress> {
        let mut progress = None;
        while self.first <= handled {
            let Some(entry) = self.log.pop_front() else { break };
            self.held -= entry.body_len();
            self.share.sub(entry.cost().into());
            if (self.charged_from..self.next_send).contains(&self.first) {
                self.in_flight = self.in_flight.saturating_sub(u64::from(entry.cost()));
            }
            progress = Some(Progress { handled: self.first, sm_in: entry.sm_in, fin: matches!(entry.item, Item::Fin(_)) });
            self.first += 1;
        }
        self.next_send = self.next_send.max(self.first);
        progress
    }

    /// Of what goes out again, ephemeral bodies are gone.
    fn bury_ephemeral(&mut self) {
        let index = |number: u64| usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let (again, unsent) = (index(self.next_send), index(self.sent + 1));
        for entry in self.log.iter_mut().take(unsent).skip(again) {
            let body = entry.body_len();
            if let Item::Payload(payload @ Payload::Ephemeral(_)) = &mut entry.item {
                *payload = Payload::Tombstone;
                self.held -= body;
                self.share.sub(body as u64);
            }
        }
    }
}

fn write_entry(entry: &Entry, channel: u32, number: u64, out: &mut BytesMut) {
    let (mark, event) = match &entry.item {
        Item::Payload(Payload::Event(body)) => (0, body.clone()),
        Item::Payload(Payload::Ephemeral(body)) => (1, body.clone()),
        Item::Payload(Payload::Tombstone) => (2, Bytes::new()),
        Item::Fin(fin) => return wire::put(out, kind::FIN, 0, channel, &fin_to_wire(fin, number, entry.sm_in)),
    };
    wire::put(out, kind::DATA, 0, channel, &wire::Data { number, sm_in: entry.sm_in, mark, event });
}
