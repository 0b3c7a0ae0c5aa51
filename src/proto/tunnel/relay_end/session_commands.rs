//! What the relay's sessions ask.

use std::time::Instant;

use bytes::Bytes;

use crate::im::MAX_EVENT_BYTES;
use crate::proto::tunnel::handshake::MAX_CHANNELS;
use crate::proto::tunnel::inflow::is_above;
use crate::proto::tunnel::open::{admission_to_wire, open_to_wire};
use crate::proto::tunnel::outflow::Item;
use crate::proto::tunnel::wire::{self, kind};
use crate::proto::tunnel::{
    Admission, CheckId, Fin, Identity, Open, OpenKind, Payload, Proof, RefusalCode, RelayCommand, RelayEvent, SessionKey,
};
use crate::session::CloseReason;

use super::session::{MAX_OWN, Session};
use super::{MAX_FINISHED, RelayEnd};

/// OPENs that may wait for an answer, per connector.
const MAX_PENDING_OPENS: usize = 1024;

/// CHECKs that may wait for a verdict, per connector.
const MAX_CHECKS: usize = 256;

/// The OPEN of a session, encoded.
pub(super) fn open_frame(session: &Session, channel: u32, now: Instant) -> Bytes {
    wire::encoded(kind::OPEN, 0, channel, &open_to_wire(&session.open_frame(now)))
}

impl RelayEnd {
    /// A session asks. A command for a session that is gone is dropped: its end is on the way to its owner.
    pub fn handle_command(&mut self, command: RelayCommand, now: Instant) {
        match command {
            RelayCommand::Open { session, identity, open } => self.open(session, &identity, open, now),
            RelayCommand::Send { session, payload, sm_in } => self.send(session, payload, sm_in, now),
            RelayCommand::Counted { session, sm_in } => self.counted(session, sm_in, now),
            RelayCommand::Own { session, after, count } => self.own(session, wire::Own { after, count }),
            RelayCommand::Handled { session, number, proof } => self.handled(session, number, proof, now),
            RelayCommand::Finish { session, fin } => self.finish(session, fin, now),
            RelayCommand::Check { check, identity, admission } => self.check(check, &identity, admission, now),
        }
    }

    fn open(&mut self, key: SessionKey, identity: &Identity, open: Box<Open>, now: Instant) {
        let peer = self.peer(identity);
        let is_new = matches!(open.kind, OpenKind::New { .. });
        let full = self.peers[peer].pending_opens >= MAX_PENDING_OPENS
            || self.sessions.len() >= MAX_CHANNELS
            || (is_new && self.settings.replay_memory.is_full());
        if full || self.sessions.contains_key(&key) {
            let text = "too many sessions at this moment".to_owned();
            self.events.push_back(RelayEvent::OpenRefused { session: key, code: RefusalCode::Busy, text });
            return;
        }
        self.sessions.insert(key, Session::new(peer, open, &self.settings.replay_memory, now));
        self.peers[peer].pending_opens += 1;
        self.opens.push_back((now + self.settings.open_timeout, key));
        if is_new {
            self.peers[peer].waiting.push_front(key);
        } else {
            self.peers[peer].waiting.push_back(key);
        }
        self.open_waiting(peer, now);
    }

    /// Opens those that wait: new ones at once, the others at the rate that the connector is to bear.
    pub(super) fn open_waiting(&mut self, peer: usize, now: Instant) {
        if self.peers[peer].waiting.len() > 2 * MAX_CHANNELS {
            let sessions = &self.sessions;
            self.peers[peer].waiting.retain(|key| sessions.contains_key(key));
        }
        while self.peers[peer].tunnel.as_ref().is_some_and(|tunnel| tunnel.carrier.is_some()) {
            let Some(&key) = self.peers[peer].waiting.front() else { return };
            let waits = self.sessions.get(&key).filter(|session| session.channel.is_none());
            if waits.is_some_and(|session| !session.is_new()) && !self.peers[peer].reopens.admit(now) {
                return;
            }
            let waits = waits.is_some();
            self.peers[peer].waiting.pop_front();
            if waits {
                self.assign_channel(key, now);
            }
        }
    }

    /// Gives a session its channel on the attached tunnel and sends its OPEN.
    fn assign_channel(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(tunnel) = self.peers[session.peer].tunnel.as_mut() else { return };
        let channel = tunnel.next_channel;
        let Some(next) = channel.checked_add(2) else { return };
        tunnel.next_channel = next;
        tunnel.channels.insert(channel, key);
        session.line.held_back = session.was_asked || !matches!(session.open.kind, OpenKind::New { .. });
        session.was_asked = true;
        session.asked_at = Some(now);
        session.is_answered = false;
        session.is_count_due = session.was_answered;
        if session.was_answered {
            self.opens.push_back((now + self.settings.open_timeout, key));
        }
        session.channel = Some(channel);
        session.line.inn.reattach(&mut tunnel.pool);
        tunnel.trunk.first.push_back(open_frame(session, channel, now));
        if session.line.has_turn() {
            tunnel.trunk.scheduler.activate(channel);
        }
    }

    fn send(&mut self, key: SessionKey, payload: Payload, sm_in: u32, now: Instant) {
        let fits = match &payload {
            Payload::Event(body) | Payload::Ephemeral(body) => body.len() <= MAX_EVENT_BYTES,
            Payload::Tombstone => true,
        };
        let pushed = self.touch(key, now, |session, _| {
            session.is_over() || {
                session.sm_event = sm_in;
                session.has_spoken |= matches!(payload, Payload::Event(_));
                session.line.sm_latest = sm_in;
                session.line.sm_told = sm_in;
                fits && session.line.out.push(Item::Payload(payload), sm_in)
            }
        });
        if pushed == Some(false) {
            self.fault(key, CloseReason::Fault);
        }
    }

    fn counted(&mut self, key: SessionKey, sm_in: u32, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let line = &mut session.line;
        if session.finished || !is_above(sm_in, line.sm_latest) {
            return;
        }
        let first = line.sm_latest == line.sm_told;
        line.sm_latest = sm_in;
        if let (true, Some(channel), Some(tunnel)) = (first, session.channel, self.peers[session.peer].tunnel.as_mut()) {
            tunnel.trunk.note_counted(channel, now);
        }
    }

    fn own(&mut self, key: SessionKey, own: wire::Own) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.is_over() || session.own.contains(&own) {
            return;
        }
        if session.own.len() >= MAX_OWN {
            return self.fault(key, CloseReason::Fault);
        }
        session.own.push_back(own);
        if let (true, Some(channel), Some(tunnel)) = (session.is_answered, session.channel, self.peers[session.peer].tunnel.as_mut())
            && tunnel.carrier.is_some()
        {
            tunnel.trunk.first.push_back(wire::encoded(kind::OWN, 0, channel, &own));
        }
    }

    fn handled(&mut self, key: SessionKey, number: u64, proof: Proof, now: Instant) {
        let Some(session) = self.sessions.get(&key) else { return };
        // FIN is this end's to handle; its owner speaks of events.
        let number = session.fin_out.map_or(number, |fin| number.min(fin - 1));
        self.touch(key, now, |session, _| session.line.inn.handle(number, proof, now));
        self.end_if_finished(key, now);
    }

    fn finish(&mut self, key: SessionKey, fin: Fin, now: Instant) {
        let Some(session) = self.sessions.get(&key) else { return };
        if session.finished {
            return;
        }
        if !session.was_answered && !session.has_spoken {
            if let Some(channel) = session.channel {
                self.withdraw(session.peer, channel);
            }
            self.forget(key);
            return;
        }
        if session.fin_out.is_some() {
            // Both ended: what the client did not confirm stays at "written".
            return self.end_lingering(key, now);
        }
        let pushed = self.touch(key, now, |session, _| {
            session.finished = true;
            session.line.out.push_unbounded(Item::Fin(Box::new(fin)), session.line.sm_latest);
        });
        debug_assert!(pushed.is_some());
    }

    /// The connector's FIN is handled once all before it is, and once it has what the customer said.
    pub(super) fn end_if_finished(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get(&key) else { return };
        let Some(fin) = session.fin_out else { return };
        let heard_all = session.line.out.first() == session.line.out.next_number();
        if !session.finished && heard_all && session.line.inn.handled() + 1 >= fin {
            self.end_lingering(key, now);
        }
    }

    /// The connector's FIN was handled while no channel could say so.
    pub(super) fn end_if_handled(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get(&key) else { return };
        if session.is_answered && session.fin_out.is_some_and(|fin| session.line.inn.handled() >= fin) {
            self.end_lingering(key, now);
        }
    }

    /// Handles the connector's FIN, says so at once, and forgets the session.
    pub(super) fn end_lingering(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let (Some(fin), false) = (session.fin_out, session.finished) else { return };
        let inn = &mut session.line.inn;
        let proof = if inn.confirmed() + 1 >= fin { Proof::Confirmed } else { Proof::Written };
        let known = inn.handle(fin, proof, now);
        debug_assert!(known, "FIN arrived");
        let ack = inn.take_ack();
        // Without a channel it is said on the next one.
        let Some(channel) = session.channel else { return };
        let (peer, cursor) = (session.peer, session.cursor(channel));
        self.say(peer, wire::encoded(kind::ACK, 0, channel, &ack), now);
        self.forget(key);
        if let Some(tunnel) = self.peers[peer].tunnel.as_mut() {
            tunnel.finished.push_back(cursor);
            if tunnel.finished.len() > MAX_FINISHED {
                tunnel.finished.pop_front();
            }
        }
    }

    /// Nobody answered an OPEN.
    pub(super) fn give_up_open(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get(&key) else { return };
        if session.is_answered {
            return;
        }
        self.note_deafness(session.peer, session.asked_at, now);
        let Some(session) = self.sessions.get(&key) else { return };
        if session.was_answered {
            return self.open_once_more(key, now);
        }
        if let Some(channel) = session.channel {
            self.withdraw(session.peer, channel);
        }
        self.forget(key);
        let text = "nobody can take this conversation at the moment".to_owned();
        self.events.push_back(RelayEvent::OpenRefused { session: key, code: RefusalCode::Busy, text });
    }

    /// An OPEN that went out on this carrier was not answered. When that lasts, and nothing else comes on the data lane either, it is
    /// the carrier's fault as likely as the desk's: another one is wanted.
    fn note_deafness(&mut self, peer: usize, asked_at: Option<Instant>, now: Instant) {
        let Some(tunnel) = self.peers[peer].tunnel.as_mut() else { return };
        let (Some(_), Some(asked_at)) = (tunnel.carrier, asked_at) else { return };
        tunnel.deaf_since.get_or_insert_with(|| asked_at.max(tunnel.attached_at));
        self.judge_deafness(peer, now);
    }

    /// Has a carrier closed that has brought nothing for so long since an OPEN went unanswered. The next one heals what was lost in
    /// it: the end of a channel too, which nothing else would tell.
    pub(super) fn judge_deafness(&mut self, peer: usize, now: Instant) {
        let Some(tunnel) = self.peers[peer].tunnel.as_ref() else { return };
        let (Some(carrier), Some(since)) = (tunnel.carrier, tunnel.deaf_since) else { return };
        if now >= since + self.settings.stalled_after {
            self.close(carrier, "no OPEN is answered", now);
        }
    }

    /// A session that stood was not taken up again in time: it is asked for on another channel, until the detach window is over.
    fn open_once_more(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let (Some(channel), false) = (session.channel, session.is_answered) else { return };
        let peer = session.peer;
        let is_attached = self.peers[peer].tunnel.as_ref().is_some_and(|tunnel| tunnel.carrier.is_some());
        if !is_attached || session.asked_at.is_some_and(|at| now < at + self.settings.open_timeout) {
            // Asked again by an attachment meanwhile, or about to be.
            self.opens.push_back((now + self.settings.open_timeout, key));
            return;
        }
        let expired = session.unanswered_since.is_some_and(|since| now >= since + self.settings.detach_window);
        session.leave_channel(now);
        self.withdraw(peer, channel);
        if let (Some(tunnel), Some(session)) = (self.peers[peer].tunnel.as_mut(), self.sessions.get_mut(&key)) {
            tunnel.channels.remove(&channel);
            session.line.inn.detach(&mut tunnel.pool);
        }
        if expired {
            return self.lose(key, CloseReason::DetachExpired);
        }
        self.peers[peer].waiting.push_back(key);
        self.open_waiting(peer, now);
    }

    fn check(&mut self, check: CheckId, identity: &Identity, admission: Box<Admission>, now: Instant) {
        let peer = self.peer(identity);
        if self.peers[peer].checks.len() >= MAX_CHECKS {
            return self.verdict_busy(check);
        }
        let frame = wire::Check { id: check.0, admission: Some(admission_to_wire(&admission)) };
        self.say(peer, wire::encoded(kind::CHECK, 0, 0, &frame), now);
        self.peers[peer].checks.insert(check, admission);
        self.checks.push_back((now + self.settings.open_timeout, peer, check));
    }

    /// Nobody answered a CHECK.
    pub(super) fn give_up_check(&mut self, peer: usize, check: CheckId) {
        if self.peers[peer].checks.remove(&check).is_some() {
            self.verdict_busy(check);
        }
    }

    fn verdict_busy(&mut self, check: CheckId) {
        let text = "nobody can answer at the moment".to_owned();
        self.events.push_back(RelayEvent::Verdict { check, verdict: Err((RefusalCode::Busy, text)) });
    }
}
