//! From the customer: the tunnel's events of a session, marks first.

use bytes::Bytes;

use super::admission::shown_software;
use super::backlog::Undelivered;
use super::session::{MAX_WAITING, MAX_WAITING_BYTES, Stalled};
use super::{Audit, DETACHED_FOR, Desk, LegId, RelayIndex, Timer};
use crate::connector::bot::BotAnswer;
use crate::im::ImEvent;
use crate::proto::tunnel::event;
use crate::proto::tunnel::{ChannelId, ConnectorCommand, Fin, Payload, Proof, ResetCode};
use crate::session::{CloseReason, Direction, SessionId};
use crate::store::{Op, Place, StoredEvent};

/// Unhandled events that may wait for room; the tunnel's credit ends before.
const MAX_STALLED: usize = 512;

impl Desk {
    fn session_at(&self, relay: RelayIndex, channel: ChannelId) -> Option<SessionId> {
        self.channels.get(&(relay, channel)).copied()
    }

    pub(super) fn data(&mut self, relay: RelayIndex, channel: ChannelId, number: u64, sm_in: u32, payload: Payload) {
        let Some(id) = self.session_at(relay, channel) else { return };
        let is_choked = self.is_choked(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if number <= session.in_handled {
            let (number, sm_in) = (session.in_handled, session.sm_in);
            return self.tunnel(relay, ConnectorCommand::Handled { channel, number, sm_in });
        }
        if number > session.in_handled + 1 + session.stalled.len() as u64 {
            return self.fault(id, "gap");
        }
        if number < session.in_handled + 1 + session.stalled.len() as u64 {
            return;
        }
        if is_choked || !session.stalled.is_empty() {
            if session.stalled.len() >= MAX_STALLED {
                return self.fault(id, "more than its credit");
            }
            session.stalled.push_back(Stalled { number, sm_in, payload });
            return;
        }
        self.handle_data(id, (relay, channel), Stalled { number, sm_in, payload });
    }

    /// Handles what had to wait, as far as there is room again.
    pub(super) fn unstall_roomy(&mut self) {
        for id in std::mem::take(&mut self.roomy) {
            self.unstall(id);
        }
        self.roomy.clear();
    }

    /// Whether so much waits for an agent, or on a stream whose client is away, that nothing more is handled now: the tunnel's
    /// credit ends, and then the relay leaves the customer's socket unread.
    fn is_choked(&self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get(&id).filter(|session| !session.is_closed()) else { return false };
        let is_up = |leg: LegId| self.legs.get(&leg).is_some_and(|leg| leg.handle.is_some());
        let waiting = &session.undelivered;
        (waiting.len() >= MAX_WAITING && waiting.waiting(is_up) >= MAX_WAITING)
            || (waiting.bytes() >= MAX_WAITING_BYTES && waiting.waiting_bytes(is_up) >= MAX_WAITING_BYTES)
    }

    fn unstall(&mut self, id: SessionId) {
        while !self.is_choked(id)
            && let Some(session) = self.sessions.get_mut(&id)
            && let Some(place) = session.channel
            && let Some(next) = session.stalled.pop_front()
        {
            self.handle_data(id, place, next);
        }
    }

    fn handle_data(&mut self, id: SessionId, (relay, channel): (RelayIndex, ChannelId), data: Stalled) {
        let Stalled { number, sm_in, payload } = data;
        let (body, said) = match payload {
            Payload::Tombstone => (None, None),
            Payload::Ephemeral(bytes) => match event::decode(&bytes) {
                Ok(said) => (None, Some(said)),
                Err(_) => return self.fault(id, "bad event"),
            },
            Payload::Event(bytes) => match event::decode(&bytes) {
                Ok(said) if said.is_ephemeral() => (None, Some(said)),
                // A copy of its own: the tunnel's bytes are a slice of a read of 64 KiB, which this one event would keep in memory.
                Ok(said) => (Some(Bytes::copy_from_slice(&bytes)), Some(said)),
                Err(_) => return self.fault(id, "bad event"),
            },
        };
        self.tunnel(relay, ConnectorCommand::Handled { channel, number, sm_in });
        self.take_in(id, number, sm_in, body, said);
    }

    fn take_in(&mut self, id: SessionId, number: u64, sm_in: u32, body: Option<Bytes>, said: Option<ImEvent>) {
        let at = self.now.unix_millis;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.in_handled = number;
        session.sm_in = sm_in;
        let connection = u64::from(session.attachment);
        let repeated = match &said {
            Some(ImEvent::Message(message)) => session.said_by_customer.is_repeated(connection, message.id.as_deref(), &message.body),
            Some(_) | None => false,
        };
        let body = body.filter(|_| !repeated);
        if let Some(body) = &body {
            session.remember(Direction::In, StoredEvent { number, body: Some(body.clone()), at });
        }
        self.op(Op::In { session: id, number, sm_in, body: body.clone(), at });
        if repeated {
            self.counters.duplicates_dropped += 1;
        } else if let Some(said) = said {
            self.show(id, number, body, said);
        }
        self.tell_delivered(id);
    }

    /// Lets an inward event do its work.
    fn show(&mut self, id: SessionId, number: u64, body: Option<Bytes>, said: ImEvent) {
        match said {
            ImEvent::Software(software) => {
                if let Some(denial) = self.denial_of(&software) {
                    let text = denial.sentence().to_owned();
                    return self.end_denied(id, &text);
                }
                let software = shown_software(&software);
                let Some(session) = self.sessions.get_mut(&id) else { return };
                session.record.software = software.clone();
                session.software_until = None;
                self.op(Op::Software { session: id, software });
                self.stir_queue_of(id);
            }
            ImEvent::Presence(presence) => {
                let Some(session) = self.sessions.get_mut(&id) else { return };
                session.presence = presence;
                self.show_presence(id);
            }
            ImEvent::ChatState(_) => self.show_ephemeral(id, &said),
            ImEvent::Message(_) | ImEvent::Receipt(_) | ImEvent::Marker(_) => {
                let Some(body) = body else { return };
                match self.sessions.get(&id).map(|session| &session.place) {
                    Some(Place::Bot) => self.bot_hears(id, &said),
                    Some(Place::Queued | Place::Agent(_)) => self.await_delivery(id, number, body),
                    Some(Place::Closed(_)) | None => {}
                }
            }
        }
    }

    fn await_delivery(&mut self, id: SessionId, number: u64, body: Bytes) {
        let at = self.now.unix_millis;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.undelivered.push(number, Undelivered::new(body, at, false));
        self.deliver_waiting(id);
    }

    pub(super) fn bot_greets(&mut self, id: SessionId) {
        let Some(bot) = self.bot_of(id) else { return };
        let (name, greeting) = (bot.name.clone(), bot.greeting.clone());
        if !greeting.is_empty() {
            self.say(id, &name, greeting);
        }
    }

    fn bot_hears(&mut self, id: SessionId, said: &ImEvent) {
        let ImEvent::Message(message) = said else { return };
        let Some(bot) = self.bot_of(id) else { return self.hand_over(id) };
        let name = bot.name.clone();
        match bot.answer(&message.body) {
            BotAnswer::Say(text) => {
                let text = text.to_owned();
                self.say(id, &name, text);
            }
            BotAnswer::HandOver => self.hand_over(id),
        }
    }

    fn bot_of(&self, id: SessionId) -> Option<&crate::connector::bot::BotConfig> {
        let session = self.sessions.get(&id)?;
        self.queues.get(&session.queue_key())?.config.bot.as_ref()
    }

    /// The bot lets a human take over: the wait begins now.
    pub(super) fn hand_over(&mut self, id: SessionId) {
        let at = self.queue_time();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.place = Place::Queued;
        session.enqueued_at = at;
        self.op(Op::Place { session: id, place: Place::Queued, enqueued_at: at });
        self.notice(id, "I am handing you over to a person.".to_owned());
        self.join_line(id);
    }

    pub(super) fn counted(&mut self, relay: RelayIndex, channel: ChannelId, sm_in: u32) {
        let Some(id) = self.session_at(relay, channel) else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(last) = session.stalled.back_mut() {
            last.sm_in = sm_in;
            return;
        }
        session.sm_in = sm_in;
        let number = session.in_handled;
        self.op(Op::Counted { session: id, sm_in });
        self.tunnel(relay, ConnectorCommand::Handled { channel, number, sm_in });
    }

    pub(super) fn own(&mut self, relay: RelayIndex, channel: ChannelId, after: u64, count: u32) {
        let Some(id) = self.session_at(relay, channel) else { return };
        if self.sessions.get(&id).is_some_and(|session| after > session.out_end()) {
            return self.fault(id, "stanzas after what was never sent");
        }
        self.op(Op::Own { session: id, after, count });
        self.tunnel(relay, ConnectorCommand::OwnHandled { channel, after, count });
    }

    pub(super) fn out_handled(&mut self, relay: RelayIndex, channel: ChannelId, number: u64, proof: Proof) {
        let Some(id) = self.session_at(relay, channel) else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if number > session.out_end() {
            return self.fault(id, "acknowledgement of what was never sent");
        }
        let is_news = proof == Proof::Confirmed && number > session.out_confirmed;
        if is_news {
            session.out_confirmed = number;
        }
        if number <= session.out_handled {
            // Written before, confirmed now: the record says so.
            if is_news {
                self.op(Op::OutHandled { session: id, number, proof });
            }
            return;
        }
        session.out_handled = number;
        session.out_pending.drop_through(number);
        let ended = session.fin.as_ref().is_some_and(|(fin, _)| *fin <= number);
        self.op(Op::OutHandled { session: id, number, proof });
        self.caught_up(id);
        if ended {
            self.forget(id);
        }
    }

    pub(super) fn customer_fin(&mut self, relay: RelayIndex, channel: ChannelId, number: u64, fin: &Fin) {
        let Some(id) = self.session_at(relay, channel) else { return };
        self.drain_stalled(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let sm_in = session.sm_in;
        if number > session.in_handled + 1 {
            return self.fault(id, "gap");
        }
        if number == session.in_handled + 1 {
            session.in_handled = number;
            self.op(Op::In { session: id, number, sm_in, body: None, at: self.now.unix_millis });
        }
        self.tunnel(relay, ConnectorCommand::Handled { channel, number, sm_in });
        self.end_by_customer(id, fin.reason);
    }

    /// The end waits for nobody: what stalled is handled first.
    fn drain_stalled(&mut self, id: SessionId) {
        while let Some(session) = self.sessions.get_mut(&id)
            && let Some(place) = session.channel
            && let Some(next) = session.stalled.pop_front()
        {
            self.handle_data(id, place, next);
        }
    }

    /// The relay or its customer broke the rules: the attachment ends, the session may come back.
    fn fault(&mut self, id: SessionId, why: &'static str) {
        self.audit(Audit::ChannelFault { session: id, why });
        self.counters.channel_faults += 1;
        let Some((relay, channel)) = self.detach(id) else { return };
        self.tunnel(relay, ConnectorCommand::Reset { channel, code: ResetCode::Protocol });
    }

    pub(super) fn channel_reset(&mut self, relay: RelayIndex, channel: ChannelId, code: ResetCode) {
        let Some(id) = self.session_at(relay, channel) else { return };
        self.detach(id);
        match code {
            // Nobody had heard that this OPEN was answered: its customer never was in the session, and does not come back to it.
            ResetCode::Cancelled => {
                if self.sessions.get(&id).is_some_and(|session| session.is_fresh && session.was_untouched()) {
                    self.return_link(id);
                    self.end_by_customer(id, CloseReason::CustomerLeft);
                }
            }
            ResetCode::StoreRegressed => self.store_regressed(id),
            ResetCode::Moved | ResetCode::Protocol | ResetCode::Slow | ResetCode::Unknown => {}
        }
    }

    fn detach(&mut self, id: SessionId) -> Option<(RelayIndex, ChannelId)> {
        let session = self.sessions.get_mut(&id)?;
        let place = session.channel.take();
        session.stalled.clear();
        if let Some(place) = place {
            self.channels.remove(&place);
        }
        self.start_detached(id);
        place
    }

    /// Starts the time after which a session without its customer is given up.
    pub(super) fn start_detached(&mut self, id: SessionId) {
        if self.sessions.get(&id).is_none_or(|session| session.detached_until.is_some()) {
            return;
        }
        let due = self.arm(DETACHED_FOR, Timer::Detached(id));
        if let Some(session) = self.sessions.get_mut(&id) {
            session.detached_until = Some(due);
        }
    }

    fn sessions_of(&self, relay: RelayIndex) -> Vec<SessionId> {
        let mut ids: Vec<SessionId> = self.channels.iter().filter(|((at, _), _)| *at == relay).map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn tunnel_attached(&mut self, relay: RelayIndex, resumed: bool) {
        for id in self.sessions_of(relay) {
            if !resumed {
                self.detach(id);
            } else if let Some(session) = self.sessions.get_mut(&id) {
                session.detached_until = None;
                self.stir_queue_of(id);
            }
        }
    }

    pub(super) fn tunnel_detached(&mut self, relay: RelayIndex) {
        for id in self.sessions_of(relay) {
            self.start_detached(id);
        }
    }
}
