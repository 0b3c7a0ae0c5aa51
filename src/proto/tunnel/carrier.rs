//! One carrier as an end sees it: how far its handshake is, whether it still lives, and its queue of control frames.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::wire::{self, kind};
use super::{CarrierId, Identity, Settings};

/// Control frames that may wait; a peer that makes us queue more is at fault.
const MAX_CONTROL: usize = 4096;

/// Why a carrier is closed on which nothing was heard for `dead_after`.
pub const SILENT: &str = "silent for too long";

/// Time between the PINGs of a candidate.
const TRIAL_EVERY: Duration = Duration::from_secs(1);

/// PONGs in time, one after the other, that make a candidate ready.
const TRIAL_PONGS: u8 = 3;

/// How far a carrier has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// HELLO or its answer is awaited.
    Greeting,
    /// HELLO went both ways.
    Greeted,
    /// Connector: HELLO went both ways while another carrier is attached.
    Candidate(Trial),
    /// A sequence of ATTACH or ATTACHED frames is coming in.
    Attaching(Box<Assembly>),
    /// Carries the tunnel.
    Attached,
    /// To be closed; what it still brings is dropped.
    Closing,
}

/// How a candidate has done so far.
#[derive(Debug)]
pub(super) struct Trial {
    /// PONGs in time since the last that was late.
    good: u8,
    awaited: Option<u64>,
    ping_at: Instant,
    /// The shell knows that it is ready.
    pub(super) is_told: bool,
}

impl Trial {
    pub(super) fn new(now: Instant) -> Self {
        Self { good: 0, awaited: None, ping_at: now, is_told: false }
    }
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
    /// GOAWAY was said on it, by either side.
    pub(super) is_leaving: bool,
    control: VecDeque<Bytes>,
    opened: Instant,
    /// Until when it must be attached.
    attach_by: Instant,
    /// When it is closed, whatever it does.
    close_at: Option<Instant>,
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
            is_leaving: false,
            control: VecDeque::new(),
            opened: now,
            attach_by: now + settings.attach_timeout,
            close_at: None,
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

    /// Another carrier is attached, and this one is kept beside it for a while.
    pub(super) fn stand_by(&mut self, settings: &Settings) {
        self.attach_by = self.attach_by.max(self.opened + settings.candidate_timeout);
    }

    /// ATTACH is on the way.
    pub(super) fn attaching(&mut self, settings: &Settings, now: Instant) {
        self.phase = Phase::Attaching(Box::default());
        self.attach_by = now + settings.attach_timeout;
    }

    /// It will be closed by then.
    pub(super) fn end_at(&mut self, until: Instant) {
        self.is_leaving = true;
        self.close_at = Some(self.close_at.map_or(until, |before| before.min(until)));
    }

    /// A PONG came; true: it was the one that makes a candidate ready.
    pub(super) fn on_pong(&mut self, nonce: u64) -> bool {
        let Phase::Candidate(trial) = &mut self.phase else { return false };
        if trial.awaited != Some(nonce) {
            return false;
        }
        trial.awaited = None;
        trial.good = trial.good.saturating_add(1);
        trial.good >= TRIAL_PONGS && !std::mem::replace(&mut trial.is_told, true)
    }

    /// PINGs a silent peer; tells why a carrier is dead: silent for too long, or never attached.
    fn handle_timeout(&mut self, settings: &Settings, now: Instant) -> Option<&'static str> {
        match self.phase {
            Phase::Closing => return None,
            Phase::Attached => {}
            Phase::Greeting | Phase::Greeted | Phase::Candidate(_) | Phase::Attaching(_) if now >= self.attach_by => {
                return Some("not attached in time");
            }
            Phase::Greeting | Phase::Greeted | Phase::Candidate(_) | Phase::Attaching(_) => {}
        }
        if self.close_at.is_some_and(|at| now >= at) {
            return Some("its time is over");
        }
        if now >= self.heard + settings.dead_after {
            return Some(SILENT);
        }
        if let Phase::Candidate(trial) = &mut self.phase {
            if now >= trial.ping_at {
                self.nonce += 1;
                trial.ping_at = now + TRIAL_EVERY;
                if trial.awaited.replace(self.nonce).is_some() {
                    trial.good = 0;
                }
                self.control.push_back(wire::encoded(kind::PING, 0, 0, &wire::Ping { nonce: self.nonce }));
            }
        } else if now >= self.ping_at {
            self.nonce += 1;
            self.ping_at = now + settings.ping_after;
            self.control.push_back(wire::encoded(kind::PING, 0, 0, &wire::Ping { nonce: self.nonce }));
        }
        None
    }

    /// When [`handle_timeouts`] is wanted.
    pub(super) fn poll_timeout(&self, settings: &Settings) -> Option<Instant> {
        let dead = self.close_at.into_iter().fold(self.heard + settings.dead_after, Instant::min);
        match &self.phase {
            Phase::Closing => None,
            Phase::Attached => Some(dead.min(self.ping_at)),
            Phase::Candidate(trial) => Some(dead.min(trial.ping_at).min(self.attach_by)),
            Phase::Greeting | Phase::Greeted | Phase::Attaching(_) => Some(dead.min(self.ping_at).min(self.attach_by)),
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
