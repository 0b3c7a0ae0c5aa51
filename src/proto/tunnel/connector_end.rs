//! The connector's end of its tunnel to one relay.
//!
//! Inputs: `carrier_opened`, `handle_frame`, `carrier_lost`, `handle_command`, `handle_timeout`. After any of them drain
//! `poll_event`, then `poll_transmit` on both lanes, then ask `poll_timeout`. After a `CloseCarrier` event the shell flushes
//! the control lane, closes the carrier and calls `carrier_lost`.
//!
//! The desk hears of a channel's events only after it has accepted the OPEN; what arrived before waits here, bounded by the
//! channel's first credit. A channel ends when the desk has handled the customer's FIN, when the desk's own FIN is handled,
//! by RESET, by a NEW tunnel, or when no carrier came within the detach window.

mod attach;
mod certificate;
mod channel;
mod desk;
mod frames;
mod policy;
mod switch;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::carrier::{self, Carrier, Phase};
use super::certificate::{CertificateRequest, LongLists};
use super::credit::Pool;
use super::frame::Frame;
use super::goaway::Leaving;
use super::handshake;
use super::line::{Line, Lines, Trunk};
use super::open::reset_code;
use super::policy::Outbox;
use super::wire::{self, kind};
use super::{CarrierId, ChannelId, ConnectorEvent, Identity, Lane, ResetCode, Settings, TunnelStats};

use self::channel::Channel;

/// The connector's end of its tunnel to one relay.
#[derive(Debug)]
pub struct ConnectorEnd {
    settings: Settings,
    incarnation: [u8; 16],
    carriers: BTreeMap<CarrierId, Carrier>,
    /// The carrier that was sent ATTACH, or that is attached.
    current: Option<CarrierId>,
    /// The carrier that `current` takes over from: read no more, closed when `current` is attached or lost.
    retiring: Option<CarrierId>,
    /// This end has said that it stops.
    leaving: Option<Leaving>,
    /// The tunnel as the relay named it; empty before the first ATTACHED.
    tunnel_id: Bytes,
    epoch: u64,
    detached_at: Option<Instant>,
    channels: Channels,
    /// Highest channel number that the relay has opened.
    last_opened: u32,
    /// How the last channels were refused or reset: the frame may be lost with its carrier, and then OPEN comes again.
    last_words: VecDeque<(u32, Bytes)>,
    trunk: Trunk,
    pool: Pool,
    policy: Outbox,
    /// Revocation lists that go in parts.
    long_lists: LongLists,
    checks: HashSet<u64>,
    events: VecDeque<ConnectorEvent>,
    attached: u64,
    switched: u64,
    duplicates: u64,
    /// The relay's request for a certificate, until the shell takes it.
    certificate_request: Option<CertificateRequest>,
    /// The request that is not answered.
    certificate_pending: Option<u64>,
}

/// Live channels by number.
#[derive(Debug, Default)]
struct Channels(HashMap<u32, Channel>);

impl Lines for Channels {
    fn line(&mut self, channel: u32) -> Option<&mut Line> {
        self.0.get_mut(&channel).map(|channel| &mut channel.line)
    }
}

/// Last words that are remembered: as many as OPENs may be pending.
const MAX_LAST_WORDS: usize = 1024;

impl ConnectorEnd {
    /// Makes an end; `incarnation` is the store's.
    pub fn new(settings: Settings, incarnation: [u8; 16]) -> Self {
        Self {
            pool: Pool::new(&settings.replay_memory),
            settings,
            incarnation,
            carriers: BTreeMap::new(),
            current: None,
            retiring: None,
            leaving: None,
            tunnel_id: Bytes::new(),
            epoch: 0,
            detached_at: None,
            channels: Channels::default(),
            last_opened: 0,
            last_words: VecDeque::new(),
            trunk: Trunk::default(),
            policy: Outbox::default(),
            long_lists: LongLists::default(),
            checks: HashSet::new(),
            events: VecDeque::new(),
            attached: 0,
            switched: 0,
            duplicates: 0,
            certificate_request: None,
            certificate_pending: None,
        }
    }

    /// A carrier was dialled and the relay's certificate verified.
    pub fn carrier_opened(&mut self, carrier: CarrierId, now: Instant) {
        let mut state = Carrier::new(Identity(String::new()), &self.settings, now);
        let hello = handshake::hello(&self.settings, &self.incarnation);
        if state.push(wire::encoded(kind::HELLO, 0, 0, &hello)) {
            self.carriers.insert(carrier, state);
        }
    }

    /// The carrier is gone.
    pub fn carrier_lost(&mut self, carrier: CarrierId, now: Instant) {
        self.carriers.remove(&carrier);
        self.retiring.take_if(|retiring| *retiring == carrier);
        self.drop_current(carrier, now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (id, why) in carrier::handle_timeouts(&mut self.carriers, &self.settings, now) {
            self.close(id, why, now);
        }
        self.trunk.handle_timeout(&mut self.channels, now);
        if self.trunk.is_stalled(&mut self.channels, self.settings.stalled_after, now)
            && let Some(current) = self.current
        {
            self.close(current, "what was sent is not received", now);
        }
        if self.detached_at.is_some_and(|since| now >= since + self.settings.detach_window) {
            self.expire();
        }
    }

    /// When `handle_timeout` is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let carriers = self.carriers.values().filter_map(|carrier| carrier.poll_timeout(&self.settings));
        let detached = self.detached_at.map(|since| since + self.settings.detach_window);
        carriers.chain(detached).chain(self.trunk.poll_timeout()).min()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ConnectorEvent> {
        self.events.pop_front()
    }

    /// Appends encoded frames for `lane` of `carrier`, as at the relay.
    pub fn poll_transmit(&mut self, carrier: CarrierId, lane: Lane, max: usize, out: &mut BytesMut, now: Instant) -> bool {
        let before = out.len();
        let Some(state) = self.carriers.get_mut(&carrier) else { return false };
        let attached = state.is_attached();
        match lane {
            Lane::Control => {
                state.write(max, out);
                if attached {
                    self.trunk.write_acks(&mut self.channels, max, out);
                    self.long_lists.write(max, out);
                    self.policy.write(max, out);
                }
            }
            Lane::Data if attached => self.trunk.write_data(&mut self.channels, max, out, self.settings.stalled_after, now),
            Lane::Data => {}
        }
        out.len() > before
    }

    /// Whether frames of `lane` may be read from the carrier now.
    pub fn may_read(&self, carrier: CarrierId, lane: Lane) -> bool {
        self.carriers.get(&carrier).is_some_and(|state| match lane {
            Lane::Control => !matches!(state.phase, Phase::Closing),
            Lane::Data => state.is_attached(),
        })
    }

    /// The carrier that carries the tunnel.
    pub fn attached_carrier(&self) -> Option<CarrierId> {
        self.current.filter(|id| self.carriers.get(id).is_some_and(Carrier::is_attached))
    }

    /// Counters.
    pub fn stats(&self) -> TunnelStats {
        TunnelStats {
            attached: self.attached,
            switched: self.switched,
            epoch: self.epoch,
            replayed: self.trunk.replayed,
            duplicates: self.duplicates,
            channels: self.channels.0.len() as u64,
            held_bytes: self.channels.0.values().map(|channel| channel.held() as u64).sum(),
        }
    }

    fn is_attached(&self) -> bool {
        self.current.and_then(|id| self.carriers.get(&id)).is_some_and(Carrier::is_attached)
    }

    /// Queues a control frame on the attached carrier.
    fn say(&mut self, frame: Bytes, now: Instant) {
        let Some(id) = self.current else { return };
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        if carrier.is_attached() && !carrier.push(frame) {
            self.fail(id, "flood", now);
        }
    }

    /// Says ERROR on a carrier and has it closed.
    fn fail(&mut self, id: CarrierId, code: &str, now: Instant) {
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        carrier.fail(code);
        self.events.push_back(ConnectorEvent::CloseCarrier { carrier: id, why: code.to_owned() });
        self.drop_current(id, now);
    }

    /// Has a carrier closed without a word.
    fn close(&mut self, id: CarrierId, why: &str, now: Instant) {
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        carrier.phase = Phase::Closing;
        self.events.push_back(ConnectorEvent::CloseCarrier { carrier: id, why: why.to_owned() });
        self.drop_current(id, now);
    }

    /// The carrier no longer carries the tunnel; a candidate takes over at once.
    fn drop_current(&mut self, id: CarrierId, now: Instant) {
        if self.current != Some(id) {
            return;
        }
        self.current = None;
        self.trunk.clear();
        self.forget_certificate();
        self.policy.reset();
        self.long_lists.reset();
        if !self.tunnel_id.is_empty() && self.detached_at.is_none() {
            self.detached_at = Some(now);
            self.events.push_back(ConnectorEvent::Detached);
        }
        self.close_retiring(now);
        self.promote_candidate(now);
    }

    /// No carrier came: the tunnel and its channels are over.
    fn expire(&mut self) {
        self.detached_at = None;
        self.tunnel_id = Bytes::new();
        let mut gone: Vec<u32> = self.channels.0.keys().copied().collect();
        gone.sort_unstable();
        for channel in gone {
            self.forget(channel);
            self.events.push_back(ConnectorEvent::Reset { channel: ChannelId(channel), code: ResetCode::Unknown });
        }
    }

    /// Ends the attachment of a channel and says so on the wire.
    fn reset(&mut self, channel: u32, code: ResetCode) {
        self.forget(channel);
        self.say_last(channel, wire::encoded(kind::RESET, 0, channel, &wire::Reset { code: reset_code(code) }));
    }

    /// Says how a channel ended, and remembers it.
    fn say_last(&mut self, channel: u32, frame: Bytes) {
        if self.is_attached() {
            self.trunk.first.push_back(frame.clone());
        }
        self.last_words.push_back((channel, frame));
        if self.last_words.len() > MAX_LAST_WORDS {
            self.last_words.pop_front();
        }
    }

    /// Says again how a channel ended.
    fn repeat_last(&mut self, channel: u32) {
        let words = self.last_words.iter().rev().find(|(ended, _)| *ended == channel).map(|(_, frame)| frame.clone());
        let unknown = || wire::encoded(kind::RESET, 0, channel, &wire::Reset { code: reset_code(ResetCode::Unknown) });
        self.trunk.push_answer(words.unwrap_or_else(unknown));
    }

    /// Ends the attachment of a channel by a fault and tells both sides.
    fn fault(&mut self, channel: u32) {
        self.reset(channel, ResetCode::Protocol);
        self.events.push_back(ConnectorEvent::Reset { channel: ChannelId(channel), code: ResetCode::Protocol });
    }

    fn forget(&mut self, channel: u32) {
        if let Some(mut gone) = self.channels.0.remove(&channel) {
            gone.line.inn.detach(&mut self.pool);
        }
    }

    /// Runs `change` on a channel's line and puts the channel where it then belongs.
    fn touch<T>(&mut self, channel: u32, now: Instant, change: impl FnOnce(&mut Channel, &mut Pool) -> T) -> Option<T> {
        let live = self.channels.0.get_mut(&channel)?;
        let (before, narrow) = (live.line.inn.owed(), !live.line.inn.is_widened());
        let result = change(live, &mut self.pool);
        let widened = narrow && live.line.inn.is_widened();
        if self.current.is_some() {
            self.trunk.note(channel, before, &live.line, now);
            if widened {
                self.trunk.note_widened(channel, &mut self.channels, &mut self.pool, now);
            }
        }
        Some(result)
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
}
