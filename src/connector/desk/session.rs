//! One customer's session as the desk holds it.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::RelayIndex;
use super::admission::sha256;
use super::backlog::Backlog;
use crate::im::Availability;
use crate::proto::tunnel::{ChannelId, Fin, Payload};
use crate::routing::offer::{Exclusions, Offer};
use crate::session::Direction;
use crate::store::{Place, SessionRecord, StoredEvent};

/// Events of the conversation kept in memory, both ways.
pub(super) const MAX_HISTORY: usize = 200;

/// Bytes of the conversation kept in memory: a banner shows much less.
const MAX_HISTORY_BYTES: usize = 64 * 1024;

/// Inward events that may wait for an agent: fewer than are kept in memory and restored.
pub(super) const MAX_WAITING: usize = 128;

/// Bytes of inward events that may wait for an agent. With what is in the tunnel, one widest window of 256 KiB, and the event that
/// goes over this limit, at most 1 MiB is not read.
pub(super) const MAX_WAITING_BYTES: usize = 736 * 1024;

/// Pairs of (id, body) remembered of each party.
const MAX_RECENT: usize = 64;

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) record: SessionRecord,
    pub(super) place: Place,
    pub(super) enqueued_at: u64,
    pub(super) attachment: u32,
    /// When its client asked for it in person the last time, since the start.
    pub(super) came_at: Option<Instant>,
    pub(super) channel: Option<(RelayIndex, ChannelId)>,
    /// Whether a relay has asked for it since the start: it showed how far it is.
    pub(super) was_asked_for: bool,
    /// The first outward number that was given while no relay had asked: if one has it already, the store came back older.
    pub(super) unseen_from: Option<u64>,
    /// Its channel was opened for a new session: a withdrawal means that its customer never was in it.
    pub(super) is_fresh: bool,
    /// When it is given up for lack of an attachment; `None` while attached.
    pub(super) detached_until: Option<Instant>,
    pub(super) in_handled: u64,
    pub(super) sm_in: u32,
    /// Inward numbers up to here are known to have reached an agent or the bot, as the store was told.
    pub(super) delivered: u64,
    /// Inward events that are not known to have reached anyone.
    pub(super) undelivered: Backlog,
    pub(super) out_last: u64,
    pub(super) out_handled: u64,
    /// Outward numbers up to here were confirmed by the customer's client, as the store was told since the start.
    pub(super) out_confirmed: u64,
    pub(super) out_pending: Outgoing,
    /// Whether the customer's side took too long to make room, and its agent is told so at once.
    pub(super) is_lagging: bool,
    pub(super) fin: Option<(u64, Fin)>,
    pub(super) history: VecDeque<(Direction, StoredEvent)>,
    history_bytes: usize,
    pub(super) said_by_customer: Recent,
    pub(super) said_by_agent: Recent,
    pub(super) offer: Option<Offer>,
    pub(super) exclusions: Exclusions,
    /// Until when routing waits for the software; `None` once it is known or given up.
    pub(super) software_until: Option<Instant>,
    pub(super) told_position: Option<usize>,
    pub(super) presence: Availability,
    /// It changed while the owner's client was away.
    pub(super) presence_missed: bool,
    /// What came while too much waits for an agent: not handled yet, so the tunnel's credit ends.
    pub(super) stalled: VecDeque<Stalled>,
}

/// An inward event that is not handled yet.
#[derive(Clone, Debug)]
pub(super) struct Stalled {
    pub(super) number: u64,
    pub(super) sm_in: u32,
    pub(super) payload: Payload,
}

impl Session {
    /// A session that begins now.
    pub(super) fn new(record: SessionRecord, place: Place) -> Self {
        Self {
            enqueued_at: record.opened_at,
            record,
            place,
            attachment: 1,
            came_at: None,
            channel: None,
            was_asked_for: false,
            unseen_from: None,
            is_fresh: false,
            detached_until: None,
            in_handled: 0,
            sm_in: 0,
            delivered: 0,
            undelivered: Backlog::default(),
            out_last: 0,
            out_handled: 0,
            out_confirmed: 0,
            out_pending: Outgoing::default(),
            is_lagging: false,
            fin: None,
            history: VecDeque::new(),
            history_bytes: 0,
            said_by_customer: Recent::default(),
            said_by_agent: Recent::default(),
            offer: None,
            exclusions: Exclusions::default(),
            software_until: None,
            told_position: None,
            presence: Availability::Available,
            presence_missed: false,
            stalled: VecDeque::new(),
        }
    }

    pub(super) fn queue_key(&self) -> (String, String) {
        (self.record.domain.clone(), self.record.queue.clone())
    }

    /// Whether it has ended, confirmed or not.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.place, Place::Closed(_))
    }

    /// Whether `agent` has it.
    pub(super) fn is_with(&self, agent: &str) -> bool {
        matches!(&self.place, Place::Agent(owner) if owner == agent)
    }

    pub(super) fn remember(&mut self, direction: Direction, event: StoredEvent) {
        self.history_bytes += stored_len(&event);
        self.history.push_back((direction, event));
        while self.history.len() > MAX_HISTORY || self.history_bytes > MAX_HISTORY_BYTES {
            let Some((_, oldest)) = self.history.pop_front() else { return };
            self.history_bytes -= stored_len(&oldest);
        }
    }

    /// All unconfirmed outward events, for an attachment.
    pub(super) fn pending_payloads(&self) -> Vec<Payload> {
        let payload = |event: &StoredEvent| event.body.clone().map_or(Payload::Tombstone, Payload::Event);
        self.out_pending.events.iter().map(payload).collect()
    }

    /// Notes that an outward number is given; tells whether it is the first that no relay can have seen, as far as this store knows.
    pub(super) fn is_first_unseen(&mut self, number: u64) -> bool {
        let is_first = !self.was_asked_for && self.unseen_from.is_none();
        if is_first {
            self.unseen_from = Some(number);
        }
        is_first
    }

    /// The highest outward number handed out, the end's included.
    pub(super) fn out_end(&self) -> u64 {
        self.fin.as_ref().map_or(self.out_last, |(number, _)| *number)
    }

    /// Highest number up to which all inward events have reached someone.
    pub(super) fn delivered_now(&self) -> u64 {
        self.undelivered.first().map_or(self.in_handled, |first| first.saturating_sub(1))
    }

    /// Whether nothing was handled either way: its customer may never have been in it.
    pub(super) fn was_untouched(&self) -> bool {
        self.in_handled == 0 && self.out_handled == 0
    }

    /// The part of the proxy address before the at sign.
    pub(super) fn localpart(&self) -> String {
        format!("guest-{}", self.record.code)
    }
}

/// Outward events that are not confirmed, in order.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    events: VecDeque<StoredEvent>,
    bytes: usize,
}

impl Outgoing {
    pub(super) fn new(events: Vec<StoredEvent>) -> Self {
        let bytes = events.iter().map(stored_len).sum();
        Self { events: VecDeque::from(events), bytes }
    }

    pub(super) fn push(&mut self, event: StoredEvent) {
        self.bytes += stored_len(&event);
        self.events.push_back(event);
    }

    /// Lets go of what is confirmed.
    pub(super) fn drop_through(&mut self, number: u64) {
        while let Some(event) = self.events.pop_front_if(|event| event.number <= number) {
            self.bytes -= stored_len(&event);
        }
    }

    /// Whether `events` more, with `bytes` in all, stay within these limits.
    pub(super) fn has_room(&self, events: usize, bytes: usize, (most, most_bytes): (usize, usize)) -> bool {
        self.events.len() + events <= most && self.bytes + bytes <= most_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }
}

/// The last (id, body) pairs of one party, each with the connection it came on: an identical pair on another connection is the
/// same message sent again.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Digests: bodies may be large, and there are many sessions.
    pairs: VecDeque<(u64, [u8; 32])>,
}

impl Recent {
    /// Whether the pair is a repetition; remembers it otherwise. Without an id nothing is a repetition.
    pub(super) fn is_repeated(&mut self, connection: u64, id: Option<&str>, body: &str) -> bool {
        let Some(id) = id else { return false };
        let pair = sha256(&[id.as_bytes(), &[0], body.as_bytes()].concat());
        if self.pairs.iter().any(|(on, known)| *on != connection && *known == pair) {
            return true;
        }
        self.pairs.push_back((connection, pair));
        if self.pairs.len() > MAX_RECENT {
            self.pairs.pop_front();
        }
        false
    }
}

fn stored_len(event: &StoredEvent) -> usize {
    event.body.as_ref().map_or(0, Bytes::len)
}
