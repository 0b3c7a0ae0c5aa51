//! What comes into the desk, and what comes out.

use std::time::Instant;

use super::{Pending, Revocation, RevocationDone, Space};
use crate::link::RevokedLink;
use crate::proto::tunnel::{ConnectorCommand, ConnectorEvent, RefusalCode};
use crate::proto::xmpp::stanza::Element;
use crate::session::{CloseReason, SessionId};
use crate::store::Op;

/// Names one relay within this connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayIndex(pub u16);

/// Names one connection of an agent's client; the shell chooses it and never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamHandle(pub u64);

/// The time of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// For the record: milliseconds since the Unix epoch.
    pub unix_millis: u64,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A tunnel told something.
    Tunnel {
        /// Which relay's.
        relay: RelayIndex,
        /// What.
        event: ConnectorEvent,
    },
    /// An agent's client is authenticated and bound.
    AgentConnected {
        /// The connection.
        stream: StreamHandle,
        /// The account's name.
        agent: String,
        /// The resource it was given.
        resource: String,
    },
    /// An authenticated client asks to resume instead of binding. Answered by `AgentResumed` or `AgentResumeRefused`.
    AgentResume {
        /// The connection.
        stream: StreamHandle,
        /// The account's name.
        agent: String,
        /// The stream's id as the client repeats it.
        previd: String,
        /// Stanzas the client has handled.
        h: u32,
    },
    /// A stanza or nonza of a bound or resumed client.
    AgentStanza {
        /// The connection.
        stream: StreamHandle,
        /// The element.
        element: Element,
    },
    /// The connection broke.
    AgentLost {
        /// The connection.
        stream: StreamHandle,
    },
    /// The client closed its stream: it does not mean to resume.
    AgentClosed {
        /// The connection.
        stream: StreamHandle,
    },
    /// The connector is about to stop: no new sessions, those that stand go on.
    Leave,
    /// An admin takes a link back. Answered by [`DoorEffect::Answer`].
    Revoke {
        /// Names the question.
        ask: u64,
        /// Which.
        revocation: Revocation,
    },
    /// How much room the store's disk has.
    Space(Space),
    /// Time passed.
    Timeout,
}

/// Something to do, once the operations of its step are committed.
#[derive(Debug)]
pub enum Effect {
    /// Tell a tunnel.
    Tunnel {
        /// Which relay's.
        relay: RelayIndex,
        /// What.
        command: ConnectorCommand,
    },
    /// Write to an agent's client.
    AgentWrite {
        /// The connection.
        stream: StreamHandle,
        /// Text.
        xml: String,
    },
    /// Read from an agent's client, or leave its socket unread.
    AgentRead {
        /// The connection.
        stream: StreamHandle,
        /// Whether to read.
        is_wanted: bool,
    },
    /// End an agent's stream with a stream error. No `AgentLost` is wanted for it.
    AgentClose {
        /// The connection.
        stream: StreamHandle,
        /// The condition's element name (RFC 6120 §4.9.3).
        condition: &'static str,
        /// A sentence.
        text: String,
    },
    /// The client resumed: `output` begins with `<resumed/>`.
    AgentResumed {
        /// The connection.
        stream: StreamHandle,
        /// The resource of the stream.
        resource: String,
        /// Text.
        output: String,
    },
    /// The stream is not known; the client may bind.
    AgentResumeRefused {
        /// The connection.
        stream: StreamHandle,
    },
    /// For the log.
    Audit(Audit),
    /// For the door towards the relays.
    Door(DoorEffect),
}

/// What the door towards the relays needs beside its answers.
#[derive(Debug)]
pub enum DoorEffect {
    /// These links, and no others, are revoked.
    Revoked(Vec<RevokedLink>),
    /// The answer to an admin.
    Answer {
        /// Which question's.
        ask: u64,
        /// What was done, or why not.
        done: Result<RevocationDone, String>,
    },
    /// A new session's answer has left: drop this.
    Admitted(Pending),
}

/// A line for the log: names and codes, never what people said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    /// A session began.
    SessionOpened {
        /// Which.
        session: SessionId,
        /// Its short code.
        code: String,
        /// Its queue.
        queue: String,
        /// Link issuer; empty for a public queue.
        issuer: String,
        /// Link key id; empty for a public queue.
        kid: String,
        /// The link's hash; empty for a public queue.
        link: String,
        /// How many sessions the link has opened, this one among them.
        uses: u32,
    },
    /// A session was attached again.
    SessionAttached {
        /// Which.
        session: SessionId,
        /// How often its client has come.
        attachment: u32,
    },
    /// A session ended.
    SessionClosed {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// An OPEN or CHECK was refused.
    Refused {
        /// The queue asked for.
        queue: String,
        /// Why, as the relay is told.
        code: RefusalCode,
        /// Why, as it is counted.
        reason: &'static str,
    },
    /// An agent took a session.
    Taken {
        /// Which.
        session: SessionId,
        /// Who.
        agent: String,
    },
    /// A session returned to its queue.
    Requeued {
        /// Which.
        session: SessionId,
        /// Who had it.
        agent: String,
    },
    /// An agent's standing changed.
    AgentStanding {
        /// Who.
        agent: String,
        /// "ready", "away", "paused" or "offline".
        standing: &'static str,
    },
    /// A relay has more of a session than the store: it is not the one that was, and the session ends.
    StoreRegressed {
        /// Which.
        session: SessionId,
    },
    /// The relay or its customer broke the rules of a channel.
    ChannelFault {
        /// Which session.
        session: SessionId,
        /// What it did.
        why: &'static str,
    },
}

/// What an input leads to.
#[derive(Debug, Default)]
pub struct Step {
    /// Commit these as one transaction.
    pub ops: Vec<Op>,
    /// Then do these, in order.
    pub effects: Vec<Effect>,
}

impl Step {
    /// Puts `next` behind this.
    pub(crate) fn append(&mut self, next: Self) {
        if self.ops.is_empty() && self.effects.is_empty() {
            *self = next;
        } else {
            self.ops.extend(next.ops);
            self.effects.extend(next.effects);
        }
    }

    /// Whether there is something in it, and all of it is accounts: nobody is shown anything by it, and where it were lost before its
    /// commit, the relay, which has not heard of it, would tell it again.
    pub(crate) fn is_unhurried(&self) -> bool {
        let is_account = |op: &Op| matches!(op, Op::OutHandled { .. } | Op::Own { .. } | Op::Counted { .. });
        let is_receipt = |effect: &Effect| {
            matches!(effect, Effect::Tunnel { command: ConnectorCommand::Handled { .. } | ConnectorCommand::OwnHandled { .. }, .. })
        };
        !self.ops.is_empty() && self.ops.iter().all(is_account) && self.effects.iter().all(is_receipt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tunnel::{ChannelId, Proof};

    fn receipt() -> Effect {
        Effect::Tunnel { relay: RelayIndex(0), command: ConnectorCommand::Handled { channel: ChannelId(1), number: 1, sm_in: 2 } }
    }

    fn write() -> Effect {
        Effect::AgentWrite { stream: StreamHandle(1), xml: String::new() }
    }

    #[test]
    fn accounts_may_wait_and_whatever_somebody_waits_for_takes_them_along_in_order() {
        let session = SessionId::new(0, [0; 10]);
        let accounts = [
            Op::OutHandled { session, number: 1, proof: Proof::Confirmed },
            Op::Own { session, after: 1, count: 1 },
            Op::Counted { session, sm_in: 2 },
        ];
        let said = Op::In { session, number: 1, sm_in: 2, body: None, at: 0 };
        let step = |ops: &[Op], effects| Step { ops: ops.to_vec(), effects };
        assert!(step(&accounts, vec![receipt()]).is_unhurried());
        assert!(!step(&[], vec![]).is_unhurried(), "nothing needs no time");
        assert!(!step(&[], vec![receipt()]).is_unhurried(), "a receipt for what is committed already");
        assert!(!step(&accounts, vec![write()]).is_unhurried(), "an agent waits");

        let mut waiting = step(&accounts, vec![receipt()]);
        waiting.append(step(std::slice::from_ref(&said), vec![write()]));
        assert!(!waiting.is_unhurried(), "a customer waits");
        assert_eq!(waiting.ops, [&accounts[..], &[said]].concat());
        assert!(matches!(&waiting.effects[..], [Effect::Tunnel { .. }, Effect::AgentWrite { .. }]));
    }
}
