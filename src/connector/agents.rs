//! The agents' listener: ordinary XMPP clients on the LAN.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::net::listener::Listener;
use crate::net::negotiate::{Judge, Resumption, Terms, negotiate, resource_of};
use crate::net::shutdown::Stop;
use crate::net::stream::Stream;
use crate::proto::xmpp::negotiation::{Login, stream_error};
use crate::proto::xmpp::reader::{ReadEvent, Reader};
use crate::proto::xmpp::sasl::{SaslCondition, SaslFailure, ScramKeys};
use crate::telemetry::HOP;

use super::desk::{Input, StreamHandle};
use super::effects::{Leg, LegCommand, Legs};

/// Agents' connections in all: far above any desk, far below the descriptors a process has.
const MAX_CONNECTIONS: usize = 4096;

/// Writes joined before they leave.
const BATCH: usize = 64;

/// Who may log in, and on which terms.
#[derive(Debug)]
pub struct AgentsDoor {
    /// Keys by account name.
    pub accounts: HashMap<String, ScramKeys>,
    /// Domain of the agents' JIDs.
    pub domain: String,
    /// What the listener offers.
    pub terms: Terms,
}

pub(super) async fn listen(listener: Listener, door: AgentsDoor, inputs: mpsc::Sender<Input>, legs: Legs, mut stop: Stop) {
    let door = Arc::new(door);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let next = AtomicU64::new(1);
    let mut connections = JoinSet::new();
    loop {
        let (socket, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
            () = stop.requested() => break,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("agents' connections are at their limit");
            continue;
        };
        tracing::debug!(%peer, "agent's client connected");
        let handle = StreamHandle(next.fetch_add(1, Ordering::Relaxed));
        let leg = legs.register(handle);
        let (door, inputs, stop) = (Arc::clone(&door), inputs.clone(), stop.clone());
        connections.spawn(async move {
            serve(&door, socket, leg, inputs, stop).await;
            drop(place);
        });
    }
    while connections.join_next().await.is_some() {}
}

async fn serve(door: &AgentsDoor, socket: TcpStream, mut leg: Leg, inputs: mpsc::Sender<Input>, stop: Stop) {
    let mut guard = AgentJudge { door, inputs: &inputs, leg: &mut leg, bound: None };
    let arrived = Box::pin(negotiate(Stream::Plain(socket), &door.terms, &mut guard, stop.clone())).await;
    let Some(bound) = guard.bound else {
        if let Err(reason) = arrived {
            tracing::info!(reason, "agent's client refused");
        }
        return;
    };
    let stream = leg.handle;
    let Ok(arrived) = arrived else {
        if bound.is_resumed {
            let _stopping = inputs.send(Input::AgentLost { stream }).await;
        }
        return;
    };
    if !bound.is_resumed {
        let _stopping = inputs.send(Input::AgentConnected { stream, agent: bound.agent, resource: bound.resource }).await;
    }
    let connection =
        Connection { stream: arrived.stream, reader: arrived.reader, leg, inputs, write_within: door.terms.write_within, is_read: true };
    connection.run(stop).await;
}

/// Under which name a client stands.
struct Bound {
    agent: String,
    resource: String,
    is_resumed: bool,
}

struct AgentJudge<'a> {
    door: &'a AgentsDoor,
    inputs: &'a mpsc::Sender<Input>,
    leg: &'a mut Leg,
    bound: Option<Bound>,
}

impl Judge for AgentJudge<'_> {
    async fn verify(&mut self, login: Login) -> Result<(), SaslFailure> {
        let wrong = || SaslFailure { condition: SaslCondition::NotAuthorized, text: "The name or the password is wrong.".into() };
        let Login::Plain { user, password, .. } = login else { return Err(wrong()) };
        let keys = self.door.accounts.get(&user).cloned();
        // Deriving keys takes milliseconds of CPU: not on a thread that serves others.
        let verified = tokio::task::spawn_blocking(move || keys.is_some_and(|keys| keys.verify(&password))).await;
        if verified.unwrap_or(false) { Ok(()) } else { Err(wrong()) }
    }

    fn scram_keys(&mut self, _domain: &str, user: &str) -> Option<ScramKeys> {
        self.door.accounts.get(user).cloned()
    }

    fn bind(&mut self, domain: &str, user: &str, resource: Option<String>) -> String {
        let resource = resource_of(resource);
        let jid = format!("{user}@{domain}/{resource}");
        self.bound = Some(Bound { agent: user.to_owned(), resource, is_resumed: false });
        jid
    }

    async fn resume(&mut self, user: &str, previd: &str, h: u32) -> Resumption {
        let input = Input::AgentResume { stream: self.leg.handle, agent: user.to_owned(), previd: previd.to_owned(), h };
        if self.inputs.send(input).await.is_err() {
            return Resumption::Unanswered;
        }
        match self.leg.commands.recv().await {
            Some(LegCommand::Resumed { resource, output }) => {
                self.bound = Some(Bound { agent: user.to_owned(), resource, is_resumed: true });
                Resumption::Resumed(output)
            }
            Some(LegCommand::ResumeRefused | LegCommand::Write(_) | LegCommand::Close { .. } | LegCommand::Read { .. }) => {
                Resumption::Unknown
            }
            None => Resumption::Unanswered,
        }
    }
}

/// An agent's client after bind.
struct Connection {
    stream: Stream,
    reader: Reader,
    leg: Leg,
    inputs: mpsc::Sender<Input>,
    write_within: Duration,
    /// Whether the desk takes stanzas now.
    is_read: bool,
}

/// How a connection went on after one turn.
enum Turn {
    Goes,
    Lost,
    /// The stream was ended by its client.
    Closed,
    /// The stream was ended from this side, and the desk knows.
    Ended,
}

impl Connection {
    async fn run(mut self, mut stop: Stop) {
        let stream = self.leg.handle;
        let mut turn = self.take_stanzas().await;
        let mut writes = Vec::with_capacity(BATCH);
        while matches!(turn, Turn::Goes) {
            turn = tokio::select! {
                taken = self.leg.commands.recv_many(&mut writes, BATCH) => match taken {
                    0 => self.cut_off().await,
                    _ => self.write(&mut writes).await,
                },
                read = self.stream.read(|bytes| self.reader.push(bytes)), if self.is_read => match read {
                    Ok(Some(())) => self.take_stanzas().await,
                    Ok(None) | Err(_) => Turn::Lost,
                },
                () = stop.requested() => {
                    self.say(&stream_error("system-shutdown", "The connector stops for a moment.")).await;
                    Turn::Lost
                }
            };
        }
        match turn {
            Turn::Lost => drop(self.inputs.send(Input::AgentLost { stream }).await),
            Turn::Closed => {
                self.say("</stream:stream>").await;
                drop(self.inputs.send(Input::AgentClosed { stream }).await);
            }
            Turn::Goes | Turn::Ended => {}
        }
        self.stream.close().await;
    }

    async fn take_stanzas(&mut self) -> Turn {
        let stream = self.leg.handle;
        loop {
            match self.reader.poll() {
                Ok(Some(ReadEvent::Stanza(element))) => {
                    if element.name() == "message" {
                        tracing::trace!(target: HOP, "connector: a message comes from the agent's client");
                    }
                    if self.inputs.send(Input::AgentStanza { stream, element }).await.is_err() {
                        return Turn::Lost;
                    }
                }
                Ok(Some(ReadEvent::StreamOpen(_))) => {}
                Ok(Some(ReadEvent::StreamClose)) => return Turn::Closed,
                Ok(None) => return Turn::Goes,
                Err(fault) => {
                    self.say(&stream_error(fault.condition(), "")).await;
                    return Turn::Lost;
                }
            }
        }
    }

    async fn write(&mut self, commands: &mut Vec<LegCommand>) -> Turn {
        let mut text = String::new();
        let mut turn = Turn::Goes;
        for command in commands.drain(..) {
            match command {
                LegCommand::Write(xml) => text.push_str(&xml),
                LegCommand::Close { condition, text: sentence } => {
                    text.push_str(&stream_error(condition, &sentence));
                    turn = Turn::Ended;
                    break;
                }
                LegCommand::Read { is_wanted } => self.is_read = is_wanted,
                LegCommand::Resumed { .. } | LegCommand::ResumeRefused => {}
            }
        }
        match self.stream.write(text.as_bytes(), self.write_within).await {
            Ok(()) => turn,
            Err(_) => Turn::Lost,
        }
    }

    /// The queue of writes overflowed: the client does not read.
    async fn cut_off(&mut self) -> Turn {
        self.say(&stream_error("resource-constraint", "Your client does not read what it is sent.")).await;
        Turn::Lost
    }

    async fn say(&mut self, text: &str) {
        // It may be gone already.
        let _gone = self.stream.write(text.as_bytes(), Duration::from_secs(1)).await;
    }
}
