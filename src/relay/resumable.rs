//! Streams of this relay that their clients may take up again (XEP-0198 §5): how a client's new connection finds its session.
//!
//! The id of a stream is made of the connector's label, the session's secret and the resource. Whoever presents the secret is the
//! client; addresses count for nothing. Sessions are found by the secret's digest, so that a guess learns nothing from the time it takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::{Notify, oneshot};

use crate::net::stream::Stream;
use crate::proto::tunnel::Identity;
use crate::proto::xmpp::reader::Reader;
use crate::session::SessionSecret;

use super::counters::Place;
use super::gate::Permit;

/// Hexadecimal digits of label and secret.
const DIGITS: usize = 2 * (4 + 16);

/// Longest resource, in bytes.
const MAX_RESOURCE: usize = 128;

/// The id of a stream (SM-ID). It holds a secret: it is written to its client and nowhere else.
#[derive(Clone)]
pub(super) struct StreamId {
    /// Which connector has the session.
    pub(super) label: [u8; 4],
    /// Proves whose it is.
    pub(super) secret: SessionSecret,
    /// The client's, which another relay has to know.
    pub(super) resource: String,
}

impl std::fmt::Debug for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamId(MASKED)")
    }
}

impl StreamId {
    /// As `<enabled id=…/>` tells it.
    pub(super) fn text(&self) -> String {
        let bytes = self.label.iter().chain(&self.secret.0);
        let mut text: String =
            bytes.flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
        text.push('-');
        text.push_str(&self.resource);
        text
    }

    /// As `<resume previd=…/>` brings it back.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (digits, resource) = text.split_at_checked(DIGITS)?;
        let resource = resource.strip_prefix('-')?;
        let fit = !resource.is_empty() && resource.len() <= MAX_RESOURCE && !resource.chars().any(char::is_control);
        let mut bytes = [0; DIGITS / 2];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        let (label, secret) = bytes.split_first_chunk::<4>()?;
        fit.then_some(Self { label: *label, secret: SessionSecret(secret.try_into().ok()?), resource: resource.to_owned() })
    }

    /// The name under which the client is bound: it follows from the secret, and tells nothing of it.
    pub(super) fn localpart(&self) -> String {
        let [a, b, c, d, ..] = sha256(&[b"outgate guest\0", &self.secret.0[..]].concat());
        format!("guest-{:08x}", u32::from_be_bytes([a, b, c, d]))
    }

    /// What the session is found by.
    pub(super) fn digest(&self) -> Digest {
        Digest(sha256(&self.secret.0))
    }
}

/// The label of a connector: the same at every relay, and no name that a stranger should see.
pub(super) fn label_of(identity: &Identity) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256(identity.0.as_bytes());
    [a, b, c, d]
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// The digest of a session's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

/// A transport with what has not been read of it yet.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) stream: Stream,
    pub(super) reader: Reader,
    pub(super) peer: std::net::SocketAddr,
    pub(super) _connection: Place,
    pub(super) _permit: Permit,
}

/// A client's wish to go on with its session.
#[derive(Debug)]
pub(super) struct Ask {
    /// What it has counted.
    pub(super) h: u32,
    pub(super) reply: oneshot::Sender<Result<Granted, NotGranted>>,
}

/// The session waits for its client's new transport.
#[derive(Debug)]
pub(super) struct Granted {
    /// What the client is told first.
    pub(super) output: String,
    /// Takes the transport; dropped, the session waits for another.
    pub(super) seat: oneshot::Sender<Box<Seat>>,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotGranted {
    /// The count cannot be.
    BadCount,
    /// What the client had sent was not handled in time.
    Slow,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Resumables(Mutex<HashMap<Digest, Arc<Slot>>>);

/// Where one session is asked.
#[derive(Debug, Default)]
struct Slot {
    ask: Mutex<Option<Ask>>,
    wake: Notify,
}

/// A session's entry; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    of: Arc<Resumables>,
    digest: Digest,
    slot: Arc<Slot>,
}

impl Resumables {
    /// Lets a session be found.
    pub(super) fn enter(self: &Arc<Self>, digest: Digest) -> Entry {
        let slot = Arc::<Slot>::default();
        self.entries().insert(digest, Arc::clone(&slot));
        Entry { of: Arc::clone(self), digest, slot }
    }

    /// Asks a session to go on with another transport. `None` where no such session is here; else the answer follows, or nothing if
    /// the session ends, or somebody else asks later.
    pub(super) fn ask(&self, digest: Digest, h: u32) -> Option<oneshot::Receiver<Result<Granted, NotGranted>>> {
        let entries = self.entries();
        let slot = entries.get(&digest)?;
        let (reply, answer) = oneshot::channel();
        *slot.ask() = Some(Ask { h, reply });
        slot.wake.notify_one();
        Some(answer)
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn ask(&self) -> std::sync::MutexGuard<'_, Option<Ask>> {
        self.ask.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Waits until somebody asks.
    pub(super) async fn asked(&self) -> Ask {
        loop {
            if let Some(ask) = self.slot.ask().take() {
                return ask;
            }
            self.slot.wake.notified().await;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut entries = self.of.entries();
        if entries.get(&self.digest).is_some_and(|slot| Arc::ptr_eq(slot, &self.slot)) {
            entries.remove(&self.digest);
        }
        self.slot.ask().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(resource: &str) -> StreamId {
        StreamId { label: [0xab, 0, 1, 2], secret: SessionSecret([7; 16]), resource: resource.to_owned() }
    }

    #[test]
    fn an_id_comes_back_as_it_went_and_is_never_shown() {
        for resource in ["phone", "Gajim.ÄX-1", "a-b"] {
            let text = id(resource).text();
            let back = StreamId::parse(&text).unwrap();
            assert_eq!((back.label, back.secret, back.resource.as_str()), ([0xab, 0, 1, 2], SessionSecret([7; 16]), resource));
            assert!(!format!("{back:?}").contains("0707"));
            assert!(!back.localpart().contains("0707"));
        }
    }

    #[test]
    fn what_is_no_id_is_none() {
        let good = id("phone").text();
        for bad in
            ["", "x", &good[..40], &good[..41], &good[1..], &format!("+{}", &good[1..]), &good.replace("phone", "a\nb"), &"ä".repeat(60)]
        {
            assert!(StreamId::parse(bad).is_none(), "{bad:?}");
        }
        assert!(StreamId::parse(&format!("{}{}", &good[..41], "x".repeat(200))).is_none());
    }

    #[tokio::test]
    async fn the_later_of_two_that_ask_is_heard_and_nobody_once_the_session_is_over() {
        let resumables = Arc::new(Resumables::default());
        let digest = id("phone").digest();
        assert!(resumables.ask(digest, 1).is_none());
        let entry = resumables.enter(digest);
        let first = resumables.ask(digest, 1).unwrap();
        let second = resumables.ask(digest, 2).unwrap();
        assert!(first.await.is_err());
        assert_eq!(entry.asked().await.h, 2);
        assert!(second.await.is_err(), "the question was dropped");
        let third = resumables.ask(digest, 3).unwrap();
        drop(entry);
        assert!(third.await.is_err());
        assert!(resumables.ask(digest, 4).is_none());
    }
}
