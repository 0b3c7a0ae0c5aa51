//! Service discovery (XEP-0030). What is listed is what works: a client that finds more would use it.

use super::super::{ns, stanza::Element};
use super::{Reply, Request, Verb, address::Target, errors::Refusal};

/// What the domain serves.
const DOMAIN_FEATURES: [&str; 6] = [ns::DISCO_INFO, ns::DISCO_ITEMS, ns::PING, ns::CARBONS, ns::BLOCKING, ns::VERSION];

/// What may be said to a contact, and is carried.
const CONTACT_FEATURES: [&str; 8] =
    [ns::DISCO_INFO, ns::PING, ns::CHAT_STATES, ns::RECEIPTS, ns::CORRECTION, ns::MARKERS, ns::REPLY, ns::OOB];

/// Answers disco#info (§3). There are no nodes: nothing here announces capabilities.
pub(super) fn info(request: &Request<'_>) -> Reply {
    check(request)?;
    let (identity, features) = match request.target {
        Target::Domain => (identity("server", "im", Some("Outgate")), &DOMAIN_FEATURES[..]),
        Target::Account => {
            let kind = if request.site.anonymous { "anonymous" } else { "registered" };
            (identity("account", kind, None), &DOMAIN_FEATURES[..1])
        }
        Target::Contact(contact) => (identity("client", "pc", Some(&contact.name)), &CONTACT_FEATURES[..]),
        Target::Client => return Err(Refusal::UNAVAILABLE),
    };
    let query = Element::new("query", ns::DISCO_INFO).with_child(identity);
    let features = features.iter().map(|feature| Element::new("feature", ns::DISCO_INFO).with_attribute("var", *feature));
    Ok(Some(features.fold(query, Element::with_child)))
}

/// Answers disco#items (§4): there are none. Clients ask every item that is listed, and some wait for all answers.
pub(super) fn items(request: &Request<'_>) -> Reply {
    check(request)?;
    match request.target {
        Target::Domain | Target::Account | Target::Contact(_) => Ok(Some(Element::new("query", ns::DISCO_ITEMS))),
        Target::Client => Err(Refusal::UNAVAILABLE),
    }
}

/// Only a get without a node is served.
fn check(request: &Request<'_>) -> Result<(), Refusal> {
    match request.verb {
        Verb::Set => Err(Refusal::UNAVAILABLE),
        Verb::Get if request.payload.attribute("node").is_some_and(|node| !node.is_empty()) => Err(Refusal::NOT_FOUND),
        Verb::Get => Ok(()),
    }
}

/// An identity.
fn identity(category: &'static str, kind: &'static str, name: Option<&str>) -> Element {
    let identity = Element::new("identity", ns::DISCO_INFO).with_attribute("category", category).with_attribute("type", kind);
    match name {
        Some(name) => identity.with_attribute("name", name),
        None => identity,
    }
}
