//! What the customers do, and what their relays tell them.

use std::time::Duration;

use crate::proto::tunnel::{Fin, OpenKind, Payload, Proof, RefusalCode, RelayCommand, RelayEvent, SessionKey};
use crate::session::{CloseReason, OpenId, SessionSecret};
use bytes::Bytes;

use super::Plant;
use super::customer::{Customer, Stage};
use super::desk::Out;
use super::world::{World, identity, open};

impl World {
    pub(super) fn customer_comes(&mut self) {
        let key = self.new_key();
        let relay = self.rng.below(self.relays.len() as u64) as usize;
        let secret = SessionSecret(u128::from(self.rng.next()).to_be_bytes());
        let open_id = OpenId(u128::from(self.rng.next()).to_be_bytes());
        let open = Box::new(open(OpenKind::New { open_id, secret }));
        self.customers.push(Customer::new(relay, key, secret));
        self.relays[relay].handle_command(RelayCommand::Open { session: key, identity: identity(), open }, self.now);
    }

    pub(super) fn talk(&mut self) {
        for index in 0..self.customers.len() {
            if self.rng.chance(35) && self.customers[index].may_speak() {
                self.customer_speaks(index);
            }
        }
        for secret in self.desk.open_sessions() {
            if self.rng.chance(30) {
                let body = self.body("out");
                self.desk.say(secret, if self.rng.chance(25) { Out::Ephemeral(body) } else { Out::Event(body) });
            }
        }
        if self.rng.chance(2) && self.customers.len() < 12 {
            self.customer_comes();
        }
        if self.rng.chance(1) {
            let index = self.rng.below(self.customers.len() as u64) as usize;
            self.customer_leaves(index);
        }
        if self.rng.below(1000) < self.faults.moves {
            let index = self.rng.below(self.customers.len() as u64) as usize;
            self.customer_moves(index);
        }
    }

    fn body(&mut self, side: &str) -> Bytes {
        let length = match self.rng.below(40) {
            0 => 20_000 + self.rng.below(12_000),
            1..6 => self.rng.below(3_000),
            _ => self.rng.below(80),
        };
        let mut body = format!("{side}:{:x}:", self.rng.next()).into_bytes();
        body.resize(body.len() + length as usize, b'x');
        Bytes::from(body)
    }

    fn customer_speaks(&mut self, index: usize) {
        let body = self.body("in");
        let (ephemeral, other, own) = (self.rng.chance(25), self.rng.chance(10), self.rng.chance(5));
        let customer = &mut self.customers[index];
        if customer.said.len() as u64 - customer.in_handled >= 64 {
            return;
        }
        let session = customer.key;
        let relay = &mut self.relays[customer.relay];
        if own {
            let announced = (customer.got.len() as u64, 1 + customer.own_wanted.len() as u32);
            customer.own_wanted.push(announced);
            return relay.handle_command(RelayCommand::Own { session, after: announced.0, count: announced.1 }, self.now);
        }
        customer.stanzas += 1;
        let sm_in = customer.stanzas;
        if other {
            return relay.handle_command(RelayCommand::Counted { session, sm_in }, self.now);
        }
        let payload = if ephemeral { Payload::Ephemeral(body.clone()) } else { Payload::Event(body.clone()) };
        customer.said.push((!ephemeral).then_some(body));
        customer.said_at.push(sm_in);
        relay.handle_command(RelayCommand::Send { session, payload, sm_in }, self.now);
    }

    pub(super) fn customer_leaves(&mut self, index: usize) {
        let customer = &mut self.customers[index];
        if customer.stage != Stage::Open {
            return;
        }
        customer.stage = Stage::Left;
        let fin = Fin { reason: CloseReason::CustomerLeft, text: String::new() };
        self.relays[customer.relay].handle_command(RelayCommand::Finish { session: customer.key, fin }, self.now);
    }

    /// His client loses its relay though it lives, and goes to any.
    fn customer_moves(&mut self, index: usize) {
        let wait = Duration::from_millis(self.rng.below(1_000));
        let now = self.now;
        let customer = &mut self.customers[index];
        if customer.stage == Stage::Open {
            customer.left_behind.push((customer.relay, customer.key));
            self.trace.note(now, || format!("customer {index} leaves {:?} behind at relay {}", customer.key, customer.relay));
            customer.go_away(now + wait);
        }
    }

    /// Relays wait no longer for clients that went elsewhere: their sessions there have ended, and nobody else's may.
    pub(super) fn relays_give_up_who_left(&mut self) {
        for customer in self.customers.iter().filter(|customer| !matches!(customer.stage, Stage::Away(_))) {
            for &(relay, session) in &customer.left_behind {
                let fin = Fin { reason: CloseReason::CustomerLost, text: String::new() };
                self.relays[relay].handle_command(RelayCommand::Finish { session, fin }, self.now);
            }
        }
    }

    /// A relay is gone with all that it held.
    pub(super) fn customers_lose_relay(&mut self, relay: usize) {
        for index in 0..self.customers.len() {
            let back = self.now + Duration::from_millis(100 + self.rng.below(3_000));
            let customer = &mut self.customers[index];
            customer.left_behind.retain(|(at, _)| *at != relay);
            if customer.relay != relay {
                continue;
            }
            match customer.stage {
                Stage::Open | Stage::Returning | Stage::Returned => customer.go_away(back),
                // Nothing of his can come back from here.
                Stage::Opening | Stage::Left => customer.stage = Stage::Lost,
                Stage::Ended => {
                    let kept = self.desk.store.get(&customer.secret).map_or(0, |kept| kept.record.len());
                    if kept < customer.said.len() {
                        customer.stage = Stage::Lost;
                    }
                }
                Stage::Away(_) | Stage::Lost => {}
            }
        }
    }

    /// Clients that were away ask for their sessions again.
    pub(super) fn come_back(&mut self) {
        for index in 0..self.customers.len() {
            let Stage::Away(at) = self.customers[index].stage else { continue };
            if at > self.now {
                continue;
            }
            let (key, relay) = (self.new_key(), self.rng.below(self.relays.len() as u64) as usize);
            let customer = &mut self.customers[index];
            customer.key = key;
            customer.relay = relay;
            customer.stage = Stage::Returning;
            let client_h = Some(customer.got.len() as u32);
            self.trace.note(self.now, || format!("customer {index} asks at relay {relay} as {key:?}"));
            let open = Box::new(open(OpenKind::Attach { secret: customer.secret, in_next: 0, out_next: 0, client_h, attachment: 0 }));
            self.relays[relay].handle_command(RelayCommand::Open { session: key, identity: identity(), open }, self.now);
        }
    }

    pub(super) fn confirm(&mut self) {
        for customer in &mut self.customers {
            while let Some((_, number)) = customer.to_confirm.pop_front_if(|(at, _)| *at <= self.now) {
                let proof = if number % 5 == 0 { Proof::Written } else { Proof::Confirmed };
                if matches!(customer.stage, Stage::Open | Stage::Ended | Stage::Returned) {
                    let handled = RelayCommand::Handled { session: customer.key, number, proof };
                    self.relays[customer.relay].handle_command(handled, self.now);
                }
            }
        }
    }

    pub(super) fn relay_says(&mut self, relay: usize, event: RelayEvent) {
        let (now, lag) = (self.now, Duration::from_millis(self.rng.below(400)));
        match event {
            RelayEvent::CloseCarrier { carrier, .. } => {
                self.pump();
                self.relays[relay].carrier_lost(carrier, now);
                if let Some(carrier) = self.carriers.iter_mut().find(|one| one.id == carrier) {
                    carrier.relay_has = false;
                    carrier.connector_loses_at.get_or_insert(now + lag);
                }
            }
            RelayEvent::OpenOk { session, .. } => {
                if let Some(customer) = self.customer(session) {
                    customer.stage = if customer.stage == Stage::Returning { Stage::Returned } else { Stage::Open };
                }
            }
            RelayEvent::OpenRefused { session, code, .. } => self.refused(relay, session, code),
            RelayEvent::Data { session, number, payload } => {
                self.out.delivered += 1;
                let Some(customer) = self.customer(session) else { return };
                let next = customer.got.len() as u64 + 1;
                customer.got.push(payload);
                customer.to_confirm.push_back((now + lag, number));
                if number != next {
                    self.out.violations.push(format!("{session:?} outward {number} where {next} was next"));
                }
            }
            RelayEvent::Handled { session, number, sm_in } => self.told_handled(session, number, sm_in),
            RelayEvent::OwnHandled { session, after, count } => {
                if let Some(customer) = self.customer(session) {
                    customer.own_done.push((after, count));
                }
            }
            RelayEvent::Fin { session, .. } => {
                if let Some(customer) = self.customer(session) {
                    // Who has not heard yet what of his was handled cannot send the rest again.
                    customer.is_cut_short |= customer.stage == Stage::Returned;
                    customer.stage = Stage::Ended;
                }
            }
            RelayEvent::Gone { session, reason } => self.gone(relay, session, reason),
            RelayEvent::TunnelUp { .. } | RelayEvent::TunnelDetached { .. } | RelayEvent::GoAway { .. } | RelayEvent::Verdict { .. } => {}
        }
    }

    fn refused(&mut self, relay: usize, session: SessionKey, code: RefusalCode) {
        self.forget_left_behind(relay, session);
        let again = self.now + Duration::from_millis(100 + self.rng.below(500));
        let Some(index) = self.index_of(session) else { return };
        let returning = self.customers[index].stage == Stage::Returning;
        let (may_be_harmed, closed) = (self.may_be_harmed(index), self.desk.is_closed(self.customers[index].secret));
        let customer = &mut self.customers[index];
        match code {
            RefusalCode::Busy if returning => customer.stage = Stage::Away(again),
            RefusalCode::Busy => customer.stage = Stage::Lost,
            RefusalCode::UnknownSession if closed || may_be_harmed => customer.stage = Stage::Lost,
            RefusalCode::StoreRegressed if may_be_harmed => customer.regress(&mut self.out.regressed),
            code => self.out.violations.push(format!("{session:?} refused: {code:?}")),
        }
    }

    fn gone(&mut self, relay: usize, session: SessionKey, reason: CloseReason) {
        self.forget_left_behind(relay, session);
        let Some(index) = self.index_of(session) else { return };
        let (may_be_harmed, regressed) = (self.may_be_harmed(index), !self.desk.floors.is_empty());
        // A relay where he was before knew more than the store: his session has ended wherever it is.
        let ended = regressed && self.desk.has_regressed(self.customers[index].secret);
        let customer = &mut self.customers[index];
        // He was told nothing yet, and his relay was.
        let unsettled = matches!(customer.stage, Stage::Returning | Stage::Returned);
        match reason {
            CloseReason::StoreRegressed if ended || may_be_harmed || (unsettled && regressed) => customer.regress(&mut self.out.regressed),
            // The word was lost with its carrier, and the next one tells of no such channel.
            CloseReason::Fault if ended => customer.regress(&mut self.out.regressed),
            reason => self.out.violations.push(format!("{session:?} lost: {}", reason.as_str())),
        }
    }

    fn forget_left_behind(&mut self, relay: usize, session: SessionKey) {
        for customer in &mut self.customers {
            customer.left_behind.retain(|place| *place != (relay, session));
        }
    }

    /// What is told to a client as handled must be on disk, and never goes back.
    fn told_handled(&mut self, session: SessionKey, number: u64, sm_in: u32) {
        let backwards = self.plant == Some(Plant::CountGoesBack) && self.rng.chance(10);
        let Some(index) = self.index_of(session) else { return };
        let may_be_harmed = self.may_be_harmed(index);
        let customer = &mut self.customers[index];
        let h = if backwards { sm_in.saturating_sub(2) } else { sm_in };
        let kept = self.desk.store.get(&customer.secret);
        let (kept_sm, kept_count) = kept.map_or((0, 0), |kept| (kept.sm_in, kept.record.len() as u64));
        let went_back = h < customer.h || number < customer.in_handled;
        if went_back && may_be_harmed && customer.stage == Stage::Returned {
            // This relay knows nothing of what another told him; his client sees that it is gone.
            customer.regress(&mut self.out.regressed);
            let fin = Fin { reason: CloseReason::CustomerLost, text: String::new() };
            return self.relays[customer.relay].handle_command(RelayCommand::Finish { session, fin }, self.now);
        }
        let uncommitted = h > kept_sm || number > kept_count;
        if went_back || (uncommitted && !may_be_harmed) {
            self.out.violations.push(format!("{session:?} went back or was not committed: {number}, h {h}"));
        }
        customer.h = h;
        customer.in_handled = number;
        if customer.stage == Stage::Returned {
            self.say_the_rest(index, number, h);
        }
    }

    /// His client sends again what is above the count that the new relay tells.
    fn say_the_rest(&mut self, index: usize, number: u64, h: u32) {
        let customer = &mut self.customers[index];
        let handled = customer.said_at.iter().filter(|at| **at <= h).count();
        customer.stage = Stage::Open;
        self.out.moved += 1;
        if handled as u64 != number {
            self.out.violations.push(format!("{:?} is told h {h} with {number} events, which are {handled}", customer.key));
        }
        let session = customer.key;
        let relay = &mut self.relays[customer.relay];
        for (body, &sm_in) in customer.said.iter().zip(&customer.said_at).skip(handled) {
            let payload = body.clone().map_or(Payload::Ephemeral(Bytes::from_static(b"again")), Payload::Event);
            relay.handle_command(RelayCommand::Send { session, payload, sm_in }, self.now);
        }
        if customer.said_at.last().is_none_or(|last| *last < customer.stanzas) && customer.stanzas > h {
            relay.handle_command(RelayCommand::Counted { session, sm_in: customer.stanzas }, self.now);
        }
    }

    fn index_of(&self, session: SessionKey) -> Option<usize> {
        self.customers.iter().position(|customer| customer.key == session && !matches!(customer.stage, Stage::Away(_) | Stage::Lost))
    }

    fn customer(&mut self, session: SessionKey) -> Option<&mut Customer> {
        let index = self.index_of(session)?;
        self.customers.get_mut(index)
    }
}
