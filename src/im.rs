//! What two people say to each other, free of any protocol's syntax.
//!
//! The relay rebuilds every stranger's stanza into an [`ImEvent`]; nothing else crosses the tunnel. Each variant is bounded:
//! [`MAX_EVENT_BYTES`] caps the encoded whole, so that one event always fits a channel's first credit.

use crate::fingerprint::ClientSoftware;

/// Largest encoded event, in bytes: below a channel's first credit, so one event can always be sent.
pub const MAX_EVENT_BYTES: usize = 32 * 1024;

/// Largest message identifier that is carried, in bytes; longer ones are cut off at the door.
pub const MAX_ID_BYTES: usize = 256;

/// One thing said or shown in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImEvent {
    /// Text, with what belongs to it.
    Message(Message),
    /// Typing and its kin (XEP-0085): true now, worthless later.
    ChatState(ChatState),
    /// "Your message reached my client" (XEP-0184), naming the message's id.
    Receipt(String),
    /// A chat marker (XEP-0333).
    Marker(Marker),
    /// Whether the customer is there.
    Presence(Availability),
    /// What the customer's client says it is.
    Software(ClientSoftware),
}

impl ImEvent {
    /// Whether the event is ephemeral: numbered like any other, but no body is stored or replayed.
    pub fn is_ephemeral(&self) -> bool {
        matches!(self, Self::ChatState(_))
    }
}

/// A message's text and its attachments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The sender's own id for it, if any.
    pub id: Option<String>,
    /// The text. May be empty only where `oob_url` is set.
    pub body: String,
    /// Who speaks.
    pub author: Author,
    /// The id of the earlier message that this one corrects (XEP-0308).
    pub replaces: Option<String>,
    /// The id of the message that this one answers (XEP-0461).
    pub replies_to: Option<String>,
    /// A link offered beside the text (XEP-0066).
    pub oob_url: Option<String>,
    /// Whether the sender asks for a receipt (XEP-0184).
    pub wants_receipt: bool,
    /// Whether the message may be marked as displayed (XEP-0333).
    pub markable: bool,
    /// When it was first said, in milliseconds since the Unix epoch, where it is shown late (XEP-0203).
    pub delayed_at: Option<u64>,
}

/// Who speaks in a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Author {
    /// The party at the other end: the customer inwards, the agent outwards.
    #[default]
    Party,
    /// The agent, by the name the customer may see.
    Agent(String),
    /// Outgate itself: a position in the queue, "Alice has joined".
    Notice,
}

/// A chat state (XEP-0085).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatState {
    /// Attending.
    Active,
    /// Typing.
    Composing,
    /// Stopped typing.
    Paused,
    /// Looking elsewhere.
    Inactive,
    /// Closed the window.
    Gone,
}

/// A chat marker (XEP-0333).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// What happened to the message.
    pub kind: MarkerKind,
    /// The id of the marked message.
    pub id: String,
}

/// The kinds of chat marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerKind {
    /// Reached the client.
    Received,
    /// Shown to the person.
    Displayed,
    /// Acted upon.
    Acknowledged,
}

/// Whether a person is there (RFC 6121 §4.7.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// There.
    Available,
    /// There and keen.
    Chat,
    /// Away for a moment.
    Away,
    /// Away for long.
    ExtendedAway,
    /// Not to be disturbed.
    DoNotDisturb,
    /// Not there.
    Unavailable,
}
