//! A model of the connector's desk over a model of its store: commits lag, a crash falls back to the last one.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use crate::proto::tunnel::{ChannelId, ConnectorCommand, ConnectorEvent, Fin, OpenKind, Payload, Proof, RefusalCode, ResetCode};
use crate::session::{CloseReason, SessionSecret};
use bytes::Bytes;

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
    /// The session ended because the store was older than what had been told.
    pub(super) regressed: bool,
    /// How often its client has come.
    attachment: u32,
    /// The first outward number that was given while no relay had answered since a start; 0: none.
    unseen: u64,
}

impl Kept {
    /// The first outward number that, by this store, nobody can have.
    pub(super) fn out_limit(&self) -> u64 {
        if self.unseen == 0 { self.out.len() as u64 + 1 } else { self.unseen }
    }

    fn is_closed(&self) -> bool {
        self.fin_in || self.regressed || (self.out.last() == Some(&Out::Fin) && self.out_handled == self.out.len() as u64)
    }
}

pub(super) type Store = BTreeMap<SessionSecret, Kept>;

/// A channel of the tunnel to one relay.
type Place = (usize, ChannelId);

/// A command to the end of the tunnel to one relay.
type Effect = (usize, ConnectorCommand);

/// Commits between two snapshots, and how many snapshots are kept.
const SNAPSHOT_EVERY: u64 = 25;
const SNAPSHOTS: usize = 4;

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
    /// Whether a relay has asked for the session since the start.
    Out(Out, bool),
    OutHandled(u64),
    Regressed,
    Attached(u32),
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
    queue: VecDeque<(SessionSecret, Op, Vec<Effect>)>,
    by_channel: HashMap<Place, SessionSecret>,
    channels: BTreeMap<SessionSecret, Place>,
    /// Earlier states of the disk, oldest first; kept where a schedule falls back to one.
    pub(super) snapshots: Option<VecDeque<Store>>,
    committed: u64,
    /// Sessions for which a relay has asked since the start: it showed how far it is.
    asked: BTreeSet<SessionSecret>,
    /// When each client asked in person the last time, since the start.
    came: BTreeMap<SessionSecret, Instant>,
    /// The disk as it was when it came back older: what was above it is gone.
    pub(super) floors: Vec<Store>,
    /// Sessions that were attached once more since the disk was like that.
    pub(super) unknown_attachments: BTreeSet<SessionSecret>,
    plant: Option<Plant>,
    /// What broke a promise.
    pub(super) violations: Vec<String>,
    /// Effects that a planted bug let out too early.
    early: Vec<Effect>,
}

impl Desk {
    pub(super) fn new(plant: Option<Plant>, regresses: bool) -> Self {
        Self { plant, snapshots: regresses.then(VecDeque::new), ..Self::default() }
    }

    /// The process dies, and the disk that it finds is an older one.
    pub(super) fn regress(&mut self, pick: usize) -> bool {
        let Some(snapshots) = self.snapshots.as_mut().filter(|snapshots| !snapshots.is_empty()) else { return false };
        let older = pick % snapshots.len();
        snapshots.truncate(older + 1);
        let newer = std::mem::replace(&mut self.store, snapshots[older].clone());
        let known = |secret| self.store.get(secret).map_or(0, |kept| kept.attachment);
        self.unknown_attachments = newer.iter().filter(|(secret, kept)| kept.attachment > known(secret)).map(|(&secret, _)| secret).collect();
        self.floors.push(self.store.clone());
        self.crash();
        true
    }

    /// The process dies and starts again from what was committed.
    pub(super) fn crash(&mut self) {
        self.memory = self.store.clone();
        self.queue.clear();
        self.early.clear();
        self.asked.clear();
        self.came.clear();
        self.by_channel.clear();
        self.channels.clear();
    }

    /// Commits up to `count` operations; gives what may be done now.
    pub(super) fn commit(&mut self, count: usize) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.early);
        for _ in 0..count {
            let Some((secret, op, then)) = self.queue.pop_front() else { break };
            apply(&mut self.store, secret, op);
            effects.extend(then);
            self.committed += 1;
            if let Some(snapshots) = self.snapshots.as_mut().filter(|_| self.committed.is_multiple_of(SNAPSHOT_EVERY)) {
                snapshots.push_back(self.store.clone());
                if snapshots.len() > SNAPSHOTS {
                    snapshots.pop_front();
                }
            }
        }
        effects
    }

    /// Whether a session was ended because the store is older than what a relay knows.
    pub(super) fn has_regressed(&self, secret: SessionSecret) -> bool {
        self.memory.get(&secret).is_some_and(|kept| kept.regressed)
    }

    /// Whether the session has ended here, or never began.
    pub(super) fn is_closed(&self, secret: SessionSecret) -> bool {
        self.memory.get(&secret).is_none_or(Kept::is_closed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.early.is_empty()
    }

    /// Sessions that an agent may speak in.
    pub(super) fn open_sessions(&self) -> Vec<SessionSecret> {
        self.memory.iter().filter(|(_, kept)| !kept.is_closed() && kept.out.last() != Some(&Out::Fin)).map(|(&secret, _)| secret).collect()
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
        let effect = self.channels.get(&secret).map(|&(relay, channel)| match item {
            Out::Fin => (relay, ConnectorCommand::Finish { channel, number, fin: fin() }),
            Out::Event(_) | Out::Ephemeral(_) => (relay, ConnectorCommand::Send { channel, number, payload }),
        });
        let was_asked = self.asked.contains(&secret);
        self.push(secret, Op::Out(item, was_asked), effect.into_iter().collect());
    }

    pub(super) fn handle(&mut self, relay: usize, event: ConnectorEvent, now: Instant) {
        match event {
            ConnectorEvent::Attached { resumed: false, .. } => {
                self.by_channel.retain(|place, _| place.0 != relay);
                self.channels.retain(|_, place| place.0 != relay);
            }
            ConnectorEvent::Open { channel, open } => self.open((relay, channel), open.kind, now.checked_sub(open.waited)),
            ConnectorEvent::Data { channel, number, sm_in, payload } => {
                let Some(&secret) = self.by_channel.get(&(relay, channel)) else { return };
                self.expect_next(secret, number);
                let body = match payload {
                    Payload::Event(body) => Some(body),
                    Payload::Ephemeral(_) | Payload::Tombstone => None,
                };
                let handled = ConnectorCommand::Handled { channel, number, sm_in };
                if self.plant == Some(Plant::EphemeralWithoutMark) && body.is_none() {
                    apply(&mut self.memory, secret, Op::In { number, sm_in, body });
                    self.early.push((relay, handled));
                    return;
                }
                self.push(secret, Op::In { number, sm_in, body }, vec![(relay, handled)]);
            }
            ConnectorEvent::Counted { channel, sm_in } => {
                let Some(&secret) = self.by_channel.get(&(relay, channel)) else { return };
                let number = self.memory[&secret].record.len() as u64;
                self.push(secret, Op::Counted(sm_in), vec![(relay, ConnectorCommand::Handled { channel, number, sm_in })]);
            }
            ConnectorEvent::Own { channel, after, count } => {
                let Some(&secret) = self.by_channel.get(&(relay, channel)) else { return };
                self.push(secret, Op::Own(after, count), vec![(relay, ConnectorCommand::OwnHandled { channel, after, count })]);
            }
            ConnectorEvent::OutHandled { channel, number, proof: Proof::Confirmed | Proof::Written } => {
                let Some(&secret) = self.by_channel.get(&(relay, channel)) else { return };
                if number > self.memory[&secret].out.len() as u64 {
                    self.violations.push(format!("outward {number} handled but never sent"));
                }
                self.push(secret, Op::OutHandled(number), Vec::new());
            }
            ConnectorEvent::Fin { channel, number, .. } => {
                let Some(&secret) = self.by_channel.get(&(relay, channel)) else { return };
                self.expect_next(secret, number);
                let sm_in = self.memory[&secret].sm_in;
                self.push(secret, Op::FinIn, vec![(relay, ConnectorCommand::Handled { channel, number, sm_in })]);
            }
            ConnectorEvent::Reset { channel, code } => {
                if let Some(secret) = self.by_channel.remove(&(relay, channel)) {
                    self.channels.remove(&secret);
                    match code {
                        // A relay that the customer has left finds out that he went on elsewhere.
                        ResetCode::Unknown | ResetCode::Cancelled | ResetCode::Moved => {}
                        ResetCode::StoreRegressed if !self.floors.is_empty() => self.push(secret, Op::Regressed, Vec::new()),
                        ResetCode::StoreRegressed | ResetCode::Protocol | ResetCode::Slow => {
                            self.violations.push(format!("{channel:?} reset: {code:?}"));
                        }
                    }
                }
            }
            ConnectorEvent::Refused { code, .. } if code != "busy" => self.violations.push(format!("the relay refused: {code}")),
            ConnectorEvent::Refused { .. } | ConnectorEvent::Attached { .. } | ConnectorEvent::Detached | ConnectorEvent::Check { .. } => {}
            ConnectorEvent::CloseCarrier { .. } | ConnectorEvent::CandidateReady { .. } | ConnectorEvent::GoAway { .. } => {
                unreachable!("the world takes it")
            }
        }
    }

    fn open(&mut self, (relay, channel): Place, kind: OpenKind, came: Option<Instant>) {
        let (secret, new, client_h) = match kind {
            OpenKind::New { secret, .. } => (secret, true, None),
            OpenKind::Attach { secret, client_h, .. } => (secret, false, client_h),
        };
        let known = self.memory.get(&secret);
        if known.map_or(!new, Kept::is_closed) {
            let text = String::new();
            let code = RefusalCode::UnknownSession;
            let refusal = ConnectorCommand::Refuse { channel, code, text, retry_after: None };
            return self.push(secret, Op::Barrier, vec![(relay, refusal)]);
        }
        let nothing = Kept::default();
        let kept = known.unwrap_or(&nothing);
        if self.is_ahead(kept, &kind) {
            // The relay, or its client, has more than this store remembers having sent.
            let code = RefusalCode::StoreRegressed;
            let mut told = vec![(relay, ConnectorCommand::Refuse { channel, code, text: String::new(), retry_after: None })];
            let live = self.channels.remove(&secret);
            told.extend(live.map(|(at, channel)| (at, ConnectorCommand::Reset { channel, code: ResetCode::StoreRegressed })));
            self.by_channel.retain(|_, other| *other != secret);
            return self.push(secret, Op::Regressed, told);
        }
        let is_elsewhere = self.channels.get(&secret).is_some_and(|(at, _)| *at != relay);
        let told = match kind {
            OpenKind::New { .. } => 1,
            OpenKind::Attach { attachment, .. } => attachment,
        };
        let came = came.filter(|_| told == 0);
        let is_late = came.is_some_and(|came| is_elsewhere && self.came.get(&secret).is_some_and(|later| came < *later));
        let is_stale = is_late || (told > 0 && (told < kept.attachment || (told == kept.attachment && is_elsewhere)));
        if is_stale && self.plant != Some(Plant::StaleAttachmentTaken) {
            return self.push(secret, Op::Barrier, vec![(relay, ConnectorCommand::Reset { channel, code: ResetCode::Moved })]);
        }
        let attachment = if told == 0 { kept.attachment + 1 } else { told.max(kept.attachment) };
        if let Some(came) = came {
            self.came.insert(secret, came);
        }
        let is_new = known.is_none();
        // What the client says it has needs not be sent again.
        let has = client_h.map_or(0, u64::from);
        let mut moved = None;
        if let Some(old) = self.channels.insert(secret, (relay, channel)) {
            self.by_channel.remove(&old);
            moved = Some((old.0, ConnectorCommand::Reset { channel: old.1, code: ResetCode::Moved }));
        }
        self.by_channel.insert((relay, channel), secret);
        self.asked.insert(secret);
        if let Some(kept) = self.memory.get_mut(&secret) {
            kept.out_handled = kept.out_handled.max(has);
        }
        let effects = self.accept((relay, channel), secret, attachment, &kind);
        let op = if has > 0 { Op::OutHandled(has) } else { Op::Barrier };
        self.push(secret, if is_new { Op::Begin } else { op }, moved.into_iter().collect());
        self.push(secret, Op::Attached(attachment), effects);
    }

    /// Whether the relay or its client knows an outward number that this store has not given, or not to them.
    fn is_ahead(&self, kept: &Kept, kind: &OpenKind) -> bool {
        let OpenKind::Attach { out_next, client_h, attachment, .. } = *kind else { return false };
        let limit = if self.plant == Some(Plant::NumberGivenTwice) { kept.out.len() as u64 + 1 } else { kept.out_limit() };
        out_next > limit || attachment > kept.attachment || client_h.is_some_and(|h| u64::from(h) >= limit)
    }

    fn accept(&self, (relay, channel): Place, secret: SessionSecret, attachment: u32, kind: &OpenKind) -> Vec<Effect> {
        let nothing = Kept::default();
        let kept = self.memory.get(&secret).unwrap_or(&nothing);
        let pending = &kept.out[kept.out_handled as usize..];
        let hole = self.plant == Some(Plant::OutEphemeralWithoutTombstone);
        let out = pending.iter().filter_map(|item| match item {
            Out::Event(body) => Some(Payload::Event(body.clone())),
            Out::Ephemeral(_) => (!hole).then_some(Payload::Tombstone),
            Out::Fin => None,
        });
        let mut in_next = kept.record.len() as u64 + 1;
        if let (Some(Plant::RenumberedAfterRegress), OpenKind::Attach { in_next: theirs @ 1.., .. }) = (self.plant, kind) {
            in_next = in_next.max(*theirs);
        }
        let out_first = kept.out_handled + 1;
        let mut effects = vec![ConnectorCommand::Accept { channel, attachment, in_next, out_first, out: out.collect() }];
        if matches!(kind, OpenKind::Attach { .. }) {
            effects.push(ConnectorCommand::Handled { channel, number: in_next - 1, sm_in: kept.sm_in });
        }
        if pending.last() == Some(&Out::Fin) {
            effects.push(ConnectorCommand::Finish { channel, number: kept.out.len() as u64, fin: fin() });
        }
        effects.into_iter().map(|effect| (relay, effect)).collect()
    }

    fn push(&mut self, secret: SessionSecret, op: Op, effects: Vec<Effect>) {
        apply(&mut self.memory, secret, op.clone());
        let early = self.plant == Some(Plant::ForwardBeforeCommit) && !matches!(op, Op::Begin | Op::Barrier | Op::Attached(_));
        if early {
            self.early.extend(effects);
            self.queue.push_back((secret, op, Vec::new()));
        } else {
            self.queue.push_back((secret, op, effects));
        }
    }

    fn expect_next(&mut self, secret: SessionSecret, number: u64) {
        let next = self.memory[&secret].record.len() as u64 + 1;
        if number != next && self.plant != Some(Plant::RenumberedAfterRegress) {
            self.violations.push(format!("inward {number} where {next} was next"));
        }
    }
}

fn fin() -> Fin {
    Fin { reason: CloseReason::AgentDone, text: "bye".to_owned() }
}

fn apply(store: &mut Store, secret: SessionSecret, op: Op) {
    if matches!(op, Op::Barrier) {
        return;
    }
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
        Op::Out(item, was_asked) => {
            kept.out.push(item);
            if !was_asked && kept.unseen == 0 {
                kept.unseen = kept.out.len() as u64;
            }
        }
        Op::OutHandled(number) => kept.out_handled = kept.out_handled.max(number),
        Op::Regressed => kept.regressed = true,
        Op::Attached(attachment) => {
            kept.attachment = kept.attachment.max(attachment);
            kept.unseen = 0;
        }
    }
}
