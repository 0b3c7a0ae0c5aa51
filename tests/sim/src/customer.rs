//! A model of one customer: what he said, what reached him, what was promised to him, and at which relay he is.

use std::collections::VecDeque;
use std::time::Instant;

use crate::proto::tunnel::{Payload, SessionKey};
use crate::session::SessionSecret;
use bytes::Bytes;

/// How far his session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Opening,
    Open,
    /// Without a relay; he comes back at some other, or the same, in a while.
    Away(Instant),
    /// He asked for his session at another relay.
    Returning,
    /// He has it there, and waits to hear what of his was handled.
    Returned,
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
    pub(super) relay: usize,
    pub(super) key: SessionKey,
    pub(super) secret: SessionSecret,
    pub(super) stage: Stage,
    /// What he said, from number 1; `None` for what is ephemeral.
    pub(super) said: Vec<Option<Bytes>>,
    /// His stanza count with each.
    pub(super) said_at: Vec<u32>,
    pub(super) stanzas: u32,
    pub(super) got: Vec<Payload>,
    pub(super) h: u32,
    pub(super) in_handled: u64,
    pub(super) own_wanted: Vec<(u64, u32)>,
    pub(super) own_done: Vec<(u64, u32)>,
    pub(super) to_confirm: VecDeque<(Instant, u64)>,
    /// Sessions of his at other relays which do not know yet that he is gone.
    pub(super) left_behind: Vec<(usize, SessionKey)>,
    /// A store that came back older lacks what he was told, or what told him.
    pub(super) is_harmed: bool,
    /// It does so for certain: his session cannot go on.
    pub(super) must_end: bool,
    /// The agent ended the session before he could send again what his relay had lost.
    pub(super) is_cut_short: bool,
}

impl Customer {
    pub(super) fn new(relay: usize, key: SessionKey, secret: SessionSecret) -> Self {
        Self {
            relay,
            key,
            secret,
            stage: Stage::Opening,
            said: Vec::new(),
            said_at: Vec::new(),
            stanzas: 0,
            got: Vec::new(),
            h: 0,
            in_handled: 0,
            own_wanted: Vec::new(),
            own_done: Vec::new(),
            to_confirm: VecDeque::new(),
            left_behind: Vec::new(),
            is_harmed: false,
            must_end: false,
            is_cut_short: false,
        }
    }

    /// He is without a relay until then.
    pub(super) fn go_away(&mut self, until: Instant) {
        self.stage = Stage::Away(until);
        self.to_confirm.clear();
    }

    /// His session ended because the store is older than what he knows.
    pub(super) fn regress(&mut self, count: &mut u64) {
        self.stage = Stage::Lost;
        *count += 1;
    }

    pub(super) fn may_speak(&self) -> bool {
        matches!(self.stage, Stage::Opening | Stage::Open)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Left | Stage::Ended | Stage::Lost)
    }
}
