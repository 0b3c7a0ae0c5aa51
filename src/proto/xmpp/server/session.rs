//! The session request of RFC 3921 §3: nothing is left to do, but libpurple goes on only after its result.

use super::{Reply, Request, Verb, address::Target, errors::Refusal};

/// Answers a session request.
pub(super) fn answer(request: &Request<'_>) -> Reply {
    match (request.verb, request.target) {
        (Verb::Set, Target::Domain | Target::Account) => Ok(None),
        (Verb::Get | Verb::Set, _) => Err(Refusal::UNAVAILABLE),
    }
}
