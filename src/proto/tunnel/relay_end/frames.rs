//! What the connector's frames do at the relay.

use std::time::Instant;

use crate::im::MAX_EVENT_BYTES;
use crate::proto::tunnel::carrier::Phase;
use crate::proto::tunnel::credit;
use crate::proto::tunnel::frame::{Frame, IGNORABLE};
use crate::proto::tunnel::handshake::Refusal;
use crate::proto::tunnel::inflow::{Arrival, Inflow};
use crate::proto::tunnel::open::{MAX_TEXT_BYTES, fin_from_wire, name, refusal_from_code, reset_code, reset_from_code, text};
use crate::proto::tunnel::wire::{self, kind};
use crate::proto::tunnel::{CarrierId, CheckId, Payload, Proof, RefusalCode, RelayEvent, ResetCode, SessionKey, Welcome};
use crate::session::CloseReason;

use super::{FIN_LINGER, RelayEnd};

/// Numbers above this are a lie, with which nobody should have to calculate.
const MAX_NUMBER: u64 = 1 << 62;

/// The channel broke a rule.
struct ChannelFault(CloseReason);

const PROTOCOL: ChannelFault = ChannelFault(CloseReason::Fault);
const REGRESSED: ChannelFault = ChannelFault(CloseReason::StoreRegressed);
/// The connector has what this relay never had: the session went on elsewhere.
const ELSEWHERE: ChannelFault = ChannelFault(CloseReason::CustomerLost);

impl RelayEnd {
    /// Does what the frame says; an error costs the carrier.
    pub(super) fn dispatch(&mut self, carrier: CarrierId, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        match frame.kind {
            kind::HELLO => self.on_hello(carrier, frame),
            kind::ATTACH => self.on_attach_part(carrier, frame, now),
            kind::PING => self.on_ping(carrier, frame),
            kind::PONG => self.on_any_attached(carrier).map(drop).or(Ok(())),
            kind::ERROR => {
                self.close(carrier, "the connector found a fault", now);
                Ok(())
            }
            kind::GOAWAY => self.on_goaway(carrier, frame),
            kind::OPEN_OK | kind::OPEN_REFUSED | kind::DATA | kind::ACK | kind::OWN | kind::FIN | kind::RESET | kind::VERDICT => {
                let peer = self.on_any_attached(carrier)?;
                self.on_session_frame(peer, frame, now)
            }
            kind::CERT | kind::TRUST => self.on_certificate(carrier, frame),
            kind::POLICY => self.on_policy(carrier, frame, now),
            kind::HELLO_ACK | kind::ATTACHED | kind::REFUSED | kind::OPEN | kind::COUNTED | kind::CHECK => Err(Refusal("unexpected_frame")),
            _ if frame.flags & IGNORABLE != 0 => Ok(()),
            _ => Err(Refusal("unknown_frame")),
        }
    }

    /// The peer whose tunnel this carrier carries; its epoch is thereby heard.
    pub(super) fn on_any_attached(&mut self, carrier: CarrierId) -> Result<usize, Refusal> {
        let state = self.carriers.get(&carrier).filter(|state| state.is_attached()).ok_or(Refusal("not_attached"))?;
        let &peer = self.by_identity.get(&state.identity).ok_or(Refusal("not_attached"))?;
        let tunnel = self.peers[peer].tunnel.as_mut().ok_or(Refusal("not_attached"))?;
        tunnel.heard_epoch = tunnel.epoch;
        Ok(peer)
    }

    fn on_ping(&mut self, carrier: CarrierId, frame: &Frame) -> Result<(), Refusal> {
        let ping: wire::Ping = wire::body(frame).map_err(|_| Refusal("malformed"))?;
        let pong = wire::encoded(kind::PONG, 0, 0, &ping);
        let Some(state) = self.carriers.get_mut(&carrier) else { return Ok(()) };
        if matches!(state.phase, Phase::Greeted) {
            // Who pings before it attaches is trying this carrier beside another.
            state.stand_by(&self.settings);
        }
        if state.push(pong) { Ok(()) } else { Err(Refusal("flood")) }
    }

    fn on_session_frame(&mut self, peer: usize, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        if frame.kind == kind::VERDICT {
            return self.on_verdict(peer, frame);
        }
        let Some(tunnel) = self.peers[peer].tunnel.as_mut() else { return Ok(()) };
        if frame.kind != kind::ACK {
            tunnel.deaf_since = None;
        }
        let Some(&key) = tunnel.channels.get(&frame.channel) else {
            // A channel that ended may still have frames under way; the answer tells a connector that missed the end.
            if matches!(frame.kind, kind::DATA | kind::FIN | kind::OPEN_OK) {
                let reset = wire::Reset { code: reset_code(ResetCode::Unknown) };
                tunnel.trunk.push_answer(wire::encoded(kind::RESET, 0, frame.channel, &reset));
            }
            return Ok(());
        };
        let taken = match frame.kind {
            kind::DATA => self.on_data(key, frame, now),
            kind::FIN => self.on_fin(key, frame, now),
            kind::ACK => self.on_ack(key, frame, now),
            kind::OWN => self.on_own(key, frame),
            kind::OPEN_OK => self.on_open_ok(key, frame, now),
            kind::OPEN_REFUSED => self.on_open_refused(key, frame),
            _ => self.on_reset(key, frame),
        };
        if let Err(ChannelFault(reason)) = taken {
            self.fault(key, reason);
        }
        Ok(())
    }

    fn on_data(&mut self, key: SessionKey, frame: &Frame, now: Instant) -> Result<(), ChannelFault> {
        let data: wire::Data = wire::body(frame).map_err(|_| PROTOCOL)?;
        let cost = credit::cost(data.event.len());
        let payload = match data.mark {
            0 if data.event.len() <= MAX_EVENT_BYTES => Payload::Event(data.event),
            1 if data.event.len() <= MAX_EVENT_BYTES => Payload::Ephemeral(data.event),
            2 => Payload::Tombstone,
            _ => return Err(PROTOCOL),
        };
        let number = data.number;
        if self.on_numbered(key, number, cost, now)? && self.sessions.get(&key).is_some_and(|session| !session.is_over()) {
            self.events.push_back(RelayEvent::Data { session: key, number, payload });
        }
        Ok(())
    }

    fn on_fin(&mut self, key: SessionKey, frame: &Frame, now: Instant) -> Result<(), ChannelFault> {
        let fin: wire::Fin = wire::body(frame).map_err(|_| PROTOCOL)?;
        let number = fin.number;
        let fin = fin_from_wire(fin).map_err(|_| PROTOCOL)?;
        if !self.on_numbered(key, number, credit::cost(0), now)? {
            return Ok(());
        }
        let Some(session) = self.sessions.get_mut(&key) else { return Ok(()) };
        session.fin_out = Some(number);
        if !session.finished {
            self.events.push_back(RelayEvent::Fin { session: key, fin });
            self.lingering.push_back((now + FIN_LINGER, key));
        }
        self.end_if_finished(key, now);
        Ok(())
    }

    /// True: the frame is the next and new.
    fn on_numbered(&mut self, key: SessionKey, number: u64, cost: u32, now: Instant) -> Result<bool, ChannelFault> {
        let session = self.sessions.get(&key).ok_or(PROTOCOL)?;
        let (peer, fin) = (session.peer, session.fin_out);
        if !session.is_answered || fin.is_some_and(|fin| number > fin) {
            return Err(PROTOCOL);
        }
        match self.touch(key, now, |session, pool| session.line.inn.arrive(number, cost, pool, now)).ok_or(PROTOCOL)? {
            Arrival::Next => Ok(true),
            Arrival::Duplicate => {
                self.peers[peer].duplicates += 1;
                Ok(false)
            }
            Arrival::Fault => Err(PROTOCOL),
        }
    }

    fn on_ack(&mut self, key: SessionKey, frame: &Frame, now: Instant) -> Result<(), ChannelFault> {
        let ack: wire::Ack = wire::body(frame).map_err(|_| PROTOCOL)?;
        let session = self.sessions.get_mut(&key).ok_or(PROTOCOL)?;
        if ack.handled > ack.received || !session.was_asked {
            return Err(PROTOCOL);
        }
        if session.adopts_numbers() {
            // It overtook the answer to OPEN, which will tell the numbers; the stanza count is good already.
            if let Some(count) = ack.sm_in {
                session.raise_handled_count(count);
            }
            session.handled_early = session.handled_early.max(ack.handled);
            return Ok(());
        }
        let reopening = session.was_answered && !session.is_answered;
        let forgot = reopening && ack.handled.saturating_add(1) < session.line.out.first();
        if forgot || ack.sm_in.is_some_and(|count| session.is_count_lost(count)) {
            // Less than was handled once: nobody is told what goes with it.
            return Err(REGRESSED);
        }
        let acknowledged = self.touch(key, now, |session, _| session.line.out.acknowledge(&ack, now));
        let progress = acknowledged.ok_or(PROTOCOL)?.map_err(|_| if reopening { ELSEWHERE } else { PROTOCOL })?;
        let session = self.sessions.get_mut(&key).ok_or(PROTOCOL)?;
        let counts = progress.map(|progress| progress.sm_in).into_iter().chain(ack.sm_in);
        let counted = counts.map(|count| session.raise_handled_count(count)).fold(false, |any, rose| any | rose);
        if progress.is_some() || counted {
            self.tell_handled(key, now);
        }
        Ok(())
    }

    /// Tells the owner how far inward events are handled; a session whose own FIN is among them is over.
    pub(super) fn tell_handled(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get(&key) else { return };
        let number = session.line.out.first() - 1;
        if session.finished {
            if session.line.out.first() == session.line.out.next_number() {
                self.forget(key);
            }
            return;
        }
        if session.fin_out.is_none() {
            let sm_in = session.sm_handled.unwrap_or(0);
            self.events.push_back(RelayEvent::Handled { session: key, number, sm_in });
        }
        self.end_if_finished(key, now);
    }

    fn on_own(&mut self, key: SessionKey, frame: &Frame) -> Result<(), ChannelFault> {
        let own: wire::Own = wire::body(frame).map_err(|_| PROTOCOL)?;
        let session = self.sessions.get_mut(&key).ok_or(PROTOCOL)?;
        let before = session.own.len();
        session.own.retain(|waiting| *waiting != own);
        if session.own.len() < before && !session.is_over() {
            self.events.push_back(RelayEvent::OwnHandled { session: key, after: own.after, count: own.count });
        }
        Ok(())
    }

    fn on_open_ok(&mut self, key: SessionKey, frame: &Frame, now: Instant) -> Result<(), ChannelFault> {
        let ok: wire::OpenOk = wire::body(frame).map_err(|_| PROTOCOL)?;
        let session = self.sessions.get_mut(&key).ok_or(PROTOCOL)?;
        if session.is_answered {
            return Ok(());
        }
        let far = ok.in_next.max(ok.out_next) > MAX_NUMBER;
        if ok.in_next == 0 || ok.out_first == 0 || ok.out_next < ok.out_first || far {
            return Err(PROTOCOL);
        }
        let adopts = session.adopts_numbers();
        if adopts {
            if ok.in_next <= session.handled_early {
                return Err(REGRESSED);
            }
            session.line.out.rebase(ok.in_next);
            session.line.inn = Inflow::new(ok.out_first);
        }
        let expected = session.line.inn.next();
        // Where events went out behind OPEN, an ACK may have overtaken its answer.
        let forgot = session.line.held_back && ok.in_next < session.line.out.first();
        if forgot || ok.out_next < expected {
            return Err(REGRESSED);
        }
        if ok.in_next > session.line.out.next_number() || ok.out_first > expected {
            return Err(if session.was_answered { ELSEWHERE } else { PROTOCOL });
        }
        let first_answer = !session.was_answered;
        let in_first = session.line.out.first();
        let handled = session.take_answer(ok.in_next).map_err(|_| PROTOCOL)?;
        session.attachment = ok.attachment;
        // The client has said elsewhere that it has these: they take no room in the window any more.
        let known = session.line.inn.handle(ok.out_first - 1, Proof::Written, now);
        debug_assert!(known, "not above what is expected");
        let peer = &mut self.peers[session.peer];
        if first_answer {
            peer.pending_opens = peer.pending_opens.saturating_sub(1);
            self.events.push_back(RelayEvent::OpenOk { session: key, in_first, out_first: ok.out_first });
        }
        if let Some(progress) = handled {
            session.raise_handled_count(progress.sm_in);
            self.tell_handled(key, now);
        } else if adopts && session.sm_handled.is_some() {
            self.tell_handled(key, now);
        }
        self.rewind(key, now);
        Ok(())
    }

    fn on_open_refused(&mut self, key: SessionKey, frame: &Frame) -> Result<(), ChannelFault> {
        let refused: wire::OpenRefused = wire::body(frame).map_err(|_| PROTOCOL)?;
        let code = refusal_from_code(refused.code);
        let text = text(refused.text, MAX_TEXT_BYTES).map_err(|_| PROTOCOL)?;
        let session = self.sessions.get(&key).ok_or(PROTOCOL)?;
        if session.is_answered {
            return Err(PROTOCOL);
        }
        if session.was_answered {
            self.lose(
                key,
                match code {
                    // The session stood, and its connector does not know it: the store is not the one it was.
                    RefusalCode::UnknownSession | RefusalCode::StoreRegressed => CloseReason::StoreRegressed,
                    RefusalCode::Drain => CloseReason::Shutdown,
                    RefusalCode::Busy | RefusalCode::NoQueue | RefusalCode::BadLink | RefusalCode::Policy => CloseReason::Fault,
                },
            );
            return Ok(());
        }
        self.forget(key);
        self.events.push_back(RelayEvent::OpenRefused { session: key, code, text });
        Ok(())
    }

    fn on_reset(&mut self, key: SessionKey, frame: &Frame) -> Result<(), ChannelFault> {
        let reset: wire::Reset = wire::body(frame).map_err(|_| PROTOCOL)?;
        let reason = match reset_from_code(reset.code) {
            // The customer is attached elsewhere: here he is lost.
            ResetCode::Moved => CloseReason::CustomerLost,
            ResetCode::StoreRegressed => CloseReason::StoreRegressed,
            ResetCode::Protocol | ResetCode::Slow | ResetCode::Cancelled | ResetCode::Unknown => CloseReason::Fault,
        };
        self.lose(key, reason);
        Ok(())
    }

    fn on_verdict(&mut self, peer: usize, frame: &Frame) -> Result<(), Refusal> {
        let malformed = Refusal("malformed");
        let verdict: wire::Verdict = wire::body(frame).map_err(|_| malformed)?;
        let check = CheckId(verdict.id);
        let text = text(verdict.text, MAX_TEXT_BYTES).map_err(|_| malformed)?;
        let welcome = Welcome { queue: name(verdict.queue).map_err(|_| malformed)?, continues: verdict.continues };
        if self.peers[peer].checks.remove(&check).is_some() {
            let verdict = if verdict.code == 0 { Ok(welcome) } else { Err((refusal_from_code(verdict.code), text)) };
            self.events.push_back(RelayEvent::Verdict { check, verdict });
        }
        Ok(())
    }
}
