//! The roster (RFC 6121 §2). It is the server's: it shows who is there, and a client cannot change it.

use super::super::{ns, stanza::Element};
use super::{After, Answers, Contact, Reply, Request, Site, Verb, address::Target, errors::Refusal};

/// Answers a roster get or set. Versions (§2.6) are not offered, so a get is always answered in full.
pub(super) fn answer(answers: &mut Answers, request: &Request<'_>, after: &mut After) -> Reply {
    if !matches!(request.target, Target::Account) {
        return Err(Refusal::UNAVAILABLE);
    }
    match request.verb {
        Verb::Get => {
            answers.roster_asked = true;
            let query = Element::new("query", ns::ROSTER);
            Ok(Some(request.site.contacts.iter().map(|contact| item(contact, false)).fold(query, Element::with_child)))
        }
        Verb::Set => set(answers, request, after),
    }
}

/// A push of one item.
pub(super) fn push(site: &Site, contact: &Contact, removed: bool, id: &str) -> Element {
    Element::new("iq", ns::CLIENT)
        .with_attribute("type", "set")
        .with_attribute("id", id)
        .with_attribute("to", site.client.as_str())
        .with_child(Element::new("query", ns::ROSTER).with_child(item(contact, removed)))
}

/// Answers a set: adding a contact that is there changes nothing, and the push that follows shows how it stays.
fn set(answers: &mut Answers, request: &Request<'_>, after: &mut After) -> Reply {
    let mut items = request.payload.elements();
    let (Some(item), None) = (items.next(), items.next()) else {
        return Err(Refusal::BAD_REQUEST);
    };
    let jid = item.attribute("jid").filter(|_| item.is("item", ns::ROSTER)).ok_or(Refusal::BAD_REQUEST)?;
    let removes = item.attribute("subscription") == Some("remove");
    match (request.site.contact(jid), removes) {
        (Some(contact), false) => {
            let id = answers.next_push();
            after.pushes.extend(answers.roster_push(request.site, contact, false, &id));
            Ok(None)
        }
        (Some(_), true) => Err(Refusal::not_allowed("This contact cannot be removed.")),
        (None, false) => Err(Refusal::not_allowed("No other contacts can be reached from here.")),
        (None, true) => Err(Refusal::NOT_FOUND),
    }
}

/// A contact's item.
fn item(contact: &Contact, removed: bool) -> Element {
    let item = Element::new("item", ns::ROSTER).with_attribute("jid", contact.jid.as_str());
    if removed {
        return item.with_attribute("subscription", "remove");
    }
    let item = item.with_attribute("name", contact.name.as_str()).with_attribute("subscription", "both");
    if contact.group.is_empty() { item } else { item.with_child(Element::new("group", ns::ROSTER).with_text(contact.group.as_str())) }
}
