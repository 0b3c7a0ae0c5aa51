//! The frame decoder under any bytes in any pieces: the same frames and the same fault as in one piece, and a frame that was read can
//! be written and read again.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use outgate::proto::tunnel::frame::{Frame, FrameError, MAX_BODY_BYTES, decode};

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    let whole = read(rest.chunks(rest.len().max(1)));
    assert_eq!(whole, read(rest.chunks(usize::from(first) % 7 + 1)));
    for frame in &whole.0 {
        assert!(frame.body.len() <= MAX_BODY_BYTES);
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        assert_eq!(decode(&mut bytes), Ok(Some(frame.clone())));
        assert!(bytes.is_empty());
    }
});

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(fault) => return (frames, Some(fault)),
            }
        }
    }
    (frames, None)
}
