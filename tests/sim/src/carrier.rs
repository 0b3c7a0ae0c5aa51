//! A carrier between the two ends: four ordered pipes of bytes that delay, and break at any byte.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::proto::tunnel::frame::{self, Frame};
use crate::proto::tunnel::{CarrierId, Lane};
use bytes::{Bytes, BytesMut};

use super::rng::Rng;

/// Which way a pipe goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Towards {
    Relay,
    Connector,
}

/// All pipes of a carrier.
pub(super) const PIPES: [(Towards, Lane); 4] =
    [(Towards::Relay, Lane::Control), (Towards::Relay, Lane::Data), (Towards::Connector, Lane::Control), (Towards::Connector, Lane::Data)];

#[derive(Debug, Default)]
struct Pipe {
    in_flight: VecDeque<(Instant, Bytes)>,
    arrived: BytesMut,
    last: Option<Instant>,
}

/// One carrier.
#[derive(Debug)]
pub(super) struct SimCarrier {
    pub(super) id: CarrierId,
    /// The relay that it goes to.
    pub(super) relay: usize,
    pipes: [Pipe; 4],
    /// When each side learns that the carrier is gone.
    pub(super) relay_loses_at: Option<Instant>,
    pub(super) connector_loses_at: Option<Instant>,
    pub(super) relay_has: bool,
    pub(super) connector_has: bool,
    broken: bool,
    /// Pipes into which bytes vanish while the rest of the carrier lives.
    holes: [bool; 4],
}

impl SimCarrier {
    pub(super) fn new(id: CarrierId, relay: usize) -> Self {
        Self {
            id,
            relay,
            pipes: Default::default(),
            relay_loses_at: None,
            connector_loses_at: None,
            relay_has: true,
            connector_has: true,
            broken: false,
            holes: [false; 4],
        }
    }

    /// Sends bytes into a pipe; in a broken carrier they vanish.
    pub(super) fn send(&mut self, pipe: usize, bytes: Bytes, delay: Duration, now: Instant) {
        if self.broken || self.holes[pipe] || bytes.is_empty() {
            return;
        }
        let pipe = &mut self.pipes[pipe];
        let at = pipe.last.map_or(now + delay, |last| last.max(now + delay));
        pipe.last = Some(at);
        pipe.in_flight.push_back((at, bytes));
    }

    /// Moves what has arrived by `now` into the reader's buffer; `step` bytes at a time at most.
    pub(super) fn deliver(&mut self, pipe: usize, now: Instant) {
        let pipe = &mut self.pipes[pipe];
        while let Some((_, bytes)) = pipe.in_flight.pop_front_if(|(at, _)| *at <= now) {
            pipe.arrived.extend_from_slice(&bytes);
        }
    }

    /// The next whole frame of a pipe.
    pub(super) fn frame(&mut self, pipe: usize) -> Option<Frame> {
        frame::decode(&mut self.pipes[pipe].arrived).expect("the ends send well-formed frames")
    }

    /// Breaks the carrier: each pipe still brings a random number of its bytes, and each side learns of it in its own time.
    pub(super) fn cut(&mut self, rng: &mut Rng, slow: bool, now: Instant) {
        if self.broken {
            return;
        }
        self.broken = true;
        for pipe in &mut self.pipes {
            let total: usize = pipe.in_flight.iter().map(|(_, bytes)| bytes.len()).sum();
            let mut keep = rng.below(total as u64 + 1) as usize;
            for (_, bytes) in &mut pipe.in_flight {
                bytes.truncate(keep);
                keep -= bytes.len();
            }
        }
        let bound = if slow { 20_000 } else { 300 };
        self.relay_loses_at = Some(now + Duration::from_millis(rng.below(bound)));
        self.connector_loses_at = Some(now + Duration::from_millis(rng.below(bound)));
    }

    /// Nothing of what is on the way arrives.
    pub(super) fn clear(&mut self) {
        self.pipes = Default::default();
    }

    /// Opens a hole: one way is lost altogether, or one lane of it.
    pub(super) fn pierce(&mut self, rng: &mut Rng) {
        // A hole never closes again: what went into it is missing.
        match rng.below(6) {
            0 => self.holes[..2].fill(true),
            1 => self.holes[2..].fill(true),
            pipe => self.holes[pipe as usize - 2] = true,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        !self.broken && self.relay_has && self.connector_has
    }
}
