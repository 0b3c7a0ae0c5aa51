//! What an end does with what it does not know: versions, features, frames, fields.

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use outgate::proto::tunnel::frame::{self, Frame, IGNORABLE};
use outgate::proto::tunnel::{ConnectorEvent, Lane, RelayEvent, Settings};

use super::pair::{KEY, Pair, closes, event, identity, raw};

const HELLO: u8 = 1;
const DATA: u8 = 9;
const ERROR: u8 = 20;
const UNKNOWN: u8 = 200;

fn speaking(versions: RangeInclusive<u32>) -> Settings {
    Settings { versions, ..Settings::default() }
}

/// Dials with these versions; tells whether the tunnel is attached at both ends.
fn attaches(relay: RangeInclusive<u32>, connector: RangeInclusive<u32>) -> bool {
    let mut pair = Pair::with(speaking(relay), speaking(connector));
    pair.dial();
    pair.exchange();
    let heard = pair.connector_events().iter().any(|event| matches!(event, ConnectorEvent::Attached { .. }));
    assert_eq!(heard, pair.relay.is_attached(&identity()));
    heard
}

/// What the relay says on the control lane now.
fn said_by_relay(pair: &mut Pair) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    pair.relay.poll_transmit(pair.carrier, Lane::Control, 1 << 16, &mut bytes, pair.now);
    std::iter::from_fn(|| frame::decode(&mut bytes).unwrap().map(|frame| frame.kind)).collect()
}

#[test]
fn an_end_one_version_ahead_still_speaks_with_one_behind_whichever_side_it_is() {
    assert!(attaches(2..=3, 1..=2), "the connector is at N-1");
    assert!(attaches(2..=3, 3..=4), "the connector is at N+1");
    assert!(attaches(1..=2, 2..=3), "the relay is at N-1");
    assert!(attaches(1..=1, 1..=2), "the relay knows only the first version");
    crate::fault_table::proven(32, "N-1 and N+1 speak with N");
}

#[test]
fn ends_without_a_version_in_common_part_with_an_error() {
    assert!(!attaches(2..=3, 1..=1));
    assert!(!attaches(1..=1, 2..=3));
    let mut pair = Pair::with(speaking(2..=3), speaking(1..=1));
    pair.dial();
    pair.carry_to_relay();
    assert_eq!(said_by_relay(&mut pair), [ERROR]);
    assert!(closes(&pair.relay_events()));
    crate::fault_table::proven(32, "none in common: ERROR");
}

#[test]
fn a_hello_with_unknown_features_and_fields_is_taken() {
    let mut pair = Pair::new();
    pair.dial();
    // Versions 1 to 9, all feature bits, and a field 99 that nobody knows.
    let body: &[u8] = b"\x08\x01\x10\x09\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x9a\x06\x02hi";
    pair.relay.handle_frame(pair.carrier, Frame { kind: HELLO, flags: 0, channel: 0, body: Bytes::from_static(body) }, pair.now);
    assert_eq!(said_by_relay(&mut pair), [2], "HELLO_ACK");
}

#[test]
fn unknown_fields_of_a_frame_are_skipped() {
    let (mut pair, channel) = Pair::opened();
    let data = raw(DATA, 0, channel.0, b"\x08\x01\x22\x02hi\x9a\x06\x05later");
    pair.relay.handle_frame(pair.carrier, data, pair.now);
    assert_eq!(pair.relay_events(), [RelayEvent::Data { session: KEY, number: 1, payload: event("hi") }]);
}

#[test]
fn an_unknown_frame_that_may_be_ignored_is_skipped_before_and_after_the_attachment_on_both_sides() {
    let mut pair = Pair::new();
    pair.dial();
    for _ in 0..2 {
        pair.relay.handle_frame(pair.carrier, raw(UNKNOWN, IGNORABLE, 0, b"?"), pair.now);
        pair.connector.handle_frame(pair.carrier, raw(UNKNOWN, IGNORABLE, 7, b"?"), pair.now);
        pair.exchange();
    }
    assert!(pair.relay.is_attached(&identity()));
    assert!(!closes(&pair.relay_events()));
    crate::fault_table::proven(32, "unknown, ignorable: skipped");
}

#[test]
fn an_unknown_critical_frame_is_answered_with_error_and_costs_the_carrier_but_no_session() {
    for at_relay in [true, false] {
        let (mut pair, channel) = Pair::opened();
        let frame = raw(UNKNOWN, 0, channel.0, b"?");
        if at_relay {
            pair.relay.handle_frame(pair.carrier, frame, pair.now);
            assert!(closes(&pair.relay_events()));
            assert_eq!(said_by_relay(&mut pair), [ERROR]);
        } else {
            pair.connector.handle_frame(pair.carrier, frame, pair.now);
            assert!(pair.connector_events().iter().any(|event| matches!(event, ConnectorEvent::CloseCarrier { .. })));
        }
        pair.lose();
        pair.dial();
        pair.exchange();
        assert!(pair.connector_events().contains(&ConnectorEvent::Attached { epoch: 2, resumed: true }));
        assert!(!pair.relay_events().iter().any(|event| matches!(event, RelayEvent::Gone { .. })));
    }
    crate::fault_table::proven(32, "unknown, critical: costs the carrier");
}
