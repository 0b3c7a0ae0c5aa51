//! How sessions end, and who is told.

use super::admission::Refusal;
use super::{Audit, Desk};
use crate::proto::tunnel::{Admission, Assertion, ConnectorCommand, Fin, RefusalCode, ResetCode};
use crate::session::{CloseReason, SessionId};
use crate::store::{Op, Place};

impl Desk {
    /// The customer ended it: nothing of ours is owed any more.
    pub(super) fn end_by_customer(&mut self, id: SessionId, reason: CloseReason) {
        let sentence = match reason {
            CloseReason::CustomerLeft => "The customer has left.",
            CloseReason::CustomerLost => "The customer's connection is lost.",
            CloseReason::AgentDone => "This conversation is closed.",
            CloseReason::Shutdown => "The relay is stopping; the conversation is over.",
            CloseReason::StoreRegressed => "The record of this conversation is older than what the customer was told; it had to be ended.",
            CloseReason::DetachExpired | CloseReason::Fault => "The conversation was cut by a fault.",
        };
        self.close(id, reason, sentence);
        // Where both ends crossed, the customer will not confirm ours any more.
        self.give_up_fin(id);
    }

    /// It ends without the customer being asked, and without a last message.
    pub(super) fn end_at_once(&mut self, id: SessionId, reason: CloseReason) {
        if let Some((relay, channel)) = self.sessions.get(&id).and_then(|session| session.channel) {
            let code = if reason == CloseReason::StoreRegressed { ResetCode::StoreRegressed } else { ResetCode::Unknown };
            self.tunnel(relay, ConnectorCommand::Reset { channel, code });
        }
        self.end_by_customer(id, reason);
    }

    /// A relay has what this store does not: nothing is renumbered, the session ends, and whoever runs this connector hears why.
    pub(super) fn store_regressed(&mut self, id: SessionId) {
        self.audit(Audit::StoreRegressed { session: id });
        self.end_at_once(id, CloseReason::StoreRegressed);
    }

    /// The customer's client is not let in, which only now is known.
    pub(super) fn end_denied(&mut self, id: SessionId, text: &str) {
        let Some(session) = self.sessions.get(&id).filter(|session| !session.is_closed()) else { return };
        let (domain, queue) = session.queue_key();
        let admission = Admission { domain, queue, assertion: Assertion::Anonymous };
        let refusal = Refusal { code: RefusalCode::Policy, reason: "client-denied", text: String::new() };
        self.refused(&admission, &refusal);
        self.finish(id, CloseReason::AgentDone, text, "The customer's messenger is not accepted here; the conversation is closed.");
    }

    /// The agent ended it: the end is numbered after the last message, and kept until it is confirmed.
    pub(super) fn end_by_agent(&mut self, id: SessionId) {
        self.finish(id, CloseReason::AgentDone, "This conversation is closed. Goodbye.", "Closed.");
    }

    pub(super) fn finish(&mut self, id: SessionId, reason: CloseReason, text: &str, sentence: &str) {
        let at = self.now.unix_millis;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let number = session.out_last + 1;
        let fin = Fin { reason, text: text.to_owned() };
        session.fin = Some((number, fin.clone()));
        let (channel, is_first_unseen) = (session.channel, session.is_first_unseen(number));
        self.op(Op::OutFin { session: id, number, fin: fin.clone(), at });
        if is_first_unseen {
            self.op(Op::Unseen { session: id, from: number });
        }
        self.close(id, reason, sentence);
        if let Some((relay, channel)) = channel {
            self.tunnel(relay, ConnectorCommand::Finish { channel, number, fin });
        }
    }

    fn close(&mut self, id: SessionId, reason: CloseReason, sentence: &str) {
        if self.sessions.get(&id).is_none_or(|session| session.is_closed()) {
            return;
        }
        self.leave_line(id);
        let offered = self.drop_offer(id);
        let owner = self.owner(id);
        self.tell_owner(id, sentence);
        if let Some(agent) = &owner {
            self.take_leave(id, agent);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.place = Place::Closed(reason);
        let enqueued_at = session.enqueued_at;
        self.op(Op::Place { session: id, place: Place::Closed(reason), enqueued_at });
        self.counters.sessions_closed += 1;
        self.audit(Audit::SessionClosed { session: id, reason });
        if let Some(agent) = offered {
            let code = self.code_of(id);
            self.tell_from_desk(&agent, format!("{code} is no longer waiting."));
            self.stir_queues_for(&agent);
        }
        if let Some(name) = owner {
            let at = self.now.unix_millis;
            if let Some(agent) = self.agents.get_mut(&name) {
                agent.sessions.remove(&id);
                agent.idle_since = at;
            }
            self.stir_queues_for(&name);
        }
    }

    /// A session is over and confirmed: nothing refers to it any more.
    pub(super) fn forget(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.op(Op::Forget { session: id });
        self.codes.remove(&session.record.code);
        self.open_ids.remove(&session.record.open_id);
        self.secrets.remove(&session.record.secret);
        if let Some(place) = session.channel {
            self.channels.remove(&place);
        }
    }

    /// The customer stayed away too long.
    pub(super) fn detached_due(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        if session.detached_until.is_some_and(|until| until <= self.now.instant) {
            if session.is_closed() {
                self.give_up_fin(id);
            } else {
                if session.was_untouched() {
                    // The word that its OPEN was withdrawn may be lost.
                    self.return_link(id);
                }
                self.end_at_once(id, CloseReason::DetachExpired);
            }
        }
    }

    /// Nobody will confirm the end any more: it counts as written.
    fn give_up_fin(&mut self, id: SessionId) {
        let Some((number, _)) = self.sessions.get(&id).and_then(|session| session.fin.clone()) else { return self.forget(id) };
        self.op(Op::OutHandled { session: id, number, proof: crate::proto::tunnel::Proof::Written });
        self.forget(id);
    }
}
