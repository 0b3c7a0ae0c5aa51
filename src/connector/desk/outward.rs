//! To the customer: numbers are given and recorded first, then the tunnel sends.

use super::{Desk, OWN_ID};
use crate::im::{Author, ImEvent, MAX_EVENT_BYTES, Message};
use crate::proto::tunnel::event;
use crate::proto::tunnel::{ConnectorCommand, Payload};
use crate::session::{Direction, SessionId};
use crate::store::{Op, StoredEvent};

/// Unconfirmed outward events of one session, and their bytes, beyond which its agent's next message has to wait. Twice this, for
/// what no person writes, stays below what the tunnel's end holds for a session (1024 events, 1 MiB).
pub(super) const MAX_PENDING: (usize, usize) = (480, 480 * 1024);
/// The same for notices, receipts and markers: they are few, and nobody would repeat them.
const MAX_PENDING_IN_ALL: (usize, usize) = (2 * MAX_PENDING.0, 2 * MAX_PENDING.1);

/// Why an event did not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutFault {
    /// The customer's side confirms too slowly.
    Full,
    /// The event is too large.
    TooLarge,
    /// The session is over.
    Over,
}

impl Desk {
    /// Sends an event to the customer. Ephemeral ones are dropped where nobody would see them now.
    pub(super) fn send_out(&mut self, id: SessionId, said: &ImEvent) -> Result<(), OutFault> {
        let at = self.now.unix_millis;
        let session = self.sessions.get_mut(&id).ok_or(OutFault::Over)?;
        if session.is_closed() {
            return Err(OutFault::Over);
        }
        if said.is_ephemeral() && (session.channel.is_none() || !session.out_pending.has_room(1, 0, MAX_PENDING)) {
            return Ok(());
        }
        let is_said = matches!(said, ImEvent::Message(Message { author: Author::Agent(_) | Author::Party, .. }));
        let bytes = event::encode(said);
        if bytes.len() > MAX_EVENT_BYTES {
            return Err(OutFault::TooLarge);
        }
        if !session.out_pending.has_room(1, bytes.len(), if is_said { MAX_PENDING } else { MAX_PENDING_IN_ALL }) {
            return Err(OutFault::Full);
        }
        session.out_last += 1;
        let number = session.out_last;
        let is_first_unseen = session.is_first_unseen(number);
        let (body, payload) =
            if said.is_ephemeral() { (None, Payload::Ephemeral(bytes)) } else { (Some(bytes.clone()), Payload::Event(bytes)) };
        session.out_pending.push(StoredEvent { number, body: body.clone(), at });
        if body.is_some() {
            session.remember(Direction::Out, StoredEvent { number, body: body.clone(), at });
        }
        let channel = session.channel;
        self.op(Op::Out { session: id, number, body, at });
        if is_first_unseen {
            self.op(Op::Unseen { session: id, from: number });
        }
        if let Some((relay, channel)) = channel {
            self.tunnel(relay, ConnectorCommand::Send { channel, number, payload });
        }
        Ok(())
    }

    /// Outgate itself tells the customer something. A customer too slow to hear it goes without.
    pub(super) fn notice(&mut self, id: SessionId, text: String) {
        self.send_text(id, Author::Notice, text);
    }

    /// The bot says something.
    pub(super) fn say(&mut self, id: SessionId, name: &str, text: String) {
        self.send_text(id, Author::Agent(name.to_owned()), text);
    }

    fn send_text(&mut self, id: SessionId, author: Author, body: String) {
        let message = Message { id: Some(self.own_id()), body, author, ..Message::default() };
        if self.send_out(id, &ImEvent::Message(message)).is_err() {
            self.counters.notices_dropped += 1;
        }
    }

    /// Whether an id names a stanza of our own, about which the customer knows nothing.
    pub(super) fn is_own_id(id: &str) -> bool {
        id.starts_with(OWN_ID)
    }
}
