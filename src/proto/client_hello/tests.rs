use proptest::prelude::*;

use super::*;

fn vector8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(data)].concat()
}

/// A hello with these extensions as a handshake message.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body =
        [&[3, 3][..], &[7; 32], &vector8(&[9; 32]), &vector16(&[0x13, 0x01, 0xc0, 0x2b]), &vector8(&[0]), &vector16(&extensions.concat())];
    framed(&body.concat())
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&[CLIENT_HELLO][..], &u32::try_from(body.len()).unwrap().to_be_bytes()[1..], body].concat()
}

fn usual() -> Vec<u8> {
    message(&[
        extension(0, b"\0\x0b\0\0\x08a.example"),
        extension(0x10, &vector16(&[vector8(b"xmpp-client"), vector8(b"h2")].concat())),
        extension(0x2b, &vector8(&[3, 4, 3, 3])),
        extension(0x0d, &vector16(&[4, 3, 8, 4])),
        extension(0x33, &[1; 1300]),
    ])
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &vector16(part)].concat()).collect()
}

fn read_in(bytes: &[u8], piece: usize) -> Result<Option<ClientHello>, HelloFault> {
    let mut reader = RecordReader::default();
    for piece in bytes.chunks(piece) {
        if let Some(hello) = reader.push(piece)? {
            return Ok(Some(hello));
        }
    }
    Ok(None)
}

#[test]
fn what_tells_one_library_from_another_is_read() {
    let hello = read_in(&records(&usual(), 1 << 14), 1 << 14).unwrap().unwrap();
    assert_eq!(hello.legacy_version, 0x0303);
    assert_eq!(hello.cipher_suites, [0x1301, 0xc02b]);
    assert_eq!(hello.extensions, [0, 0x10, 0x2b, 0x0d, 0x33]);
    assert_eq!(hello.supported_versions, Some(vec![0x0304, 0x0303]));
    assert_eq!(hello.signature_schemes, [0x0403, 0x0804]);
    assert_eq!(hello.alpn, b"xmpp-client");
}

#[test]
fn a_hello_may_come_in_any_pieces_and_any_records() {
    let whole = read_in(&records(&usual(), 1 << 14), 1 << 14);
    for size in [1, 2, 3, 5, 64, 1000] {
        let bytes = records(&usual(), size);
        for piece in [1, 2, 4, 7, 536, bytes.len()] {
            assert_eq!(read_in(&bytes, piece), whole, "records of {size} in pieces of {piece}");
            assert_eq!(read_in(&bytes[..bytes.len() - 1], piece), Ok(None));
        }
    }
}

#[test]
fn what_follows_the_hello_is_not_looked_at() {
    let mut bytes = records(&usual(), 1 << 14);
    bytes.extend_from_slice(b"\x17\x03\x03 early data");
    assert!(read_in(&bytes, bytes.len()).unwrap().is_some());
}

#[test]
fn a_hello_before_extensions_were_thought_of_is_one() {
    let body = [&[3, 1][..], &[7; 32], &[0], &vector16(&[0, 0x2f]), &vector8(&[0])].concat();
    let hello = read_in(&records(&framed(&body), 100), 100).unwrap().unwrap();
    assert_eq!((hello.legacy_version, hello.supported_versions), (0x0301, None));
}

#[test]
fn whatever_is_no_hello_is_told_at_its_first_byte() {
    assert_eq!(read_in(b"<", 1), Err(HelloFault::NotTls));
    assert_eq!(read_in(&[HANDSHAKE, 2], 2), Err(HelloFault::NotTls));
    assert_eq!(read_in(&[HANDSHAKE, 3, 3, 0, 4, 2], 6), Err(HelloFault::NotTls), "a ServerHello");
    assert_eq!(read_in(&[HANDSHAKE, 3, 3, 0, 0], 5), Err(HelloFault::Malformed), "an empty record");
    assert_eq!(read_in(&[HANDSHAKE, 3, 3, 0x40, 1], 5), Err(HelloFault::Malformed), "a record too large");
}

#[test]
fn a_hello_above_the_limit_is_refused_when_it_announces_itself() {
    let announced = |length: usize| {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        read_in(&records(&[CLIENT_HELLO, a, b, c], 100), 100)
    };
    assert_eq!(announced(MAX_HELLO_BYTES - MESSAGE_HEADER), Ok(None));
    assert_eq!(announced(MAX_HELLO_BYTES - MESSAGE_HEADER + 1), Err(HelloFault::TooLarge));
    let largest = message(&[extension(0x15, &vec![0; 16_000])]);
    assert!(read_in(&records(&largest, 1 << 14), 1000).unwrap().is_some());
}

#[test]
fn lengths_that_do_not_agree_are_a_fault() {
    let faulty = [
        framed(&[3, 3]),
        framed(&[&[3, 3][..], &[7; 32], &[33], &[0; 8]].concat()),
        framed(&[&[3, 3][..], &[7; 32], &[0], &vector16(&[1, 2, 3]), &vector8(&[0])].concat()),
        message(&[extension(0x2b, &[4, 3, 4])]),
        message(&[extension(0x0d, &vector16(&[4]))]),
        message(&[vec![0, 0x17, 0, 9]]),
        [&message(&[])[..], &[0]].concat().iter().enumerate().map(|(at, byte)| if at == 3 { byte + 1 } else { *byte }).collect(),
    ];
    for message in faulty {
        assert_eq!(read_in(&records(&message, 1 << 14), 1 << 14), Err(HelloFault::Malformed), "{message:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), piece in 1usize..64) {
        prop_assert_eq!(read_in(&bytes, piece), read_in(&bytes, 600));
        let framed = records(&framed(&bytes), piece);
        prop_assert_eq!(read_in(&framed, piece), read_in(&framed, framed.len()));
    }

    #[test]
    fn a_damaged_hello_gives_an_answer_and_no_panic(at in 0usize..1500, byte in any::<u8>(), cut in 0usize..1500) {
        let mut message = usual();
        if let Some(place) = message.get_mut(at) {
            *place = byte;
        }
        let bytes = records(&message[..cut.min(message.len())], 200);
        prop_assert_eq!(read_in(&bytes, 7), read_in(&bytes, bytes.len().max(1)));
    }
}
