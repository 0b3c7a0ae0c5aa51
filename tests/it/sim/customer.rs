//! A model of one customer at the relay: what he said, what reached him, and what was promised to him.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use outgate::proto::tunnel::{Payload, SessionKey};
use outgate::session::{CloseReason, SessionSecret};

/// How far his session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Opening,
    Open,
    /// He ended it.
    Left,
    /// The agent ended it, and he was told.
    Ended,
    /// It was lost, or refused, and he was told.
    Lost,
}

/// One customer.
#[derive(Debug)]
pub(super) struct Customer {
    pub(super) key: SessionKey,
    pub(super) secret: SessionSecret,
    pub(super) stage: Stage,
    /// What he said, from number 1; `None` for what is ephemeral.
    pub(super) said: Vec<Option<Bytes>>,
    pub(super) stanzas: u32,
    pub(super) got: Vec<Payload>,
    pub(super) h: u32,
    pub(super) in_handled: u64,
    pub(super) own_wanted: Vec<(u64, u32)>,
    pub(super) own_done: Vec<(u64, u32)>,
    pub(super) to_confirm: VecDeque<(Instant, u64)>,
}

impl Customer {
    pub(super) fn new(key: SessionKey, secret: SessionSecret) -> Self {
        Self {
            key,
            secret,
            stage: Stage::Opening,
            said: Vec::new(),
            stanzas: 0,
            got: Vec::new(),
            h: 0,
            in_handled: 0,
            own_wanted: Vec::new(),
            own_done: Vec::new(),
            to_confirm: VecDeque::new(),
        }
    }

    pub(super) fn may_speak(&self) -> bool {
        matches!(self.stage, Stage::Opening | Stage::Open)
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Opening | Stage::Open | Stage::Left)
    }

    /// An end that nobody asked for.
    pub(super) fn lose(&mut self, reason: CloseReason, violations: &mut Vec<String>) {
        if reason != CloseReason::DetachExpired {
            violations.push(format!("{:?} lost: {}", self.key, reason.as_str()));
        }
        self.stage = Stage::Lost;
    }
}
