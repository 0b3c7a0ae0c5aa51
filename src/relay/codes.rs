//! Short codes at the relay: whose one is, and whether its connector may be asked about it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::admission::guesses::{Guesses, TooManyGuesses};
use crate::link::{Label, LinkCode};
use crate::proto::tunnel::Identity;

use super::door::{Refusal, not_authorized, temporary};

/// The connectors by their labels, and the wrong codes of late.
#[derive(Debug)]
pub struct Codes {
    connectors: BTreeMap<Label, Identity>,
    guesses: Mutex<Guesses>,
}

impl Codes {
    /// No wrong code yet.
    pub fn new(connectors: BTreeMap<Label, Identity>) -> Self {
        Self { connectors, guesses: Mutex::default() }
    }

    /// The connector to ask about `code`.
    pub(super) fn may_ask(&self, code: &LinkCode, customer: IpAddr) -> Result<&Identity, Refusal> {
        let judged = self.guesses.lock().unwrap_or_else(PoisonError::into_inner).may_ask(customer, now());
        judged.map_err(|too_many| match too_many {
            TooManyGuesses::Prefix => {
                temporary("code-guesses", "Too many wrong codes came from your network. Please try again in some minutes.")
            }
            TooManyGuesses::Overall => temporary("code-guesses-overall", "Too many wrong codes came in. Please try again in a minute."),
        })?;
        self.connectors.get(&code.label()).ok_or_else(|| {
            self.was_wrong(customer);
            not_authorized("code-unknown-label", "This code is not valid. Please check it, or ask for a new one.")
        })
    }

    /// The connector says that a code is wrong.
    pub(super) fn was_wrong(&self, customer: IpAddr) {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner).wrong(customer, now());
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
