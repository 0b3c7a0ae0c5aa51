//! Blocking (XEP-0191): to block a contact is to leave it. Nobody else can reach the client, so nobody else can be blocked.

use super::super::{ns, stanza::Element};
use super::{After, Answers, Reply, Request, Verb, address::Target, contact_presence, errors::Refusal, is_same_bare};
use crate::im::Availability;

/// Answers a block list, a block or an unblock.
pub(super) fn answer(answers: &mut Answers, request: &Request<'_>, after: &mut After) -> Reply {
    if !matches!(request.target, Target::Account) {
        return Err(Refusal::UNAVAILABLE);
    }
    match (request.verb, request.payload.name()) {
        (Verb::Get, "blocklist") => {
            answers.blocklist_asked = true;
            Ok(Some(list("blocklist", answers.blocked.iter().map(String::as_str))))
        }
        (Verb::Set, "block") => block(answers, request, after),
        (Verb::Set, "unblock") => unblock(answers, request, after),
        (Verb::Get | Verb::Set, _) => Err(Refusal::BAD_REQUEST),
    }
}

/// Blocks a contact (§3.3), which then goes offline for the client.
fn block(answers: &mut Answers, request: &Request<'_>, after: &mut After) -> Reply {
    let mut named = items(request.payload);
    let jid = match (named.next(), named.next()) {
        (Some(jid), None) => jid,
        (None, _) => return Err(Refusal::BAD_REQUEST),
        (Some(_), Some(_)) => return Err(Refusal::not_allowed("One contact can be blocked at a time.")),
    };
    let contact = request.site.contact(jid).ok_or(Refusal::NOT_FOUND)?;
    if answers.blocked.iter().any(|jid| is_same_bare(jid, &contact.jid)) {
        return Ok(None);
    }
    answers.blocked.retain(|jid| request.site.contact(jid).is_some());
    answers.blocked.push(contact.jid.clone());
    push(answers, request, after, list("block", [contact.jid.as_str()]));
    after.pushes.push(contact_presence(&contact.jid, &request.site.client, Availability::Unavailable, None, None));
    after.blocked = Some(contact.jid.clone());
    Ok(None)
}

/// Unblocks those named, or all (§3.4, §3.5).
fn unblock(answers: &mut Answers, request: &Request<'_>, after: &mut After) -> Reply {
    let is_all = items(request.payload).next().is_none();
    let is_named = |jid: &str| items(request.payload).any(|named| is_same_bare(named, jid));
    let (unblocked, blocked) = std::mem::take(&mut answers.blocked).into_iter().partition(|jid| is_all || is_named(jid));
    answers.blocked = blocked;
    let unblocked: Vec<String> = unblocked;
    if !unblocked.is_empty() {
        let named = if is_all { &[][..] } else { &unblocked };
        push(answers, request, after, list("unblock", named.iter().map(String::as_str)));
    }
    Ok(None)
}

/// Pushes a change to a client that asked for the list.
fn push(answers: &mut Answers, request: &Request<'_>, after: &mut After, change: Element) {
    if answers.blocklist_asked {
        let push = Element::new("iq", ns::CLIENT)
            .with_attribute("type", "set")
            .with_attribute("id", answers.next_push())
            .with_attribute("to", request.site.client.as_str())
            .with_child(change);
        after.pushes.push(push);
    }
}

/// An element that lists JIDs.
fn list<'a>(name: &'static str, jids: impl IntoIterator<Item = &'a str>) -> Element {
    let items = jids.into_iter().map(|jid| Element::new("item", ns::BLOCKING).with_attribute("jid", jid));
    items.fold(Element::new(name, ns::BLOCKING), Element::with_child)
}

/// The JIDs that a request lists.
fn items(payload: &Element) -> impl Iterator<Item = &str> {
    payload.elements().filter(|item| item.is("item", ns::BLOCKING)).filter_map(|item| item.attribute("jid"))
}
