//! Does what the desk decided, once the store has released it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::proto::tunnel::ConnectorCommand;
use crate::telemetry::HOP;

use super::desk::{Audit, Effect, StreamHandle};
use super::dial_relay::Links;

/// Writes that may wait for one agent's client before it is cut off as not reading.
const LEG_DEPTH: usize = 1024;

/// What an agent's connection is told.
#[derive(Debug)]
pub(super) enum LegCommand {
    Write(String),
    Close { condition: &'static str, text: String },
    Resumed { resource: String, output: String },
    ResumeRefused,
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

pub(super) async fn dispatch(mut released: mpsc::Receiver<Vec<Effect>>, legs: Legs, links: Links) {
    while let Some(effects) = released.recv().await {
        for effect in effects {
            match effect {
                Effect::Tunnel { relay, command } => {
                    trace(&command);
                    links.command(relay, command).await;
                }
                Effect::AgentWrite { stream, xml } => {
                    tracing::trace!(target: HOP, "connector: committed; a stanza goes to the agent's client");
                    legs.tell(stream, LegCommand::Write(xml));
                }
                Effect::AgentClose { stream, condition, text } => legs.tell(stream, LegCommand::Close { condition, text }),
                Effect::AgentResumed { stream, resource, output } => legs.tell(stream, LegCommand::Resumed { resource, output }),
                Effect::AgentResumeRefused { stream } => legs.tell(stream, LegCommand::ResumeRefused),
                Effect::Audit(audit) => log(&audit),
            }
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
        Audit::SessionOpened { session, code, queue, issuer, kid } => {
            tracing::info!(%session, code, queue, issuer, kid, "session opened");
        }
        Audit::SessionAttached { session, attachment } => tracing::info!(%session, attachment, "session attached again"),
        Audit::SessionClosed { session, reason } => tracing::info!(%session, reason = reason.as_str(), "session closed"),
        Audit::Refused { queue, code } => tracing::info!(queue, reason = ?code, "refused"),
        Audit::Taken { session, agent } => tracing::info!(%session, agent, "session taken"),
        Audit::Requeued { session, agent } => tracing::info!(%session, agent, "session back in its queue"),
        Audit::AgentStanding { agent, standing } => tracing::info!(agent, standing, "agent"),
        Audit::ChannelFault { session, why } => tracing::warn!(%session, why, "channel fault"),
    }
}
