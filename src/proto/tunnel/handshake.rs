//! HELLO and the sequences of ATTACH: what is agreed before any session is touched.
//!
//! ```text
//! connector            relay
//!   HELLO       ──▶
//!               ◀──    HELLO_ACK            (changes nothing on either side)
//!   ATTACH…     ──▶                         (NEW, or RESUME with a cursor per channel, in parts)
//!               ◀──    ATTACHED… | REFUSED  (the relay grants the epoch and answers with its own cursors)
//! ```

use bytes::Bytes;

use super::Settings;
use super::carrier::Assembly;
use super::frame::{Frame, MAX_BODY_BYTES, MORE};
use super::open::text;
use super::wire::{self, Cursor, kind};

/// Largest HELLO, in bytes.
const MAX_HELLO_BYTES: usize = 4096;

/// Most channels of one tunnel.
pub(super) const MAX_CHANNELS: usize = 20_000;

/// Cursors in one part: at most 49 bytes each, so a part stays below [`MAX_BODY_BYTES`].
const CURSORS_PER_PART: usize = 1024;

/// Largest node or software name, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Why a HELLO or a part is not taken; the word goes into ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) &'static str);

pub(super) fn hello(settings: &Settings, incarnation: &[u8]) -> wire::Hello {
    wire::Hello {
        min_version: *settings.versions.start(),
        max_version: *settings.versions.end(),
        features: 0,
        node: settings.node.clone(),
        software: settings.software.clone(),
        max_body: MAX_BODY_BYTES as u32,
        max_channels: MAX_CHANNELS as u32,
        clock_millis: (settings.clock)(),
        incarnation: Bytes::copy_from_slice(incarnation),
    }
}

/// Reads a HELLO or HELLO_ACK. The highest version that both know is spoken; without one the carrier ends. Of features only those
/// that both name would hold; there are none yet.
pub(super) fn read_hello(frame: &Frame, settings: &Settings) -> Result<wire::Hello, Refusal> {
    if frame.body.len() > MAX_HELLO_BYTES {
        return Err(Refusal("hello_too_large"));
    }
    let mut hello: wire::Hello = wire::body(frame).map_err(|_| Refusal("malformed"))?;
    let newest = hello.max_version.min(*settings.versions.end());
    if newest < hello.min_version.max(*settings.versions.start()) {
        return Err(Refusal("version"));
    }
    hello.node = text(hello.node, MAX_NAME_BYTES).map_err(|_| Refusal("malformed"))?;
    hello.software = text(hello.software, MAX_NAME_BYTES).map_err(|_| Refusal("malformed"))?;
    Ok(hello)
}

/// Encodes ATTACH as a sequence of frames.
pub(super) fn attach_frames(tunnel_id: &Bytes, last_epoch: u64, channels_from: u32, cursors: &[Cursor]) -> Vec<Bytes> {
    parts(cursors, |flags, part| {
        let attach = wire::Attach { tunnel_id: tunnel_id.clone(), last_epoch, cursors: part.to_vec(), channels_from };
        wire::encoded(kind::ATTACH, flags, 0, &attach)
    })
}

/// Encodes ATTACHED as a sequence of frames.
pub(super) fn attached_frames(tunnel_id: &Bytes, epoch: u64, cursors: &[Cursor]) -> Vec<Bytes> {
    parts(cursors, |flags, part| {
        let attached = wire::Attached { tunnel_id: tunnel_id.clone(), epoch, cursors: part.to_vec() };
        wire::encoded(kind::ATTACHED, flags, 0, &attached)
    })
}

/// Takes one part of ATTACH or ATTACHED; true when it was the last.
pub(super) fn take_part(frame: &Frame, assembly: &mut Assembly) -> Result<bool, Refusal> {
    let malformed = Refusal("malformed");
    if frame.kind == kind::ATTACH {
        let part: wire::Attach = wire::body(frame).map_err(|_| malformed)?;
        assembly.tunnel_id = part.tunnel_id;
        assembly.epoch = part.last_epoch;
        assembly.channels_from = part.channels_from;
        assembly.cursors.extend(part.cursors);
    } else {
        let part: wire::Attached = wire::body(frame).map_err(|_| malformed)?;
        assembly.tunnel_id = part.tunnel_id;
        assembly.epoch = part.epoch;
        assembly.cursors.extend(part.cursors);
    }
    if assembly.cursors.len() > MAX_CHANNELS {
        return Err(Refusal("too_many_channels"));
    }
    Ok(frame.flags & MORE == 0)
}

fn parts(cursors: &[Cursor], encode: impl Fn(u8, &[Cursor]) -> Bytes) -> Vec<Bytes> {
    if cursors.is_empty() {
        return vec![encode(0, &[])];
    }
    let count = cursors.len().div_ceil(CURSORS_PER_PART);
    let flags = |index: usize| if index + 1 < count { MORE } else { 0 };
    cursors.chunks(CURSORS_PER_PART).enumerate().map(|(index, part)| encode(flags(index), part)).collect()
}
