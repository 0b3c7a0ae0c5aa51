//! One agent's XMPP stream: what was counted, what is written, what is proven (XEP-0198).
//!
//! A leg is plain until its client sends `<enable/>`. With resumption it outlives its connection: stanzas for it are kept and
//! numbered while it is down, and written again when the client resumes. The leg only counts; the desk turns each change into
//! an operation of the store and writes nothing before that is committed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::im::Availability;
use crate::proto::xmpp::server::Answers;
use crate::session::SessionId;
use crate::store::{StoredStream, StreamKey};

use super::desk::{Hold, StreamHandle};

/// How long a resumable stream waits for its client; told in `<enabled max=…/>`.
pub(crate) const RESUMABLE_FOR: Duration = Duration::from_secs(300);

/// Stanzas a client may leave unacknowledged. The same whether it is there or not: a connection that breaks in the middle of a
/// burst must not cost the stream. Beyond what it holds then, its customers are held back.
const MAX_STANZAS: usize = 4096;
/// Bytes a client may leave unacknowledged.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// How long a plain stream must live on after a stanza was written for the stanza to count as delivered.
pub(crate) const PLAIN_PROOF_AFTER: Duration = Duration::from_secs(30);

/// How long such proofs may wait for one another: each time costs a commit.
pub(crate) const PROOFS_TOGETHER: Duration = Duration::from_secs(1);

/// What a stanza to the agent shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The session it belongs to, if any.
    pub(crate) session: Option<SessionId>,
    /// The inward event that it shows, if any.
    pub(crate) event: Option<u64>,
}

/// A stanza that the client has not acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// The stanza.
    pub(crate) xml: String,
    /// What it shows.
    pub(crate) tag: Tag,
}

/// How the client's stanzas and ours are accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    /// Not at all.
    Plain,
    /// XEP-0198 without resumption.
    Counted,
    /// XEP-0198 with resumption under this id.
    Resumable(StreamKey),
}

/// The client acknowledged more than was sent (XEP-0198 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooHigh {
    /// What it said.
    pub(crate) h: u32,
    /// What was sent.
    pub(crate) sent: u32,
}

/// One stream of one agent.
#[derive(Debug)]
pub(crate) struct Leg {
    /// Whose it is.
    pub(crate) agent: String,
    /// Its resource.
    pub(crate) resource: String,
    /// The connection; `None` while the stream is down.
    pub(crate) handle: Option<StreamHandle>,
    /// What its client last showed; `None` before the first presence and after unavailable.
    pub(crate) presence: Option<Availability>,
    /// How stanzas are counted.
    pub(crate) account: Account,
    /// State of the answers to its iqs.
    pub(crate) answers: Answers,
    /// When a stream that is down is given up.
    pub(crate) expires: Option<Instant>,
    /// What it sent and a customer has no room for now.
    pub(crate) hold: Option<Hold>,
    received: u32,
    sent: u32,
    unacknowledged: VecDeque<Sent>,
    unacknowledged_bytes: usize,
    unproven: VecDeque<(Instant, Tag)>,
    asked_at: u32,
    asking: bool,
}

impl Leg {
    /// A stream that was just bound.
    pub(crate) fn new(agent: String, resource: String, handle: StreamHandle) -> Self {
        Self {
            agent,
            resource,
            handle: Some(handle),
            presence: None,
            account: Account::Plain,
            answers: Answers::default(),
            expires: None,
            hold: None,
            received: 0,
            sent: 0,
            unacknowledged: VecDeque::new(),
            unacknowledged_bytes: 0,
            unproven: VecDeque::new(),
            asked_at: 0,
            asking: false,
        }
    }

    /// A resumable stream as the store kept it, down until its client resumes. Its client does not repeat its presence then.
    /// `tag_of` finds what a kept stanza shows.
    pub(crate) fn restore(stored: StoredStream, expires: Instant, mut tag_of: impl FnMut(&str, Option<SessionId>) -> Tag) -> Self {
        let unacknowledged: VecDeque<Sent> = stored
            .pending
            .into_iter()
            .map(|(_, xml, session)| {
                let tag = tag_of(&xml, session);
                Sent { xml, tag }
            })
            .collect();
        let unacknowledged_bytes = unacknowledged.iter().map(|sent| sent.xml.len()).sum();
        Self {
            agent: stored.agent,
            resource: stored.resource,
            handle: None,
            presence: stored.presence,
            account: Account::Resumable(stored.stream),
            answers: Answers::default(),
            expires: Some(expires),
            hold: None,
            received: stored.h,
            sent: stored.out_last,
            unacknowledged,
            unacknowledged_bytes,
            unproven: VecDeque::new(),
            asked_at: stored.out_last,
            asking: false,
        }
    }

    /// Begins to count, from nothing (XEP-0198 §3).
    pub(crate) fn enable(&mut self, account: Account) {
        self.account = account;
        self.received = 0;
        self.sent = 0;
        self.asked_at = 0;
    }

    /// A stanza of the client is handled; gives the new `h` where it is counted.
    pub(crate) fn received(&mut self) -> Option<u32> {
        if self.account == Account::Plain {
            return None;
        }
        self.received = self.received.wrapping_add(1);
        Some(self.received)
    }

    /// A stanza goes to the client; gives its number where it is counted.
    pub(crate) fn sent(&mut self, xml: &str, tag: Tag, now: Instant) -> Option<u32> {
        if self.account == Account::Plain {
            if tag.event.is_some() {
                self.unproven.push_back((now + PLAIN_PROOF_AFTER, tag));
            }
            return None;
        }
        self.sent = self.sent.wrapping_add(1);
        self.unacknowledged_bytes += xml.len();
        self.unacknowledged.push_back(Sent { xml: xml.to_owned(), tag });
        Some(self.sent)
    }

    /// The client acknowledged up to `h`: what that proves, in order.
    pub(crate) fn acknowledged(&mut self, h: u32) -> Result<Vec<Tag>, TooHigh> {
        self.asking = false;
        let before = self.acknowledged_before();
        let count = h.wrapping_sub(before) as usize;
        if count > self.unacknowledged.len() {
            // An h below the one told before is a client's fault that costs nothing: all comparisons are modular.
            return if before.wrapping_sub(h) < u32::MAX / 2 { Ok(Vec::new()) } else { Err(TooHigh { h, sent: self.sent }) };
        }
        let mut proven = Vec::with_capacity(count);
        for sent in self.unacknowledged.drain(..count) {
            self.unacknowledged_bytes -= sent.xml.len();
            proven.push(sent.tag);
        }
        Ok(proven)
    }

    /// What a plain stream has carried long enough ago.
    pub(crate) fn proven_by_time(&mut self, now: Instant) -> Vec<Tag> {
        let count = self.unproven.iter().take_while(|(due, _)| *due <= now).count();
        self.unproven.drain(..count).map(|(_, tag)| tag).collect()
    }

    /// When `proven_by_time` has something next.
    pub(crate) fn next_proof(&self) -> Option<Instant> {
        self.unproven.front().map(|(due, _)| *due)
    }

    /// Whether `<r/>` should go out now: something new is unacknowledged and no earlier question is open.
    pub(crate) fn ask(&mut self) -> bool {
        if self.handle.is_none() || self.asking || self.unacknowledged.is_empty() || self.asked_at == self.sent {
            return false;
        }
        self.asked_at = self.sent;
        self.asking = true;
        true
    }

    /// The connection is gone and the stream waits for its client until `expires`.
    pub(crate) fn down(&mut self, expires: Instant) {
        self.handle = None;
        // Not counted, so its client sends it again.
        self.hold = None;
        self.expires = Some(expires);
        self.asking = false;
    }

    /// The client is back on `handle`.
    pub(crate) fn up(&mut self, handle: StreamHandle) {
        self.handle = Some(handle);
        self.hold = None;
        self.expires = None;
        self.asking = false;
        self.asked_at = self.acknowledged_before();
    }

    /// Replaces the text of whatever shows `session` by `notice`: the session has another owner now.
    pub(crate) fn withdraw(&mut self, session: SessionId, mut notice: impl FnMut() -> String) {
        for sent in self.unacknowledged.iter_mut().filter(|sent| sent.tag.session == Some(session)) {
            sent.xml = notice();
            sent.tag = Tag::default();
        }
        self.unacknowledged_bytes = self.unacknowledged.iter().map(|sent| sent.xml.len()).sum();
    }

    /// What the client has not acknowledged, in order.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = &Sent> {
        self.unacknowledged.iter()
    }

    /// Our `h`.
    pub(crate) fn h(&self) -> u32 {
        self.received
    }

    /// The id under which it can be resumed.
    pub(crate) fn key(&self) -> Option<StreamKey> {
        match self.account {
            Account::Resumable(key) => Some(key),
            Account::Plain | Account::Counted => None,
        }
    }

    /// Whether more is kept for the client than it may cost.
    pub(crate) fn is_overfull(&self) -> bool {
        self.unacknowledged.len() > MAX_STANZAS || self.unacknowledged_bytes > MAX_BYTES
    }

    fn acknowledged_before(&self) -> u32 {
        let waiting = u32::try_from(self.unacknowledged.len()).unwrap_or(u32::MAX);
        self.sent.wrapping_sub(waiting)
    }
}

/// Writes a stream's id as it is told to the client.
pub(crate) fn key_text(key: StreamKey) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(32);
    for byte in key.0 {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// Reads a stream's id as the client repeats it.
pub(crate) fn key_of(text: &str) -> Option<StreamKey> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut key = [0; 16];
    for (slot, at) in key.iter_mut().zip((0..32).step_by(2)) {
        let pair = text.get(at..at + 2)?;
        if !pair.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        *slot = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(StreamKey(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn counted() -> (Leg, Instant) {
        let mut leg = Leg::new("alice".into(), "desk".into(), StreamHandle(1));
        leg.enable(Account::Resumable(StreamKey([7; 16])));
        (leg, Instant::now())
    }

    #[test]
    fn an_acknowledgement_proves_what_it_counts_and_no_more() {
        let (mut leg, now) = counted();
        for event in 1..=3 {
            leg.sent("<message/>", Tag { session: None, event: Some(event) }, now);
        }
        let proven = leg.acknowledged(2).unwrap();
        assert_eq!(proven.iter().map(|tag| tag.event).collect::<Vec<_>>(), [Some(1), Some(2)]);
        assert_eq!(leg.acknowledged(1).unwrap(), []);
        assert_eq!(leg.acknowledged(4), Err(TooHigh { h: 4, sent: 3 }));
        assert_eq!(leg.unacknowledged().count(), 1);
    }

    #[test]
    fn counts_wrap_as_the_xep_says() {
        let (mut leg, now) = counted();
        leg.sent = u32::MAX;
        leg.sent("<message/>", Tag { session: None, event: Some(1) }, now);
        assert_eq!(leg.acknowledged(0).unwrap().len(), 1);
    }

    #[test]
    fn a_stream_that_is_down_keeps_a_bounded_amount() {
        let (mut leg, now) = counted();
        leg.down(now + RESUMABLE_FOR);
        for _ in 0..MAX_STANZAS {
            leg.sent("<message/>", Tag::default(), now);
        }
        assert!(!leg.is_overfull());
        leg.sent("<message/>", Tag::default(), now);
        assert!(leg.is_overfull());
    }

    #[test]
    fn a_stream_id_survives_its_way_through_text() {
        let key = StreamKey([0xa5; 16]);
        assert_eq!(key_of(&key_text(key)), Some(key));
        assert_eq!(key_of("zz"), None);
        assert_eq!(key_of("+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1"), None);
    }
}
