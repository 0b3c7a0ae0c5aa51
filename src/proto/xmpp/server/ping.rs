//! Ping (XEP-0199). Answered here and at once: some clients drop the connection after three seconds.

use super::{Reply, Request, Verb, errors::Refusal};

/// Answers a ping to anybody who is there.
pub(super) fn answer(request: &Request<'_>) -> Reply {
    match request.verb {
        Verb::Get => Ok(None),
        Verb::Set => Err(Refusal::BAD_REQUEST),
    }
}
