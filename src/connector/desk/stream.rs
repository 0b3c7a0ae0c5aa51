//! Agents' streams: how they come, resume, count and end.

use std::collections::BTreeSet;

use super::deliver::shown_event;
use super::{AGENT_GRACE, Desk, Effect, LegId, StreamHandle, Timer};
use crate::connector::agent_leg::{Account, Leg, PLAIN_PROOF_AFTER, PROOFS_TOGETHER, RESUMABLE_FOR, Tag, key_of, key_text};
use crate::im::{Author, ImEvent, Message};
use crate::proto::xmpp::im::stanza_of;
use crate::proto::xmpp::ns;
use crate::proto::xmpp::server::Site;
use crate::proto::xmpp::stanza::Element;
use crate::proto::xmpp::stream_management::Nonza;
use crate::session::SessionId;
use crate::store::{Op, StreamKey};

impl Desk {
    pub(super) fn agent_connected(&mut self, handle: StreamHandle, agent: &str, resource: &str) {
        let is_same = |id: &LegId| self.legs.get(id).is_some_and(|leg| leg.resource == resource);
        let mut replaced = self.legs_of(agent);
        replaced.retain(is_same);
        for leg in replaced {
            self.close_leg(leg, "conflict", "The same resource has connected again.");
            if self.is_agent_gone(agent) {
                self.start_grace(agent);
            }
        }
        let id = self.next_leg_id();
        self.legs.insert(id, Leg::new(agent.to_owned(), resource.to_owned(), handle));
        self.handles.insert(handle, id);
        match self.agents.get_mut(agent) {
            Some(agent) => {
                agent.legs.insert(id);
            }
            None => self.close_leg(id, "not-authorized", "There is no such agent."),
        }
    }

    pub(super) fn legs_of(&self, agent: &str) -> BTreeSet<LegId> {
        self.agents.get(agent).map(|agent| agent.legs.clone()).unwrap_or_default()
    }

    pub(super) fn next_leg_id(&mut self) -> LegId {
        self.next_leg += 1;
        LegId(self.next_leg)
    }

    pub(super) fn agent_resume(&mut self, handle: StreamHandle, agent: &str, previd: &str, h: u32) {
        let known = key_of(previd).and_then(|key| self.keys.get(&key).copied().map(|leg| (key, leg)));
        let Some((key, id)) = known.filter(|(_, id)| self.legs.get(id).is_some_and(|leg| leg.agent == agent)) else {
            return self.effect(Effect::AgentResumeRefused { stream: handle });
        };
        if !self.acknowledge(id, h) {
            let text = format!("You acknowledged {h} stanzas, more than were sent.");
            return self.effect(Effect::AgentClose { stream: handle, condition: "undefined-condition", text });
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let older = leg.handle;
        leg.up(handle);
        let resumed =
            Element::new("resumed", ns::STREAM_MANAGEMENT).with_attribute("previd", key_text(key)).with_attribute("h", leg.h().to_string());
        let mut output = resumed.to_xml();
        let mut again = 0;
        for sent in leg.unacknowledged() {
            output.push_str(&sent.xml);
            again += 1;
        }
        let resource = leg.resource.clone();
        self.counters.stanzas_replayed += again;
        self.counters.streams_resumed += 1;
        self.handles.insert(handle, id);
        if let Some(older) = older {
            self.handles.remove(&older);
            self.effect(Effect::AgentClose { stream: older, condition: "conflict", text: "The stream was resumed elsewhere.".to_owned() });
        }
        self.effect(Effect::AgentResumed { stream: handle, resource, output });
        self.stirred.insert(agent.to_owned());
        self.touched.insert(id);
        self.agent_is_back(agent);
    }

    /// The agent's work leg is there: whatever waits is delivered.
    pub(super) fn agent_is_back(&mut self, agent: &str) {
        let Some(agent) = self.agents.get_mut(agent) else { return };
        agent.grace = None;
        let sessions: Vec<SessionId> = agent.sessions.iter().copied().collect();
        for session in sessions {
            self.show_missed_presence(session);
            self.deliver_waiting(session);
            self.roomy.insert(session);
        }
    }

    pub(super) fn nonza(&mut self, id: LegId, nonza: &Nonza) {
        match nonza {
            Nonza::Enable { resume } => self.enable(id, *resume),
            Nonza::Request => self.answer_count(id),
            Nonza::Answer { h } => {
                if !self.acknowledge(id, *h) {
                    let text = format!("You acknowledged {h} stanzas, more than were sent.");
                    self.close_leg(id, "undefined-condition", &text);
                }
            }
            Nonza::Resume { .. } => self.sm_failed(id, "unexpected-request"),
        }
    }

    /// Tells a client how many of its stanzas are handled.
    pub(super) fn answer_count(&mut self, id: LegId) {
        let Some(leg) = self.legs.get(&id).filter(|leg| leg.account != Account::Plain) else { return };
        let answer = Element::new("a", ns::STREAM_MANAGEMENT).with_attribute("h", leg.h().to_string()).to_xml();
        self.write_nonza(id, answer);
    }

    fn enable(&mut self, id: LegId, resume: bool) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.account != Account::Plain {
            return self.sm_failed(id, "unexpected-request");
        }
        let mut enabled = Element::new("enabled", ns::STREAM_MANAGEMENT);
        if resume {
            let key = StreamKey((self.outside.entropy)());
            leg.enable(Account::Resumable(key));
            enabled.set_attribute("id", key_text(key));
            enabled.set_attribute("resume", "true");
            enabled.set_attribute("max", RESUMABLE_FOR.as_secs().to_string());
            let (agent, resource, presence) = (leg.agent.clone(), leg.resource.clone(), leg.presence);
            self.keys.insert(key, id);
            self.op(Op::StreamBegin { stream: key, agent, resource });
            if presence.is_some() {
                self.op(Op::StreamPresence { stream: key, presence });
            }
        } else {
            leg.enable(Account::Counted);
        }
        self.write_nonza(id, enabled.to_xml());
    }

    fn sm_failed(&mut self, id: LegId, condition: &'static str) {
        let failed = Element::new("failed", ns::STREAM_MANAGEMENT).with_child(Element::new(condition, ns::STANZA_ERRORS));
        self.write_nonza(id, failed.to_xml());
    }

    /// Takes in `<a h>`; false when it counts more than was sent.
    fn acknowledge(&mut self, id: LegId, h: u32) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else { return true };
        let Ok(proven) = leg.acknowledged(h) else { return false };
        if let (Some(stream), false) = (leg.key(), proven.is_empty()) {
            self.op(Op::StreamAcked { stream, h });
        }
        self.prove_all(id, &proven);
        self.touched.insert(id);
        true
    }

    fn prove_all(&mut self, leg: LegId, proven: &[Tag]) {
        for tag in proven {
            if let (Some(session), Some(event)) = (tag.session, tag.event) {
                self.prove(session, leg, event);
            }
        }
    }

    pub(super) fn proof_due(&mut self, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let proven = leg.proven_by_time(self.now.instant);
        if let Some(next) = leg.next_proof() {
            self.timers.insert((next.max(self.now.instant + PROOFS_TOGETHER), Timer::Proof(id)));
        }
        self.prove_all(id, &proven);
    }

    /// Writes a stanza: recorded first where the stream can be resumed, kept where it is down.
    pub(super) fn write(&mut self, id: LegId, xml: String, tag: Tag) {
        let now = self.now.instant;
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let number = leg.sent(&xml, tag, now);
        self.touched.insert(id);
        let (key, handle) = (leg.key(), leg.handle);
        let first_unproven = leg.next_proof() == Some(now + PLAIN_PROOF_AFTER);
        if let (Some(stream), Some(number)) = (key, number) {
            self.op(Op::StreamOut { stream, number, xml: xml.clone(), session: tag.session });
        }
        if number.is_none() && first_unproven {
            self.timers.insert((now + PLAIN_PROOF_AFTER, Timer::Proof(id)));
        }
        if let Some(stream) = handle {
            self.effect(Effect::AgentWrite { stream, xml });
        }
    }

    fn write_nonza(&mut self, id: LegId, xml: String) {
        if let Some(stream) = self.legs.get(&id).and_then(|leg| leg.handle) {
            self.effect(Effect::AgentWrite { stream, xml });
        }
    }

    pub(super) fn ask_for_acknowledgements(&mut self) {
        let request = Element::new("r", ns::STREAM_MANAGEMENT).to_xml();
        for id in std::mem::take(&mut self.touched) {
            let Some(leg) = self.legs.get_mut(&id).filter(|leg| leg.handle.is_some()) else { continue };
            let Some(stream) = leg.handle.filter(|_| leg.ask()) else { continue };
            self.effect(Effect::AgentWrite { stream, xml: request.clone() });
        }
    }

    pub(super) fn agent_lost(&mut self, handle: StreamHandle) {
        let Some(id) = self.handles.get(&handle).copied() else { return };
        if self.legs.get(&id).is_some_and(|leg| leg.key().is_none()) {
            self.release_last(id);
        }
        self.handles.remove(&handle);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let agent = leg.agent.clone();
        self.stirred.insert(agent.clone());
        if leg.key().is_some() {
            let expires = self.now.instant + RESUMABLE_FOR;
            leg.down(expires);
            self.timers.insert((expires, Timer::Stream(id)));
        } else {
            self.end_leg(id);
        }
        if self.is_agent_gone(&agent) {
            self.start_grace(&agent);
        } else {
            self.agent_is_back(&agent);
        }
    }

    /// Gives a vanished agent some time to come back before the sessions move on.
    pub(super) fn start_grace(&mut self, name: &str) {
        let due = self.arm(AGENT_GRACE, Timer::Grace(name.to_owned()));
        if let Some(agent) = self.agents.get_mut(name) {
            agent.grace = Some(due);
        }
    }

    pub(super) fn agent_closed(&mut self, handle: StreamHandle) {
        let Some(id) = self.handles.get(&handle).copied() else { return };
        self.release_last(id);
        self.handles.remove(&handle);
        let Some(agent) = self.legs.get(&id).map(|leg| leg.agent.clone()) else { return };
        self.end_leg(id);
        self.agent_left(&agent);
    }

    /// A leg of the agent ended or became unavailable on purpose: without another, the sessions move on at once.
    pub(super) fn agent_left(&mut self, name: &str) {
        if !self.is_agent_gone(name) {
            self.agent_is_back(name);
        } else if self.work_leg(name).is_none() {
            self.requeue_all(name);
        } else if self.agents.get(name).is_some_and(|agent| agent.grace.is_none()) {
            self.start_grace(name);
        }
    }

    fn is_agent_gone(&self, name: &str) -> bool {
        self.work_leg(name).and_then(|leg| self.legs.get(&leg)).is_none_or(|leg| leg.handle.is_none())
    }

    pub(super) fn grace_due(&mut self, name: &str) {
        let due = self.agents.get(name).and_then(|agent| agent.grace).is_some_and(|grace| grace <= self.now.instant);
        if due && self.is_agent_gone(name) {
            self.requeue_all(name);
        }
    }

    fn requeue_all(&mut self, name: &str) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        agent.grace = None;
        let sessions: Vec<SessionId> = agent.sessions.iter().rev().copied().collect();
        for session in sessions {
            self.requeue(session, name);
        }
    }

    pub(super) fn stream_due(&mut self, id: LegId) {
        let Some(leg) = self.legs.get(&id) else { return };
        if leg.expires.is_some_and(|expires| expires <= self.now.instant) {
            let agent = leg.agent.clone();
            self.end_leg(id);
            self.agent_left(&agent);
        }
    }

    /// Ends a leg and its connection.
    pub(super) fn close_leg(&mut self, id: LegId, condition: &'static str, text: &str) {
        let Some(leg) = self.legs.get(&id) else { return };
        if let Some(stream) = leg.handle {
            self.handles.remove(&stream);
            self.effect(Effect::AgentClose { stream, condition, text: text.to_owned() });
        }
        self.end_leg(id);
    }

    /// A leg is over for good; what it had not proven waits for the agent's next one.
    pub(super) fn end_leg(&mut self, id: LegId) {
        let Some(leg) = self.legs.remove(&id) else { return };
        if let Some(agent) = self.agents.get_mut(&leg.agent) {
            agent.legs.remove(&id);
        }
        self.stirred.insert(leg.agent.clone());
        if let Some(stream) = leg.key() {
            self.keys.remove(&stream);
            self.op(Op::StreamEnd { stream });
        }
        let sessions: Vec<SessionId> =
            self.agents.get(&leg.agent).map(|agent| agent.sessions.iter().copied().collect()).unwrap_or_default();
        for session in sessions {
            if let Some(session) = self.sessions.get_mut(&session) {
                session.undelivered.release(id);
            }
        }
    }

    pub(super) fn end_overfull_legs(&mut self) {
        let is_overfull = |id: &LegId| self.legs.get(id).is_some_and(Leg::is_overfull);
        let overfull: Vec<LegId> = self.touched.iter().copied().filter(is_overfull).collect();
        for id in overfull {
            let Some(agent) = self.legs.get(&id).map(|leg| leg.agent.clone()) else { continue };
            self.counters.legs_overfull += 1;
            self.close_leg(id, "resource-constraint", "Too many stanzas were left unacknowledged.");
            self.agent_left(&agent);
        }
    }

    /// Takes a session's text out of what its former owner's streams still have to show.
    pub(super) fn withdraw(&mut self, session: SessionId) {
        let Some(agent) = self.owner(session) else { return };
        let code = self.code_of(session);
        for id in self.legs_of(&agent) {
            let notice = self.moved_notice(id, &code);
            if let Some(leg) = self.legs.get_mut(&id) {
                leg.withdraw(session, || notice.clone());
            }
        }
    }

    /// What stands in for a stanza of a session that has another owner now.
    pub(super) fn moved_notice(&mut self, leg: LegId, code: &str) -> String {
        let (from, id) = (self.desk_jid(), self.own_id());
        let to = self.jid_of(leg).unwrap_or_default();
        let body = format!("A message of {code} was not shown: the conversation has moved on.");
        let message = Message { id: Some(id.clone()), body, author: Author::Notice, ..Message::default() };
        stanza_of(&ImEvent::Message(message), &from, &to, &id).map(|stanza| stanza.to_xml()).unwrap_or_default()
    }

    pub(super) fn tag_of(xml: &str, session: Option<SessionId>) -> Tag {
        Tag { session, event: session.and_then(|id| shown_event(xml, id)) }
    }

    /// The full address of a leg's client.
    pub(super) fn jid_of(&self, leg: LegId) -> Option<String> {
        let leg = self.legs.get(&leg)?;
        Some(format!("{}@{}/{}", leg.agent, self.domain, leg.resource))
    }

    /// Whom the listener answers for on this leg: the desk and the agent's customers.
    pub(super) fn site(&self, leg: LegId) -> Option<Site> {
        let client = self.jid_of(leg)?;
        let agent = self.agents.get(&self.legs.get(&leg)?.agent)?;
        let mut contacts =
            vec![crate::proto::xmpp::server::Contact { jid: self.desk_jid(), name: "Desk".to_owned(), group: "Outgate".to_owned() }];
        contacts.extend(agent.sessions.iter().filter_map(|id| self.sessions.get(id)).map(|session| self.contact(session)));
        Some(Site { domain: self.domain.clone(), client, contacts, anonymous: false })
    }
}
