//! Several carriers at once: who waits beside the attached one, who takes over, and what GOAWAY has to do with it.
//!
//! A carrier that comes up while another is attached is a *candidate*: it is pinged every second, and after three PONGs in time
//! (at once, if the attached one is about to go) the shell hears of it and may call [`ConnectorEnd::switch_to`]. Taking over is
//! the ordinary RESUME: the old carrier is read no more from the moment the cursors are written, and is closed when the new one
//! is attached or lost. A candidate also takes over by itself when the attached carrier is lost.

use std::time::Instant;

use crate::proto::tunnel::carrier::Phase;
use crate::proto::tunnel::frame::Frame;
use crate::proto::tunnel::goaway::{GoAway, Leaving, goaway_from_wire};
use crate::proto::tunnel::handshake::Refusal;
use crate::proto::tunnel::wire;
use crate::proto::tunnel::{CarrierId, ConnectorEvent};

use super::ConnectorEnd;

impl ConnectorEnd {
    /// Lets a candidate take over the tunnel; tells whether it is one, and another carrier is attached.
    pub fn switch_to(&mut self, carrier: CarrierId, now: Instant) -> bool {
        let is_candidate = self.carriers.get(&carrier).is_some_and(|state| matches!(state.phase, Phase::Candidate(_)));
        let Some(old) = self.current.filter(|_| is_candidate && self.is_attached()) else { return false };
        if let Some(state) = self.carriers.get_mut(&old) {
            state.phase = Phase::Closing;
        }
        self.retiring = Some(old);
        self.trunk.clear();
        self.attach_on(carrier, now);
        true
    }

    /// Says GOAWAY on the attached carrier and on each that attaches from now on. Nothing else changes here.
    pub fn drain(&mut self, goaway: GoAway, now: Instant) {
        let leaving = Leaving::new(goaway, now);
        self.say(leaving.frame(now), now);
        self.leaving = Some(leaving);
    }

    pub(super) fn on_goaway(&mut self, carrier: CarrierId, frame: &Frame) -> Result<(), Refusal> {
        let malformed = Refusal("malformed");
        let goaway = goaway_from_wire(wire::body(frame).map_err(|_| malformed)?).map_err(|_| malformed)?;
        let Some(state) = self.carriers.get_mut(&carrier) else { return Ok(()) };
        state.is_leaving = true;
        if self.current == Some(carrier) {
            self.events.push_back(ConnectorEvent::GoAway { goaway });
            self.candidates_ready();
        }
        Ok(())
    }

    pub(super) fn on_pong(&mut self, carrier: CarrierId, frame: &Frame) -> Result<(), Refusal> {
        let pong: wire::Ping = wire::body(frame).map_err(|_| Refusal("malformed"))?;
        if self.carriers.get_mut(&carrier).is_some_and(|state| state.on_pong(pong.nonce)) {
            self.events.push_back(ConnectorEvent::CandidateReady { carrier });
        }
        Ok(())
    }

    /// The attached carrier is about to go.
    pub(super) fn is_leaving(&self) -> bool {
        self.current.and_then(|current| self.carriers.get(&current)).is_some_and(|state| state.is_leaving)
    }

    /// The attached carrier is about to go: whoever waits beside it is ready now.
    pub(super) fn candidates_ready(&mut self) {
        for (&carrier, state) in &mut self.carriers {
            if let Phase::Candidate(trial) = &mut state.phase
                && !std::mem::replace(&mut trial.is_told, true)
            {
                self.events.push_back(ConnectorEvent::CandidateReady { carrier });
            }
        }
    }

    /// The new carrier is attached: the one it replaces is closed, and it hears what every carrier hears of a GOAWAY.
    pub(super) fn taken_over(&mut self, now: Instant) {
        self.switched += u64::from(self.retiring.is_some());
        self.close_retiring(now);
        if let Some(leaving) = &self.leaving {
            self.say(leaving.frame(now), now);
        }
    }

    pub(super) fn close_retiring(&mut self, now: Instant) {
        if let Some(old) = self.retiring.take() {
            self.close(old, "replaced by another carrier", now);
        }
    }

    /// Closes every carrier that waits.
    pub(super) fn close_unattached(&mut self, why: &str, now: Instant) {
        let waits = |phase: &Phase| matches!(phase, Phase::Greeting | Phase::Greeted | Phase::Candidate(_));
        let waiting: Vec<CarrierId> = self.carriers.iter().filter(|(_, state)| waits(&state.phase)).map(|(&id, _)| id).collect();
        waiting.into_iter().for_each(|carrier| self.close(carrier, why, now));
    }

    /// The attached carrier is gone: the candidate that came first gets the ATTACH.
    pub(super) fn promote_candidate(&mut self, now: Instant) {
        let first = self.candidates().next();
        if let Some(carrier) = first {
            self.attach_on(carrier, now);
        }
    }

    fn candidates(&self) -> impl Iterator<Item = CarrierId> {
        self.carriers.iter().filter(|(_, state)| matches!(state.phase, Phase::Candidate(_))).map(|(&id, _)| id)
    }
}
