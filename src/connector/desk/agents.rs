//! What agents' clients send: presence, questions, commands, and messages for customers.

use super::command::{Command, Heard};
use super::outward::OutFault;
use super::{Desk, LegId, StreamHandle};
use crate::connector::agent_leg::Tag;
use crate::im::{Author, Availability, ImEvent};
use crate::proto::xmpp::im::{MessageFault, availability_of, events_of, stanza_of};
use crate::proto::xmpp::server::stanza_error;
use crate::proto::xmpp::stanza::Element;
use crate::proto::xmpp::stream_management::{counts, nonza_of};
use crate::session::SessionId;
use crate::store::{Op, Place};

/// A refusal of a stanza: error type, condition, sentence.
type Refusal = (&'static str, &'static str, String);

impl Desk {
    pub(super) fn agent_element(&mut self, handle: StreamHandle, element: &Element) {
        let Some(id) = self.handles.get(&handle).copied() else { return };
        if let Some(nonza) = nonza_of(element) {
            return self.nonza(id, &nonza);
        }
        if !counts(element) {
            return self.close_leg_of(id, "unsupported-stanza-type", "That is no stanza.");
        }
        if self.has_to_wait(id, element) {
            return self.park(id, element);
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let h = leg.received();
        if let (Some(h), Some(stream)) = (h, leg.key()) {
            self.op(Op::StreamIn { stream, h });
        }
        match element.name() {
            "message" => self.agent_message(id, handle, element),
            "presence" => self.agent_presence(id, element),
            _ => self.agent_iq(id, element),
        }
    }

    fn close_leg_of(&mut self, id: LegId, condition: &'static str, text: &str) {
        let Some(agent) = self.legs.get(&id).map(|leg| leg.agent.clone()) else { return };
        self.close_leg(id, condition, text);
        self.agent_left(&agent);
    }

    fn agent_iq(&mut self, id: LegId, iq: &Element) {
        let Some(site) = self.site(id) else { return };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let agent = leg.agent.clone();
        let outcome = leg.answers.handle_iq(&site, iq);
        for reply in outcome.replies {
            self.write(id, reply.to_xml(), Tag::default());
        }
        if let Some(blocked) = outcome.blocked {
            self.contact_blocked(&agent, &blocked);
        }
    }

    /// An agent wants to hear no more of someone: a customer waits for another agent, the desk makes no more offers.
    fn contact_blocked(&mut self, agent: &str, jid: &str) {
        let Some(session) = self.session_of_proxy(jid) else {
            let told = self.pause(agent, "the desk is blocked".to_owned());
            return self.tell_from_desk(agent, told);
        };
        if self.sessions.get(&session).is_some_and(|session| session.is_with(agent)) {
            self.requeue(session, agent);
            self.pass_on(session, agent);
            let code = self.code_of(session);
            self.tell_from_desk(agent, format!("You blocked {code}: the conversation goes to someone else."));
        }
    }

    fn agent_presence(&mut self, id: LegId, presence: &Element) {
        let kind = presence.attribute("type");
        if matches!(kind, Some("subscribe" | "subscribed" | "unsubscribe" | "unsubscribed" | "probe")) {
            let Some(site) = self.site(id) else { return };
            let Some(leg) = self.legs.get_mut(&id) else { return };
            let outcome = leg.answers.handle_subscription(&site, presence);
            for reply in outcome.replies {
                self.write(id, reply.to_xml(), Tag::default());
            }
            return;
        }
        if presence.attribute("to").is_some() {
            return;
        }
        let Some(availability) = availability_of(presence) else { return };
        let shown = (availability != Availability::Unavailable).then_some(availability);
        self.presence_shown(id, shown);
    }

    fn presence_shown(&mut self, id: LegId, shown: Option<Availability>) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let before = leg.presence;
        leg.presence = shown;
        let (agent, key) = (leg.agent.clone(), leg.key());
        if let Some(stream) = key.filter(|_| before != shown) {
            self.op(Op::StreamPresence { stream, presence: shown });
        }
        self.stirred.insert(agent.clone());
        match (before, shown) {
            (None, Some(_)) => self.leg_available(id, &agent),
            (Some(_), None) => self.agent_left(&agent),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// A client became available: it gets the agent's work from now on, and what older clients that are gone never showed.
    fn leg_available(&mut self, id: LegId, agent: &str) {
        let is_down = |other: &LegId| *other != id && self.legs.get(other).is_some_and(|leg| leg.handle.is_none());
        let mut down = self.legs_of(agent);
        down.retain(is_down);
        for other in down {
            self.end_leg(other);
        }
        let (desk, to) = (self.desk_jid(), self.jid_of(id).unwrap_or_default());
        if let Some(presence) = stanza_of(&ImEvent::Presence(Availability::Available), &desk, &to, "") {
            self.write(id, presence.to_xml(), Tag::default());
        }
        let sessions: Vec<SessionId> = self.agents.get(agent).map(|agent| agent.sessions.iter().copied().collect()).unwrap_or_default();
        for session in sessions {
            self.introduce(session, id);
        }
        self.agent_is_back(agent);
    }

    fn agent_message(&mut self, id: LegId, handle: StreamHandle, message: &Element) {
        if message.attribute("type") == Some("error") {
            return;
        }
        let Some(agent) = self.legs.get(&id).map(|leg| leg.agent.clone()) else { return };
        let to = message.attribute("to").unwrap_or_default().to_owned();
        let bare = to.split('/').next().unwrap_or_default().to_lowercase();
        let events = match events_of(message) {
            Ok(rebuilt) => rebuilt.events,
            Err(fault) => {
                let (condition, text) = match fault {
                    MessageFault::TooLarge => ("not-acceptable", "The message is too long."),
                    MessageFault::NotChat => ("service-unavailable", "Only chat messages are carried."),
                };
                return self.refuse_stanza(id, message, &("modify", condition, text.to_owned()));
            }
        };
        if bare == self.desk_jid() || bare == self.domain {
            return self.said_to_desk(id, &agent, &bare, &events);
        }
        let session = self.session_of_proxy(&bare);
        if let Some(session) = session
            && let Some(body) = text_of(&events)
        {
            match Heard::in_chat(body) {
                Heard::Command(command) => return self.run(id, &agent, &bare, Some(session), command),
                Heard::Unknown(word) => return self.unknown(id, &bare, &word),
                Heard::Text => {}
            }
        }
        if let Err(refusal) = self.for_customer(session, &agent, handle, events) {
            self.refuse_stanza(id, message, &refusal);
        }
    }

    fn said_to_desk(&mut self, id: LegId, agent: &str, from: &str, events: &[ImEvent]) {
        let Some(body) = text_of(events) else { return };
        match Heard::at_desk(body) {
            Heard::Command(command) => self.run(id, agent, from, None, command),
            Heard::Unknown(word) => self.unknown(id, from, &word),
            Heard::Text => self.run(id, agent, from, None, Command::Help),
        }
    }

    fn unknown(&mut self, id: LegId, from: &str, word: &str) {
        let word: String = word.chars().take(40).collect();
        self.counters.unknown_commands += 1;
        self.tell(id, from, format!("There is no command {word}; nothing was sent. !help lists the commands."), None);
    }

    pub(super) fn session_of_proxy(&self, bare: &str) -> Option<SessionId> {
        let (localpart, domain) = bare.split_once('@')?;
        if domain != self.domain {
            return None;
        }
        self.codes.get(localpart.strip_prefix("guest-")?).copied()
    }

    /// Sends what an agent said to the customer, if the session is the agent's.
    fn for_customer(&mut self, session: Option<SessionId>, agent: &str, handle: StreamHandle, events: Vec<ImEvent>) -> Result<(), Refusal> {
        let gone = || ("cancel", "item-not-found", "There is no such conversation any more; your message was not sent.".to_owned());
        let id = session.ok_or_else(gone)?;
        let worth_telling = events.iter().any(|event| matches!(event, ImEvent::Message(_)));
        match self.is_allowed(id, agent) {
            Err(_) if !worth_telling => return Ok(()),
            allowed => allowed?,
        }
        for event in events {
            let Some(event) = self.rebuilt_for_customer(id, agent, handle, event) else { continue };
            let is_message = matches!(event, ImEvent::Message(_));
            self.send_out(id, &event).or_else(|fault| if is_message { Err(fault) } else { Ok(()) }).map_err(|fault| match fault {
                OutFault::Full => ("wait", "resource-constraint", self.not_keeping_up(id)),
                OutFault::TooLarge => ("modify", "not-acceptable", "The message is too long; it was not sent.".to_owned()),
                OutFault::Over => gone(),
            })?;
        }
        Ok(())
    }

    fn is_allowed(&self, id: SessionId, agent: &str) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let code = session.record.code.to_uppercase();
        let why = match &session.place {
            Place::Agent(owner) if owner == agent => return Ok(()),
            Place::Agent(owner) => {
                let owner = self.agents.get(owner).map_or(owner.as_str(), |agent| agent.config.display.as_str());
                format!("{code} is with {owner} now; your message was not sent.")
            }
            Place::Queued | Place::Bot => {
                let lower = &session.record.code;
                format!("{code} is not with you; your message was not sent. Write \"take {lower}\" to the desk when it is offered to you.")
            }
            Place::Closed(_) => format!("{code} is closed; your message was not sent."),
        };
        Err(("cancel", "not-allowed", why))
    }

    /// An agent's event as the customer gets it; `None` for what the customer knows nothing of and for repetitions.
    fn rebuilt_for_customer(&mut self, id: SessionId, agent: &str, handle: StreamHandle, event: ImEvent) -> Option<ImEvent> {
        match event {
            ImEvent::Message(mut message) => {
                let display = self.agents.get(agent).map(|agent| agent.config.display.clone())?;
                let session = self.sessions.get_mut(&id)?;
                if let Some(rest) = message.body.strip_prefix("!!") {
                    message.body = format!("!{rest}");
                }
                if session.said_by_agent.is_repeated(handle.0, message.id.as_deref(), &message.body) {
                    self.counters.duplicates_dropped += 1;
                    return None;
                }
                message.author = Author::Agent(display);
                message.delayed_at = None;
                Some(ImEvent::Message(message))
            }
            ImEvent::Receipt(named) => {
                self.proven_by_receipt(id, &named);
                (!Self::is_own_id(&named)).then_some(ImEvent::Receipt(named))
            }
            ImEvent::Marker(marker) => (!Self::is_own_id(&marker.id)).then_some(ImEvent::Marker(marker)),
            ImEvent::ChatState(state) => Some(ImEvent::ChatState(state)),
            ImEvent::Presence(_) | ImEvent::Software(_) => None,
        }
    }

    /// A receipt proves more than any count: the agent's client has the message.
    fn proven_by_receipt(&mut self, id: SessionId, named: &str) {
        let Some(session) = self.sessions.get(&id) else { return };
        let is_named = |body: &[u8]| match crate::proto::tunnel::event::decode(body) {
            Ok(ImEvent::Message(message)) => message.id.as_deref() == Some(named),
            Ok(_) | Err(_) => false,
        };
        let proven =
            session.undelivered.iter().find(|(_, event)| is_named(&event.body)).and_then(|(number, event)| Some((number, event.on()?)));
        let Some((number, leg)) = proven else { return };
        if self.legs.get(&leg).is_some_and(|leg| leg.key().is_none()) {
            self.prove(id, leg, number);
        }
    }

    fn refuse_stanza(&mut self, id: LegId, stanza: &Element, (kind, condition, text): &Refusal) {
        self.counters.agent_messages_refused += 1;
        let error = stanza_error(stanza, kind, condition, Some(text));
        self.write(id, error.to_xml(), Tag::default());
    }
}

fn text_of(events: &[ImEvent]) -> Option<&str> {
    events.iter().find_map(|event| match event {
        ImEvent::Message(message) => Some(message.body.as_str()),
        ImEvent::ChatState(_) | ImEvent::Receipt(_) | ImEvent::Marker(_) | ImEvent::Presence(_) | ImEvent::Software(_) => None,
    })
}
