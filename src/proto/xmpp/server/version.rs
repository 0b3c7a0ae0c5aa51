//! Software version (XEP-0092) of the server itself. Which software a contact runs is nobody's business.

use super::super::{ns, stanza::Element};
use super::{Reply, Request, Verb, address::Target, errors::Refusal};

/// Answers a version request to the domain.
pub(super) fn answer(request: &Request<'_>) -> Reply {
    match (request.verb, request.target) {
        (Verb::Get, Target::Domain) => {
            let name = Element::new("name", ns::VERSION).with_text("Outgate");
            let version = Element::new("version", ns::VERSION).with_text(env!("CARGO_PKG_VERSION"));
            Ok(Some(Element::new("query", ns::VERSION).with_child(name).with_child(version)))
        }
        (Verb::Get | Verb::Set, _) => Err(Refusal::UNAVAILABLE),
    }
}
