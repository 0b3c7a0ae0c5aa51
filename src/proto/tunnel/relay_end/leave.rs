//! GOAWAY at the relay: told before it stops, or before one carrier ends; heard when a connector is about to go.

use std::time::{Duration, Instant};

use crate::proto::tunnel::frame::Frame;
use crate::proto::tunnel::goaway::{GoAway, GoAwayReason, Leaving, goaway_frame, goaway_from_wire};
use crate::proto::tunnel::handshake::Refusal;
use crate::proto::tunnel::wire;
use crate::proto::tunnel::{CarrierId, RelayEvent};

use super::RelayEnd;

impl RelayEnd {
    /// Says GOAWAY to every connector, and to each that attaches from now on. Sessions are opened as before until the process
    /// ends: whoever comes meanwhile is served.
    pub fn drain(&mut self, goaway: GoAway, now: Instant) {
        let leaving = Leaving::new(goaway, now);
        for peer in 0..self.peers.len() {
            self.say(peer, leaving.frame(now), now);
        }
        self.leaving = Some(leaving);
    }

    /// Has one carrier replaced: its connector is told, and after `within` it is closed in any case.
    pub fn retire(&mut self, carrier: CarrierId, within: Duration, now: Instant) {
        let Some(state) = self.carriers.get_mut(&carrier) else { return };
        state.end_at(now + within);
        let goaway = GoAway { reason: GoAwayReason::CarrierEnds, deadline: within, alternates: Vec::new() };
        if state.is_attached() && !state.push(goaway_frame(&goaway)) {
            self.fail(carrier, "flood", now);
        }
    }

    pub(super) fn on_goaway(&mut self, carrier: CarrierId, frame: &Frame) -> Result<(), Refusal> {
        let malformed = Refusal("malformed");
        let goaway = goaway_from_wire(wire::body(frame).map_err(|_| malformed)?).map_err(|_| malformed)?;
        if let Some(state) = self.carriers.get(&carrier).filter(|state| state.is_attached()) {
            self.events.push_back(RelayEvent::GoAway { identity: state.identity.clone(), goaway });
        }
        Ok(())
    }
}
