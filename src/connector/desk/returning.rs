//! A client that comes back in person: with the secret of its session, and with the count of what it has (XEP-0198 §5).

use super::Desk;
use super::admission::{Refusal, refusal};
use super::counting::{Counting, Reached};
use crate::proto::tunnel::{Admission, Open, OpenKind, Proof, RefusalCode};
use crate::session::SessionId;
use crate::store::Op;

/// Rows of every event: they are below any that is to come.
const ALL: u64 = i64::MAX as u64;

impl Desk {
    /// A client was promised that it can resume: from outward event `after` on it counts stanzas, from 0.
    pub(super) fn begin_counting(&mut self, id: SessionId, after: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let fresh = Counting::new(after, 0, []);
        if session.counting.as_ref().is_some_and(|counting| counting.base() == fresh.base()) {
            // Said again after an attachment: what was counted since stands.
            return;
        }
        session.counting = Some(fresh);
        session.record.resumable = true;
        self.op(Op::Counts { session: id, event: after, count: 0, own_from: ALL });
    }

    /// Outward events up to `number` are handled: what its client's count says is told from there.
    pub(super) fn count_confirmed(&mut self, id: SessionId, number: u64) {
        let Some(counting) = self.sessions.get_mut(&id).and_then(|session| session.counting.as_mut()) else { return };
        let had_own = counting.has_own_before(number);
        if counting.confirm(number) {
            let (event, count) = counting.base();
            self.op(Op::Counts { session: id, event, count, own_from: if had_own { event } else { 0 } });
        }
    }

    /// Judges the return of a session's client, and takes its word for what it has. A relay that asks for a session it held is none.
    pub(super) fn take_return(&mut self, id: SessionId, open: &Open) -> Result<(), Refusal> {
        let OpenKind::Attach { in_next: 0, out_next: 0, client_h, attachment: 0, .. } = open.kind else { return Ok(()) };
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let Admission { domain, queue, .. } = &open.admission;
        if (&session.record.domain, &session.record.queue) != (domain, queue) {
            return Err(unknown("resume-other-queue"));
        }
        let Some(h) = client_h else {
            // Another stream of his: what it counts begins anew.
            session.counting = None;
            session.sm_in = 0;
            self.op(Op::Counted { session: id, sm_in: 0 });
            return Ok(());
        };
        let Some(counting) = &session.counting else { return Err(unknown("resume-not-promised")) };
        let unseen_from = session.unseen_from.unwrap_or(u64::MAX);
        match counting.reached(h, session.out_last) {
            Reached::Event(event) if event < unseen_from => {
                self.has_arrived(id, event, h);
                Ok(())
            }
            Reached::Event(_) | Reached::Ahead => {
                self.store_regressed(id);
                let text = "The record of this conversation is older than what was confirmed.";
                Err(refusal(RefusalCode::StoreRegressed, "store-regressed", text))
            }
            Reached::Behind => Err(unknown("resume-count-behind")),
        }
    }

    /// Its client has outward events up to `event`; whatever else it counted was of its relay's making, and goes no further.
    fn has_arrived(&mut self, id: SessionId, event: u64, h: u32) {
        self.confirm_out(id, event, Proof::Confirmed);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.counting = Some(Counting::new(event, h, []));
            self.op(Op::Counts { session: id, event, count: h, own_from: ALL });
        }
    }
}

fn unknown(reason: &'static str) -> Refusal {
    refusal(RefusalCode::UnknownSession, reason, "That conversation is over.")
}
