//! Stanza errors (RFC 6120 §8.3).

use super::super::{ns, stanza::Element};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    kind: &'static str,
    condition: &'static str,
    text: Option<&'static str>,
}

impl Refusal {
    /// Not served here, or nobody there.
    pub(super) const UNAVAILABLE: Self = Self { kind: "cancel", condition: "service-unavailable", text: None };
    /// Against the rules of the protocol.
    pub(super) const BAD_REQUEST: Self = Self { kind: "modify", condition: "bad-request", text: None };
    /// Addressed to what is no JID (RFC 6120 §8.3.3.8).
    pub(super) const MALFORMED: Self = Self { kind: "modify", condition: "jid-malformed", text: None };
    /// Nothing of that name.
    pub(super) const NOT_FOUND: Self = Self { kind: "cancel", condition: "item-not-found", text: None };
    /// No way to that domain.
    pub(super) const NO_SUCH_SERVER: Self = Self { kind: "cancel", condition: "remote-server-not-found", text: None };

    /// Understood, and not for the client to do.
    pub(super) const fn not_allowed(text: &'static str) -> Self {
        Self { kind: "cancel", condition: "not-allowed", text: Some(text) }
    }

    /// The `<error/>`.
    pub(super) fn to_element(self) -> Element {
        error_element(self.kind, self.condition, self.text)
    }
}

/// A stanza error in answer to `stanza` (RFC 6120 §8.3): addresses swapped, id kept. `kind` is "cancel", "wait", "modify" or "auth".
/// A stanza of type 'error' must not be answered with it (§8.3.1), nor an iq of type 'result'.
pub fn stanza_error(stanza: &Element, kind: &str, condition: &'static str, text: Option<&str>) -> Element {
    let name = match stanza.name() {
        "iq" => "iq",
        "presence" => "presence",
        _ => "message",
    };
    let mut error = Element::new(name, ns::CLIENT).with_attribute("type", "error");
    for (ours, theirs) in [("from", "to"), ("to", "from"), ("id", "id")] {
        if let Some(value) = stanza.attribute(theirs) {
            error.set_attribute(ours, value);
        }
    }
    error.with_child(error_element(kind, condition, text))
}

/// The `<error/>`.
fn error_element(kind: &str, condition: &'static str, text: Option<&str>) -> Element {
    let error = Element::new("error", ns::CLIENT).with_attribute("type", kind).with_child(Element::new(condition, ns::STANZA_ERRORS));
    match text {
        Some(text) => error.with_child(Element::new("text", ns::STANZA_ERRORS).with_attribute("xml:lang", "en").with_text(text)),
        None => error,
    }
}
