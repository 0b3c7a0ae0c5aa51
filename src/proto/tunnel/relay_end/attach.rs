//! How a carrier gets its tunnel at the relay: HELLO, ATTACH, and what NEW and RESUME do to the sessions.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::proto::tunnel::carrier::{Assembly, Phase};
use crate::proto::tunnel::clock_ahead;
use crate::proto::tunnel::credit::Pool;
use crate::proto::tunnel::frame::Frame;
use crate::proto::tunnel::handshake::{MAX_CHANNELS, Refusal, attached_frames, hello, read_hello, take_part};
use crate::proto::tunnel::line::Trunk;
use crate::proto::tunnel::open::admission_to_wire;
use crate::proto::tunnel::wire::{self, Cursor, kind};
use crate::proto::tunnel::{CarrierId, RelayEvent, ResetCode, SessionKey};
use crate::session::CloseReason;

use super::{RelayEnd, Tunnel};

/// The time over which NEW is counted.
const REPLACE_WINDOW: Duration = Duration::from_secs(60);

/// NEW over an attached tunnel within [`REPLACE_WINDOW`]: by a connector with the same store, which crashed and came back,
/// and by one with another store, which has copied a certificate.
const MAX_RESTARTS: usize = 30;
const MAX_REPLACEMENTS: usize = 3;

impl RelayEnd {
    pub(super) fn on_hello(&mut self, carrier: CarrierId, frame: &Frame) -> Result<(), Refusal> {
        let answer = hello(&self.settings, &[]);
        let Some(state) = self.carriers.get_mut(&carrier) else { return Ok(()) };
        if !matches!(state.phase, Phase::Greeting) {
            return Err(Refusal("unexpected_frame"));
        }
        let told = read_hello(frame, &self.settings)?;
        state.incarnation = told.incarnation;
        if let Some(ahead) = clock_ahead(told.clock_millis, answer.clock_millis) {
            self.clock_news = Some((state.identity.clone(), ahead));
        }
        state.phase = Phase::Greeted;
        if state.push(wire::encoded(kind::HELLO_ACK, 0, 0, &answer)) { Ok(()) } else { Err(Refusal("flood")) }
    }

    pub(super) fn on_attach_part(&mut self, carrier: CarrierId, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        let Some(state) = self.carriers.get_mut(&carrier) else { return Ok(()) };
        if matches!(state.phase, Phase::Greeted) {
            state.phase = Phase::Attaching(Box::default());
        }
        let Phase::Attaching(assembly) = &mut state.phase else { return Err(Refusal("unexpected_frame")) };
        if !take_part(frame, assembly)? {
            return Ok(());
        }
        let assembly = std::mem::take(&mut **assembly);
        state.phase = Phase::Greeted;
        let (identity, incarnation) = (state.identity.clone(), state.incarnation.clone());
        let peer = self.peer(&identity);
        if assembly.tunnel_id.is_empty() {
            self.attach_new(carrier, peer, incarnation, assembly.channels_from, now);
        } else {
            self.attach_resume(carrier, peer, &incarnation, assembly, now);
        }
        Ok(())
    }

    fn attach_new(&mut self, carrier: CarrierId, peer: usize, incarnation: Bytes, channels_from: u32, now: Instant) {
        if let Some(wait) = self.too_many_replacements(peer, &incarnation, now) {
            return self.refuse(carrier, "duplicate_identity", wait, now);
        }
        if let Some(wait) = self.too_many_attaches(peer, now) {
            return self.refuse(carrier, "busy", wait, now);
        }
        self.fence(peer, now);
        let id = Bytes::copy_from_slice(&(self.entropy)());
        let sessions = self.sessions_of(peer);
        self.peers[peer].keep_counters();
        self.peers[peer].tunnel = Some(Tunnel {
            id,
            epoch: 1,
            heard_epoch: 1,
            carrier: Some(carrier),
            detached_at: None,
            deaf_since: None,
            attached_at: now,
            channels: HashMap::new(),
            next_channel: channels_from | 1,
            finished: VecDeque::new(),
            withdrawn: VecDeque::new(),
            trunk: Trunk::default(),
            pool: Pool::new(&self.settings.replay_memory),
        });
        self.peers[peer].incarnation = incarnation;
        self.grant(carrier, peer, &[], false, now);
        for key in &sessions {
            if let Some(session) = self.sessions.get_mut(key) {
                session.leave_channel(now);
            }
        }
        // New ones go before those who are opened again; these in their order, so that of two that ask for one session the later has it.
        let (first, again): (Vec<SessionKey>, Vec<SessionKey>) = sessions.into_iter().partition(|key| self.sessions[key].is_new());
        self.peers[peer].waiting = first.into_iter().chain(again).collect();
        self.open_waiting(peer, now);
    }

    /// An attached connector may always switch; the others come one after the other. Gives the time to wait.
    fn too_many_attaches(&mut self, peer: usize, now: Instant) -> Option<Duration> {
        let is_attached = self.peers[peer].tunnel.as_ref().is_some_and(|tunnel| tunnel.carrier.is_some());
        if is_attached || self.attaches.admit(now) { None } else { Some(self.attaches.wait(now)) }
    }

    /// Counts NEW over an attached tunnel; gives the time to wait when there were too many.
    fn too_many_replacements(&mut self, peer: usize, incarnation: &Bytes, now: Instant) -> Option<Duration> {
        let peer = &mut self.peers[peer];
        if peer.tunnel.as_ref().is_none_or(|tunnel| tunnel.carrier.is_none()) {
            return None;
        }
        while peer.replaced.pop_front_if(|at| *at + REPLACE_WINDOW <= now).is_some() {}
        let max = if peer.incarnation == *incarnation { MAX_RESTARTS } else { MAX_REPLACEMENTS };
        if peer.replaced.len() >= max {
            return peer.replaced.front().map(|&at| (at + REPLACE_WINDOW).saturating_duration_since(now));
        }
        peer.replaced.push_back(now);
        None
    }

    fn attach_resume(&mut self, carrier: CarrierId, peer: usize, incarnation: &Bytes, asked: Assembly, now: Instant) {
        let same_store = self.peers[peer].incarnation == *incarnation;
        let known = self.peers[peer]
            .tunnel
            .as_ref()
            .is_some_and(|tunnel| tunnel.id == asked.tunnel_id && (tunnel.heard_epoch..=tunnel.epoch).contains(&asked.epoch));
        if !known || !same_store {
            return self.refuse(carrier, "unknown_tunnel", Duration::ZERO, now);
        }
        if let Some(wait) = self.too_many_attaches(peer, now) {
            return self.refuse(carrier, "busy", wait, now);
        }
        let replaces = self.fence(peer, now);
        self.peers[peer].switched += u64::from(replaces);
        let Some(tunnel) = self.peers[peer].tunnel.as_mut() else { return };
        tunnel.epoch += 1;
        tunnel.carrier = Some(carrier);
        tunnel.detached_at = None;
        tunnel.deaf_since = None;
        tunnel.attached_at = now;
        tunnel.trunk.clear();
        let mut channels: Vec<(u32, SessionKey)> = tunnel.channels.iter().map(|(&channel, &key)| (channel, key)).collect();
        channels.sort_unstable();
        let asked: HashMap<u32, Cursor> = asked.cursors.into_iter().map(|cursor| (cursor.channel, cursor)).collect();
        let mut granted: Vec<Cursor> = tunnel.finished.iter().filter(|cursor| asked.contains_key(&cursor.channel)).copied().collect();
        for (channel, key) in channels {
            match asked.get(&channel) {
                Some(cursor) => granted.extend(self.resume_session(channel, key, cursor, now)),
                None => self.resume_unlisted(channel, key, now),
            }
        }
        let withdrawn: Vec<u32> = self.withdrawn(peer, &asked);
        granted.extend(withdrawn.iter().map(|&channel| Cursor { channel, ..Cursor::default() }));
        granted.truncate(MAX_CHANNELS);
        self.grant(carrier, peer, &granted, true, now);
        for channel in withdrawn {
            self.say_reset(peer, channel, ResetCode::Cancelled);
        }
        self.open_waiting(peer, now);
    }

    /// Withdrawn channels that the connector has all the same: it is told so once more.
    fn withdrawn(&self, peer: usize, asked: &HashMap<u32, Cursor>) -> Vec<u32> {
        let tunnel = self.peers[peer].tunnel.iter();
        tunnel.flat_map(|tunnel| &tunnel.withdrawn).filter(|channel| asked.contains_key(channel)).copied().collect()
    }

    /// Takes up a session that the connector names; gives the relay's own cursor if it lives on.
    fn resume_session(&mut self, channel: u32, key: SessionKey, cursor: &Cursor, now: Instant) -> Option<Cursor> {
        let session = self.sessions.get_mut(&key)?;
        let peer = &mut self.peers[session.peer];
        let tunnel = peer.tunnel.as_mut()?;
        session.line.inn.reattach(&mut tunnel.pool);
        let mine = session.cursor(channel);
        if cursor.next == 0 || session.line.held_back {
            // The answer to OPEN, which comes again, tells where to begin.
            return Some(mine);
        }
        let Ok(progress) = session.line.out.reattach(cursor.next, cursor.handled) else {
            self.fault(key, CloseReason::StoreRegressed);
            return None;
        };
        let counts = progress.map(|progress| progress.sm_in).into_iter().chain(cursor.sm_in);
        let counted = counts.map(|count| session.raise_handled_count(count)).fold(false, |any, rose| any | rose);
        if progress.is_some() || counted {
            self.tell_handled(key, now);
        }
        self.rewind(key, now);
        self.sessions.contains_key(&key).then_some(mine)
    }

    /// A session whose channel the connector does not name: its OPEN was lost, or the channel has ended there.
    fn resume_unlisted(&mut self, channel: u32, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.is_answered {
            return self.lose(key, CloseReason::Fault);
        }
        let first = session.line.out.first();
        let rewound = session.line.out.reattach(first, first - 1);
        debug_assert!(rewound.is_ok(), "a log may always be sent from its first item");
        let open = super::session_commands::open_frame(session, channel, now);
        if let Some(tunnel) = self.peers[session.peer].tunnel.as_mut() {
            session.line.inn.reattach(&mut tunnel.pool);
            tunnel.trunk.first.push_back(open);
        }
        self.rewind(key, now);
    }

    /// Puts what is to be said again for a session back into the trunk.
    pub(super) fn rewind(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.recount();
        let Some(channel) = session.channel else { return };
        if session.is_answered
            && let Some(tunnel) = self.peers[session.peer].tunnel.as_mut()
        {
            for own in &session.own {
                tunnel.trunk.first.push_back(wire::encoded(kind::OWN, 0, channel, own));
            }
        }
        self.touch(key, now, |session, _| {
            if session.is_answered {
                session.line.inn.owe_now();
            }
        });
        self.end_if_handled(key, now);
    }

    /// Says ATTACHED.
    fn grant(&mut self, carrier: CarrierId, peer: usize, cursors: &[Cursor], resumed: bool, now: Instant) {
        let peer_state = &mut self.peers[peer];
        let Some(tunnel) = peer_state.tunnel.as_ref() else { return };
        peer_state.attached += 1;
        let (epoch, identity) = (tunnel.epoch, peer_state.identity.clone());
        let frames = attached_frames(&tunnel.id, epoch, cursors);
        let checks: Vec<Bytes> = peer_state
            .checks
            .iter()
            .map(|(check, admission)| {
                let frame = wire::Check { id: check.0, admission: Some(admission_to_wire(admission)) };
                wire::encoded(kind::CHECK, 0, 0, &frame)
            })
            .collect();
        if let Some(state) = self.carriers.get_mut(&carrier) {
            state.phase = Phase::Attached;
        }
        self.events.push_back(RelayEvent::TunnelUp { identity, epoch, resumed });
        let goaway = self.leaving.as_ref().map(|leaving| leaving.frame(now));
        for frame in frames.into_iter().chain(checks).chain(goaway) {
            self.say(peer, frame, now);
        }
        self.peers[peer].policy.cut();
        self.peers[peer].list.cut();
        self.tell_policy(peer, now);
    }

    fn refuse(&mut self, carrier: CarrierId, code: &str, retry_after: Duration, now: Instant) {
        let retry_after_millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        let refused = wire::encoded(kind::REFUSED, 0, 0, &wire::Refused { code: code.to_owned(), retry_after_millis });
        if self.carriers.get_mut(&carrier).is_some_and(|state| !state.push(refused)) {
            self.fail(carrier, "flood", now);
        }
    }

    /// The carrier that had the tunnel is read no more; tells whether there was one.
    fn fence(&mut self, peer: usize, now: Instant) -> bool {
        let old = self.peers[peer].tunnel.as_ref().and_then(|tunnel| tunnel.carrier);
        if let Some(old) = old {
            self.close(old, "replaced by another carrier", now);
        }
        old.is_some()
    }
}
