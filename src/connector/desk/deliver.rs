//! To the agent: inward events, banners and notices, on the leg that gets the agent's work.

use std::fmt::Write as _;

use super::backlog::Undelivered;
use super::quote::quote;
use super::session::Session;
use super::{Desk, LegId};
use crate::connector::agent_leg::Tag;
use crate::im::{Author, Availability, ImEvent, Message};
use crate::proto::tunnel::event;
use crate::proto::xmpp::im::stanza_of;
use crate::proto::xmpp::ns;
use crate::proto::xmpp::server::Contact;
use crate::proto::xmpp::stanza::Element;
use crate::session::{Direction, SessionId};
use crate::store::{Op, Place};

/// Lines of earlier conversation in a banner.
const BANNER_LINES: usize = 20;
/// Characters of one line in a banner.
const BANNER_LINE: usize = 400;

/// XEP-0359: carries which event a stanza shows, through the store and back.
const STANZA_ID: &str = "urn:xmpp:sid:0";

impl Desk {
    /// The agent who has a session.
    pub(super) fn owner(&self, id: SessionId) -> Option<String> {
        match &self.sessions.get(&id)?.place {
            Place::Agent(agent) => Some(agent.clone()),
            Place::Queued | Place::Bot | Place::Closed(_) => None,
        }
    }

    /// Writes every inward event that waits to the owner's leg, in order. While the leg is down they wait here, bounded for each
    /// session: on the leg one customer's flood would cost the agent the stream and with it every other customer.
    pub(super) fn deliver_waiting(&mut self, id: SessionId) {
        let Some(agent) = self.owner(id) else { return };
        let Some(leg) = self.work_leg(&agent).filter(|leg| self.is_up(*leg)) else { return };
        let mut any = false;
        while let Some((number, event)) = self.sessions.get_mut(&id).and_then(|session| session.undelivered.write_next(leg)) {
            any = true;
            self.deliver(id, leg, number, &event);
        }
        if any {
            self.roomy.insert(id);
        }
    }

    fn deliver(&mut self, id: SessionId, leg: LegId, number: u64, waiting: &Undelivered) {
        let Ok(mut said) = event::decode(&waiting.body) else { return self.prove(id, leg, number) };
        if let ImEvent::Message(message) = &mut said {
            // Whatever the relay says, it is the customer who speaks.
            message.author = Author::Party;
            quote(&mut message.body);
            if waiting.maybe_shown || waiting.at != self.now.unix_millis {
                message.delayed_at.get_or_insert(waiting.at);
            }
        }
        if waiting.maybe_shown {
            self.counters.possibly_repeated += 1;
        }
        let Some(stanza) = self.stanza_for(id, leg, number, &said) else { return self.prove(id, leg, number) };
        let xml = stanza.with_child(shows(id, number, &self.domain)).to_xml();
        self.write(leg, xml, Tag { session: Some(id), event: Some(number) });
    }

    /// The stanza that shows an inward event, from the customer's proxy address, with the customer's name.
    fn stanza_for(&self, id: SessionId, leg: LegId, number: u64, said: &ImEvent) -> Option<Element> {
        let session = self.sessions.get(&id)?;
        let to = self.jid_of(leg)?;
        let stanza_id = match said {
            ImEvent::Message(Message { id: Some(theirs), .. }) => theirs.clone(),
            ImEvent::Message(_)
            | ImEvent::ChatState(_)
            | ImEvent::Receipt(_)
            | ImEvent::Marker(_)
            | ImEvent::Presence(_)
            | ImEvent::Software(_) => format!("{}-{number}", session.record.code),
        };
        let stanza = stanza_of(said, &self.proxy(session), &to, &stanza_id)?;
        Some(match said {
            ImEvent::Message(_) => stanza.with_child(nick(&session.record.customer)),
            ImEvent::ChatState(_) | ImEvent::Receipt(_) | ImEvent::Marker(_) | ImEvent::Presence(_) | ImEvent::Software(_) => stanza,
        })
    }

    /// Shows an ephemeral event, if the owner's client is there to see it.
    pub(super) fn show_ephemeral(&mut self, id: SessionId, said: &ImEvent) {
        let Some(leg) = self.owner(id).and_then(|agent| self.work_leg(&agent)) else { return };
        if !self.is_up(leg) {
            return;
        }
        let number = self.sessions.get(&id).map_or(0, |session| session.in_handled);
        if let Some(stanza) = self.stanza_for(id, leg, number, said) {
            self.write(leg, stanza.to_xml(), Tag { session: Some(id), event: None });
        }
    }

    fn is_up(&self, leg: LegId) -> bool {
        self.legs.get(&leg).is_some_and(|leg| leg.handle.is_some())
    }

    /// Shows a presence that changed while the owner's client was away.
    pub(super) fn show_missed_presence(&mut self, id: SessionId) {
        if self.sessions.get(&id).is_some_and(|session| session.presence_missed) {
            self.show_presence(id);
        }
    }

    /// Shows whether the customer is there; a leg that is down hears of it when it is back.
    pub(super) fn show_presence(&mut self, id: SessionId) {
        let Some(agent) = self.owner(id) else { return };
        let Some(leg) = self.work_leg(&agent) else { return };
        let is_up = self.is_up(leg);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.presence_missed = !is_up;
        if !is_up {
            return;
        }
        let Some(session) = self.sessions.get(&id) else { return };
        let stanza = self.proxy_presence(session, session.presence, leg);
        if let Some(stanza) = stanza {
            self.write(leg, stanza.to_xml(), Tag { session: Some(id), event: None });
        }
    }

    fn proxy_presence(&self, session: &Session, presence: Availability, leg: LegId) -> Option<Element> {
        let to = self.jid_of(leg)?;
        let stanza = stanza_of(&ImEvent::Presence(presence), &self.proxy(session), &to, "")?;
        Some(stanza.with_child(nick(&session.record.customer)))
    }

    /// The session becomes a contact of its agent, on the leg that gets the work.
    pub(super) fn introduce(&mut self, id: SessionId, leg: LegId) {
        self.push_roster(id, leg, false);
        self.show_presence(id);
    }

    /// The session is no contact of `agent` any more.
    pub(super) fn take_leave(&mut self, id: SessionId, agent: &str) {
        let Some(leg) = self.work_leg(agent) else { return };
        let Some(session) = self.sessions.get(&id) else { return };
        let stanza = self.proxy_presence(session, Availability::Unavailable, leg);
        if let Some(stanza) = stanza {
            self.write(leg, stanza.to_xml(), Tag::default());
        }
        self.push_roster(id, leg, true);
    }

    fn push_roster(&mut self, id: SessionId, leg: LegId, removed: bool) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (contact, push_id) = (self.contact(session), self.own_id());
        let Some(site) = self.site(leg) else { return };
        let push = self
            .legs
            .get_mut(&leg)
            .and_then(|leg| if leg.answers.is_interested() { leg.answers.roster_push(&site, &contact, removed, &push_id) } else { None });
        if let Some(push) = push {
            self.write(leg, push.to_xml(), Tag::default());
        }
    }

    /// Tells the agent who this is and what was said, in the customer's own chat.
    pub(super) fn banner(&mut self, id: SessionId, leg: LegId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let record = &session.record;
        let queue = self.queues.get(&session.queue_key()).map_or(record.queue.as_str(), |queue| queue.config.name.as_str());
        let waited = self.now.unix_millis.saturating_sub(session.enqueued_at) / 1000;
        let mut text = format!("* {} from {queue}, waited {waited} s. Software: {}.", record.customer, record.software);
        if !record.reason.is_empty() {
            let _infallible = write!(text, " Reason: {}.", record.reason);
        }
        let earlier = earlier_lines(session);
        if !earlier.is_empty() {
            let _infallible = write!(text, "\nEarlier:\n{}", earlier.join("\n"));
        }
        text.push_str("\nWrite here to answer; !done ends it, !help lists the commands.");
        let from = self.proxy(session);
        self.tell(leg, &from, text, Some(id));
    }

    /// A sentence of our own to an agent's leg, in the chat with `from`.
    pub(super) fn tell(&mut self, leg: LegId, from: &str, text: String, session: Option<SessionId>) {
        let id = self.own_id();
        let Some(to) = self.jid_of(leg) else { return };
        let message = Message { id: Some(id.clone()), body: text, author: Author::Notice, ..Message::default() };
        let Some(stanza) = stanza_of(&ImEvent::Message(message), from, &to, &id) else { return };
        let stanza = stanza.with_child(Element::new("no-store", ns::HINTS));
        self.write(leg, stanza.to_xml(), Tag { session, event: None });
    }

    /// A sentence of our own about a session to its owner, in the customer's chat.
    pub(super) fn tell_owner(&mut self, id: SessionId, text: &str) {
        let Some(leg) = self.owner(id).and_then(|agent| self.work_leg(&agent)) else { return };
        let Some(from) = self.sessions.get(&id).map(|session| self.proxy(session)) else { return };
        self.tell(leg, &from, format!("* {text}"), Some(id));
    }

    /// An inward event is known to have reached its agent.
    pub(super) fn prove(&mut self, id: SessionId, leg: LegId, number: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.undelivered.prove(number, leg);
        self.tell_delivered(id);
    }

    /// Tells the store how far delivery has come.
    pub(super) fn tell_delivered(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let number = session.delivered_now();
        if number > session.delivered {
            session.delivered = number;
            self.op(Op::Delivered { session: id, number });
        }
    }

    pub(super) fn proxy(&self, session: &Session) -> String {
        format!("{}@{}", session.localpart(), self.domain)
    }

    pub(super) fn contact(&self, session: &Session) -> Contact {
        let group = self.queues.get(&session.queue_key()).map_or_else(|| session.record.queue.clone(), |queue| queue.config.name.clone());
        Contact { jid: self.proxy(session), name: session.record.customer.clone(), group }
    }
}

/// The conversation so far, without what the agent is about to get as messages of its own.
fn earlier_lines(session: &Session) -> Vec<String> {
    let line = |(direction, stored): &(Direction, crate::store::StoredEvent)| {
        if *direction == Direction::In && session.undelivered.contains(stored.number) {
            return None;
        }
        let ImEvent::Message(message) = event::decode(stored.body.as_ref()?).ok()? else { return None };
        let who = match (direction, &message.author) {
            (Direction::In, _) => session.record.customer.clone(),
            (Direction::Out, Author::Agent(name)) => name.clone(),
            (Direction::Out, Author::Party | Author::Notice) => return None,
        };
        // On one line: a customer must not write lines that seem to be an agent's.
        let said: String = message.body.chars().take(BANNER_LINE).map(|c| if c == '\n' { ' ' } else { c }).collect();
        Some(format!("  {who}: {said}"))
    };
    let mut lines: Vec<String> = session.history.iter().rev().filter_map(line).take(BANNER_LINES).collect();
    lines.reverse();
    lines
}

fn nick(name: &str) -> Element {
    Element::new("nick", ns::NICK).with_text(name)
}

fn shows(id: SessionId, number: u64, by: &str) -> Element {
    Element::new("stanza-id", STANZA_ID).with_attribute("id", shown_id(id, number)).with_attribute("by", by)
}

fn shown_id(id: SessionId, number: u64) -> String {
    format!("{id}/{number}")
}

/// Which event of `id` a stanza of our own shows, read back from its text. The mark is the last of its kind: nothing that a
/// customer wrote can stand unescaped in it.
pub(super) fn shown_event(xml: &str, id: SessionId) -> Option<u64> {
    let mark = format!("<stanza-id xmlns='{STANZA_ID}' id='{id}/");
    let (_, rest) = xml.rsplit_once(&mark)?;
    let (number, _) = rest.split_once('\'')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_event_a_stanza_shows_is_read_back_from_its_text() {
        let id = SessionId::new(7, [1; 10]);
        let xml = Element::new("message", ns::CLIENT).with_child(shows(id, 42, "desk.example")).to_xml();
        assert_eq!(shown_event(&xml, id), Some(42));
        assert_eq!(shown_event(&xml, SessionId::new(8, [1; 10])), None);
    }
}
