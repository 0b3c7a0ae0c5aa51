//! Who serves whom. Two things only set routing going: a session became eligible, an agent gained capacity.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Agent, Audit, Desk, Effect, POSITION_EVERY, Queue, Timer};
use crate::connector::agent_leg::Tag;
use crate::im::{Author, ImEvent, Message};
use crate::proto::xmpp::im::stanza_of;
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;
use crate::routing::agent::Standing;
use crate::routing::offer::{ASK_AGAIN_AFTER, Bar, Offer, OfferText};
use crate::routing::strategy::{Candidate, longest_idle};
use crate::session::SessionId;
use crate::store::{Op, Place};

impl Desk {
    /// A session takes its place in its queue's line; the customer is told.
    pub(super) fn join_line(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.told_position = None;
        let (key, place) = (session.queue_key(), session.enqueued_at);
        let Some(queue) = self.queues.get_mut(&key) else { return };
        queue.line.join(place, id);
        queue.stirred = true;
        self.tell_position(id);
    }

    pub(super) fn leave_line(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (key, place) = (session.queue_key(), session.enqueued_at);
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.line.leave(place, id);
        }
    }

    fn tell_position(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (key, told) = (session.queue_key(), session.told_position);
        let Some(queue) = self.queues.get(&key) else { return };
        let position = queue.line.position(session.enqueued_at, id);
        self.arm(POSITION_EVERY, Timer::Position(id));
        if told.is_some_and(|told| told <= position) {
            return;
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.told_position = Some(position);
        }
        let text = match (told.is_none(), self.anyone_ready(&key.1)) {
            (true, false) => {
                format!("Nobody is available right now. You are number {position} in line; an agent will answer as soon as possible.")
            }
            (true, true) => format!("You are number {position} in line. An agent will be with you soon."),
            (false, _) => format!("You are now number {position} in line."),
        };
        self.notice(id, text);
    }

    pub(super) fn position_due(&mut self, id: SessionId) {
        if self.sessions.get(&id).is_some_and(|session| session.place == Place::Queued) {
            self.tell_position(id);
        }
    }

    fn anyone_ready(&self, queue: &str) -> bool {
        self.agents.iter().any(|(name, agent)| agent.serves(queue) && self.standing_of(name) == Standing::Ready)
    }

    /// Serves the queues that were stirred, the longest waiting session of all first.
    pub(super) fn serve_queues(&mut self) {
        let is_worth = |queue: &Queue| queue.stirred && queue.line.iter().next().is_some();
        let any = self.queues.values().any(is_worth);
        // Lines may be long: nobody looks through them while nobody is ready.
        let mut ready = if any { self.ready_agents() } else { BTreeMap::new() };
        let mut waiting: Vec<(u64, SessionId)> = Vec::new();
        for queue in self.queues.values_mut().filter(|queue| queue.stirred) {
            queue.stirred = false;
            if !ready.is_empty() {
                waiting.extend(queue.line.iter());
            }
        }
        waiting.sort_unstable();
        for (_, id) in waiting {
            if ready.values().all(|spare| *spare == 0) {
                return;
            }
            if !self.is_eligible(id) {
                continue;
            }
            let Some(agent) = self.choose(id, &ready) else { continue };
            if let Some(spare) = ready.get_mut(&agent) {
                *spare -= 1;
            }
            self.offer_or_connect(id, &agent);
        }
    }

    /// Agents who are ready, with the sessions each could take on.
    fn ready_agents(&self) -> BTreeMap<String, usize> {
        let spare = |(name, agent): (&String, &Agent)| {
            let spare = (agent.config.capacity as usize).saturating_sub(agent.sessions.len() + agent.offers.len());
            (spare > 0 && self.standing_of(name) == Standing::Ready).then(|| (name.clone(), spare))
        };
        self.agents.iter().filter_map(spare).collect()
    }

    /// Whether a waiting session may be offered now: attached, not offered, its software known or no longer waited for.
    fn is_eligible(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| {
            session.offer.is_none()
                && session.channel.is_some()
                && session.detached_until.is_none()
                && session.software_until.is_none_or(|until| until <= self.now.instant)
        })
    }

    fn choose(&mut self, id: SessionId, ready: &BTreeMap<String, usize>) -> Option<String> {
        let session = self.sessions.get(&id)?;
        let mut any_barred = false;
        let candidates = ready.iter().filter(|(_, spare)| **spare > 0).filter_map(|(name, _)| {
            let agent = self.agents.get(name).filter(|agent| agent.serves(&session.record.queue))?;
            let bar = session.exclusions.bar(name, self.now.instant);
            any_barred |= bar == Bar::Barred;
            Some(Candidate { agent: &agent.config.name, idle_since: agent.idle_since, bar })
        });
        let chosen = longest_idle(candidates).map(str::to_owned);
        if chosen.is_none() && any_barred {
            self.arm(ASK_AGAIN_AFTER, Timer::AskAgain(id));
        }
        chosen
    }

    fn offer_or_connect(&mut self, id: SessionId, agent: &str) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(queue) = self.queues.get(&session.queue_key()) else { return };
        if queue.config.auto_accept {
            self.connect(id, agent);
        } else {
            let stands = queue.config.offer_timeout;
            self.make_offer(id, agent, stands);
        }
    }

    fn make_offer(&mut self, id: SessionId, agent: &str, stands: Duration) {
        let deadline = self.arm(stands, Timer::Offer(id));
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.offer = Some(Offer { agent: agent.to_owned(), deadline });
        let session = &*session;
        let queue = self.queues.get(&session.queue_key()).map_or(session.record.queue.as_str(), |queue| queue.config.name.as_str());
        let text = OfferText {
            code: &session.record.code,
            queue,
            waited: Duration::from_millis(self.now.unix_millis.saturating_sub(session.enqueued_at)),
            customer: &session.record.customer,
            reason: &session.record.reason,
            software: &session.record.software,
            stands,
        }
        .to_string();
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.offers.insert(id);
        }
        self.counters.offers_sent += 1;
        self.tell_from_desk(agent, text);
    }

    /// Drops a session's offer, if it has one; gives whom it was made to.
    pub(super) fn drop_offer(&mut self, id: SessionId) -> Option<String> {
        let offer = self.sessions.get_mut(&id)?.offer.take()?;
        if let Some(agent) = self.agents.get_mut(&offer.agent) {
            agent.offers.remove(&id);
        }
        Some(offer.agent)
    }

    pub(super) fn offer_due(&mut self, id: SessionId) {
        let due = |offer: &Offer| offer.deadline <= self.now.instant;
        if !self.sessions.get(&id).and_then(|session| session.offer.as_ref()).is_some_and(due) {
            return;
        }
        let Some(agent) = self.drop_offer(id) else { return };
        self.counters.offers_expired += 1;
        self.pass_on(id, &agent);
        let code = self.code_of(id);
        self.tell_from_desk(&agent, format!("{code}: the offer has passed."));
    }

    /// The session goes to another agent than the one who did not take it.
    pub(super) fn pass_on(&mut self, id: SessionId, agent: &str) {
        let now = self.now.instant;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.exclusions.exclude(agent, now);
        }
        self.stir_queue_of(id);
        self.stir_queues_for(agent);
    }

    /// An agent has the session from now on.
    pub(super) fn connect(&mut self, id: SessionId, agent: &str) {
        self.leave_line(id);
        self.drop_offer(id);
        let Some(display) = self.agents.get(agent).map(|agent| agent.config.display.clone()) else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.place = Place::Agent(agent.to_owned());
        session.told_position = None;
        let enqueued_at = session.enqueued_at;
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.sessions.insert(id);
        }
        self.op(Op::Place { session: id, place: Place::Agent(agent.to_owned()), enqueued_at });
        self.audit(Audit::Taken { session: id, agent: agent.to_owned() });
        self.notice(id, format!("{display} has joined."));
        if let Some(leg) = self.work_leg(agent) {
            self.introduce(id, leg);
            self.banner(id, leg);
        }
        self.deliver_waiting(id);
    }

    /// A session's owner is gone: it returns to the head of its queue.
    pub(super) fn requeue(&mut self, id: SessionId, agent: &str) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(queue) = self.queues.get(&session.queue_key()) else { return };
        let place = queue.line.head_place(session.enqueued_at);
        let display = self.agents.get(agent).map_or(agent, |agent| agent.config.display.as_str()).to_owned();
        self.take_leave(id, agent);
        self.withdraw(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.place = Place::Queued;
        session.enqueued_at = place;
        session.undelivered.release_all();
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.sessions.remove(&id);
        }
        self.op(Op::Place { session: id, place: Place::Queued, enqueued_at: place });
        self.audit(Audit::Requeued { session: id, agent: agent.to_owned() });
        self.counters.sessions_requeued += 1;
        self.notice(id, format!("{display} is no longer here. Another agent will go on with you."));
        self.join_line(id);
    }

    /// An agent gained capacity or became ready.
    pub(super) fn stir_queues_for(&mut self, agent: &str) {
        let Some(agent) = self.agents.get(agent) else { return };
        for queue in self.queues.values_mut().filter(|queue| agent.serves(&queue.config.id)) {
            queue.stirred = true;
        }
    }

    /// Notices who became ready or ceased to be, and stirs their queues.
    pub(super) fn tell_standings(&mut self) {
        for name in std::mem::take(&mut self.stirred) {
            let standing = self.standing_of(&name);
            let Some(agent) = self.agents.get_mut(&name).filter(|agent| agent.told != standing) else { continue };
            if standing == Standing::Ready {
                agent.idle_since = self.now.unix_millis;
            }
            agent.told = standing.clone();
            let offers: Vec<SessionId> = if standing == Standing::Offline { agent.offers.iter().copied().collect() } else { Vec::new() };
            for id in offers {
                self.drop_offer(id);
                self.stir_queue_of(id);
            }
            if standing == Standing::Ready {
                self.stir_queues_for(&name);
            }
            self.effect(Effect::Audit(Audit::AgentStanding { agent: name, standing: standing.as_str() }));
        }
    }

    /// A sentence from the desk to an agent; not kept by clients, since it is worth nothing later (XEP-0334).
    pub(super) fn tell_from_desk(&mut self, agent: &str, text: String) {
        let Some(leg) = self.work_leg(agent) else { return };
        let (from, id) = (self.desk_jid(), self.own_id());
        let Some(to) = self.jid_of(leg) else { return };
        let message = Message { id: Some(id.clone()), body: text, author: Author::Notice, ..Message::default() };
        let Some(stanza) = stanza_of(&ImEvent::Message(message), &from, &to, &id) else { return };
        self.write(leg, stanza.with_child(Element::new("no-store", ns::HINTS)).to_xml(), Tag::default());
    }

    pub(super) fn code_of(&self, id: SessionId) -> String {
        self.sessions.get(&id).map(|session| session.record.code.to_uppercase()).unwrap_or_default()
    }
}

impl Agent {
    pub(super) fn serves(&self, queue: &str) -> bool {
        self.config.queues.iter().any(|served| served == queue)
    }
}
