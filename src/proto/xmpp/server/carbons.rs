//! Message carbons (XEP-0280 §4, §5): an account has one resource, so that all its resources get every message.

use super::{Reply, Request, Verb, address::Target, errors::Refusal};

/// Answers enable and disable.
pub(super) fn answer(request: &Request<'_>) -> Reply {
    match (request.verb, request.target) {
        (Verb::Set, Target::Account) => Ok(None),
        (Verb::Get | Verb::Set, _) => Err(Refusal::UNAVAILABLE),
    }
}
