//! Revocation lists that are longer than a frame: sent in parts, behind all other control frames and ACKs.
//!
//! No beginnings are counted: a list is signed, and one that came in parts costs its reader less by the byte than a short one.

use bytes::{Bytes, BytesMut};

use super::{MAX_LIST_BYTES, Trust, WireTrust, bounded, without_lists};
use crate::proto::tunnel::frame::{IGNORABLE, MORE};
use crate::proto::tunnel::handshake::Refusal;
use crate::proto::tunnel::wire::{self, kind};

/// Bytes of a part: a PING waits for one at most.
const PART_BYTES: usize = 8 * 1024;

/// The connector's half: the long lists that one relay is still to hear of.
#[derive(Debug, Default)]
pub(in crate::proto::tunnel) struct LongLists {
    /// The one under way, and how many bytes of it are written.
    sending: Option<(Bytes, usize)>,
    waiting: Vec<Bytes>,
}

impl LongLists {
    /// Answers with the frame for what fits into one, and keeps the lists that do not; `None` where CAs alone are too many.
    pub(in crate::proto::tunnel) fn tell(&mut self, trust: &Trust) -> Option<Bytes> {
        let mut told = without_lists(trust);
        let mut frame = bounded(kind::TRUST, &told)?;
        let mut long = Vec::new();
        for list in trust.revocations.iter().filter(|list| list.len() <= MAX_LIST_BYTES) {
            told.revocations.push(list.clone());
            match bounded(kind::TRUST, &told) {
                Some(larger) => frame = larger,
                None => long.extend(told.revocations.pop()),
            }
        }
        // The one under way is finished first: lists that change often must not keep each other from getting through.
        long.retain(|list| self.sending.as_ref().is_none_or(|(sending, _)| sending != list));
        self.waiting = long;
        Some(frame)
    }

    /// The carrier is gone, or another one is attached: all is told anew.
    pub(in crate::proto::tunnel) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Appends the next part to `out`, if there is one and `out` has room.
    pub(in crate::proto::tunnel) fn write(&mut self, max: usize, out: &mut BytesMut) {
        if out.len() >= max {
            return;
        }
        let next = || (!self.waiting.is_empty()).then(|| (self.waiting.remove(0), 0));
        let Some((list, offset)) = self.sending.take().or_else(next) else { return };
        let end = (offset + PART_BYTES).min(list.len());
        let is_last = end == list.len();
        let part = WireTrust { length: list.len() as u32, offset: offset as u32, part: list.slice(offset..end), ..WireTrust::default() };
        wire::put(out, kind::TRUST, if is_last { IGNORABLE } else { IGNORABLE | MORE }, 0, &part);
        self.sending = (!is_last).then_some((list, end));
    }
}

/// The relay's half: what has come of one connector's long list.
#[derive(Debug, Default)]
pub(in crate::proto::tunnel) struct ListIntake {
    /// Its length, and its bytes so far.
    coming: Option<(usize, BytesMut)>,
}

impl ListIntake {
    /// Takes one part, and answers with the list where it was the last; an error costs the carrier.
    pub(super) fn take(&mut self, part: &WireTrust, has_more: bool) -> Result<Option<Bytes>, Refusal> {
        let malformed = Refusal("malformed");
        let is_alone = part.authorities.is_empty() && part.links.is_empty() && part.revocations.is_empty();
        if part.length as usize > MAX_LIST_BYTES {
            return Err(Refusal("too_large"));
        }
        // Empty parts would be work without end.
        if !is_alone || part.part.is_empty() {
            return Err(malformed);
        }
        if part.offset == 0 {
            self.coming = Some((part.length as usize, BytesMut::new()));
        }
        let (length, bytes) = self.coming.as_mut().ok_or(malformed)?;
        let is_next = (*length, bytes.len()) == (part.length as usize, part.offset as usize);
        if !is_next || bytes.len() + part.part.len() > *length {
            return Err(malformed);
        }
        bytes.extend_from_slice(&part.part);
        if has_more {
            return Ok(None);
        }
        let (length, bytes) = self.coming.take().ok_or(malformed)?;
        if bytes.len() == length { Ok(Some(bytes.freeze())) } else { Err(malformed) }
    }

    /// A carrier came: a list that was cut is begun again.
    pub(in crate::proto::tunnel) fn cut(&mut self) {
        self.coming = None;
    }
}
