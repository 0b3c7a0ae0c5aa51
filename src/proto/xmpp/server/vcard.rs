//! vCards (XEP-0054): a contact's tells its name, the client's own is empty.

use super::super::{ns, stanza::Element};
use super::{Reply, Request, Verb, address::Target, errors::Refusal};

/// Answers a get of the client's own vCard or a contact's.
pub(super) fn answer(request: &Request<'_>) -> Reply {
    let card = Element::new("vCard", ns::VCARD);
    match (request.verb, request.target) {
        (Verb::Get, Target::Account) => Ok(Some(card)),
        (Verb::Get, Target::Contact(contact)) => Ok(Some(card.with_child(Element::new("FN", ns::VCARD).with_text(contact.name.as_str())))),
        (Verb::Set, Target::Account) => Err(Refusal::not_allowed("Nothing can be stored here.")),
        (Verb::Set, Target::Contact(_)) => Err(Refusal::not_allowed("This is not your vCard.")),
        (Verb::Get | Verb::Set, Target::Domain | Target::Client) => Err(Refusal::UNAVAILABLE),
    }
}
