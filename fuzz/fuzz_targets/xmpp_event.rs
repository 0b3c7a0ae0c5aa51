//! Strangers' stanzas made into events: each event is one that the connector takes, it fits a channel's first credit, and written as
//! a stanza and read again it is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outgate::im::{ImEvent, MAX_EVENT_BYTES};
use outgate::proto::tunnel::event::{decode, encode};
use outgate::proto::xmpp::im::{availability_of, events_of, stanza_of};
use outgate::proto::xmpp::reader::{AFTER_LOGIN, ReadEvent, Reader, ReaderLimits};
use outgate::proto::xmpp::stanza::Element;

const HEADER: &[u8] = b"<stream:stream to='x' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const MOST_EVENTS: usize = 4;

fuzz_target!(|input: &[u8]| {
    let mut reader = Reader::new(AFTER_LOGIN);
    reader.push(HEADER);
    reader.push(input);
    while let Ok(Some(event)) = reader.poll() {
        let ReadEvent::Stanza(stanza) = event else { continue };
        if let Some(availability) = availability_of(&stanza) {
            travels(&ImEvent::Presence(availability));
        }
        let Ok(rebuilt) = events_of(&stanza) else { continue };
        assert!(rebuilt.events.len() <= MOST_EVENTS);
        rebuilt.events.iter().for_each(travels);
    }
});

/// Through the tunnel and out again.
fn travels(event: &ImEvent) {
    let bytes = encode(event);
    assert!(bytes.len() <= MAX_EVENT_BYTES, "{} bytes", bytes.len());
    assert_eq!(decode(&bytes).as_ref(), Ok(event), "the connector takes what the relay makes");
    let id = if let ImEvent::Message(message) = event { message.id.as_deref().unwrap_or_default() } else { "" };
    let Some(stanza) = stanza_of(event, "queue@x/desk", "guest@x/phone", id) else { panic!("{event:?} has no stanza") };
    let again = read(&stanza);
    if let ImEvent::Presence(availability) = event {
        return assert_eq!(availability_of(&again), Some(*availability));
    }
    let again = events_of(&again).map(|rebuilt| rebuilt.events);
    assert_eq!(again.as_deref(), Ok(&[event.clone()][..]), "{}", stanza.to_xml());
}

fn read(stanza: &Element) -> Element {
    let mut reader = Reader::new(ReaderLimits { stanza_bytes: usize::MAX, ..AFTER_LOGIN });
    reader.push(HEADER);
    reader.push(stanza.to_xml().as_bytes());
    assert!(matches!(reader.poll(), Ok(Some(ReadEvent::StreamOpen(_)))));
    match reader.poll() {
        Ok(Some(ReadEvent::Stanza(again))) => again,
        other => panic!("{} was read back as {other:?}", stanza.to_xml()),
    }
}
