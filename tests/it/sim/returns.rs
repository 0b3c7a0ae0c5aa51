//! Which relay has a session, what a relay believes of a store that came back, and how an OPEN is taken back.

use std::time::Duration;

use outgate::proto::tunnel::{
    ChannelId, ConnectorCommand, ConnectorEnd, ConnectorEvent, OpenKind, RelayCommand, RelayEvent, ResetCode, Settings,
};
use outgate::session::CloseReason;

use super::pair::{KEY, Pair, event, fin, identity};

/// The connector forgets all but its store, and is asked for the session again.
fn asked_again(pair: &mut Pair) -> (ChannelId, OpenKind) {
    pair.connector = ConnectorEnd::new(Settings::default(), [7; 16]);
    pair.relay.carrier_lost(pair.carrier, pair.now);
    pair.relay_events();
    pair.dial();
    pair.exchange();
    pair.relay_events();
    let asked = |event| if let ConnectorEvent::Open { channel, open } = event { Some((channel, open.kind)) } else { None };
    let asked = pair.connector_events().into_iter().find_map(asked);
    asked.expect("a session that stood is asked for again")
}

fn accept(channel: ChannelId, attachment: u32, in_next: u64) -> ConnectorCommand {
    ConnectorCommand::Accept { channel, attachment, in_next, out_first: 1, out: Vec::new() }
}

/// A session of which one event is handled, with the client's count 3.
fn with_one_handled() -> Pair {
    let (mut pair, channel) = Pair::opened();
    pair.relay.handle_command(RelayCommand::Send { session: KEY, payload: event("one"), sm_in: 3 }, pair.now);
    pair.exchange();
    pair.connector.handle_command(ConnectorCommand::Handled { channel, number: 1, sm_in: 3 }, pair.now);
    pair.wait(Duration::from_millis(60));
    pair.exchange();
    assert!(pair.relay_events().contains(&RelayEvent::Handled { session: KEY, number: 1, sm_in: 3 }));
    pair
}

#[test]
fn a_relay_that_asks_again_tells_the_attachment_that_it_was_told() {
    let (mut pair, _) = Pair::opened();
    for attachment in [7, 9] {
        let (channel, kind) = asked_again(&mut pair);
        let before = if attachment == 7 { 1 } else { 7 };
        assert!(matches!(kind, OpenKind::Attach { attachment, .. } if attachment == before), "{kind:?}");
        pair.connector.handle_command(accept(channel, attachment, 1), pair.now);
        pair.exchange();
    }
}

#[test]
fn an_ack_of_less_than_was_handled_proves_an_older_store_before_the_answer_comes() {
    let mut pair = with_one_handled();
    let (channel, _) = asked_again(&mut pair);
    pair.connector.handle_command(accept(channel, 1, 1), pair.now);
    pair.connector.handle_command(ConnectorCommand::Handled { channel, number: 0, sm_in: 9 }, pair.now);
    pair.wait(Duration::from_millis(60));
    pair.exchange();
    assert_eq!(pair.relay_events(), [RelayEvent::Gone { session: KEY, reason: CloseReason::StoreRegressed }]);
    assert!(pair.connector_events().contains(&ConnectorEvent::Reset { channel, code: ResetCode::StoreRegressed }));
}

#[test]
fn a_count_below_what_was_told_proves_an_older_store_though_no_event_is_missing() {
    for (count, is_older) in [(2, true), (3, false)] {
        let mut pair = with_one_handled();
        let (channel, _) = asked_again(&mut pair);
        pair.connector.handle_command(accept(channel, 1, 2), pair.now);
        pair.connector.handle_command(ConnectorCommand::Handled { channel, number: 1, sm_in: count }, pair.now);
        pair.wait(Duration::from_millis(60));
        pair.exchange();
        let gone = RelayEvent::Gone { session: KEY, reason: CloseReason::StoreRegressed };
        assert_eq!(pair.relay_events().contains(&gone), is_older, "count {count}");
    }
}

#[test]
fn an_open_that_is_taken_back_before_it_leaves_never_leaves() {
    let mut pair = Pair::attached();
    pair.open();
    pair.relay.handle_command(RelayCommand::Finish { session: KEY, fin: fin() }, pair.now);
    pair.exchange();
    assert_eq!(pair.connector_events().iter().filter(|event| !matches!(event, ConnectorEvent::Attached { .. })).count(), 0);
}

#[test]
fn a_withdrawal_that_is_lost_with_its_carrier_is_said_again() {
    for answered in [false, true] {
        let mut pair = Pair::attached();
        pair.open();
        pair.exchange();
        let channel = pair.opened_channel();
        pair.relay.handle_command(RelayCommand::Finish { session: KEY, fin: fin() }, pair.now);
        if answered {
            pair.connector.handle_command(accept(channel, 1, 1), pair.now);
        }
        pair.lose();
        pair.connector_events();
        pair.dial();
        pair.exchange();
        let told: Vec<ConnectorEvent> =
            pair.connector_events().into_iter().filter(|event| matches!(event, ConnectorEvent::Reset { .. })).collect();
        assert_eq!(told, [ConnectorEvent::Reset { channel, code: ResetCode::Cancelled }], "answered: {answered}");
        assert!(pair.relay.is_attached(&identity()));
        assert_eq!(pair.connector.stats().channels, 0);
    }
}
