//! The relay's end of all its tunnels, one per connector identity.
//!
//! Inputs: `carrier_opened`, `handle_frame`, `carrier_lost`, `handle_command`, `handle_timeout`. After any of them drain
//! `poll_event`, then `poll_transmit` on both lanes of each carrier, then ask `poll_timeout`. After a `CloseCarrier` event
//! the shell flushes the control lane, closes the carrier and calls `carrier_lost`.
//!
//! Sessions outlive tunnels: each keeps its OPEN and its logs here, so that a connector which comes back with nothing (NEW)
//! is asked again, by OPEN attach, for every session that stood, and gets what it has not handled.

mod attach;
mod certificate;
mod frames;
mod leave;
mod policy;
mod session;
mod session_commands;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::carrier::{self, Carrier, Phase};
use super::certificate::{CertificateNews, ListIntake};
use super::credit::Pool;
use super::frame::Frame;
use super::goaway::Leaving;
use super::governor::Governor;
use super::handshake;
use super::line::{Line, Lines, Trunk};
use super::open::reset_code;
use super::policy::{Intake, PolicyNews};
use super::wire::{self, kind};
use super::{Admission, CarrierId, CheckId, Identity, Lane, RelayEvent, ResetCode, SessionKey, Settings, TunnelStats};
use crate::session::CloseReason;

use self::session::Session;

/// How long a FIN of the connector waits for the events before it to be confirmed.
const FIN_LINGER: Duration = Duration::from_secs(30);

/// Ended channels whose last word is remembered for a RESUME that still names them.
const MAX_FINISHED: usize = 4096;

/// Withdrawn channels that are remembered: as many as OPENs may be pending.
const MAX_WITHDRAWN: usize = 1024;

/// The relay's end of all its tunnels.
pub struct RelayEnd {
    settings: Settings,
    entropy: Box<dyn FnMut() -> [u8; 16] + Send>,
    carriers: BTreeMap<CarrierId, Carrier>,
    peers: Vec<Peer>,
    by_identity: HashMap<Identity, usize>,
    sessions: HashMap<SessionKey, Session>,
    events: VecDeque<RelayEvent>,
    policy_news: VecDeque<PolicyNews>,
    /// This end has said that it stops.
    leaving: Option<Leaving>,
    /// ATTACH of connectors that are not attached.
    attaches: Governor,
    /// OPENs and CHECKs by the time at which they are given up; both wait equally long.
    opens: VecDeque<(Instant, SessionKey)>,
    checks: VecDeque<(Instant, usize, CheckId)>,
    /// Sessions whose FIN waits for what came before it.
    lingering: VecDeque<(Instant, SessionKey)>,
    /// A connector whose clock differs, and by how many seconds it is ahead.
    clock_news: Option<(Identity, i64)>,
    certificate_news: VecDeque<(Identity, CertificateNews)>,
    /// The request for a certificate that is not answered: which peer's, and its id.
    certificate_pending: Option<(usize, u64)>,
}

/// One connector, by certificate identity.
#[derive(Debug)]
struct Peer {
    identity: Identity,
    tunnel: Option<Tunnel>,
    /// Outlives tunnels: what the connector pushed.
    policy: Intake,
    /// The revocation list that is coming in parts.
    list: ListIntake,
    incarnation: Bytes,
    /// When NEW came over a tunnel that was attached, within the last minute.
    replaced: VecDeque<Instant>,
    /// Sessions that no channel carries yet, and some that have ended since.
    waiting: VecDeque<SessionKey>,
    /// Sessions that are opened again, or whose clients return.
    reopens: Governor,
    /// OPENs without an answer.
    pending_opens: usize,
    checks: BTreeMap<CheckId, Box<Admission>>,
    attached: u64,
    switched: u64,
    /// Items that went out a second time on earlier tunnels.
    replayed: u64,
    duplicates: u64,
}

/// One tunnel.
#[derive(Debug)]
struct Tunnel {
    id: Bytes,
    epoch: u64,
    /// The last epoch under which a frame came.
    heard_epoch: u64,
    carrier: Option<CarrierId>,
    detached_at: Option<Instant>,
    /// Since when an OPEN went unanswered on the present carrier and nothing else came on its data lane.
    deaf_since: Option<Instant>,
    attached_at: Instant,
    channels: HashMap<u32, SessionKey>,
    next_channel: u32,
    finished: VecDeque<wire::Cursor>,
    /// Channels whose OPEN was withdrawn after it went out: the word of it may be lost with its carrier.
    withdrawn: VecDeque<u32>,
    trunk: Trunk,
    pool: Pool,
}

/// Finds a session's line by its channel.
struct ByChannel<'a> {
    channels: &'a HashMap<u32, SessionKey>,
    sessions: &'a mut HashMap<SessionKey, Session>,
}

impl Lines for ByChannel<'_> {
    fn line(&mut self, channel: u32) -> Option<&mut Line> {
        let session = self.channels.get(&channel)?;
        self.sessions.get_mut(session).map(|session| &mut session.line)
    }
}

impl std::fmt::Debug for RelayEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayEnd").field("peers", &self.peers).field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}

impl RelayEnd {
    /// Makes an end without tunnels. `entropy` yields tunnel ids.
    pub fn new(settings: Settings, entropy: Box<dyn FnMut() -> [u8; 16] + Send>) -> Self {
        Self {
            attaches: Governor::new(settings.attach_rate),
            settings,
            entropy,
            carriers: BTreeMap::new(),
            peers: Vec::new(),
            by_identity: HashMap::new(),
            sessions: HashMap::new(),
            events: VecDeque::new(),
            policy_news: VecDeque::new(),
            leaving: None,
            opens: VecDeque::new(),
            checks: VecDeque::new(),
            lingering: VecDeque::new(),
            clock_news: None,
            certificate_news: VecDeque::new(),
            certificate_pending: None,
        }
    }

    /// A carrier was accepted and its certificate verified.
    pub fn carrier_opened(&mut self, carrier: CarrierId, identity: Identity, now: Instant) {
        self.carriers.insert(carrier, Carrier::new(identity, &self.settings, now));
    }

    /// A frame arrived.
    pub fn handle_frame(&mut self, carrier: CarrierId, frame: Frame, now: Instant) {
        let Some(state) = self.carriers.get_mut(&carrier) else { return };
        if matches!(state.phase, Phase::Closing) {
            return;
        }
        state.heard(&self.settings, now);
        if let Err(handshake::Refusal(code)) = self.dispatch(carrier, &frame, now) {
            self.fail(carrier, code, now);
        }
    }

    /// The carrier is gone.
    pub fn carrier_lost(&mut self, carrier: CarrierId, now: Instant) {
        self.detach(carrier, now);
        self.carriers.remove(&carrier);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (id, why) in carrier::handle_timeouts(&mut self.carriers, &self.settings, now) {
            self.close(id, why, now);
        }
        for peer in 0..self.peers.len() {
            self.handle_peer_timeout(peer, now);
        }
        while let Some((_, session)) = self.opens.pop_front_if(|(due, _)| *due <= now) {
            self.give_up_open(session, now);
        }
        while let Some((_, peer, check)) = self.checks.pop_front_if(|(due, ..)| *due <= now) {
            self.give_up_check(peer, check);
        }
        while let Some((_, session)) = self.lingering.pop_front_if(|(due, _)| *due <= now) {
            self.end_lingering(session, now);
        }
    }

    /// When `handle_timeout` is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let carriers = self.carriers.values().filter_map(|carrier| carrier.poll_timeout(&self.settings));
        let tunnels = self.peers.iter().filter_map(|peer| peer.tunnel.as_ref());
        let tunnels = tunnels.flat_map(|tunnel| {
            let detached = tunnel.detached_at.map(|since| since + self.settings.detach_window);
            let deaf = tunnel.deaf_since.filter(|_| tunnel.carrier.is_some()).map(|since| since + self.settings.stalled_after);
            tunnel.trunk.poll_timeout().into_iter().chain(detached).chain(deaf)
        });
        let reopens = self.peers.iter().filter_map(Peer::poll_reopen);
        let opens = self.opens.front().map(|(due, _)| *due);
        let checks = self.checks.front().map(|(due, ..)| *due);
        let lingering = self.lingering.front().map(|(due, _)| *due);
        carriers.chain(tunnels).chain(reopens).chain(opens).chain(checks).chain(lingering).min()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<RelayEvent> {
        self.events.pop_front()
    }

    /// The connector whose HELLO last told a clock that differs by more than [`CLOCKS_APART`](super::CLOCKS_APART), and by how many seconds
    /// it is ahead; told once.
    pub fn poll_clock(&mut self) -> Option<(Identity, i64)> {
        self.clock_news.take()
    }

    /// Appends encoded frames for `lane` of `carrier` to `out` until `out` holds `max` bytes; tells whether anything was appended.
    pub fn poll_transmit(&mut self, carrier: CarrierId, lane: Lane, max: usize, out: &mut BytesMut, now: Instant) -> bool {
        let before = out.len();
        let Some(state) = self.carriers.get_mut(&carrier) else { return false };
        if lane == Lane::Control {
            state.write(max, out);
        }
        if state.is_attached()
            && let Some(&peer) = self.by_identity.get(&state.identity)
            && let Some(tunnel) = self.peers.get_mut(peer).and_then(|peer| peer.tunnel.as_mut())
        {
            let mut lines = ByChannel { channels: &tunnel.channels, sessions: &mut self.sessions };
            match lane {
                Lane::Control => tunnel.trunk.write_acks(&mut lines, max, out),
                Lane::Data => tunnel.trunk.write_data(&mut lines, max, out, self.settings.stalled_after, now),
            }
        }
        out.len() > before
    }

    /// Whether frames of `lane` may be read from the carrier now (data only after the attachment).
    pub fn may_read(&self, carrier: CarrierId, lane: Lane) -> bool {
        self.carriers.get(&carrier).is_some_and(|state| match lane {
            Lane::Control => !matches!(state.phase, Phase::Closing),
            Lane::Data => state.is_attached(),
        })
    }

    /// Whether a tunnel to `identity` is attached now.
    pub fn is_attached(&self, identity: &Identity) -> bool {
        self.attached_carrier(identity).is_some()
    }

    /// The carrier that carries the tunnel to `identity`.
    pub fn attached_carrier(&self, identity: &Identity) -> Option<CarrierId> {
        let peer = self.by_identity.get(identity).and_then(|&peer| self.peers.get(peer));
        peer.and_then(|peer| peer.tunnel.as_ref()).and_then(|tunnel| tunnel.carrier)
    }

    /// Counters by identity.
    pub fn stats(&self) -> Vec<(Identity, TunnelStats)> {
        let mut held = vec![0; self.peers.len()];
        let mut channels = vec![0; self.peers.len()];
        for session in self.sessions.values() {
            held[session.peer] += session.line.out.held() as u64;
            channels[session.peer] += 1;
        }
        let counters = self.peers.iter().zip(held).zip(channels).map(|((peer, held_bytes), channels)| {
            let epoch = peer.tunnel.as_ref().map_or(0, |tunnel| tunnel.epoch);
            let replayed = peer.replayed + peer.tunnel.as_ref().map_or(0, |tunnel| tunnel.trunk.replayed);
            let Peer { attached, switched, duplicates, .. } = *peer;
            (peer.identity.clone(), TunnelStats { attached, switched, epoch, replayed, duplicates, channels, held_bytes })
        });
        counters.collect()
    }

    /// The index of the peer `identity`; made when it is first named.
    fn peer(&mut self, identity: &Identity) -> usize {
        if let Some(&peer) = self.by_identity.get(identity) {
            return peer;
        }
        self.peers.push(Peer::new(identity.clone(), Governor::new(self.settings.reopen_rate)));
        self.by_identity.insert(identity.clone(), self.peers.len() - 1);
        self.peers.len() - 1
    }

    fn handle_peer_timeout(&mut self, peer: usize, now: Instant) {
        let Some(tunnel) = self.peers[peer].tunnel.as_mut() else { return };
        let mut lines = ByChannel { channels: &tunnel.channels, sessions: &mut self.sessions };
        tunnel.trunk.handle_timeout(&mut lines, now);
        if tunnel.trunk.is_stalled(&mut lines, self.settings.stalled_after, now)
            && let Some(carrier) = tunnel.carrier
        {
            self.close(carrier, "what was sent is not received", now);
        }
        self.judge_deafness(peer, now);
        self.open_waiting(peer, now);
        let Some(tunnel) = self.peers[peer].tunnel.as_ref() else { return };
        if tunnel.detached_at.is_some_and(|since| now >= since + self.settings.detach_window) {
            self.expire(peer);
        }
    }

    /// No carrier came: the tunnel and the sessions that stood on it are over.
    fn expire(&mut self, peer: usize) {
        self.peers[peer].keep_counters();
        self.peers[peer].tunnel = None;
        let gone: Vec<SessionKey> = self.sessions_of(peer).into_iter().filter(|key| self.sessions[key].was_answered).collect();
        for key in gone {
            self.lose(key, CloseReason::DetachExpired);
        }
        let waiting = self.sessions_of(peer);
        for key in &waiting {
            if let Some(session) = self.sessions.get_mut(key) {
                session.channel = None;
            }
        }
        self.peers[peer].waiting = waiting.into();
    }

    /// The peer's sessions in the order of their keys.
    fn sessions_of(&self, peer: usize) -> Vec<SessionKey> {
        let mut keys: Vec<SessionKey> = self.sessions.iter().filter(|(_, session)| session.peer == peer).map(|(&key, _)| key).collect();
        keys.sort_unstable();
        keys
    }

    /// Forgets a session and tells its owner, unless he has ended it or was told of its end.
    fn lose(&mut self, key: SessionKey, reason: CloseReason) {
        let Some(session) = self.forget(key) else { return };
        if !session.is_over() {
            self.events.push_back(RelayEvent::Gone { session: key, reason });
        }
    }

    /// Forgets a session.
    fn forget(&mut self, key: SessionKey) -> Option<Session> {
        let mut session = self.sessions.remove(&key)?;
        let peer = &mut self.peers[session.peer];
        if !session.was_answered {
            peer.pending_opens = peer.pending_opens.saturating_sub(1);
        }
        if let (Some(channel), Some(tunnel)) = (session.channel, peer.tunnel.as_mut()) {
            tunnel.channels.remove(&channel);
            session.line.inn.detach(&mut tunnel.pool);
        }
        Some(session)
    }

    /// Ends a channel on the wire.
    fn say_reset(&mut self, peer: usize, channel: u32, code: ResetCode) {
        if let Some(tunnel) = self.peers[peer].tunnel.as_mut()
            && tunnel.carrier.is_some()
        {
            tunnel.trunk.first.push_back(wire::encoded(kind::RESET, 0, channel, &wire::Reset { code: reset_code(code) }));
        }
    }

    /// Takes an OPEN back that nobody has answered. Where it has not left yet, it never does: whoever its customer asks next is
    /// not to lose him again to this channel.
    fn withdraw(&mut self, peer: usize, channel: u32) {
        let Some(tunnel) = self.peers[peer].tunnel.as_mut() else { return };
        if tunnel.trunk.unsay(kind::OPEN, channel) {
            return;
        }
        tunnel.withdrawn.push_back(channel);
        if tunnel.withdrawn.len() > MAX_WITHDRAWN {
            tunnel.withdrawn.pop_front();
        }
        self.say_reset(peer, channel, ResetCode::Cancelled);
    }

    /// A fault inside one channel: the attachment ends on both sides, and with it the session.
    fn fault(&mut self, key: SessionKey, reason: CloseReason) {
        let Some(session) = self.sessions.get(&key) else { return };
        if let Some(channel) = session.channel {
            let code = match reason {
                CloseReason::StoreRegressed => ResetCode::StoreRegressed,
                CloseReason::CustomerLost => ResetCode::Moved,
                CloseReason::CustomerLeft
                | CloseReason::AgentDone
                | CloseReason::Shutdown
                | CloseReason::DetachExpired
                | CloseReason::Fault => ResetCode::Protocol,
            };
            self.say_reset(session.peer, channel, code);
        }
        self.lose(key, reason);
    }

    /// Runs `change` on a session and puts its channel where it then belongs.
    fn touch<T>(&mut self, key: SessionKey, now: Instant, change: impl FnOnce(&mut Session, &mut Pool) -> T) -> Option<T> {
        let session = self.sessions.get_mut(&key)?;
        let tunnel = self.peers[session.peer].tunnel.as_mut();
        let (Some(channel), Some(tunnel)) = (session.channel, tunnel) else {
            return Some(change(session, &mut Pool::new(&self.settings.replay_memory)));
        };
        let (before, narrow) = (session.line.inn.owed(), !session.line.inn.is_widened());
        let result = change(session, &mut tunnel.pool);
        if !session.is_answered {
            // On this channel nothing has come yet that an ACK could speak of; the answer brings one.
            session.line.inn.owe_nothing();
        }
        let widened = narrow && session.line.inn.is_widened();
        if tunnel.carrier.is_some() {
            tunnel.trunk.note(channel, before, &session.line, now);
            if widened {
                let mut lines = ByChannel { channels: &tunnel.channels, sessions: &mut self.sessions };
                tunnel.trunk.note_widened(channel, &mut lines, &mut tunnel.pool, now);
            }
        }
        Some(result)
    }

    /// Queues a control frame on the peer's attached carrier.
    fn say(&mut self, peer: usize, frame: Bytes, now: Instant) {
        let Some(id) = self.peers[peer].tunnel.as_ref().and_then(|tunnel| tunnel.carrier) else { return };
        if self.carriers.get_mut(&id).is_some_and(|carrier| !carrier.push(frame)) {
            self.fail(id, "flood", now);
        }
    }

    /// Says ERROR on a carrier and has it closed.
    fn fail(&mut self, id: CarrierId, code: &str, now: Instant) {
        self.detach(id, now);
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.fail(code);
            self.events.push_back(RelayEvent::CloseCarrier { carrier: id, why: code.to_owned() });
        }
    }

    /// Has a carrier closed without a word.
    fn close(&mut self, id: CarrierId, why: &str, now: Instant) {
        self.detach(id, now);
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.phase = Phase::Closing;
            self.events.push_back(RelayEvent::CloseCarrier { carrier: id, why: why.to_owned() });
        }
    }

    /// The carrier no longer carries its tunnel.
    fn detach(&mut self, id: CarrierId, now: Instant) {
        let Some(&peer) = self.carriers.get(&id).and_then(|carrier| self.by_identity.get(&carrier.identity)) else { return };
        let peer = &mut self.peers[peer];
        let Some(tunnel) = peer.tunnel.as_mut().filter(|tunnel| tunnel.carrier == Some(id)) else { return };
        tunnel.carrier = None;
        tunnel.detached_at = Some(now);
        tunnel.trunk.clear();
        self.events.push_back(RelayEvent::TunnelDetached { identity: peer.identity.clone() });
    }
}

impl Peer {
    fn new(identity: Identity, reopens: Governor) -> Self {
        Self {
            identity,
            tunnel: None,
            policy: Intake::default(),
            list: ListIntake::default(),
            incarnation: Bytes::new(),
            replaced: VecDeque::new(),
            waiting: VecDeque::new(),
            reopens,
            pending_opens: 0,
            checks: BTreeMap::new(),
            attached: 0,
            switched: 0,
            replayed: 0,
            duplicates: 0,
        }
    }

    /// When the next of those that wait may be opened.
    fn poll_reopen(&self) -> Option<Instant> {
        let attached = self.tunnel.as_ref()?.carrier.is_some();
        if attached && !self.waiting.is_empty() { self.reopens.next_at() } else { None }
    }

    /// The tunnel ends; what it counted stays.
    fn keep_counters(&mut self) {
        self.replayed += self.tunnel.as_ref().map_or(0, |tunnel| tunnel.trunk.replayed);
    }
}
