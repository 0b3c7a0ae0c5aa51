//! Faults of single frames, by their numbers in the table of faults.

use bytes::BytesMut;
use outgate::proto::tunnel::frame::{self, Frame};
use outgate::proto::tunnel::{ConnectorCommand, ConnectorEvent, Lane, RelayCommand, ResetCode};

use super::pair::{KEY, Pair, event, fin, identity};
use crate::fault_table::proven;

/// What the relay would send now on the data lane, without it going anywhere.
fn from_relay(pair: &mut Pair) -> Vec<Frame> {
    let mut bytes = BytesMut::new();
    pair.relay.poll_transmit(pair.carrier, Lane::Data, 1 << 20, &mut bytes, pair.now);
    std::iter::from_fn(|| frame::decode(&mut bytes).unwrap()).collect()
}

fn say(pair: &mut Pair, text: &'static str, sm_in: u32) {
    pair.relay.handle_command(RelayCommand::Send { session: KEY, payload: event(text), sm_in }, pair.now);
}

fn deliver(pair: &mut Pair, frame: &Frame) -> Vec<ConnectorEvent> {
    pair.connector.handle_frame(pair.carrier, frame.clone(), pair.now);
    pair.connector_events()
}

#[test]
fn fault_12_a_gap_ends_its_channel_and_no_other() {
    let (mut pair, channel) = Pair::opened();
    say(&mut pair, "one", 1);
    say(&mut pair, "two", 2);
    let frames = from_relay(&mut pair);
    assert_eq!(frames.len(), 2);
    assert_eq!(deliver(&mut pair, &frames[1]), [ConnectorEvent::Reset { channel, code: ResetCode::Protocol }]);
    pair.exchange();
    assert!(pair.relay.is_attached(&identity()));
    pair.open_as(2);
    pair.exchange();
    pair.opened_channel();
    proven(12, "a gap costs its channel alone");
}

#[test]
fn fault_12_a_repeat_is_dropped_and_counted() {
    let (mut pair, channel) = Pair::opened();
    say(&mut pair, "one", 1);
    let frames = from_relay(&mut pair);
    assert_eq!(deliver(&mut pair, &frames[0]), [ConnectorEvent::Data { channel, number: 1, sm_in: 1, payload: event("one") }]);
    assert_eq!(deliver(&mut pair, &frames[0]), []);
    assert_eq!(pair.connector.stats().duplicates, 1);
    proven(12, "a repeat is dropped");
}

#[test]
fn fault_12_the_channel_of_a_session_that_ended_is_not_taken_again() {
    let mut pair = Pair::attached();
    pair.connector_events();
    pair.open();
    let open = from_relay(&mut pair).remove(0);
    assert!(matches!(deliver(&mut pair, &open)[..], [ConnectorEvent::Open { .. }]));
    let reset = Frame { kind: 14, flags: 0, channel: open.channel, body: bytes::Bytes::from_static(b"\x08\x04") };
    deliver(&mut pair, &reset);
    let again = deliver(&mut pair, &open);
    assert!(!again.iter().any(|event| matches!(event, ConnectorEvent::Open { .. })), "{again:?}");
    assert_eq!(pair.connector.stats().channels, 0);
    proven(12, "a channel's name is used once");
}

#[test]
fn fault_41_a_withdrawal_crosses_the_answer() {
    let mut pair = Pair::attached();
    pair.open();
    pair.carry_to_connector();
    let channel = pair.opened_channel();
    // Neither has heard of the other's word yet.
    pair.relay.handle_command(RelayCommand::Finish { session: KEY, fin: fin() }, pair.now);
    let accept = ConnectorCommand::Accept { channel, attachment: 1, in_next: 1, out_first: 1, out: Vec::new() };
    pair.connector.handle_command(accept, pair.now);
    pair.carry_to_relay();
    pair.exchange();
    let told = pair.connector_events();
    assert_eq!(told, [ConnectorEvent::Reset { channel, code: ResetCode::Cancelled }]);
    assert_eq!((pair.connector.stats().channels, pair.relay.stats()[0].1.channels), (0, 0));
    assert!(pair.relay.is_attached(&identity()));
    proven(41, "RESET crosses OPEN_OK: both sides forget the session");
}
