//! Frames: a short header and a protobuf body.
//!
//! ```text
//! type u8 | flags u8 | channel varint (u32) | length varint (≤ 64 KiB) | body
//! ```
//!
//! [`decode`] takes whole frames off a buffer without copying; bodies stay slices of it. What a body means is read in
//! `wire`; a frame of an unknown type is a fault of the carrier unless [`IGNORABLE`] is set.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Lane;
use super::wire::kind;

/// Largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// Largest header, in bytes: type, flags, a channel of five bytes and a length of three.
pub const MAX_HEADER_BYTES: usize = 10;

/// Flag: the frame may be ignored by who does not know its type.
pub const IGNORABLE: u8 = 0x80;

/// Flag: another frame of the same sequence follows (ATTACH, ATTACHED).
pub const MORE: u8 = 0x01;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type, as numbered on the wire.
    pub kind: u8,
    /// Its flags: [`MORE`], [`IGNORABLE`].
    pub flags: u8,
    /// Its channel; 0 for frames of the carrier.
    pub channel: u32,
    /// Its body, an encoded protobuf message.
    pub body: Bytes,
}

/// The lane of a frame by its type: that of a channel's frames, whose order counts, is the data lane.
pub fn lane_of(kind: u8) -> Lane {
    match kind {
        kind::OPEN | kind::OPEN_OK | kind::OPEN_REFUSED | kind::DATA | kind::COUNTED | kind::OWN | kind::FIN | kind::RESET => Lane::Data,
        _ => Lane::Control,
    }
}

/// Why bytes are not a frame. The carrier must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header is no header: a varint is too long.
    #[error("the peer sent bytes that are no frame")]
    Malformed,
    /// The body is larger than [`MAX_BODY_BYTES`].
    #[error("the peer sent a frame of {0} bytes")]
    TooLarge(u64),
}

/// Takes the first whole frame off `buffer`; `None` when more bytes are needed. The buffer never needs more than 64 KiB and a header.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some((&[kind, flags], rest)) = buffer.split_first_chunk::<2>() else { return Ok(None) };
    let Some((channel, channel_len)) = read_varint(rest, 5)? else { return Ok(None) };
    let Some((length, length_len)) = read_varint(rest.get(channel_len..).unwrap_or_default(), 3)? else { return Ok(None) };
    let channel = u32::try_from(channel).map_err(|_| FrameError::Malformed)?;
    let body_len = usize::try_from(length).map_err(|_| FrameError::TooLarge(length))?;
    if body_len > MAX_BODY_BYTES {
        return Err(FrameError::TooLarge(length));
    }
    let header = 2 + channel_len + length_len;
    if buffer.len() < header + body_len {
        return Ok(None);
    }
    buffer.advance(header);
    Ok(Some(Frame { kind, flags, channel, body: buffer.split_to(body_len).freeze() }))
}

impl Frame {
    /// Appends the frame's bytes to `out`. A body above [`MAX_BODY_BYTES`] would be refused by the peer.
    pub fn encode(&self, out: &mut BytesMut) {
        put_header(out, self.kind, self.flags, self.channel, self.body.len());
        out.put_slice(&self.body);
    }
}

/// How a frame of this kind and channel begins, up to its length.
pub(super) fn head(kind: u8, flags: u8, channel: u32) -> BytesMut {
    let mut head = BytesMut::from(&[kind, flags][..]);
    put_varint(&mut head, u64::from(channel));
    head
}

/// Appends a header for a body of `length` bytes.
pub(super) fn put_header(out: &mut BytesMut, kind: u8, flags: u8, channel: u32, length: usize) {
    out.reserve(MAX_HEADER_BYTES + length);
    out.put_u8(kind);
    out.put_u8(flags);
    put_varint(out, u64::from(channel));
    put_varint(out, length as u64);
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Reads a varint of at most `max` bytes: its value and length; `None` when bytes are missing.
fn read_varint(bytes: &[u8], max: usize) -> Result<Option<(u64, usize)>, FrameError> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(max).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < max { Ok(None) } else { Err(FrameError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Frame {
        Frame { kind: 8, flags: MORE, channel: 300, body: Bytes::from_static(b"body") }
    }

    #[test]
    fn a_frame_has_these_bytes_and_comes_back() {
        let mut bytes = BytesMut::new();
        sample().encode(&mut bytes);
        assert_eq!(&bytes[..], &[8, 1, 0xac, 0x02, 4, b'b', b'o', b'd', b'y']);
        assert_eq!(decode(&mut bytes), Ok(Some(sample())));
        assert!(bytes.is_empty());
    }

    /// The bytes in docs/tunnel-protocol.md.
    #[test]
    fn the_documents_examples_are_what_is_sent() {
        use crate::im::{ImEvent, Message};
        use crate::proto::tunnel::{event, wire};
        let ping = wire::encoded(kind::PING, 0, 0, &wire::Ping { nonce: 5 });
        assert_eq!(ping[..], [0x11, 0, 0, 2, 8, 5]);
        let event = event::encode(&ImEvent::Message(Message { body: "hi".into(), ..Message::default() }));
        let data = wire::encoded(kind::DATA, 0, 3, &wire::Data { number: 1, sm_in: 1, mark: 0, event });
        assert_eq!(data[..], [9, 0, 3, 0x0c, 8, 1, 0x10, 1, 0x22, 6, 0x0a, 4, 0x12, 2, 0x68, 0x69]);
    }

    #[test]
    fn a_cut_frame_waits_for_its_rest_at_every_offset() {
        let mut whole = BytesMut::new();
        sample().encode(&mut whole);
        for cut in 0..whole.len() {
            let mut buffer = BytesMut::from(&whole[..cut]);
            assert_eq!(decode(&mut buffer), Ok(None), "cut at {cut}");
            buffer.extend_from_slice(&whole[cut..]);
            assert_eq!(decode(&mut buffer), Ok(Some(sample())), "cut at {cut}");
        }
    }

    #[test]
    fn a_body_above_the_limit_is_refused_from_its_header() {
        let mut bytes = BytesMut::new();
        put_header(&mut bytes, 8, 0, 1, MAX_BODY_BYTES + 1);
        assert_eq!(decode(&mut bytes), Err(FrameError::TooLarge(MAX_BODY_BYTES as u64 + 1)));
    }

    #[test]
    fn varints_without_end_are_refused() {
        let mut channel = BytesMut::from(&[8u8, 0, 0x80, 0x80, 0x80, 0x80, 0x80][..]);
        assert_eq!(decode(&mut channel), Err(FrameError::Malformed));
        let mut over = BytesMut::from(&[8u8, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 0][..]);
        assert_eq!(decode(&mut over), Err(FrameError::Malformed));
        let mut length = BytesMut::from(&[8u8, 0, 1, 0x80, 0x80, 0x80][..]);
        assert_eq!(decode(&mut length), Err(FrameError::Malformed));
    }
}
