//! Private storage (XEP-0049): always empty. Clients look for bookmarks in it.

use super::super::{ns, stanza::Element};
use super::{Reply, Request, Verb, address::Target, errors::Refusal};

/// Answers a get with the element asked for, empty (§3.2); a set is refused, for nothing would be kept.
pub(super) fn answer(request: &Request<'_>) -> Reply {
    if !matches!(request.target, Target::Account) {
        return Err(Refusal::UNAVAILABLE);
    }
    let mut asked = request.payload.elements();
    let (Some(asked), None) = (asked.next(), asked.next()) else {
        return Err(Refusal::BAD_REQUEST);
    };
    match request.verb {
        Verb::Get => {
            let empty = Element::new(asked.name().to_owned(), asked.namespace().to_owned());
            Ok(Some(Element::new("query", ns::PRIVATE).with_child(empty)))
        }
        Verb::Set => Err(Refusal::not_allowed("Nothing can be stored here.")),
    }
}
