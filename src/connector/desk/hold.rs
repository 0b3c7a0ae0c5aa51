//! Back-pressure on agents: what becomes of a message for a customer whose client confirms too slowly.
//!
//! An agent has several customers on one socket, so leaving that socket unread stops them all. Therefore a message that finds no
//! room waits, with everything the agent sends after it, for [`HOLD_FOR`] at most: enough for a burst to a customer who reads.
//! The agent's stanzas wait here, then in the socket; nonzas are answered all the time. Once the time has passed the customer is
//! *lagging*: the agent's other customers go on, and what finds no room for this one is refused with an error that says why,
//! until half of the backlog is confirmed.
//!
//! What waits is not handled: `h` does not count it, and a client that resumes sends it again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::command::Heard;
use super::outward::MAX_PENDING;
use super::session::Session;
use super::{Desk, Effect, LegId, Timer};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;
use crate::session::SessionId;

/// How long one customer may delay an agent's others.
const HOLD_FOR: Duration = Duration::from_secs(2);

/// Stanzas that wait here, and their bytes, before the socket is left unread.
const MAX_PARKED: (usize, usize) = (64, 64 * 1024);

/// Stanzas that may wait here although the socket should be unread by now: while the store cannot commit, nobody is told so.
const MOST_PARKED: usize = 4096;

/// Events for which there must be room before what waited goes on.
const ROOM: usize = 64;

/// What an event takes beside its text.
const EVENT_OVERHEAD: usize = 1024;

/// The stanzas of a leg that wait for one customer.
#[derive(Debug)]
pub(crate) struct Hold {
    session: SessionId,
    until: Instant,
    parked: VecDeque<Element>,
    bytes: usize,
    is_unread: bool,
}

impl Desk {
    /// Whether a stanza of an agent has to wait: behind others that do, or for room at its customer.
    pub(super) fn has_to_wait(&mut self, id: LegId, stanza: &Element) -> bool {
        if self.held.contains(&id) {
            return true;
        }
        let Some(session) = self.customer_without_room(id, stanza) else { return false };
        let until = self.arm(HOLD_FOR, Timer::Hold(id));
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        leg.hold = Some(Hold { session, until, parked: VecDeque::new(), bytes: 0, is_unread: false });
        self.held.insert(id)
    }

    /// The customer whose backlog leaves no room for this message, unless that is known to last.
    fn customer_without_room(&self, id: LegId, stanza: &Element) -> Option<SessionId> {
        if stanza.name() != "message" || stanza.attribute("type") == Some("error") {
            return None;
        }
        let bare = stanza.attribute("to")?.split('/').next()?.to_lowercase();
        let session_id = self.session_of_proxy(&bare)?;
        let session = self.sessions.get(&session_id)?;
        if session.is_lagging || !session.is_with(&self.legs.get(&id)?.agent) {
            return None;
        }
        let body = stanza.child("body", ns::CLIENT)?.text();
        let is_full = !session.out_pending.has_room(1, body.len() + EVENT_OVERHEAD, MAX_PENDING);
        (is_full && Heard::in_chat(&body) == Heard::Text).then_some(session_id)
    }

    /// Keeps a stanza that has to wait.
    pub(super) fn park(&mut self, id: LegId, stanza: &Element) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(hold) = &mut leg.hold else { return };
        hold.bytes += stanza.to_xml().len();
        hold.parked.push_back(stanza.clone());
        if hold.parked.len() > MOST_PARKED {
            let agent = leg.agent.clone();
            self.close_leg(id, "resource-constraint", "Too much was sent at once.");
            return self.agent_left(&agent);
        }
        let is_full = hold.parked.len() >= MAX_PARKED.0 || hold.bytes >= MAX_PARKED.1;
        if is_full && !std::mem::replace(&mut hold.is_unread, true) {
            self.tell_reading(id, false);
        }
    }

    /// Goes on with what waited, where there is room again or the time is up.
    pub(super) fn release_held(&mut self) {
        let held: Vec<LegId> = self.held.iter().copied().collect();
        for id in held {
            let Some(hold) = self.legs.get(&id).and_then(|leg| leg.hold.as_ref()) else {
                self.held.remove(&id);
                continue;
            };
            let (session, is_due) = (hold.session, hold.until <= self.now.instant);
            let has_room = self.sessions.get(&session).is_none_or(|session| session.is_closed() || has_room(session));
            if has_room || is_due {
                self.release(id, !has_room);
            }
        }
    }

    /// The client sends no more on this connection: what it said counts, as far as there is room.
    pub(super) fn release_last(&mut self, id: LegId) {
        while self.held.contains(&id) {
            self.release(id, true);
        }
    }

    fn release(&mut self, id: LegId, is_lagging: bool) {
        self.held.remove(&id);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let (Some(hold), Some(handle)) = (leg.hold.take(), leg.handle) else { return };
        if let Some(session) = self.sessions.get_mut(&hold.session) {
            session.is_lagging |= is_lagging;
        }
        if hold.is_unread {
            self.tell_reading(id, true);
        }
        for stanza in hold.parked {
            self.agent_element(handle, &stanza);
        }
        // Its questions were answered while these were not handled.
        self.answer_count(id);
    }

    fn tell_reading(&mut self, id: LegId, is_wanted: bool) {
        if let Some(stream) = self.legs.get(&id).and_then(|leg| leg.handle) {
            self.effect(Effect::AgentRead { stream, is_wanted });
        }
    }

    /// The customer's client confirmed something: enough of it, and its agent may go on.
    pub(super) fn caught_up(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.is_lagging) else { return };
        if session.out_pending.has_room(MAX_PENDING.0 / 2, MAX_PENDING.1 / 2, MAX_PENDING) {
            session.is_lagging = false;
            self.tell_owner(id, "The customer keeps up again.");
        }
    }

    /// Why a message is refused that found no room.
    pub(super) fn not_keeping_up(&self, id: SessionId) -> String {
        let waiting = self.sessions.get(&id).map_or(0, |session| session.out_pending.len());
        let code = self.code_of(id);
        format!("{code} is not keeping up: {waiting} messages wait for the customer's client. Your message was not sent; try again later.")
    }
}

fn has_room(session: &Session) -> bool {
    session.out_pending.has_room(ROOM, ROOM * EVENT_OVERHEAD, MAX_PENDING)
}
