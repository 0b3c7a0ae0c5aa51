//! The desk: all sessions, agents and queues of one connector, as pure state.
//!
//! An [`Input`] comes in with the time; a [`Step`] comes out: the store's operations, and the effects that may happen only once
//! these are committed. The caller submits steps in order and must not skip one; the state moves at once. Sockets, the store and
//! the clock are the shell's.
//!
//! The way of a message: tunnel → `inward` → owner (bot, or agent through `deliver`); agent → `agents` → `outward` →
//! tunnel. `assign` decides who serves whom, `admission` who may come in, `restore` goes on after a restart.

mod admission;
mod agents;
mod assign;
mod backlog;
mod comeback;
mod command;
mod counting;
mod deliver;
mod ending;
mod hold;
mod inward;
mod links;
mod outward;
mod quote;
mod relay_door;
mod restore;
mod returning;
mod session;
mod setting;
mod short_codes;
mod status;
mod step;
mod stream;
mod verified;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::proto::tunnel::{Admission, ChannelId, ConnectorCommand, ConnectorEvent};
use crate::routing::agent::{Standing, Wish, standing};
use crate::routing::queue::WaitingLine;
use crate::session::{OpenId, SessionId};
use crate::store::{Op, SecretDigest, StreamKey};

use super::agent_leg::Leg;

use self::admission::Refusal;
use self::links::{LinkUses, Revoked};
use self::relay_door::RelayDoor;
use self::session::Session;
use self::short_codes::ShortCodes;
use self::verified::VerifiedLinks;

pub use super::bot::{BotConfig, BotRule};

pub use self::links::{LinkList, LinkStatus, LiveSessions, Revocation, RevocationDone};
pub use self::relay_door::{OpenRate, Pending, Space, SpaceFloor};
pub use self::setting::{AgentConfig, DeskConfig, DoorConfig, Entropy, Outside, QueueConfig, VerifyLink};
pub use self::short_codes::{MadeCode, NewCode};

pub(super) use self::hold::Hold;

pub use self::status::{AgentStatus, Counters, QueueStatus, SessionStatus, Status};
pub use self::step::{Audit, DoorEffect, Effect, Input, Now, RelayIndex, Step, StreamHandle, Told};

/// How long an agent who vanished keeps the sessions.
pub const AGENT_GRACE: Duration = Duration::from_secs(45);

/// How long a session waits for its customer without an attachment: longer than any relay's detach window and resumption.
pub const DETACHED_FOR: Duration = Duration::from_secs(300);

/// How often a waiting customer is told an improved position.
pub const POSITION_EVERY: Duration = Duration::from_secs(15);

/// How often uses of expired links are forgotten.
const LINKS_EVERY: Duration = Duration::from_secs(3600);

/// How long routing waits for the client to name its software.
pub const SOFTWARE_WITHIN: Duration = crate::proto::xmpp::software::ANSWER_WITHIN;

/// Names a leg within the desk; a later leg has a greater id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct LegId(u64);

/// What a deadline is for. A deadline that no longer holds when it is due is let pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Software(SessionId),
    Offer(SessionId),
    AskAgain(SessionId),
    Position(SessionId),
    Detached(SessionId),
    Grace(String),
    Stream(LegId),
    Proof(LegId),
    Hold(LegId),
    Links,
}

#[derive(Debug)]
struct Queue {
    config: QueueConfig,
    line: WaitingLine,
    /// Whether routing has to look at it again in this step.
    stirred: bool,
    /// Refusals by reason.
    refused: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Agent {
    config: AgentConfig,
    wish: Option<Wish>,
    idle_since: u64,
    sessions: BTreeSet<SessionId>,
    offers: BTreeSet<SessionId>,
    grace: Option<Instant>,
    legs: BTreeSet<LegId>,
    told: Standing,
}

/// All sessions, agents and queues of one connector.
#[derive(Debug)]
pub struct Desk {
    domain: String,
    door: DoorConfig,
    outside: Outside,
    now: Now,
    step: Step,
    counters: Counters,
    queues: BTreeMap<(String, String), Queue>,
    agents: BTreeMap<String, Agent>,
    /// Boxed: the map's free places cost a pointer each.
    sessions: HashMap<SessionId, Box<Session>>,
    codes: HashMap<String, SessionId>,
    open_ids: HashMap<OpenId, SessionId>,
    secrets: HashMap<SecretDigest, SessionId>,
    channels: HashMap<(RelayIndex, ChannelId), SessionId>,
    revoked: Revoked,
    relay_doors: HashMap<RelayIndex, RelayDoor>,
    /// Whether the connector is about to stop.
    is_leaving: bool,
    /// Whether the store's disk is too full for new sessions.
    is_store_low: bool,
    link_uses: HashMap<[u8; 32], LinkUses>,
    short_codes: ShortCodes,
    verified: VerifiedLinks,
    /// Whether it is armed when uses of expired links are forgotten.
    links_due: bool,
    legs: BTreeMap<LegId, Leg>,
    handles: HashMap<StreamHandle, LegId>,
    keys: HashMap<StreamKey, LegId>,
    next_leg: u64,
    next_id: u64,
    last_queued: u64,
    timers: BTreeSet<(Instant, Timer)>,
    /// Legs written to in this step.
    touched: BTreeSet<LegId>,
    /// Agents whose standing may have changed in this step.
    stirred: BTreeSet<String>,
    /// Sessions with room for what stalled.
    roomy: BTreeSet<SessionId>,
    /// Legs whose stanzas wait for a customer to make room.
    held: BTreeSet<LegId>,
}

impl Desk {
    /// Handles one input. The step's effects may happen once its operations are committed.
    pub fn handle(&mut self, input: Input, now: Now) -> Step {
        self.now = now;
        match input {
            Input::Tunnel { relay, event } => self.handle_tunnel(relay, event),
            Input::AgentConnected { stream, agent, resource } => self.agent_connected(stream, &agent, &resource),
            Input::AgentResume { stream, agent, previd, h } => self.agent_resume(stream, &agent, &previd, h),
            Input::AgentStanza { stream, element } => self.agent_element(stream, &element),
            Input::AgentLost { stream } => self.agent_lost(stream),
            Input::AgentClosed { stream } => self.agent_closed(stream),
            Input::Revoke { ask, revocation } => self.revoke(ask, &revocation),
            Input::MakeCode { ask, wanted } => self.make_code(ask, wanted),
            Input::ListLinks { ask } => self.list_links(ask),
            Input::Space(space) => self.is_store_low = self.door.space.is_undercut(space),
            Input::Leave => self.is_leaving = true,
            Input::Timeout => {}
        }
        self.fire_timers();
        self.settle();
        std::mem::take(&mut self.step)
    }

    /// When `Input::Timeout` is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    fn handle_tunnel(&mut self, relay: RelayIndex, event: ConnectorEvent) {
        match event {
            ConnectorEvent::Attached { epoch: _, resumed } => self.tunnel_attached(relay, resumed),
            ConnectorEvent::Detached => self.tunnel_detached(relay),
            ConnectorEvent::Refused { .. }
            | ConnectorEvent::GoAway { .. }
            | ConnectorEvent::CandidateReady { .. }
            | ConnectorEvent::CloseCarrier { .. } => {}
            ConnectorEvent::Open { channel, open } => self.open(relay, channel, &open),
            ConnectorEvent::Data { channel, number, sm_in, payload } => self.data(relay, channel, number, sm_in, payload),
            ConnectorEvent::Counted { channel, sm_in } => self.counted(relay, channel, sm_in),
            ConnectorEvent::Own { channel, after, count } => self.own(relay, channel, after, count),
            ConnectorEvent::OutHandled { channel, number, proof } => self.out_handled(relay, channel, number, proof),
            ConnectorEvent::Fin { channel, number, fin } => self.customer_fin(relay, channel, number, &fin),
            ConnectorEvent::Reset { channel, code } => self.channel_reset(relay, channel, code),
            ConnectorEvent::Check { check, admission } => {
                let verdict = self.check(relay, &admission);
                if let Err(refusal) = &verdict {
                    self.refused(&admission, refusal);
                }
                let verdict = verdict.map_err(|refusal| (refusal.code, refusal.text));
                self.tunnel(relay, ConnectorCommand::Verdict { check, verdict });
            }
        }
    }

    fn fire_timers(&mut self) {
        while let Some((due, timer)) = self.timers.first().cloned() {
            if due > self.now.instant {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Software(session) | Timer::AskAgain(session) => self.stir_queue_of(session),
                Timer::Offer(session) => self.offer_due(session),
                Timer::Position(session) => self.position_due(session),
                Timer::Detached(session) => self.detached_due(session),
                Timer::Grace(agent) => self.grace_due(&agent),
                Timer::Stream(leg) => self.stream_due(leg),
                Timer::Proof(leg) => self.proof_due(leg),
                // What is due is released when the step settles.
                Timer::Hold(_) => {}
                Timer::Links => self.forget_expired_links(),
            }
        }
    }

    /// Brings what the input stirred up to rest: overfull legs end, queues are served, acknowledgements are asked for.
    fn settle(&mut self) {
        self.release_held();
        self.unstall_roomy();
        self.end_overfull_legs();
        self.tell_standings();
        self.serve_queues();
        self.end_overfull_legs();
        self.tell_standings();
        self.serve_queues();
        self.unstall_roomy();
        self.ask_for_acknowledgements();
    }

    fn arm(&mut self, after: Duration, timer: Timer) -> Instant {
        let due = self.now.instant + after;
        self.timers.insert((due, timer));
        due
    }

    fn op(&mut self, op: Op) {
        self.step.ops.push(op);
    }

    fn effect(&mut self, effect: Effect) {
        self.step.effects.push(effect);
    }

    fn tunnel(&mut self, relay: RelayIndex, command: ConnectorCommand) {
        self.effect(Effect::Tunnel { relay, command });
    }

    fn audit(&mut self, audit: Audit) {
        self.effect(Effect::Audit(audit));
    }

    fn refused(&mut self, admission: &Admission, refusal: &Refusal) {
        let (code, reason) = (refusal.code, refusal.reason);
        self.counters.refuse(code, reason);
        if let Some(queue) = self.queues.get_mut(&(admission.domain.clone(), admission.queue.clone())) {
            *queue.refused.entry(reason).or_insert(0) += 1;
        }
        self.audit(Audit::Refused { queue: admission.queue.chars().take(64).collect(), code, reason });
    }

    /// An id for a stanza of our own; nothing that a customer or an agent wrote bears it.
    fn own_id(&mut self) -> String {
        self.next_id += 1;
        format!("{OWN_ID}{:x}", self.next_id)
    }

    /// The time of queueing for a session that is queued now: later than any given before, so that the line keeps the order
    /// of arrival within one millisecond.
    fn queue_time(&mut self) -> u64 {
        self.last_queued = self.now.unix_millis.max(self.last_queued + 1);
        self.last_queued
    }

    fn desk_jid(&self) -> String {
        format!("desk@{}", self.domain)
    }

    fn stir_queue_of(&mut self, session: SessionId) {
        let Some(session) = self.sessions.get(&session) else { return };
        if let Some(queue) = self.queues.get_mut(&session.queue_key()) {
            queue.stirred = true;
        }
    }

    /// The leg that gets an agent's work: the newest that is connected and available; else the newest that waits for its client
    /// to resume and was available before.
    fn work_leg(&self, agent: &str) -> Option<LegId> {
        let available = |leg: &&LegId| self.legs.get(leg).is_some_and(|leg| leg.presence.is_some());
        let up = |leg: &&LegId| self.legs.get(leg).is_some_and(|leg| leg.handle.is_some());
        let ids: Vec<&LegId> = self.agents.get(agent)?.legs.iter().rev().filter(available).collect();
        ids.iter().copied().find(up).or_else(|| ids.first().copied()).copied()
    }

    fn standing_of(&self, name: &str) -> Standing {
        let Some(agent) = self.agents.get(name) else { return Standing::Offline };
        let presence = self.work_leg(name).and_then(|leg| self.legs.get(&leg)).filter(|leg| leg.handle.is_some());
        standing(presence.and_then(|leg| leg.presence), agent.wish.as_ref())
    }
}

/// What the ids of our own stanzas begin with.
const OWN_ID: &str = "outgate-";

#[cfg(test)]
mod tests;
