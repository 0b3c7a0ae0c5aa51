//! What the desk counts and shows of itself.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Desk;
use crate::proto::tunnel::RefusalCode;
use crate::routing::agent::Standing;
use crate::store::Place;

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Sessions begun.
    pub sessions_opened: u64,
    /// Sessions ended.
    pub sessions_closed: u64,
    /// Sessions returned to their queue because the agent vanished.
    pub sessions_requeued: u64,
    /// OPENs and CHECKs refused, by the code that the relay is told.
    pub refused: BTreeMap<&'static str, u64>,
    /// The same by reason.
    pub refused_for: BTreeMap<&'static str, u64>,
    /// Offers made.
    pub offers_sent: u64,
    /// Offers taken.
    pub offers_accepted: u64,
    /// Offers declined.
    pub offers_declined: u64,
    /// Offers that passed.
    pub offers_expired: u64,
    /// Inward events shown again that may have been shown before.
    pub possibly_repeated: u64,
    /// Messages sent again by a party after a reconnect, and dropped.
    pub duplicates_dropped: u64,
    /// Agents' streams resumed.
    pub streams_resumed: u64,
    /// Stanzas written again at resumption.
    pub stanzas_replayed: u64,
    /// Streams ended because too much was kept for them.
    pub legs_overfull: u64,
    /// Agents' messages refused with an error.
    pub agent_messages_refused: u64,
    /// Unknown `!words`, none of which was sent.
    pub unknown_commands: u64,
    /// Notices that a slow customer did not get.
    pub notices_dropped: u64,
    /// Channels reset for a fault of the other side.
    pub channel_faults: u64,
}

impl Counters {
    pub(super) fn refuse(&mut self, code: RefusalCode, reason: &'static str) {
        let word = match code {
            RefusalCode::Busy => "busy",
            RefusalCode::NoQueue => "no-queue",
            RefusalCode::BadLink => "bad-link",
            RefusalCode::Policy => "policy",
            RefusalCode::Drain => "drain",
            RefusalCode::UnknownSession => "unknown-session",
            RefusalCode::StoreRegressed => "store-regressed",
        };
        *self.refused.entry(word).or_insert(0) += 1;
        *self.refused_for.entry(reason).or_insert(0) += 1;
    }
}

/// The desk as `outgate status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Counters.
    pub counters: Counters,
    /// Agents who are ready now.
    pub agents_ready: usize,
    /// Sessions.
    pub sessions: Vec<SessionStatus>,
    /// Agents.
    pub agents: Vec<AgentStatus>,
    /// Queues.
    pub queues: Vec<QueueStatus>,
    /// Links that are revoked.
    pub revoked_links: usize,
    /// Whether the store's disk is too full for new sessions.
    pub store_low: bool,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionStatus {
    /// Its name.
    pub id: String,
    /// Its short code.
    pub code: String,
    /// Its queue.
    pub queue: String,
    /// "queued", "bot", "agent" or "closed".
    pub place: &'static str,
    /// Who has it, if anyone.
    pub agent: Option<String>,
    /// The customer's software, "Profanity 0.13.1".
    pub software: String,
    /// Where that is known from.
    pub software_source: &'static str,
    /// How far it can be relied on.
    pub software_confidence: &'static str,
    /// How it says hello in TLS, as JA4.
    pub software_ja4: Option<String>,
    /// The TLS library that says hello so; empty where unknown.
    pub software_library: String,
    /// Whether something that it did is not what the named software does.
    pub software_contradicted: bool,
    /// What it lacks, as `clients.toml` tells.
    pub software_lacks: Vec<&'static str>,
    /// Whether a relay holds it now.
    pub attached: bool,
    /// How often it was attached.
    pub attachment: u32,
    /// Inward events handled.
    pub in_handled: u64,
    /// Inward events not known to have reached anyone.
    pub undelivered: usize,
    /// Outward events given out.
    pub out_last: u64,
    /// Outward events confirmed.
    pub out_handled: u64,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentStatus {
    /// The account's name.
    pub name: String,
    /// "ready", "away", "paused" or "offline".
    pub standing: &'static str,
    /// Sessions now.
    pub sessions: usize,
    /// Sessions at a time.
    pub capacity: u32,
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueStatus {
    /// Its domain.
    pub domain: String,
    /// Its id.
    pub id: String,
    /// Sessions that wait.
    pub waiting: usize,
    /// OPENs and CHECKs refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

impl Desk {
    /// Counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sessions, agents and queues as they stand.
    pub fn status(&self) -> Status {
        let mut sessions: Vec<SessionStatus> = self.sessions.values().map(|session| session_status(session)).collect();
        sessions.sort_by(|a, b| a.id.cmp(&b.id));
        let agent = |(name, agent): (&String, &super::Agent)| AgentStatus {
            name: name.clone(),
            standing: self.standing_of(name).as_str(),
            sessions: agent.sessions.len(),
            capacity: agent.config.capacity,
        };
        let queue = |((domain, id), queue): (&(String, String), &super::Queue)| QueueStatus {
            domain: domain.clone(),
            id: id.clone(),
            waiting: queue.line.len(),
            refused: queue.refused.clone(),
        };
        Status {
            counters: self.counters.clone(),
            agents_ready: self.agents.keys().filter(|name| self.standing_of(name) == Standing::Ready).count(),
            sessions,
            agents: self.agents.iter().map(agent).collect(),
            queues: self.queues.iter().map(queue).collect(),
            revoked_links: self.revoked.len(),
            store_low: self.is_store_low,
        }
    }
}

fn session_status(session: &super::Session) -> SessionStatus {
    let (place, agent) = match &session.place {
        Place::Queued => ("queued", None),
        Place::Bot => ("bot", None),
        Place::Agent(agent) => ("agent", Some(agent.clone())),
        Place::Closed(_) => ("closed", None),
    };
    let record = &session.record;
    SessionStatus {
        id: record.id.to_string(),
        code: record.code.clone(),
        queue: record.queue.clone(),
        place,
        agent,
        software: record.software.to_string(),
        software_source: record.software.source.as_str(),
        software_confidence: record.software.confidence.as_str(),
        software_ja4: record.software.ja4.as_ref().map(ToString::to_string),
        software_library: record.software.library.clone(),
        software_contradicted: record.software.is_contradicted,
        software_lacks: record.software.lacks.iter().collect(),
        attached: session.channel.is_some(),
        attachment: session.attachment,
        in_handled: session.in_handled,
        undelivered: session.undelivered.len(),
        out_last: session.out_last,
        out_handled: session.out_handled,
    }
}
