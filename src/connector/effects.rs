//! Does what the desk decided, once the store has released it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::proto::tunnel::ConnectorCommand;
use crate::telemetry::HOP;
use crate::telemetry::audit::{Audit as AuditLog, Event, LinkMark};

use super::desk::{Audit, DoorEffect, Effect, RevocationDone, StreamHandle};
use super::dial_relay::Links;
use super::policy::PolicySource;

/// Writes that may wait for one agent's client before it is cut off as not reading.
const LEG_DEPTH: usize = 1024;

/// What an agent's connection is told.
#[derive(Debug)]
pub(super) enum LegCommand {
    Write(String),
    Close { condition: &'static str, text: String },
    Resumed { resource: String, output: String },
    ResumeRefused,
    Read { is_wanted: bool },
}

/// The connections of all agents.
#[derive(Clone, Debug, Default)]
pub(super) struct Legs(Arc<Mutex<HashMap<StreamHandle, mpsc::Sender<LegCommand>>>>);

/// A connection's place among the [`Legs`], given back when it ends.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) handle: StreamHandle,
    pub(super) commands: mpsc::Receiver<LegCommand>,
    legs: Legs,
}

impl Legs {
    pub(super) fn register(&self, handle: StreamHandle) -> Leg {
        let (sender, commands) = mpsc::channel(LEG_DEPTH);
        self.with(|legs| legs.insert(handle, sender));
        Leg { handle, commands, legs: self.clone() }
    }

    /// Tells a connection; one whose queue is full is cut off, which its end reports to the desk.
    fn tell(&self, handle: StreamHandle, command: LegCommand) {
        self.with(|legs| {
            let cut = legs.get(&handle).is_some_and(|leg| leg.try_send(command).is_err());
            if cut {
                legs.remove(&handle);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<StreamHandle, mpsc::Sender<LegCommand>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.legs.with(|legs| legs.remove(&self.handle));
    }
}

/// Admins who wait for their answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Asks(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    answers: HashMap<u64, oneshot::Sender<RevocationAnswer>>,
}

type RevocationAnswer = Result<RevocationDone, String>;

impl Asks {
    /// A number for a question, and where its answer comes.
    pub(super) fn begin(&self) -> (u64, oneshot::Receiver<RevocationAnswer>) {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.answers.retain(|_, answer| !answer.is_closed());
        waiting.next += 1;
        let ask = waiting.next;
        waiting.answers.insert(ask, sender);
        (ask, answer)
    }

    fn answer(&self, ask: u64, done: RevocationAnswer) {
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner).answers.remove(&ask);
        if let Some(answer) = answer {
            // Whoever asked may have gone.
            let _gone = answer.send(done);
        }
    }
}

/// Where effects go.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) legs: Legs,
    pub(super) links: Links,
    pub(super) policy: PolicySource,
    pub(super) asks: Asks,
    pub(super) audit: AuditLog,
}

/// Does them in order, on the store's thread: one hop less for each message than with a task between. Waits only for a tunnel's end,
/// which takes commands whatever else goes on.
pub(super) fn dispatch(effects: Vec<Effect>, ways: &Ways) {
    let Ways { legs, links, policy, asks, audit: written } = ways;
    let mut writes = Writes::default();
    for effect in effects {
        writes.flush_before(&effect, legs);
        match effect {
            Effect::Tunnel { relay, command } => {
                trace(&command);
                links.command(relay, command);
            }
            Effect::AgentWrite { stream, xml } => {
                tracing::trace!(target: HOP, "connector: committed; a stanza goes to the agent's client");
                writes.add(stream, xml);
            }
            Effect::AgentRead { stream, is_wanted } => legs.tell(stream, LegCommand::Read { is_wanted }),
            Effect::AgentClose { stream, condition, text } => legs.tell(stream, LegCommand::Close { condition, text }),
            Effect::AgentResumed { stream, resource, output } => legs.tell(stream, LegCommand::Resumed { resource, output }),
            Effect::AgentResumeRefused { stream } => legs.tell(stream, LegCommand::ResumeRefused),
            Effect::Audit(audit) => {
                log(&audit);
                write(audit, written);
            }
            Effect::Door(DoorEffect::Revoked(revoked)) => policy.set_revoked(revoked),
            Effect::Door(DoorEffect::Answer { ask, done }) => asks.answer(ask, done),
            Effect::Door(DoorEffect::Admitted(place)) => drop(place),
        }
    }
    writes.flush(legs);
}

/// What one release writes to each agent's client, in one piece: after a store has stalled that may be more stanzas than commands may wait.
#[derive(Debug, Default)]
struct Writes(Vec<(StreamHandle, String)>);

impl Writes {
    fn add(&mut self, stream: StreamHandle, xml: String) {
        match self.0.iter_mut().find(|(other, _)| *other == stream) {
            Some((_, written)) => written.push_str(&xml),
            None => self.0.push((stream, xml)),
        }
    }

    /// What else a connection is told keeps its place among what is written.
    fn flush_before(&mut self, effect: &Effect, legs: &Legs) {
        let (Effect::AgentRead { stream, .. }
        | Effect::AgentClose { stream, .. }
        | Effect::AgentResumed { stream, .. }
        | Effect::AgentResumeRefused { stream }) = effect
        else {
            return;
        };
        if let Some(place) = self.0.iter().position(|(other, _)| other == stream) {
            let (stream, xml) = self.0.swap_remove(place);
            legs.tell(stream, LegCommand::Write(xml));
        }
    }

    fn flush(self, legs: &Legs) {
        for (stream, xml) in self.0 {
            legs.tell(stream, LegCommand::Write(xml));
        }
    }
}

fn trace(command: &ConnectorCommand) {
    if let ConnectorCommand::Handled { number, .. } = command {
        tracing::trace!(target: HOP, "connector: event {number} is committed; the relay is told");
    } else if let ConnectorCommand::Send { number, .. } = command {
        tracing::trace!(target: HOP, "connector: committed; event {number} goes into the tunnel");
    }
}

/// One line for one decision: names and codes, never what people said.
fn log(audit: &Audit) {
    match audit {
        Audit::SessionOpened { session, code, queue, issuer, kid, link: _, uses: _ } => {
            tracing::info!(%session, code, queue, issuer, kid, "session opened");
        }
        Audit::SessionAttached { session, attachment } => tracing::info!(%session, attachment, "session attached again"),
        Audit::SessionClosed { session, reason } => tracing::info!(%session, reason = reason.as_str(), "session closed"),
        Audit::Refused { queue, code, reason } => tracing::info!(queue, ?code, reason, "refused"),
        Audit::Taken { session, agent } => tracing::info!(%session, agent, "session taken"),
        Audit::Requeued { session, agent } => tracing::info!(%session, agent, "session back in its queue"),
        Audit::AgentStanding { agent, standing } => tracing::info!(agent, standing, "agent"),
        Audit::StoreRegressed { session } => {
            let remedy =
                "the store is older than what this connector had confirmed: was a copy or a snapshot put back? Make a new store instead";
            tracing::error!(%session, remedy, "session ended: the store came back older");
        }
        Audit::ChannelFault { session, why } => tracing::warn!(%session, why, "channel fault"),
    }
}

/// The same in the audit log, but for what is no decision about a customer.
fn write(audit: Audit, log: &AuditLog) {
    match audit {
        Audit::SessionOpened { session, code: _, queue, issuer, kid, link, uses } => {
            log.record(Event::SessionOpened { session: session.to_string(), queue });
            if !link.is_empty() {
                log.record(Event::LinkUsed { session: session.to_string(), link: LinkMark { issuer, kid, hash: link }, uses });
            }
        }
        Audit::SessionAttached { session, attachment } => {
            log.record(Event::SessionAttached { session: session.to_string(), attachment });
        }
        Audit::SessionClosed { session, reason } => {
            log.record(Event::SessionClosed { session: session.to_string(), reason: reason.as_str() });
        }
        Audit::Refused { queue, code: _, reason } => {
            log.record(Event::Refused { stage: "open", reason, address: None, queue: Some(queue), link: None });
        }
        Audit::Taken { session, agent } => log.record(Event::SessionTaken { session: session.to_string(), agent }),
        // A store that came back older closes the session too.
        Audit::StoreRegressed { .. } | Audit::Requeued { .. } | Audit::AgentStanding { .. } | Audit::ChannelFault { .. } => {}
    }
}
