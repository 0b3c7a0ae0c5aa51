//! Going on after a start: the store's snapshot becomes the desk.
//!
//! Nobody is connected yet. Sessions wait for their relays to attach them, agents have their grace, streams their time to be
//! resumed. What a resumable stream holds is not delivered by other means; all else that was not proven is shown again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::backlog::Undelivered;
use super::counting::Counting;
use super::links::{LinkUses, Revoked};
use super::session::{Outgoing, Recent, Session};
use super::short_codes::ShortCodes;
use super::verified::VerifiedLinks;
use super::{AGENT_GRACE, Agent, Desk, DeskConfig, LegId, Now, Outside, Queue, Step, Timer};
use crate::connector::agent_leg::{Leg, RESUMABLE_FOR};
use crate::im::{Author, ImEvent};
use crate::proto::tunnel::event;
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;
use crate::routing::agent::Standing;
use crate::routing::queue::WaitingLine;
use crate::session::{Direction, SessionId};
use crate::store::{Op, Place, Snapshot, StoredSession, StoredStream};

/// The connection on which a remembered message came before the start: none that comes again.
const BEFORE_START: u64 = u64::MAX;

impl Desk {
    /// Makes the desk from what the store kept. The step brings the store in line with a changed configuration.
    pub fn restore(snapshot: Snapshot, config: DeskConfig, outside: Outside, now: Now) -> (Self, Step) {
        let mut desk = Self::empty(config, outside, now);
        desk.revoked = Revoked::restore(snapshot.revoked);
        if desk.revoked.len() > 0 {
            desk.tell_revoked();
        }
        desk.link_uses = snapshot.link_uses.into_iter().map(|used| (used.digest, LinkUses::restore(used))).collect();
        desk.short_codes = ShortCodes::restore(snapshot.codes);
        desk.watch_links();
        for (name, wish) in snapshot.wishes {
            if let Some(agent) = desk.agents.get_mut(&name) {
                agent.wish = Some(wish);
            }
        }
        for stored in snapshot.sessions {
            desk.restore_session(stored);
        }
        for stored in snapshot.streams {
            desk.restore_stream(stored);
        }
        desk.requeue_orphans();
        let names: Vec<String> = desk.agents.iter().filter(|(_, agent)| !agent.sessions.is_empty()).map(|(name, _)| name.clone()).collect();
        for name in names {
            let due = desk.arm(AGENT_GRACE, Timer::Grace(name.clone()));
            if let Some(agent) = desk.agents.get_mut(&name) {
                agent.grace = Some(due);
            }
        }
        desk.settle();
        let step = std::mem::take(&mut desk.step);
        (desk, step)
    }

    fn empty(config: DeskConfig, outside: Outside, now: Now) -> Self {
        let queues = config.queues.into_iter().map(|config| {
            (
                (config.domain.clone(), config.id.clone()),
                Queue { config, line: WaitingLine::default(), stirred: false, refused: BTreeMap::new() },
            )
        });
        let agents = config.agents.into_iter().map(|config| {
            let agent = Agent {
                config,
                wish: None,
                idle_since: now.unix_millis,
                sessions: BTreeSet::new(),
                offers: BTreeSet::new(),
                grace: None,
                legs: BTreeSet::new(),
                told: Standing::Offline,
            };
            (agent.config.name.clone(), agent)
        });
        Self {
            domain: config.agents_domain,
            door: config.door,
            outside,
            now,
            step: Step::default(),
            counters: super::Counters::default(),
            queues: queues.collect(),
            agents: agents.collect(),
            sessions: HashMap::new(),
            codes: HashMap::new(),
            open_ids: HashMap::new(),
            secrets: HashMap::new(),
            channels: HashMap::new(),
            link_uses: HashMap::new(),
            short_codes: ShortCodes::default(),
            verified: VerifiedLinks::default(),
            revoked: Revoked::default(),
            relay_doors: HashMap::new(),
            is_leaving: false,
            is_store_low: false,
            links_due: false,
            legs: BTreeMap::new(),
            handles: HashMap::new(),
            keys: HashMap::new(),
            next_leg: 0,
            next_id: now.unix_millis << 12,
            last_queued: 0,
            timers: BTreeSet::new(),
            touched: BTreeSet::new(),
            stirred: BTreeSet::new(),
            roomy: BTreeSet::new(),
            held: BTreeSet::new(),
        }
    }

    fn restore_session(&mut self, stored: StoredSession) {
        if matches!(stored.place, Place::Closed(_)) && stored.fin.is_none() {
            return;
        }
        let id = stored.record.id;
        self.codes.insert(stored.record.code.clone(), id);
        self.open_ids.insert(stored.record.open_id, id);
        self.secrets.insert(stored.record.secret, id);
        if let Some(uses) = stored.record.link_use.and_then(|link| self.link_uses.get_mut(&link)) {
            uses.session = Some(id);
        }
        if let Place::Agent(agent) = &stored.place
            && let Some(agent) = self.agents.get_mut(agent)
        {
            agent.sessions.insert(id);
        }
        let session = session_of(stored);
        self.last_queued = self.last_queued.max(session.enqueued_at);
        if session.place == Place::Queued
            && let Some(queue) = self.queues.get_mut(&session.queue_key())
        {
            queue.line.join(session.enqueued_at, id);
            self.arm(super::POSITION_EVERY, Timer::Position(id));
        }
        self.sessions.insert(id, Box::new(session));
        self.start_detached(id);
    }

    fn restore_stream(&mut self, stored: StoredStream) {
        let id = self.next_leg_id();
        let expires = self.now.instant + RESUMABLE_FOR;
        let key = stored.stream;
        let leg = Leg::restore(stored, expires, Self::tag_of);
        let shows: Vec<(SessionId, Option<u64>)> =
            leg.unacknowledged().filter_map(|sent| Some((sent.tag.session?, sent.tag.event))).collect();
        let agent = leg.agent.clone();
        self.legs.insert(id, leg);
        self.keys.insert(key, id);
        match self.agents.get_mut(&agent) {
            Some(owner) => owner.legs.insert(id),
            None => return self.end_leg(id),
        };
        self.assume_roster_asked(id);
        self.timers.insert((expires, Timer::Stream(id)));
        self.claim(id, &agent, &shows);
    }

    /// A resumed client does not ask for its roster again; nearly all have asked, and a push costs the others nothing.
    fn assume_roster_asked(&mut self, id: LegId) {
        let query = Element::new("query", ns::ROSTER);
        let asked = Element::new("iq", ns::CLIENT).with_attribute("type", "get").with_attribute("id", "restored").with_child(query);
        let Some(site) = self.site(id) else { return };
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.answers.handle_iq(&site, &asked);
        }
    }

    /// What a stream holds is on its way; what it holds of sessions that have moved on loses its text.
    fn claim(&mut self, id: LegId, agent: &str, shows: &[(SessionId, Option<u64>)]) {
        let mut moved = BTreeSet::new();
        for (session_id, event) in shows {
            let Some(session) = self.sessions.get_mut(session_id) else { continue };
            if session.is_with(agent) || session.is_closed() {
                if let Some(number) = event {
                    session.undelivered.claim(*number, id);
                }
            } else {
                moved.insert(*session_id);
            }
        }
        // The stream's list is whole: what waits for this agent and is not in it was never written.
        for session in self.sessions.values_mut().filter(|session| session.is_with(agent)) {
            session.undelivered.nothing_unwritten_was_shown();
        }
        for session in moved {
            let code = self.code_of(session);
            let notice = self.moved_notice(id, &code);
            if let Some(leg) = self.legs.get_mut(&id) {
                leg.withdraw(session, || notice.clone());
            }
        }
    }

    /// Sessions of agents or bots that the configuration no longer has go back to their queues.
    fn requeue_orphans(&mut self) {
        let is_orphan = |session: &Session| match &session.place {
            Place::Agent(agent) => !self.agents.contains_key(agent),
            Place::Queued | Place::Bot | Place::Closed(_) => false,
        };
        let mut orphans: Vec<SessionId> =
            self.sessions.values().filter(|session| is_orphan(session)).map(|session| session.record.id).collect();
        orphans.sort_unstable();
        for id in orphans {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.place = Place::Queued;
            let enqueued_at = session.enqueued_at;
            self.op(Op::Place { session: id, place: Place::Queued, enqueued_at });
            self.join_line(id);
        }
    }
}

fn session_of(stored: StoredSession) -> Session {
    let with_agent = matches!(stored.place, Place::Agent(_));
    let with_bot = matches!(stored.place, Place::Bot);
    let mut session = Session::new(stored.record, stored.place);
    session.enqueued_at = stored.enqueued_at;
    session.attachment = stored.attachment;
    session.unseen_from = stored.unseen_from;
    session.in_handled = stored.in_handled;
    session.sm_in = stored.sm_in;
    session.delivered = stored.delivered;
    session.out_last = stored.out_last;
    session.out_handled = stored.out_handled;
    session.counting = stored.counts.map(|(event, count)| Counting::new(event, count, stored.own));
    let mut pending = stored.out_pending;
    if let Some((number, fin)) = stored.fin {
        pending.retain(|event| event.number != number);
        session.out_last = session.out_last.min(number.saturating_sub(1));
        session.fin = Some((number, fin));
    }
    session.out_pending = Outgoing::new(pending);
    session.said_by_customer = Recent::default();
    for (direction, event) in &stored.history {
        let Some(said) = event.body.as_ref().and_then(|body| event::decode(body).ok()) else { continue };
        match (direction, &said) {
            (Direction::In, ImEvent::Message(message)) => {
                session.said_by_customer.is_repeated(BEFORE_START, message.id.as_deref(), &message.body);
            }
            (Direction::Out, ImEvent::Message(message)) if matches!(message.author, Author::Agent(_)) => {
                session.said_by_agent.is_repeated(BEFORE_START, message.id.as_deref(), &message.body);
            }
            (Direction::In | Direction::Out, _) => {}
        }
        let waits = matches!(said, ImEvent::Message(_) | ImEvent::Receipt(_) | ImEvent::Marker(_));
        if *direction == Direction::In && waits && event.number > session.delivered && !with_bot {
            let body = event.body.clone().unwrap_or_default();
            session.undelivered.push(event.number, Undelivered::new(body, event.at, with_agent));
        }
    }
    for (direction, event) in stored.history {
        session.remember(direction, event);
    }
    session
}
