//! A party's `<message/>` taken apart into events.

use super::{MAX_BODY_BYTES, MAX_URL_BYTES, MessageFault, Rebuilt, text};
use crate::{
    im::{ChatState, ImEvent, MAX_EVENT_BYTES, Marker, MarkerKind, Message},
    proto::xmpp::{ns, stanza::Element},
};

/// Room kept for the encoding around a message's strings, and for what the connector adds to them.
const ENCODING_ROOM: usize = 512;

/// Rebuilds a `<message/>` from a party into events. Control characters and bidi overrides are cleaned out of the text; of
/// two children of one kind the first counts. An `<active/>` beside a text is no event of its own: the text says as much.
pub fn events_of(message: &Element) -> Result<Rebuilt, MessageFault> {
    match message.attribute("type") {
        Some("groupchat" | "headline") => return Err(MessageFault::NotChat),
        Some("error") => return Ok(Rebuilt { events: Vec::new(), dropped: count(message.elements()) }),
        // RFC 6121 §5.2.2: an unknown type is 'normal'.
        Some(_) | None => {}
    }
    let mut parts = Parts::default();
    for child in message.elements() {
        if !parts.take(child)? {
            parts.dropped = parts.dropped.saturating_add(1);
        }
    }
    parts.finish(message.attribute("id").and_then(text::fit_id))
}

/// What was found in a message so far.
#[derive(Default)]
struct Parts {
    message: Message,
    /// Children that mean something only beside a text or link.
    attached: u32,
    state: Option<ChatState>,
    receipt: Option<String>,
    marker: Option<Marker>,
    dropped: u32,
}

impl Parts {
    /// Takes what an event has a place for out of `child`; false where that is nothing.
    fn take(&mut self, child: &Element) -> Result<bool, MessageFault> {
        let taken = match child.namespace() {
            ns::CLIENT if child.name() == "body" => return self.take_body(child),
            ns::CHAT_STATES => put(&mut self.state, chat_state_of(child)),
            ns::RECEIPTS if child.name() == "received" => put(&mut self.receipt, id_of(child)),
            ns::RECEIPTS if child.name() == "request" => self.attach_flag(|message| &mut message.wants_receipt),
            ns::MARKERS if child.name() == "markable" => self.attach_flag(|message| &mut message.markable),
            ns::MARKERS => put(&mut self.marker, marker_of(child)),
            ns::CORRECTION if child.name() == "replace" => self.attach(|message| &mut message.replaces, id_of(child)),
            ns::REPLY if child.name() == "reply" => self.attach(|message| &mut message.replies_to, id_of(child)),
            ns::OOB if child.name() == "x" => put(&mut self.message.oob_url, url_of(child)),
            _ => false,
        };
        Ok(taken)
    }

    /// Takes the text.
    fn take_body(&mut self, body: &Element) -> Result<bool, MessageFault> {
        if !self.message.body.is_empty() {
            return Ok(false);
        }
        let body = text::cleaned(&body.text());
        if body.len() > MAX_BODY_BYTES {
            return Err(MessageFault::TooLarge);
        }
        self.message.body = body;
        Ok(!self.message.body.is_empty())
    }

    /// Sets a flag of the message; false where it was set before.
    fn attach_flag(&mut self, flag: impl FnOnce(&mut Message) -> &mut bool) -> bool {
        let was_set = std::mem::replace(flag(&mut self.message), true);
        self.attached += u32::from(!was_set);
        !was_set
    }

    /// Sets a field of the message; false where there is nothing to set, or it was set before.
    fn attach(&mut self, field: impl FnOnce(&mut Message) -> &mut Option<String>, value: Option<String>) -> bool {
        let is_new = put(field(&mut self.message), value);
        self.attached += u32::from(is_new);
        is_new
    }

    /// The events: the text is the last. A stanza counts as handled with its last event, and is sent again by a client that resumes where
    /// only some of them were; all but the text may come twice.
    fn finish(mut self, id: Option<&str>) -> Result<Rebuilt, MessageFault> {
        let mut said = None;
        if self.message.body.is_empty() && self.message.oob_url.is_none() {
            self.dropped = self.dropped.saturating_add(self.attached);
        } else {
            self.message.id = id.map(str::to_owned);
            if text_bytes(&self.message) + ENCODING_ROOM > MAX_EVENT_BYTES {
                return Err(MessageFault::TooLarge);
            }
            said = Some(ImEvent::Message(self.message));
            self.state = self.state.filter(|state| *state != ChatState::Active);
        }
        let beside = [self.state.map(ImEvent::ChatState), self.receipt.map(ImEvent::Receipt), self.marker.map(ImEvent::Marker)];
        let events = beside.into_iter().chain([said]).flatten().collect();
        Ok(Rebuilt { events, dropped: self.dropped })
    }
}

/// Puts `value` into an empty `slot`; false where there is no value or no room.
fn put<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let is_new = slot.is_none() && value.is_some();
    if is_new {
        *slot = value;
    }
    is_new
}

/// How much text a message holds, in bytes.
fn text_bytes(message: &Message) -> usize {
    let fields = [&message.id, &message.replaces, &message.replies_to, &message.oob_url];
    message.body.len() + fields.into_iter().flatten().map(String::len).sum::<usize>()
}

/// The id that a child names.
fn id_of(child: &Element) -> Option<String> {
    child.attribute("id").and_then(text::fit_id).map(str::to_owned)
}

/// A chat state (XEP-0085 §5.2).
fn chat_state_of(child: &Element) -> Option<ChatState> {
    match child.name() {
        "active" => Some(ChatState::Active),
        "composing" => Some(ChatState::Composing),
        "paused" => Some(ChatState::Paused),
        "inactive" => Some(ChatState::Inactive),
        "gone" => Some(ChatState::Gone),
        _ => None,
    }
}

/// A chat marker (XEP-0333 §4).
fn marker_of(child: &Element) -> Option<Marker> {
    let kind = match child.name() {
        "received" => MarkerKind::Received,
        "displayed" => MarkerKind::Displayed,
        "acknowledged" => MarkerKind::Acknowledged,
        _ => return None,
    };
    Some(Marker { kind, id: id_of(child)? })
}

/// A link (XEP-0066 §3) that may be shown: http or https, on one line, of bearable length.
fn url_of(child: &Element) -> Option<String> {
    let url = child.child("url", ns::OOB)?.text();
    let url = url.trim();
    let (scheme, rest) = url.split_once("://")?;
    let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let is_plain = url.len() <= MAX_URL_BYTES && !url.contains(char::is_whitespace) && text::cleaned(url) == url;
    (is_web && is_plain && !rest.is_empty()).then(|| url.to_owned())
}

/// How many there are.
fn count<'a>(elements: impl Iterator<Item = &'a Element>) -> u32 {
    elements.fold(0, |sum: u32, _| sum.saturating_add(1))
}
