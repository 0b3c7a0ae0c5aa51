//! The reader under any bytes in any pieces: the same events and the same fault as in one piece, nothing beyond the limits,
//! and what it reads can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outgate::proto::xmpp::reader::{ReadEvent, Reader, ReaderLimits, StreamFault};
use outgate::proto::xmpp::stanza::Element;

const HEADER: &[u8] = b"<stream:stream to='x' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const LIMITS: ReaderLimits = ReaderLimits { stanza_bytes: 2048, elements: 24, depth: 6, attributes: 8 };

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    let mut text = if first & 1 == 0 { HEADER.to_vec() } else { Vec::new() };
    text.extend_from_slice(rest);
    let whole = read(text.chunks(text.len().max(1)));
    let pieces = read(text.chunks(usize::from(first >> 1) % 17 + 1));
    assert_eq!(whole, pieces);
    for event in &whole.0 {
        if let ReadEvent::Stanza(element) = event {
            check(element);
        }
    }
});

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<ReadEvent>, Option<StreamFault>) {
    let mut reader = Reader::new(LIMITS);
    let mut events = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.poll() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(fault) => return (events, Some(fault)),
            }
        }
    }
    (events, None)
}

fn check(element: &Element) {
    assert!(size_of_tree(element, 1) <= LIMITS.elements);
    let mut reader = Reader::new(ReaderLimits { stanza_bytes: usize::MAX, attributes: usize::MAX, ..LIMITS });
    reader.push(HEADER);
    reader.push(element.to_xml().as_bytes());
    assert!(matches!(reader.poll(), Ok(Some(ReadEvent::StreamOpen(_)))));
    match reader.poll() {
        Ok(Some(ReadEvent::Stanza(again))) => assert_eq!(element, &again),
        other => panic!("{} was read back as {other:?}", element.to_xml()),
    }
}

fn size_of_tree(element: &Element, depth: usize) -> usize {
    assert!(depth <= LIMITS.depth);
    1 + element.elements().map(|child| size_of_tree(child, depth + 1)).sum::<usize>()
}
