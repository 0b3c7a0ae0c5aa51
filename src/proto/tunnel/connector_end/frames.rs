//! What the relay's frames do at the connector.

use std::collections::VecDeque;
use std::time::Instant;

use crate::im::MAX_EVENT_BYTES;
use crate::proto::tunnel::carrier::Phase;
use crate::proto::tunnel::credit;
use crate::proto::tunnel::frame::{Frame, IGNORABLE};
use crate::proto::tunnel::handshake::{MAX_CHANNELS, Refusal};
use crate::proto::tunnel::inflow::Arrival;
use crate::proto::tunnel::line::Line;
use crate::proto::tunnel::open::{admission_from_wire, fin_from_wire, open_from_wire, refusal_code, reset_code, reset_from_code};
use crate::proto::tunnel::wire::{self, kind};
use crate::proto::tunnel::{CarrierId, ChannelId, CheckId, ConnectorEvent, OpenKind, Payload, Proof, RefusalCode, ResetCode};

use super::ConnectorEnd;
use super::channel::{Answer, Channel, Content, Early};

/// CHECKs that may wait for their verdict.
const MAX_CHECKS: usize = 256;

impl ConnectorEnd {
    /// Does what the frame says; an error costs the carrier.
    pub(super) fn dispatch(&mut self, carrier: CarrierId, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        match frame.kind {
            kind::HELLO_ACK => self.on_hello_ack(carrier, frame, now),
            kind::ATTACHED => self.on_attached_part(carrier, frame, now),
            kind::REFUSED => self.on_refused(carrier, frame, now),
            kind::PING => self.on_ping(carrier, frame, now),
            kind::PONG => self.on_pong(carrier, frame),
            kind::ERROR => {
                self.close(carrier, "the relay found a fault", now);
                Ok(())
            }
            kind::GOAWAY => self.on_goaway(carrier, frame),
            kind::OPEN | kind::DATA | kind::ACK | kind::COUNTED | kind::OWN | kind::FIN | kind::RESET | kind::CHECK => {
                self.on_session_frame(carrier, frame, now)
            }
            kind::CERT_REQ => self.on_certificate_request(carrier, frame, now),
            kind::POLICY => self.on_policy(carrier, frame),
            kind::HELLO | kind::ATTACH | kind::OPEN_OK | kind::OPEN_REFUSED | kind::VERDICT => Err(Refusal("unexpected_frame")),
            _ if frame.flags & IGNORABLE != 0 => Ok(()),
            _ => Err(Refusal("unknown_frame")),
        }
    }

    fn on_ping(&mut self, carrier: CarrierId, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        let ping: wire::Ping = wire::body(frame).map_err(|_| Refusal("malformed"))?;
        let pong = wire::encoded(kind::PONG, 0, 0, &ping);
        if self.carriers.get_mut(&carrier).is_some_and(|state| !state.push(pong)) {
            self.fail(carrier, "flood", now);
        }
        Ok(())
    }

    fn on_session_frame(&mut self, carrier: CarrierId, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        if !self.carriers.get(&carrier).is_some_and(|state| matches!(state.phase, Phase::Attached)) {
            return Err(Refusal("not_attached"));
        }
        if self.trunk.is_flooded() {
            return Err(Refusal("flood"));
        }
        let channel = frame.channel;
        if frame.kind == kind::CHECK {
            return self.on_check(frame, now);
        }
        if frame.kind == kind::OPEN {
            self.on_open(channel, frame);
            return Ok(());
        }
        if !self.channels.0.contains_key(&channel) {
            self.on_dead_channel(frame);
            return Ok(());
        }
        let taken = match frame.kind {
            kind::DATA => self.on_data(channel, frame, now),
            kind::FIN => self.on_fin(channel, frame, now),
            kind::ACK => self.on_ack(channel, frame, now),
            kind::COUNTED => self.on_counted(channel, frame),
            kind::OWN => self.on_own(channel, frame),
            _ => self.on_reset(channel, frame),
        };
        if taken.is_none() {
            self.fault(channel);
        }
        Ok(())
    }

    /// A channel that ended may still have frames under way; the answer tells a relay that missed the end.
    fn on_dead_channel(&mut self, frame: &Frame) {
        let code = if frame.channel > self.last_opened { ResetCode::Protocol } else { ResetCode::Unknown };
        if matches!(frame.kind, kind::DATA | kind::FIN | kind::COUNTED | kind::OWN) {
            self.trunk.push_answer(wire::encoded(kind::RESET, 0, frame.channel, &wire::Reset { code: reset_code(code) }));
        }
    }

    fn on_open(&mut self, channel: u32, frame: &Frame) {
        if let Some((_, words)) = self.last_words.iter().rev().find(|(ended, _)| *ended == channel) {
            return self.trunk.push_answer(words.clone());
        }
        if channel.is_multiple_of(2) || (channel <= self.last_opened && !self.channels.0.contains_key(&channel)) {
            return self.reset(channel, ResetCode::Protocol);
        }
        if self.channels.0.contains_key(&channel) {
            self.duplicates += 1;
            return;
        }
        self.last_opened = channel;
        let Some(open) = wire::body(frame).ok().and_then(|open| open_from_wire(open).ok()) else {
            return self.reset(channel, ResetCode::Protocol);
        };
        let is_new = matches!(open.kind, OpenKind::New { .. });
        if self.channels.0.len() >= MAX_CHANNELS || (is_new && self.settings.replay_memory.is_full()) {
            let busy = wire::OpenRefused { code: refusal_code(RefusalCode::Busy), text: String::new(), retry_after_millis: 0 };
            return self.say_last(channel, wire::encoded(kind::OPEN_REFUSED, 0, channel, &busy));
        }
        let (attaches, relay_next) = match open.kind {
            OpenKind::New { .. } => (false, 1),
            OpenKind::Attach { out_next, .. } => (true, out_next),
        };
        let mut line = Line::new(1, 1, &self.settings.replay_memory);
        line.held_back = true;
        let answer = Answer::Awaited { early: VecDeque::new(), counted: None };
        self.channels.0.insert(channel, Channel { line, answer, attaches, relay_next, fin_in: None, told: (0, 0) });
        self.events.push_back(ConnectorEvent::Open { channel: ChannelId(channel), open: Box::new(open) });
    }

    /// `None`: the channel is at fault.
    fn on_data(&mut self, channel: u32, frame: &Frame, now: Instant) -> Option<()> {
        let data: wire::Data = wire::body(frame).ok()?;
        let cost = credit::cost(data.event.len());
        let payload = match data.mark {
            0 if data.event.len() <= MAX_EVENT_BYTES => Payload::Event(data.event),
            1 if data.event.len() <= MAX_EVENT_BYTES => Payload::Ephemeral(data.event),
            2 => Payload::Tombstone,
            _ => return None,
        };
        self.on_numbered(channel, Early { number: data.number, sm_in: data.sm_in, content: Content::Payload(payload) }, cost, now)
    }

    fn on_fin(&mut self, channel: u32, frame: &Frame, now: Instant) -> Option<()> {
        let fin: wire::Fin = wire::body(frame).ok()?;
        let (number, sm_in) = (fin.number, fin.sm_in);
        let content = Content::Fin(fin_from_wire(fin).ok()?);
        self.on_numbered(channel, Early { number, sm_in, content }, credit::cost(0), now)
    }

    fn on_numbered(&mut self, channel: u32, item: Early, cost: u32, now: Instant) -> Option<()> {
        let live = self.channels.0.get(&channel)?;
        if (live.attaches && !live.is_accepted()) || live.fin_in.is_some_and(|fin| item.number > fin) {
            return None;
        }
        let number = item.number;
        match self.touch(channel, now, |live, pool| live.line.inn.arrive(number, cost, pool, now))? {
            Arrival::Next => {}
            Arrival::Duplicate => {
                self.duplicates += 1;
                return Some(());
            }
            Arrival::Fault => return None,
        }
        let live = self.channels.0.get_mut(&channel)?;
        if matches!(item.content, Content::Fin(_)) {
            live.fin_in = Some(number);
        }
        match &mut live.answer {
            Answer::Awaited { early, counted } => {
                // The event's own count covers what was counted before it.
                *counted = None;
                early.push_back(item);
            }
            Answer::Accepted(_) => self.pass(channel, item),
        }
        Some(())
    }

    /// Gives an item to the desk.
    pub(super) fn pass(&mut self, channel: u32, item: Early) {
        let Early { number, sm_in, content } = item;
        let channel = ChannelId(channel);
        self.events.push_back(match content {
            Content::Payload(payload) => ConnectorEvent::Data { channel, number, sm_in, payload },
            Content::Fin(fin) => ConnectorEvent::Fin { channel, number, fin },
        });
    }

    fn on_ack(&mut self, channel: u32, frame: &Frame, now: Instant) -> Option<()> {
        let ack: wire::Ack = wire::body(frame).ok()?;
        if ack.confirmed > ack.handled || ack.handled > ack.received {
            return None;
        }
        self.touch(channel, now, |live, _| live.line.out.acknowledge(&ack, now))?.ok()?;
        self.tell_handled(channel, ack.handled, ack.confirmed);
        Some(())
    }

    /// Tells the desk how far outward events are handled; ends the channel when that includes its FIN.
    pub(super) fn tell_handled(&mut self, channel: u32, handled: u64, confirmed: u64) {
        let Some(live) = self.channels.0.get_mut(&channel) else { return };
        let (told_handled, told_confirmed) = live.told;
        live.told = (handled.max(told_handled), confirmed.max(told_confirmed));
        let ended = live.line.out.is_ended() && live.line.out.first() == live.line.out.next_number();
        let id = ChannelId(channel);
        if confirmed > told_confirmed {
            self.events.push_back(ConnectorEvent::OutHandled { channel: id, number: confirmed, proof: Proof::Confirmed });
        }
        if handled > told_handled && handled > confirmed {
            self.events.push_back(ConnectorEvent::OutHandled { channel: id, number: handled, proof: Proof::Written });
        }
        if ended {
            self.forget(channel);
        }
    }

    fn on_counted(&mut self, channel: u32, frame: &Frame) -> Option<()> {
        let wire::Counted { sm_in } = wire::body(frame).ok()?;
        match &mut self.channels.0.get_mut(&channel)?.answer {
            Answer::Awaited { counted, .. } => *counted = Some(sm_in),
            Answer::Accepted(_) => self.events.push_back(ConnectorEvent::Counted { channel: ChannelId(channel), sm_in }),
        }
        Some(())
    }

    fn on_own(&mut self, channel: u32, frame: &Frame) -> Option<()> {
        let wire::Own { after, count } = wire::body(frame).ok()?;
        if !self.channels.0.get(&channel)?.is_accepted() {
            return None;
        }
        self.events.push_back(ConnectorEvent::Own { channel: ChannelId(channel), after, count });
        Some(())
    }

    fn on_reset(&mut self, channel: u32, frame: &Frame) -> Option<()> {
        let wire::Reset { code } = wire::body(frame).ok()?;
        self.forget(channel);
        self.events.push_back(ConnectorEvent::Reset { channel: ChannelId(channel), code: reset_from_code(code) });
        Some(())
    }

    fn on_check(&mut self, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        let malformed = Refusal("malformed");
        let check: wire::Check = wire::body(frame).map_err(|_| malformed)?;
        let admission = check.admission.and_then(|admission| admission_from_wire(admission).ok()).ok_or(malformed)?;
        if self.checks.contains(&check.id) {
            return Ok(());
        }
        if self.checks.len() >= MAX_CHECKS {
            let busy = wire::Verdict { id: check.id, code: refusal_code(RefusalCode::Busy), ..wire::Verdict::default() };
            self.say(wire::encoded(kind::VERDICT, 0, 0, &busy), now);
            return Ok(());
        }
        self.checks.insert(check.id);
        self.events.push_back(ConnectorEvent::Check { check: CheckId(check.id), admission: Box::new(admission) });
        Ok(())
    }
}
