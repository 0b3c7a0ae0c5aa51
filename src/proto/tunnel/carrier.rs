//! One carrier as an end sees it: how far its handshake is, whether it still lives, and its queue of control frames.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::wire::{self, kind};
use super::{CarrierId, Identity, Settings};

/// Control frames that may wait; a peer that makes us queue more is at fault.
const MAX_CONTROL: usize = 4096;

/// How far a carrier has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// HELLO or its answer is awaited.
    Greeting,
    /// HELLO went both ways; at the connector another carrier may be attached.
    Greeted,
    /// A sequence of ATTACH or ATTACHED frames is coming in.
    Attaching(Box<Assembly>),
    /// Carries the tunnel.
    Attached,
    /// To be closed; what it still brings is dropped.
    Closing,
}

/// The part of an ATTACH or ATTACHED sequence that has arrived.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pub(super) tunnel_id: Bytes,
    pub(super) epoch: u64,
    pub(super) channels_from: u32,
    pub(super) cursors: Vec<wire::Cursor>,
}

/// Lets time pass for all carriers of an end; gives those that are dead, and why.
pub(super) fn handle_timeouts(
    carriers: &mut BTreeMap<CarrierId, Carrier>,
    settings: &Settings,
    now: Instant,
) -> Vec<(CarrierId, &'static str)> {
    carriers.iter_mut().filter_map(|(id, carrier)| Some((*id, carrier.handle_timeout(settings, now)?))).collect()
}

/// One carrier.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) phase: Phase,
    /// The peer's certificate name; at the connector its own relay's, unused.
    pub(super) identity: Identity,
    /// The store incarnation told in HELLO.
    pub(super) incarnation: Bytes,
    control: VecDeque<Bytes>,
    opened: Instant,
    heard: Instant,
    ping_at: Instant,
    nonce: u64,
}

impl Carrier {
    pub(super) fn new(identity: Identity, settings: &Settings, now: Instant) -> Self {
        Self {
            phase: Phase::Greeting,
            identity,
            incarnation: Bytes::new(),
            control: VecDeque::new(),
            opened: now,
            heard: now,
            ping_at: now + settings.ping_after,
            nonce: 0,
        }
    }

    /// Something arrived.
    pub(super) fn heard(&mut self, settings: &Settings, now: Instant) {
        self.heard = now;
        self.ping_at = now + settings.ping_after;
    }

    /// Queues an encoded control frame. False: the queue is full, the carrier must go.
    #[must_use]
    pub(super) fn push(&mut self, frame: Bytes) -> bool {
        if self.control.len() >= MAX_CONTROL {
            return false;
        }
        self.control.push_back(frame);
        true
    }

    /// Says ERROR and stops listening.
    pub(super) fn fail(&mut self, code: &str) {
        self.phase = Phase::Closing;
        self.control.push_back(wire::encoded(kind::ERROR, 0, 0, &wire::Error { code: code.to_owned() }));
    }

    /// PINGs a silent peer; tells why a carrier is dead: silent for too long, or never attached.
    fn handle_timeout(&mut self, settings: &Settings, now: Instant) -> Option<&'static str> {
        match self.phase {
            Phase::Closing => return None,
            Phase::Greeting | Phase::Greeted | Phase::Attaching(_) if now >= self.opened + settings.attach_timeout => {
                return Some("not attached in time");
            }
            Phase::Greeting | Phase::Greeted | Phase::Attaching(_) | Phase::Attached => {}
        }
        if now >= self.heard + settings.dead_after {
            return Some("silent for too long");
        }
        if now >= self.ping_at {
            self.nonce += 1;
            self.ping_at = now + settings.ping_after;
            self.control.push_back(wire::encoded(kind::PING, 0, 0, &wire::Ping { nonce: self.nonce }));
        }
        None
    }

    /// When [`handle_timeouts`] is wanted.
    pub(super) fn poll_timeout(&self, settings: &Settings) -> Option<Instant> {
        let silent = self.ping_at.min(self.heard + settings.dead_after);
        match self.phase {
            Phase::Closing => None,
            Phase::Attached => Some(silent),
            Phase::Greeting | Phase::Greeted | Phase::Attaching(_) => Some(silent.min(self.opened + settings.attach_timeout)),
        }
    }

    /// Appends control frames to `out` until it holds `max` bytes.
    pub(super) fn write(&mut self, max: usize, out: &mut BytesMut) {
        while out.len() < max {
            let Some(frame) = self.control.pop_front() else { return };
            out.extend_from_slice(&frame);
        }
    }

    pub(super) fn is_attached(&self) -> bool {
        matches!(self.phase, Phase::Attached)
    }
}
