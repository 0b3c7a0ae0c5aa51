//! The reader of TLS hellos under any bytes in any pieces, in records and without: the same answer as in one piece, and a fingerprint
//! that can be read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outgate::fingerprint::client_hello::ClientHello;
use outgate::fingerprint::ja4::{Fingerprint, Ja4, Over};
use outgate::proto::client_hello::{HelloFault, MessageReader, RecordReader};

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    let piece = usize::from(first) + 1;
    let over_tcp = in_records(rest, rest.len().max(1));
    assert_eq!(over_tcp, in_records(rest, piece));
    let over_quic = bare(rest, rest.len().max(1));
    assert_eq!(over_quic, bare(rest, piece));
    for (read, over) in [(over_tcp, Over::Tcp), (over_quic, Over::Quic)] {
        let Ok(Some(hello)) = read else { continue };
        let Fingerprint { ja4, stable } = Fingerprint::of(&hello, over);
        assert!(Ja4::parse(ja4.as_str()) == Some(ja4) && Ja4::parse(stable.as_str()) == Some(stable));
    }
});

fn in_records(bytes: &[u8], piece: usize) -> Result<Option<ClientHello>, HelloFault> {
    let mut reader = RecordReader::default();
    read(bytes, piece, |bytes| reader.push(bytes))
}

fn bare(bytes: &[u8], piece: usize) -> Result<Option<ClientHello>, HelloFault> {
    let mut reader = MessageReader::default();
    read(bytes, piece, |bytes| reader.push(bytes))
}

fn read(
    bytes: &[u8],
    piece: usize,
    mut push: impl FnMut(&[u8]) -> Result<Option<ClientHello>, HelloFault>,
) -> Result<Option<ClientHello>, HelloFault> {
    for piece in bytes.chunks(piece) {
        if let Some(hello) = push(piece)? {
            return Ok(Some(hello));
        }
    }
    Ok(None)
}
