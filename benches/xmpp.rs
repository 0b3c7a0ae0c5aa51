//! What it costs to read and to write stanzas, beside the tokenizer alone.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use outgate::proto::xmpp::reader::{AFTER_LOGIN, ReadEvent, Reader};
use outgate::proto::xmpp::stanza::Element;
use rxml::Parse;

const HEADER: &[u8] = b"<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' \
                        xmlns:stream='http://etherx.jabber.org/streams'>";

/// 350 bytes, as an ordinary client sends it.
const STANZA: &[u8] = b"<message type='chat' id='7b0d9c3e-51a2-4f0e-9a44-0f6a3d2f7c11' to='sales@chat.example.org'>\
                        <body>Hello, my order has not come yet &amp; I would like to know where it is now.</body>\
                        <active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>\
                        <origin-id xmlns='urn:xmpp:sid:0' id='7b0d9c3e-51a2-4f0e'/></message>";

fn main() {
    divan::main();
}

fn opened() -> Reader {
    let mut reader = Reader::new(AFTER_LOGIN);
    reader.push(HEADER);
    while let Ok(Some(_)) = reader.poll() {}
    reader
}

fn stanza() -> Element {
    let mut reader = opened();
    reader.push(STANZA);
    match reader.poll() {
        Ok(Some(ReadEvent::Stanza(element))) => element,
        other => panic!("no stanza: {other:?}"),
    }
}

/// One stanza a push, as an interactive client sends: memory is given back after each.
#[divan::bench]
fn reader_one_by_one(bencher: Bencher<'_, '_>) {
    let mut reader = opened();
    bencher.counter(BytesCount::new(STANZA.len())).bench_local(|| {
        reader.push(black_box(STANZA));
        while let Ok(Some(event)) = reader.poll() {
            black_box(event);
        }
    });
}

/// Forty stanzas a push, as a saturated stream sends.
#[divan::bench]
fn reader_forty_at_once(bencher: Bencher<'_, '_>) {
    let mut reader = opened();
    let many = STANZA.repeat(40);
    bencher.counter(BytesCount::new(many.len())).bench_local(|| {
        reader.push(black_box(&many));
        while let Ok(Some(event)) = reader.poll() {
            black_box(event);
        }
    });
}

fn tokenize<P: Parse>(bencher: Bencher<'_, '_>, mut parser: P) {
    let mut header = HEADER;
    while parser.parse(&mut header, false).is_ok() {}
    bencher.counter(BytesCount::new(STANZA.len())).bench_local(|| {
        let mut rest = black_box(STANZA);
        while let Ok(event) = parser.parse(&mut rest, false) {
            drop(black_box(event));
        }
    });
}

/// The tokenizer with its own namespaces, no tree.
#[divan::bench]
fn rxml_parser(bencher: Bencher<'_, '_>) {
    tokenize(bencher, rxml::Parser::new());
}

/// The tokenizer alone.
#[divan::bench]
fn rxml_raw_parser(bencher: Bencher<'_, '_>) {
    tokenize(bencher, rxml::RawParser::new());
}

#[divan::bench]
fn stanza_to_text(bencher: Bencher<'_, '_>) {
    let stanza = stanza();
    bencher.counter(BytesCount::new(STANZA.len())).bench_local(|| black_box(&stanza).to_xml());
}
