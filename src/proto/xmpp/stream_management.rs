//! XEP-0198: counting what was handled.
//!
//! Three pure parts: reading and writing the nonzas; [`HandledPrefix`], what we tell the client that we have handled; and
//! [`Unacknowledged`], what the client told us.
//!
//! Counts wrap at 2^32 as the XEP says (§4): all comparisons are modular.
//!
//! Left out: when to ask and to answer, and how many stanzas may wait; the owner of the stream looks at
//! [`HandledPrefix::waiting`] and [`Unacknowledged::len`].

use std::collections::VecDeque;

use super::{ns, stanza::Element};

/// Longest stream id (SM-ID) that XEP-0198 §3 allows, in bytes.
const MAX_PREVID_BYTES: usize = 4000;

/// A nonza of stream management from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nonza {
    /// `<enable resume=…/>` (§3).
    Enable {
        /// Whether resumption is asked for.
        resume: bool,
    },
    /// `<r/>` (§4).
    Request,
    /// `<a h=…/>` (§4).
    Answer {
        /// Stanzas the client has handled.
        h: u32,
    },
    /// `<resume previd=… h=…/>` (§5).
    Resume {
        /// The stream's id.
        previd: String,
        /// Stanzas the client has handled.
        h: u32,
    },
}

/// Reads a nonza; `None` when it is not one of stream management or is malformed.
pub fn nonza_of(element: &Element) -> Option<Nonza> {
    if element.namespace() != ns::STREAM_MANAGEMENT {
        return None;
    }
    match element.name() {
        "enable" => Some(Nonza::Enable { resume: matches!(element.attribute("resume"), Some("true" | "1")) }),
        "r" => Some(Nonza::Request),
        "a" => Some(Nonza::Answer { h: h_of(element)? }),
        "resume" => {
            let previd = element.attribute("previd").filter(|id| id.len() <= MAX_PREVID_BYTES)?;
            Some(Nonza::Resume { previd: previd.to_owned(), h: h_of(element)? })
        }
        _ => None,
    }
}

/// Whether `element` is a stanza that counts (message, presence, iq in jabber:client; §4).
pub fn counts(element: &Element) -> bool {
    element.namespace() == ns::CLIENT && matches!(element.name(), "message" | "presence" | "iq")
}

/// `<enabled/>` (§3): `id` names the stream where it can be resumed, within `max_seconds` where that is said.
pub fn enabled(id: Option<&str>, max_seconds: Option<u32>) -> Element {
    let mut enabled = nonza("enabled");
    if let Some(id) = id {
        enabled.set_attribute("id", id);
        enabled.set_attribute("resume", "true");
        if let Some(seconds) = max_seconds {
            enabled.set_attribute("max", seconds.to_string());
        }
    }
    enabled
}

/// `<a h=…/>` (§4).
pub fn answer(h: u32) -> Element {
    nonza("a").with_attribute("h", h.to_string())
}

/// `<r/>` (§4).
pub fn request() -> Element {
    nonza("r")
}

/// `<resumed/>` (§5).
pub fn resumed(previd: &str, h: u32) -> Element {
    nonza("resumed").with_attribute("previd", previd).with_attribute("h", h.to_string())
}

/// `<failed/>` (§3, §5) with a stanza error condition of RFC 6120, and the count where it is still known.
pub fn failed(condition: &'static str, h: Option<u32>) -> Element {
    let failed = nonza("failed").with_child(Element::new(condition, ns::STANZA_ERRORS));
    match h {
        Some(h) => failed.with_attribute("h", h.to_string()),
        None => failed,
    }
}

/// The customer side's inbound account at the relay: which prefix of the client's stanzas is handled.
/// Stanzas without an event are handled once all before them are.
#[derive(Debug, Default)]
pub struct HandledPrefix {
    /// Stanzas that arrived, counted without wrapping.
    stanzas: u64,
    /// Events that the stanzas became.
    events: u64,
    /// Events that are handled.
    handled: u64,
    /// Stanzas with events not all handled: the stanza's number and that of its last event, both rising.
    unhandled: VecDeque<(u64, u64)>,
}

impl HandledPrefix {
    /// Goes on after `stanzas` and `events` that are all handled, as a resumed stream does.
    pub fn resumed_at(stanzas: u32, events: u64) -> Self {
        Self { stanzas: u64::from(stanzas), events, handled: events, unhandled: VecDeque::new() }
    }

    /// A stanza arrived that became `events` events (0 for none). Returns its number from 1, which is its `sm_in`.
    pub fn arrived(&mut self, events: u32) -> u32 {
        self.stanzas += 1;
        if events > 0 {
            self.events += u64::from(events);
            self.unhandled.push_back((self.stanzas, self.events));
        }
        wrapped(self.stanzas)
    }

    /// Inward events up to `number` (from 1, in order of arrival) are handled. A number told before changes nothing, and one
    /// above what arrived stands for all that arrived.
    pub fn handled(&mut self, number: u64) {
        self.handled = self.handled.max(number.min(self.events));
        while self.unhandled.front().is_some_and(|(_, last_event)| *last_event <= self.handled) {
            self.unhandled.pop_front();
        }
    }

    /// The `h` to tell: never goes back.
    pub fn h(&self) -> u32 {
        wrapped(self.unhandled.front().map_or(self.stanzas, |(stanza, _)| stanza - 1))
    }

    /// Events that wait.
    pub fn waiting(&self) -> usize {
        usize::try_from(self.events - self.handled).unwrap_or(usize::MAX)
    }
}

/// The outbound account: which of our stanzas the client has acknowledged, tagged with what they carry.
#[derive(Debug)]
pub struct Unacknowledged<T> {
    /// Stanzas written, counted without wrapping.
    sent: u64,
    /// What the newest of them carry: those not acknowledged.
    tags: VecDeque<T>,
}

impl<T> Unacknowledged<T> {
    /// Nothing sent.
    pub fn new() -> Self {
        Self::resumed_at(0)
    }

    /// Goes on after `h` stanzas that are acknowledged, as a resumed stream does.
    pub fn resumed_at(h: u32) -> Self {
        Self { sent: u64::from(h), tags: VecDeque::new() }
    }

    /// A stanza is written; returns its number from 1.
    pub fn sent(&mut self, tag: T) -> u32 {
        self.sent += 1;
        self.tags.push_back(tag);
        wrapped(self.sent)
    }

    /// `<a h>` arrived: yields the tags it acknowledges, in order; none where it tells an older count again. `Err` when h was never
    /// reached (close with undefined-condition, handled-count-too-high).
    pub fn acknowledged(&mut self, h: u32) -> Result<Vec<T>, HandledTooHigh> {
        let acknowledged = self.sent - self.tags.len() as u64;
        let ahead = h.wrapping_sub(wrapped(acknowledged)) as usize;
        if ahead <= self.tags.len() {
            return Ok(self.tags.drain(..ahead).collect());
        }
        let behind = wrapped(acknowledged).wrapping_sub(h);
        // Half the circle is the past, as far as the stream reaches into it; the rest was never sent.
        if behind <= u32::MAX / 2 && u64::from(behind) <= acknowledged {
            return Ok(Vec::new());
        }
        Err(HandledTooHigh { h, sent: wrapped(self.sent) })
    }

    /// The count that was acknowledged last.
    pub fn h(&self) -> u32 {
        wrapped(self.sent - self.tags.len() as u64)
    }

    /// Stanzas not acknowledged.
    pub fn len(&self) -> usize {
        self.tags.len()
    }

    /// Whether all that was sent is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// What the stanzas not acknowledged carry, in the order they were sent.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.tags.iter()
    }

    /// Ends the account: what was not acknowledged, in order.
    pub fn into_unacknowledged(self) -> impl Iterator<Item = T> {
        self.tags.into_iter()
    }
}

impl<T> Default for Unacknowledged<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The client acknowledged more than was sent (XEP-0198 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client acknowledged {h} stanzas but only {sent} were sent")]
pub struct HandledTooHigh {
    /// What it said.
    pub h: u32,
    /// What was sent.
    pub sent: u32,
}

/// Whether count `a` is above `b`, in the wrapping order of §4.
pub fn is_above(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) <= u32::MAX / 2
}

/// An empty element of stream management.
fn nonza(name: &'static str) -> Element {
    Element::new(name, ns::STREAM_MANAGEMENT)
}

/// The `h` of a nonza: an xs:unsignedInt.
fn h_of(element: &Element) -> Option<u32> {
    let digits = element.attribute("h")?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) { None } else { digits.parse().ok() }
}

/// A count as the wire tells it, modulo 2^32.
fn wrapped(count: u64) -> u32 {
    count as u32
}

#[cfg(test)]
mod tests;
