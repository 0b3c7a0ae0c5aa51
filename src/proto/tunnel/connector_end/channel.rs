//! One channel at the connector.

use std::collections::VecDeque;

use crate::proto::tunnel::line::Line;
use crate::proto::tunnel::{Fin, Payload, wire};

/// What arrived before the desk answered.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) number: u64,
    pub(super) sm_in: u32,
    pub(super) content: Content,
}

/// A numbered frame's content.
#[derive(Debug)]
pub(super) enum Content {
    Payload(Payload),
    Fin(Fin),
}

/// Whether the desk has answered the OPEN.
#[derive(Debug)]
pub(super) enum Answer {
    /// Not yet; frames wait.
    Awaited { early: VecDeque<Early>, counted: Option<u32> },
    /// Accepted with these numbers.
    Accepted(wire::OpenOk),
}

/// One channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) line: Line,
    pub(super) answer: Answer,
    /// The OPEN attaches a session: no event may come before the answer.
    pub(super) attaches: bool,
    /// The next outward number that the relay expects.
    pub(super) relay_next: u64,
    /// Number of the customer's FIN.
    pub(super) fin_in: Option<u64>,
    /// How far outward events were reported handled and confirmed to the desk.
    pub(super) told: (u64, u64),
}

impl Channel {
    pub(super) fn is_accepted(&self) -> bool {
        matches!(self.answer, Answer::Accepted(_))
    }

    /// Whether the customer's FIN is handled.
    pub(super) fn is_finished(&self) -> bool {
        self.fin_in.is_some_and(|fin| self.line.inn.handled() >= fin)
    }

    pub(super) fn held(&self) -> usize {
        let early = match &self.answer {
            Answer::Awaited { early, .. } => early.iter().map(Early::len).sum(),
            Answer::Accepted(_) => 0,
        };
        self.line.out.held() + early
    }

    /// Where this channel stands, for RESUME.
    pub(super) fn cursor(&self, channel: u32) -> wire::Cursor {
        let unknown = self.attaches && !self.is_accepted();
        wire::Cursor {
            channel,
            next: if unknown { 0 } else { self.line.inn.next() },
            handled: self.line.inn.handled(),
            answered: self.is_accepted(),
            confirmed: 0,
            sm_in: self.line.inn.sm_in(),
        }
    }
}

impl Early {
    fn len(&self) -> usize {
        match &self.content {
            Content::Payload(Payload::Event(body) | Payload::Ephemeral(body)) => body.len(),
            Content::Payload(Payload::Tombstone) | Content::Fin(_) => 0,
        }
    }
}
