//! An [`ImEvent`] as the protobuf body inside DATA.
//!
//! Both ends check: [`decode`] refuses what [`crate::im`] does not allow (sizes, control characters, bidirectional
//! overrides), so that nothing a captured peer invents gets further than this file.

use bytes::Bytes;
use prost::Message as _;

use crate::im::{Author, Availability, ChatState, ImEvent, MAX_EVENT_BYTES, MAX_ID_BYTES, Marker, MarkerKind, Message};

use super::{open, wire};

/// Largest URL offered beside a text, in bytes.
const MAX_URL_BYTES: usize = 4096;

/// Why bytes are not an event. All are the peer's fault, or our caller's where it encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not the protobuf message that an event is, or a field out of its range.
    #[error("the peer sent bytes that are no event")]
    Malformed,
    /// Larger than [`MAX_EVENT_BYTES`], or one field larger than its limit.
    #[error("an event, or a field of it, is too large")]
    TooLarge,
    /// Text with control characters or bidirectional overrides.
    #[error("an event's text has forbidden characters")]
    ForbiddenText,
}

/// Encodes an event. An event above [`MAX_EVENT_BYTES`] is encoded all the same; the tunnel refuses to send it, so callers
/// check [`encoded_len`] at the door.
pub fn encode(event: &ImEvent) -> Bytes {
    Bytes::from(to_wire(event).encode_to_vec())
}

/// How many bytes [`encode`] would give.
pub fn encoded_len(event: &ImEvent) -> usize {
    to_wire(event).encoded_len()
}

/// Decodes and checks an event: sizes, UTF-8, control characters.
pub fn decode(bytes: &[u8]) -> Result<ImEvent, EventError> {
    if bytes.len() > MAX_EVENT_BYTES {
        return Err(EventError::TooLarge);
    }
    let event = WireEvent::decode(bytes).map_err(|_| EventError::Malformed)?;
    match event.kind.ok_or(EventError::Malformed)? {
        Kind::Message(message) => message_from_wire(message).map(ImEvent::Message),
        Kind::ChatState(state) => chat_state(state).map(ImEvent::ChatState),
        Kind::Receipt(id) => checked(id, MAX_ID_BYTES).map(ImEvent::Receipt),
        Kind::Marker(marker) => marker_from_wire(marker).map(ImEvent::Marker),
        Kind::Presence(presence) => availability(presence).map(ImEvent::Presence),
        Kind::Software(software) => open::software_from_wire(software).map(ImEvent::Software).map_err(|_| EventError::Malformed),
    }
}

/// Whether text may be shown to a person: no control characters but tab and newline, no bidirectional overrides.
pub(super) fn is_clean_text(text: &str) -> bool {
    text.chars().all(|c| match c {
        '\t' | '\n' => true,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        other => !other.is_control(),
    })
}

fn checked(text: String, max: usize) -> Result<String, EventError> {
    if text.len() > max {
        return Err(EventError::TooLarge);
    }
    if is_clean_text(&text) { Ok(text) } else { Err(EventError::ForbiddenText) }
}

fn checked_option(text: Option<String>, max: usize) -> Result<Option<String>, EventError> {
    text.map(|text| checked(text, max)).transpose()
}

fn to_wire(event: &ImEvent) -> WireEvent {
    let kind = match event {
        ImEvent::Message(message) => Kind::Message(message_to_wire(message)),
        ImEvent::ChatState(state) => Kind::ChatState(match state {
            ChatState::Active => 1,
            ChatState::Composing => 2,
            ChatState::Paused => 3,
            ChatState::Inactive => 4,
            ChatState::Gone => 5,
        }),
        ImEvent::Receipt(id) => Kind::Receipt(id.clone()),
        ImEvent::Marker(marker) => Kind::Marker(WireMarker { kind: marker_kind(marker.kind), id: marker.id.clone() }),
        ImEvent::Presence(presence) => Kind::Presence(match presence {
            Availability::Available => 1,
            Availability::Chat => 2,
            Availability::Away => 3,
            Availability::ExtendedAway => 4,
            Availability::DoNotDisturb => 5,
            Availability::Unavailable => 6,
        }),
        ImEvent::Software(software) => Kind::Software(open::software_to_wire(software)),
    };
    WireEvent { kind: Some(kind) }
}

fn message_to_wire(message: &Message) -> WireMessage {
    let (author, agent) = match &message.author {
        Author::Party => (0, String::new()),
        Author::Agent(name) => (1, name.clone()),
        Author::Notice => (2, String::new()),
    };
    WireMessage {
        id: message.id.clone(),
        body: message.body.clone(),
        author,
        agent,
        replaces: message.replaces.clone(),
        replies_to: message.replies_to.clone(),
        oob_url: message.oob_url.clone(),
        wants_receipt: message.wants_receipt,
        markable: message.markable,
        delayed_at: message.delayed_at,
    }
}

fn message_from_wire(message: WireMessage) -> Result<Message, EventError> {
    let author = match message.author {
        0 => Author::Party,
        1 => Author::Agent(checked(message.agent, MAX_ID_BYTES)?),
        2 => Author::Notice,
        _ => return Err(EventError::Malformed),
    };
    Ok(Message {
        id: checked_option(message.id, MAX_ID_BYTES)?,
        body: checked(message.body, MAX_EVENT_BYTES)?,
        author,
        replaces: checked_option(message.replaces, MAX_ID_BYTES)?,
        replies_to: checked_option(message.replies_to, MAX_ID_BYTES)?,
        oob_url: checked_option(message.oob_url, MAX_URL_BYTES)?,
        wants_receipt: message.wants_receipt,
        markable: message.markable,
        delayed_at: message.delayed_at,
    })
}

fn chat_state(state: u32) -> Result<ChatState, EventError> {
    Ok(match state {
        1 => ChatState::Active,
        2 => ChatState::Composing,
        3 => ChatState::Paused,
        4 => ChatState::Inactive,
        5 => ChatState::Gone,
        _ => return Err(EventError::Malformed),
    })
}

fn availability(presence: u32) -> Result<Availability, EventError> {
    Ok(match presence {
        1 => Availability::Available,
        2 => Availability::Chat,
        3 => Availability::Away,
        4 => Availability::ExtendedAway,
        5 => Availability::DoNotDisturb,
        6 => Availability::Unavailable,
        _ => return Err(EventError::Malformed),
    })
}

fn marker_kind(kind: MarkerKind) -> u32 {
    match kind {
        MarkerKind::Received => 1,
        MarkerKind::Displayed => 2,
        MarkerKind::Acknowledged => 3,
    }
}

fn marker_from_wire(marker: WireMarker) -> Result<Marker, EventError> {
    let kind = match marker.kind {
        1 => MarkerKind::Received,
        2 => MarkerKind::Displayed,
        3 => MarkerKind::Acknowledged,
        _ => return Err(EventError::Malformed),
    };
    Ok(Marker { kind, id: checked(marker.id, MAX_ID_BYTES)? })
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireEvent {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Message(WireMessage),
    #[prost(uint32, tag = "2")]
    ChatState(u32),
    #[prost(string, tag = "3")]
    Receipt(String),
    #[prost(message, tag = "4")]
    Marker(WireMarker),
    #[prost(uint32, tag = "5")]
    Presence(u32),
    #[prost(message, tag = "6")]
    Software(wire::Software),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireMessage {
    #[prost(string, optional, tag = "1")]
    id: Option<String>,
    #[prost(string, tag = "2")]
    body: String,
    #[prost(uint32, tag = "3")]
    author: u32,
    #[prost(string, tag = "4")]
    agent: String,
    #[prost(string, optional, tag = "5")]
    replaces: Option<String>,
    #[prost(string, optional, tag = "6")]
    replies_to: Option<String>,
    #[prost(string, optional, tag = "7")]
    oob_url: Option<String>,
    #[prost(bool, tag = "8")]
    wants_receipt: bool,
    #[prost(bool, tag = "9")]
    markable: bool,
    #[prost(uint64, optional, tag = "10")]
    delayed_at: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireMarker {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    id: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::{ClientSoftware, Confidence, Features, Ja4, SoftwareSource};

    fn message(body: &str) -> ImEvent {
        ImEvent::Message(Message { id: Some("m1".to_owned()), body: body.to_owned(), wants_receipt: true, ..Message::default() })
    }

    #[test]
    fn every_kind_of_event_comes_back_as_it_went() {
        let events = [
            message("Grüße\n\tdu"),
            ImEvent::Message(Message { author: Author::Agent("Alice".to_owned()), delayed_at: Some(0), ..Message::default() }),
            ImEvent::ChatState(ChatState::Composing),
            ImEvent::Receipt("m1".to_owned()),
            ImEvent::Marker(Marker { kind: MarkerKind::Displayed, id: "m1".to_owned() }),
            ImEvent::Presence(Availability::ExtendedAway),
            ImEvent::Software(ClientSoftware::unknown()),
            ImEvent::Software(ClientSoftware {
                name: "Node.js".into(),
                source: SoftwareSource::Ja4,
                confidence: Confidence::Inferred,
                ja4: Ja4::parse("t13d1516h2_8daaf6152771_e5627efa2ab1"),
                library: "OpenSSL".into(),
                is_contradicted: true,
                lacks: Features::named(["receipts", "links"]).unwrap(),
                ..ClientSoftware::unknown()
            }),
        ];
        for event in events {
            let bytes = encode(&event);
            assert_eq!(bytes.len(), encoded_len(&event));
            assert_eq!(decode(&bytes), Ok(event));
        }
    }

    #[test]
    fn control_characters_and_bidi_overrides_are_refused() {
        for body in ["a\u{0}b", "a\rb", "\u{1b}[31m", "\u{202e}evil", "\u{2066}evil", "\u{85}"] {
            assert_eq!(decode(&encode(&message(body))), Err(EventError::ForbiddenText), "{body:?}");
        }
    }

    #[test]
    fn an_event_above_the_limit_is_refused() {
        assert_eq!(decode(&encode(&message(&"x".repeat(MAX_EVENT_BYTES)))), Err(EventError::TooLarge));
        let long_id = ImEvent::Receipt("x".repeat(MAX_ID_BYTES + 1));
        assert_eq!(decode(&encode(&long_id)), Err(EventError::TooLarge));
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_panic() {
        let bytes = encode(&message("hello"));
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.to_vec();
                damaged[index] ^= 1 << bit;
                drop(decode(&damaged));
            }
            drop(decode(&bytes[..index]));
        }
        assert_eq!(decode(&[]), Err(EventError::Malformed));
    }
}
