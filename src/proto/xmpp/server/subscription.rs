//! Presence subscriptions (RFC 6121 §3): every contact is subscribed both ways, and stays so.

use super::super::{ns, stanza::Element};
use super::{Answers, Contact, Site, bare_of, contact_presence};
use crate::im::Availability;

/// Answers a presence of a subscription type, or a probe. A contact on the roster is there; where it is not, its owner tells later.
pub(super) fn answer(answers: &mut Answers, site: &Site, presence: &Element) -> Vec<Element> {
    let Some(to) = presence.attribute("to") else { return Vec::new() };
    match (presence.attribute("type"), site.contact(to)) {
        (Some("subscribe"), Some(contact)) => {
            let mut replies = vec![of_type("subscribed", &contact.jid, site)];
            replies.extend(unchanged(answers, site, contact));
            replies.push(available(contact, site));
            replies
        }
        (Some("subscribe"), None) => vec![of_type("unsubscribed", bare_of(to), site)],
        (Some("unsubscribe" | "unsubscribed"), Some(contact)) => unchanged(answers, site, contact).into_iter().collect(),
        (Some("probe"), Some(contact)) => vec![available(contact, site)],
        (Some(_) | None, _) => Vec::new(),
    }
}

/// A push that shows the subscription as it stays.
fn unchanged(answers: &mut Answers, site: &Site, contact: &Contact) -> Option<Element> {
    let id = answers.next_push();
    answers.roster_push(site, contact, false, &id)
}

/// The contact's presence.
fn available(contact: &Contact, site: &Site) -> Element {
    contact_presence(&contact.jid, &site.client, Availability::Available, None, Some(&contact.name))
}

/// A subscription's answer: it is to the account, so to its bare JID (§3.1.5).
fn of_type(kind: &'static str, from: &str, site: &Site) -> Element {
    Element::new("presence", ns::CLIENT)
        .with_attribute("type", kind)
        .with_attribute("from", from)
        .with_attribute("to", bare_of(&site.client))
}
