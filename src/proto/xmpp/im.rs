//! Message and presence stanzas into [`ImEvent`] and back.
//!
//! Inwards, a stanza is taken apart child by child: what an event has a place for is copied into one, all else (XHTML-IM,
//! encrypted payloads, carbons, forwarded messages, delay stamps, archive ids, subjects, threads …) is dropped and counted.
//! Outwards, a stanza is made anew from the event. Nothing that a party wrote is passed on unread.
//!
//! Left out: what an event means to the session, and which ids a stanza gets.

mod rebuild;
mod stamp;
pub(super) mod text;

use super::{ns, server, stanza::Element};
use crate::im::{Author, Availability, ChatState, ImEvent, Marker, MarkerKind, Message};

pub use self::rebuild::events_of;

/// Largest body that is carried, in bytes: with all that may stand beside it, it stays below [`crate::im::MAX_EVENT_BYTES`].
pub const MAX_BODY_BYTES: usize = 30 * 1024;

/// Largest address of an out-of-band link (XEP-0066) that is carried, in bytes.
pub const MAX_URL_BYTES: usize = 2 * 1024;

/// What a message stanza became.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// The events in it, in order (a message may carry a body and a receipt): at most 4.
    pub events: Vec<ImEvent>,
    /// Child elements that were dropped.
    pub dropped: u32,
}

/// Why a message is refused; answered with a stanza error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageFault {
    /// The body is too large to be an event.
    TooLarge,
    /// `type='groupchat'` or `'headline'`: no conversation. An `'error'` is never this: it has no events, and gets no answer.
    NotChat,
}

/// Writes an event as the `<message/>` (or `<presence/>`) that shows it. `id` is the stanza's id; empty for none. `None` where
/// the event has no stanza (software).
pub fn stanza_of(event: &ImEvent, from: &str, to: &str, id: &str) -> Option<Element> {
    let stanza = match event {
        ImEvent::Message(message) => write_message(message, from, chat(from, to, id)),
        ImEvent::ChatState(state) => {
            // XEP-0085 §5.3 with XEP-0334: typing is worth nothing later.
            chat(from, to, id).with_child(chat_state(*state)).with_child(Element::new("no-store", ns::HINTS))
        }
        ImEvent::Receipt(receipt) => {
            chat(from, to, id).with_child(Element::new("received", ns::RECEIPTS).with_attribute("id", receipt.as_str()))
        }
        ImEvent::Marker(marker) => chat(from, to, id).with_child(write_marker(marker)),
        ImEvent::Presence(availability) => server::contact_presence(from, to, *availability, None, None),
        ImEvent::Software(_) => return None,
    };
    Some(stanza)
}

/// Reads show and type of a `<presence/>` (RFC 6121 §4.7); `None` for subscription traffic, probes, errors, and what is no presence.
pub fn availability_of(presence: &Element) -> Option<Availability> {
    if !presence.is("presence", ns::CLIENT) {
        return None;
    }
    match presence.attribute("type") {
        None => {}
        Some("unavailable") => return Some(Availability::Unavailable),
        Some(_) => return None,
    }
    let show = presence.child("show", ns::CLIENT).map(Element::text);
    Some(match show.as_deref().map(str::trim) {
        Some("chat") => Availability::Chat,
        Some("away") => Availability::Away,
        Some("xa") => Availability::ExtendedAway,
        Some("dnd") => Availability::DoNotDisturb,
        // RFC 6121 §4.7.2.1 knows no other word; one that is not understood says no more than the presence itself.
        Some(_) | None => Availability::Available,
    })
}

/// An empty `<message type='chat'/>`.
fn chat(from: &str, to: &str, id: &str) -> Element {
    let message = Element::new("message", ns::CLIENT).with_attribute("type", "chat").with_attribute("from", from).with_attribute("to", to);
    if id.is_empty() { message } else { message.with_attribute("id", id) }
}

/// Fills a message stanza.
fn write_message(message: &Message, from: &str, mut stanza: Element) -> Element {
    if !message.body.is_empty() {
        stanza.push_child(Element::new("body", ns::CLIENT).with_text(message.body.as_str()));
    }
    match &message.author {
        // XEP-0085 §5.1: only who has seen a chat state may send one; without this no client would tell that its user types.
        Author::Party => stanza.push_child(chat_state(ChatState::Active)),
        Author::Agent(name) => {
            stanza.push_child(chat_state(ChatState::Active));
            stanza.push_child(Element::new("nick", ns::NICK).with_text(name.as_str()));
        }
        Author::Notice => {}
    }
    if let Some(replaced) = &message.replaces {
        stanza.push_child(Element::new("replace", ns::CORRECTION).with_attribute("id", replaced.as_str()));
    }
    if let Some(answered) = &message.replies_to {
        stanza.push_child(Element::new("reply", ns::REPLY).with_attribute("id", answered.as_str()));
    }
    if let Some(url) = &message.oob_url {
        stanza.push_child(Element::new("x", ns::OOB).with_child(Element::new("url", ns::OOB).with_text(url.as_str())));
    }
    if message.wants_receipt {
        stanza.push_child(Element::new("request", ns::RECEIPTS));
    }
    if message.markable {
        stanza.push_child(Element::new("markable", ns::MARKERS));
    }
    if let Some(at) = message.delayed_at {
        // XEP-0203 §2: the delaying entity is the server; clients believe a stamp from nobody else.
        let delay =
            Element::new("delay", ns::DELAY).with_attribute("from", server::domain_of(from)).with_attribute("stamp", stamp::stamp(at));
        stanza.push_child(delay);
    }
    stanza
}

/// A chat state's element (XEP-0085 §5.2).
fn chat_state(state: ChatState) -> Element {
    let name = match state {
        ChatState::Active => "active",
        ChatState::Composing => "composing",
        ChatState::Paused => "paused",
        ChatState::Inactive => "inactive",
        ChatState::Gone => "gone",
    };
    Element::new(name, ns::CHAT_STATES)
}

/// A marker's element (XEP-0333 §4).
fn write_marker(marker: &Marker) -> Element {
    let name = match marker.kind {
        MarkerKind::Received => "received",
        MarkerKind::Displayed => "displayed",
        MarkerKind::Acknowledged => "acknowledged",
    };
    Element::new(name, ns::MARKERS).with_attribute("id", marker.id.as_str())
}

#[cfg(test)]
mod tests;
