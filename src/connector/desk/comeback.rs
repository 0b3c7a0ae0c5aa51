//! A customer comes back with his link: only one for a single session says which session is meant.
//!
//! The session goes on under a new secret, so that whoever held the old one holds nothing any more. Of two who live and present the
//! same link the later has it, a few times a minute; then the one who has it keeps it. What was said before is not shown to him who
//! comes: the link alone proves too little for that. What he is owed, events that nobody has confirmed, he gets.

use std::time::{Duration, Instant};

use super::admission::{Entry, Refusal, link_use, refusal, secret_digest};
use super::{Audit, Desk, RelayIndex};
use crate::link::LinkTerms;
use crate::proto::tunnel::{ChannelId, ConnectorCommand, Open, RefusalCode, ResetCode};
use crate::session::{SessionId, SessionSecret};
use crate::store::Op;

/// How often a session that is attached may change hands within [`CHANGES_WITHIN`].
const MAX_CHANGES: usize = 3;

/// The time over which changes are counted.
const CHANGES_WITHIN: Duration = Duration::from_secs(60);

impl Desk {
    /// The live session that a link for one session stands for.
    pub(super) fn session_of_link(&self, terms: &LinkTerms) -> Option<SessionId> {
        if terms.max_sessions != Some(1) {
            return None;
        }
        let id = self.link_uses.get(&link_use(terms))?.session?;
        self.sessions.get(&id).filter(|session| !session.is_closed()).map(|_| id)
    }

    /// Whether another may have the session now.
    pub(super) fn may_change_hands(&self, id: SessionId) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let late = |at: &&Instant| self.now.instant.saturating_duration_since(**at) < CHANGES_WITHIN;
        if session.channel.is_some() && session.changed_hands.iter().filter(late).count() >= MAX_CHANGES {
            let text = "This conversation is open in another program. Please go on there, or try again in a minute.";
            return Err(refusal(RefusalCode::Busy, "link-in-use", text));
        }
        Ok(())
    }

    /// An attach with a secret that nobody knows, and a link: its session, if that lives, is had by who asks.
    pub(super) fn come_back(&mut self, relay: RelayIndex, channel: ChannelId, open: &Open, secret: SessionSecret) {
        let now = self.now.instant;
        let judged = self.relay_door(relay).open(now).and_then(|()| self.judge(&open.admission));
        let entry = match judged {
            Ok(entry) => entry,
            Err(refusal) => return self.refuse(relay, channel, open, refusal),
        };
        let Entry { continues: Some(id), .. } = entry else {
            let over = refusal(RefusalCode::UnknownSession, "unknown-session", "That conversation is over.");
            return self.refuse(relay, channel, open, over);
        };
        let came_at = now.checked_sub(open.waited);
        let place = self.sessions.get(&id).filter(|session| session.was_asked_for_after(came_at)).and_then(|session| session.channel);
        if place.is_some_and(|(at, _)| at != relay) {
            // The question was long under way, and its customer has asked elsewhere since.
            return self.tunnel(relay, ConnectorCommand::Reset { channel, code: ResetCode::Moved });
        }
        self.change_hands(id, open, secret);
        self.attach((relay, channel), id, open, 0);
    }

    fn change_hands(&mut self, id: SessionId, open: &Open, secret: SessionSecret) {
        let now = self.now.instant;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.changed_hands.retain(|at| now.saturating_duration_since(*at) < CHANGES_WITHIN);
        session.changed_hands.push(now);
        let digest = secret_digest(secret);
        let older = std::mem::replace(&mut session.record.secret, digest);
        session.record.client_addr = open.client_addr.to_string();
        // The new client counts its stanzas from nought.
        session.sm_in = 0;
        let was_attached = session.channel.is_some();
        self.secrets.remove(&older);
        self.secrets.insert(digest, id);
        self.counters.links_continued += 1;
        self.op(Op::TakenOver { session: id, secret: digest, client_addr: open.client_addr.to_string(), resumable: open.resumable });
        self.audit(Audit::TakenOver { session: id, was_attached });
        let sentence = if was_attached {
            "The customer's link was presented on another connection, which has the conversation now; the earlier one is closed."
        } else {
            "The customer is back, with the link, on another connection."
        };
        self.tell_owner(id, sentence);
    }
}
