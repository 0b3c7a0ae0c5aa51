//! A model of the connector's desk over a model of its store: commits lag, a crash falls back to the last one.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use outgate::proto::tunnel::{ChannelId, ConnectorCommand, ConnectorEvent, Fin, OpenKind, Payload, Proof, RefusalCode};
use outgate::session::{CloseReason, SessionSecret};

use super::Plant;

/// What an outward number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Out {
    Event(Bytes),
    Ephemeral(Bytes),
    Fin,
}

/// A session as the store keeps it.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// Inward events by number from 1; `None` where only the mark was kept.
    pub(super) record: Vec<Option<Bytes>>,
    pub(super) sm_in: u32,
    pub(super) own: Vec<(u64, u32)>,
    pub(super) fin_in: bool,
    /// Outward items by number from 1.
    pub(super) out: Vec<Out>,
    pub(super) out_handled: u64,
}

impl Kept {
    fn is_closed(&self) -> bool {
        self.fin_in || (self.out.last() == Some(&Out::Fin) && self.out_handled == self.out.len() as u64)
    }
}

type Store = BTreeMap<SessionSecret, Kept>;

#[derive(Clone, Debug)]
enum Op {
    Begin,
    In {
        number: u64,
        sm_in: u32,
        body: Option<Bytes>,
    },
    Counted(u32),
    Own(u64, u32),
    FinIn,
    Out(Out),
    OutHandled(u64),
    /// Changes nothing: its effects wait for what is before it.
    Barrier,
}

/// The desk.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// As the running process sees it.
    memory: Store,
    /// As the disk has it.
    pub(super) store: Store,
    queue: VecDeque<(SessionSecret, Op, Vec<ConnectorCommand>)>,
    by_channel: HashMap<ChannelId, SessionSecret>,
    channels: BTreeMap<SessionSecret, ChannelId>,
    plant: Option<Plant>,
    /// What broke a promise.
    pub(super) violations: Vec<String>,
    /// Effects that a planted bug let out too early.
    early: Vec<ConnectorCommand>,
}

impl Desk {
    pub(super) fn new(plant: Option<Plant>) -> Self {
        Self { plant, ..Self::default() }
    }

    /// The process dies and starts again from what was committed.
    pub(super) fn crash(&mut self) {
        self.memory = self.store.clone();
        self.queue.clear();
        self.early.clear();
        self.by_channel.clear();
        self.channels.clear();
    }

    /// Commits up to `count` operations; gives what may be done now.
    pub(super) fn commit(&mut self, count: usize) -> Vec<ConnectorCommand> {
        let mut effects = std::mem::take(&mut self.early);
        for _ in 0..count {
            let Some((secret, op, then)) = self.queue.pop_front() else { break };
            apply(&mut self.store, secret, op);
            effects.extend(then);
        }
        effects
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.early.is_empty()
    }

    /// Sessions that an agent may speak in.
    pub(super) fn open_sessions(&self) -> Vec<SessionSecret> {
        self.memory.iter().filter(|(_, kept)| !kept.fin_in && kept.out.last() != Some(&Out::Fin)).map(|(&secret, _)| secret).collect()
    }

    /// An agent says something, or ends the session.
    pub(super) fn say(&mut self, secret: SessionSecret, item: Out) {
        let Some(kept) = self.memory.get(&secret) else { return };
        let mut number = kept.out.len() as u64 + 1;
        if self.plant == Some(Plant::ReusedNumber) && number % 7 == 6 {
            number -= 1;
        }
        let payload = match &item {
            Out::Event(body) if self.plant == Some(Plant::EventAboveWindow) && number % 5 == 4 => {
                Payload::Event(Bytes::from(body.repeat(33 * 1024 / body.len() + 1)))
            }
            Out::Event(body) => Payload::Event(body.clone()),
            Out::Ephemeral(body) => Payload::Ephemeral(body.clone()),
            Out::Fin => Payload::Tombstone,
        };
        let effect = self.channels.get(&secret).map(|&channel| match item {
            Out::Fin => ConnectorCommand::Finish { channel, number, fin: fin() },
            Out::Event(_) | Out::Ephemeral(_) => ConnectorCommand::Send { channel, number, payload },
        });
        self.push(secret, Op::Out(item), effect.into_iter().collect());
    }

    pub(super) fn handle(&mut self, event: ConnectorEvent) {
        match event {
            ConnectorEvent::Attached { resumed: false, .. } => {
                self.by_channel.clear();
                self.channels.clear();
            }
            ConnectorEvent::Open { channel, open } => self.open(channel, open.kind),
            ConnectorEvent::Data { channel, number, sm_in, payload } => {
                let Some(&secret) = self.by_channel.get(&channel) else { return };
                self.expect_next(secret, number);
                let body = match payload {
                    Payload::Event(body) => Some(body),
                    Payload::Ephemeral(_) | Payload::Tombstone => None,
                };
                let handled = ConnectorCommand::Handled { channel, number, sm_in };
                if self.plant == Some(Plant::EphemeralWithoutMark) && body.is_none() {
                    apply(&mut self.memory, secret, Op::In { number, sm_in, body });
                    self.early.push(handled);
                    return;
                }
                self.push(secret, Op::In { number, sm_in, body }, vec![handled]);
            }
            ConnectorEvent::Counted { channel, sm_in } => {
                let Some(&secret) = self.by_channel.get(&channel) else { return };
                let number = self.memory[&secret].record.len() as u64;
                self.push(secret, Op::Counted(sm_in), vec![ConnectorCommand::Handled { channel, number, sm_in }]);
            }
            ConnectorEvent::Own { channel, after, count } => {
                let Some(&secret) = self.by_channel.get(&channel) else { return };
                self.push(secret, Op::Own(after, count), vec![ConnectorCommand::OwnHandled { channel, after, count }]);
            }
            ConnectorEvent::OutHandled { channel, number, proof: Proof::Confirmed | Proof::Written } => {
                let Some(&secret) = self.by_channel.get(&channel) else { return };
                if number > self.memory[&secret].out.len() as u64 {
                    self.violations.push(format!("outward {number} handled but never sent"));
                }
                self.push(secret, Op::OutHandled(number), Vec::new());
            }
            ConnectorEvent::Fin { channel, number, .. } => {
                let Some(&secret) = self.by_channel.get(&channel) else { return };
                self.expect_next(secret, number);
                let sm_in = self.memory[&secret].sm_in;
                self.push(secret, Op::FinIn, vec![ConnectorCommand::Handled { channel, number, sm_in }]);
            }
            ConnectorEvent::Reset { channel, code } => {
                if let Some(secret) = self.by_channel.remove(&channel) {
                    self.channels.remove(&secret);
                    if !matches!(code, outgate::proto::tunnel::ResetCode::Unknown | outgate::proto::tunnel::ResetCode::Cancelled) {
                        self.violations.push(format!("{channel:?} reset: {code:?}"));
                    }
                }
            }
            ConnectorEvent::Refused { code, .. } => self.violations.push(format!("the relay refused: {code}")),
            ConnectorEvent::Attached { .. } | ConnectorEvent::Detached | ConnectorEvent::Check { .. } => {}
            ConnectorEvent::CloseCarrier { .. } => unreachable!("the world takes it"),
        }
    }

    fn open(&mut self, channel: ChannelId, kind: OpenKind) {
        let (secret, new) = match kind {
            OpenKind::New { secret, .. } => (secret, true),
            OpenKind::Attach { secret, .. } => (secret, false),
        };
        let known = self.memory.contains_key(&secret);
        if (!known && !new) || self.memory.get(&secret).is_some_and(Kept::is_closed) {
            let text = String::new();
            self.early.push(ConnectorCommand::Refuse { channel, code: RefusalCode::UnknownSession, text, retry_after: None });
            return;
        }
        if let Some(old) = self.channels.insert(secret, channel) {
            self.by_channel.remove(&old);
        }
        self.by_channel.insert(channel, secret);
        let effects = self.accept(channel, secret);
        self.push(secret, if known { Op::Barrier } else { Op::Begin }, effects);
    }

    fn accept(&self, channel: ChannelId, secret: SessionSecret) -> Vec<ConnectorCommand> {
        let kept = self.memory.get(&secret).cloned().unwrap_or_default();
        let pending = &kept.out[kept.out_handled as usize..];
        let hole = self.plant == Some(Plant::OutEphemeralWithoutTombstone);
        let out = pending.iter().filter_map(|item| match item {
            Out::Event(body) => Some(Payload::Event(body.clone())),
            Out::Ephemeral(_) => (!hole).then_some(Payload::Tombstone),
            Out::Fin => None,
        });
        let in_next = kept.record.len() as u64 + 1;
        let mut effects = vec![ConnectorCommand::Accept { channel, in_next, out_first: kept.out_handled + 1, out: out.collect() }];
        if pending.last() == Some(&Out::Fin) {
            effects.push(ConnectorCommand::Finish { channel, number: kept.out.len() as u64, fin: fin() });
        }
        effects
    }

    fn push(&mut self, secret: SessionSecret, op: Op, effects: Vec<ConnectorCommand>) {
        apply(&mut self.memory, secret, op.clone());
        let early = self.plant == Some(Plant::ForwardBeforeCommit) && !matches!(op, Op::Begin | Op::Barrier);
        if early {
            self.early.extend(effects);
            self.queue.push_back((secret, op, Vec::new()));
        } else {
            self.queue.push_back((secret, op, effects));
        }
    }

    fn expect_next(&mut self, secret: SessionSecret, number: u64) {
        let next = self.memory[&secret].record.len() as u64 + 1;
        if number != next {
            self.violations.push(format!("inward {number} where {next} was next"));
        }
    }
}

fn fin() -> Fin {
    Fin { reason: CloseReason::AgentDone, text: "bye".to_owned() }
}

fn apply(store: &mut Store, secret: SessionSecret, op: Op) {
    let kept = store.entry(secret).or_default();
    match op {
        Op::Begin | Op::Barrier => {}
        Op::In { number, sm_in, body } => {
            // A store that lacks a mark has the hole that a planted bug left; the numbers above it stay where they are.
            kept.record.resize(kept.record.len().max(number as usize), None);
            kept.record[number as usize - 1] = body;
            kept.sm_in = sm_in;
        }
        Op::Counted(sm_in) => kept.sm_in = sm_in,
        Op::Own(after, count) => {
            if !kept.own.contains(&(after, count)) {
                kept.own.push((after, count));
            }
        }
        Op::FinIn => kept.fin_in = true,
        Op::Out(item) => kept.out.push(item),
        Op::OutHandled(number) => kept.out_handled = kept.out_handled.max(number),
    }
}
