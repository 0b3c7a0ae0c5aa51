//! Single rules of the tunnel over a carrier that loses nothing by itself.

use std::time::Duration;

use outgate::proto::tunnel::frame::IGNORABLE;
use outgate::proto::tunnel::{
    CheckId, ConnectorCommand, ConnectorEnd, ConnectorEvent, OpenKind, Proof, RefusalCode, RelayCommand, RelayEvent, ResetCode, Settings,
};
use outgate::session::{CloseReason, SessionSecret};

use super::pair::{KEY, Pair, closes, event, identity, open, raw};

#[test]
fn an_unknown_frame_ends_the_carrier_unless_it_may_be_ignored() {
    let mut pair = Pair::attached();
    pair.relay.handle_frame(pair.carrier, raw(99, IGNORABLE, 0, b""), pair.now);
    assert!(!closes(&pair.relay_events()));
    pair.relay.handle_frame(pair.carrier, raw(99, 0, 0, b""), pair.now);
    assert!(closes(&pair.relay_events()));
    assert!(!pair.relay.is_attached(&identity()));
}

#[test]
fn an_open_without_a_tunnel_waits_ten_seconds_and_is_refused_as_busy() {
    let mut pair = Pair::new();
    pair.open();
    pair.wait(Duration::from_millis(9_999));
    assert_eq!(pair.relay_events(), []);
    pair.wait(Duration::from_millis(1));
    assert!(matches!(pair.relay_events()[..], [RelayEvent::OpenRefused { session: KEY, code: RefusalCode::Busy, .. }]));
}

#[test]
fn an_open_that_waited_for_the_tunnel_is_sent_when_it_comes() {
    let mut pair = Pair::new();
    pair.open();
    pair.wait(Duration::from_secs(5));
    pair.dial();
    pair.exchange();
    assert!(pair.connector_events().iter().any(|event| matches!(event, ConnectorEvent::Open { .. })));
}

#[test]
fn both_sides_are_told_when_no_carrier_comes_within_the_detach_window() {
    let (mut pair, channel) = Pair::opened();
    pair.lose();
    pair.relay_events();
    pair.connector_events();
    pair.wait(Duration::from_secs(119));
    assert_eq!((pair.relay_events(), pair.connector_events()), (vec![], vec![]));
    pair.wait(Duration::from_secs(1));
    assert_eq!(pair.relay_events(), [RelayEvent::Gone { session: KEY, reason: CloseReason::DetachExpired }]);
    assert_eq!(pair.connector_events(), [ConnectorEvent::Reset { channel, code: ResetCode::Unknown }]);
    crate::fault_table::proven(22, "pure: told after 120 s");
}

#[test]
fn a_silent_carrier_is_pinged_after_five_seconds_and_dead_after_fifteen() {
    let mut pair = Pair::attached();
    pair.wait(Duration::from_secs(5));
    assert!(pair.carry_to_connector(), "a PING is due");
    assert!(pair.carry_to_relay(), "its PONG");
    for _ in 0..2 {
        pair.wait(Duration::from_secs(5));
        assert!(!closes(&pair.relay_events()));
    }
    pair.wait(Duration::from_secs(5));
    assert!(closes(&pair.relay_events()));
}

#[test]
fn a_carrier_without_attach_is_closed_after_five_seconds() {
    let mut pair = Pair::new();
    pair.dial();
    pair.wait(Duration::from_secs(5));
    assert!(closes(&pair.relay_events()));
}

#[test]
fn attached_may_be_lost_twice_and_the_tunnel_still_resumes() {
    let (mut pair, channel) = Pair::opened();
    pair.relay.handle_command(RelayCommand::Send { session: KEY, payload: event("hello"), sm_in: 1 }, pair.now);
    for _ in 0..2 {
        pair.lose();
        pair.dial();
        pair.carry_to_relay();
        pair.carry_to_connector();
        pair.carry_to_relay();
    }
    pair.lose();
    pair.dial();
    pair.exchange();
    let events = pair.connector_events();
    assert!(events.contains(&ConnectorEvent::Attached { epoch: 4, resumed: true }), "{events:?}");
    assert!(events.contains(&ConnectorEvent::Data { channel, number: 1, sm_in: 1, payload: event("hello") }));
    crate::fault_table::proven(4, "pure");
}

#[test]
fn an_ack_of_what_was_never_sent_resets_that_channel_only() {
    let (mut pair, channel) = Pair::opened();
    pair.relay.handle_frame(pair.carrier, raw(10, 0, channel.0, b"\x08\x05\x10\x05"), pair.now);
    assert_eq!(pair.relay_events(), [RelayEvent::Gone { session: KEY, reason: CloseReason::Fault }]);
    pair.exchange();
    assert_eq!(pair.connector_events(), [ConnectorEvent::Reset { channel, code: ResetCode::Protocol }]);
    assert!(pair.relay.is_attached(&identity()));
    crate::fault_table::proven(12, "an ACK of what was never sent costs its channel alone");
}

#[test]
fn a_check_is_answered_and_leaves_nothing() {
    let mut pair = Pair::attached();
    let admission = Box::new(open(OpenKind::New { open_id: outgate::session::OpenId([0; 16]), secret: SessionSecret([0; 16]) }).admission);
    let check = CheckId(9);
    pair.relay.handle_command(RelayCommand::Check { check, identity: identity(), admission: admission.clone() }, pair.now);
    pair.exchange();
    assert!(pair.connector_events().contains(&ConnectorEvent::Check { check, admission }));
    let verdict = Err((RefusalCode::BadLink, "expired".to_owned()));
    pair.connector.handle_command(ConnectorCommand::Verdict { check, verdict: verdict.clone() }, pair.now);
    pair.exchange();
    assert!(pair.relay_events().contains(&RelayEvent::Verdict { check, verdict }));
    pair.wait(Duration::from_secs(10));
    assert!(!pair.relay_events().iter().any(|event| matches!(event, RelayEvent::Verdict { .. })));
}

#[test]
fn written_and_confirmed_are_told_apart_though_acks_coalesce() {
    let (mut pair, channel) = Pair::opened();
    for number in 1..=3 {
        pair.connector.handle_command(ConnectorCommand::Send { channel, number, payload: event("hi") }, pair.now);
    }
    pair.exchange();
    for (number, proof) in [(1, Proof::Confirmed), (3, Proof::Written)] {
        pair.relay.handle_command(RelayCommand::Handled { session: KEY, number, proof }, pair.now);
    }
    pair.wait(Duration::from_millis(50));
    pair.exchange();
    let told = [
        ConnectorEvent::OutHandled { channel, number: 1, proof: Proof::Confirmed },
        ConnectorEvent::OutHandled { channel, number: 3, proof: Proof::Written },
    ];
    assert_eq!(pair.connector_events(), told);
}

#[test]
fn a_copied_identity_is_refused_after_three_replacements_a_minute() {
    let mut pair = Pair::attached();
    for turn in 0u8..4 {
        pair.connector = ConnectorEnd::new(Settings::default(), [turn; 16]);
        pair.dial();
        pair.exchange();
        let refused = pair
            .connector_events()
            .iter()
            .any(|event| matches!(event, ConnectorEvent::Refused { code, .. } if code == "duplicate_identity"));
        assert_eq!(refused, turn == 3, "turn {turn}");
    }
    crate::fault_table::proven(11, "cloned identity, NEW over a live tunnel: the fourth in a minute is refused");
}

#[test]
fn a_client_that_returns_to_a_fresh_relay_gets_his_numbers_from_the_connector() {
    let mut pair = Pair::attached();
    let kind = OpenKind::Attach { secret: SessionSecret([2; 16]), in_next: 0, out_next: 0, client_h: Some(4), attachment: 0 };
    let open = Box::new(open(kind));
    pair.relay.handle_command(RelayCommand::Open { session: KEY, identity: identity(), open }, pair.now);
    pair.relay.handle_command(RelayCommand::Send { session: KEY, payload: event("again"), sm_in: 9 }, pair.now);
    pair.exchange();
    let channel = pair.opened_channel();
    let out = vec![event("late")];
    pair.connector.handle_command(ConnectorCommand::Accept { channel, attachment: 1, in_next: 6, out_first: 4, out }, pair.now);
    pair.connector.handle_command(ConnectorCommand::Handled { channel, number: 5, sm_in: 8 }, pair.now);
    pair.wait(Duration::from_millis(50));
    pair.exchange();
    let events = pair.relay_events();
    assert!(events.contains(&RelayEvent::Handled { session: KEY, number: 5, sm_in: 8 }), "{events:?}");
    assert!(events.contains(&RelayEvent::Data { session: KEY, number: 4, payload: event("late") }), "{events:?}");
    let again = ConnectorEvent::Data { channel, number: 6, sm_in: 9, payload: event("again") };
    assert!(pair.connector_events().contains(&again));
}

#[test]
fn numbers_near_the_end_of_their_range_are_refused_and_not_calculated_with() {
    let mut pair = Pair::attached();
    let kind = OpenKind::Attach { secret: SessionSecret([2; 16]), in_next: 0, out_next: 0, client_h: None, attachment: 0 };
    pair.relay.handle_command(RelayCommand::Open { session: KEY, identity: identity(), open: Box::new(open(kind)) }, pair.now);
    pair.relay.handle_command(RelayCommand::Send { session: KEY, payload: event("hello"), sm_in: 1 }, pair.now);
    pair.carry_to_connector();
    let channel = pair.opened_channel();
    let ok = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x01\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    pair.relay.handle_frame(pair.carrier, raw(7, 0, channel.0, ok), pair.now);
    pair.relay.handle_timeout(pair.now);
    let gone = |event: &RelayEvent| matches!(event, RelayEvent::Gone { reason: CloseReason::Fault, .. });
    assert!(pair.relay_events().iter().any(gone));
}

#[test]
fn a_relay_that_asks_and_reads_no_answers_loses_its_carrier() {
    let (mut pair, channel) = Pair::opened();
    for count in 1..=50_000 {
        pair.connector.handle_frame(pair.carrier, raw(12, 0, channel.0, b"\x10\x01"), pair.now);
        pair.connector.handle_command(ConnectorCommand::OwnHandled { channel, after: 0, count }, pair.now);
    }
    let closed = |event: &ConnectorEvent| matches!(event, ConnectorEvent::CloseCarrier { why, .. } if why == "flood");
    assert!(pair.connector_events().iter().any(closed));
}

#[test]
fn a_count_that_only_the_cursor_of_a_resume_tells_reaches_the_client() {
    let mut pair = Pair::attached();
    let kind = OpenKind::Attach { secret: SessionSecret([2; 16]), in_next: 0, out_next: 0, client_h: Some(4), attachment: 0 };
    let open = Box::new(open(kind));
    pair.relay.handle_command(RelayCommand::Open { session: KEY, identity: identity(), open }, pair.now);
    pair.exchange();
    let channel = pair.opened_channel();
    pair.connector.handle_command(ConnectorCommand::Accept { channel, attachment: 1, in_next: 6, out_first: 4, out: Vec::new() }, pair.now);
    pair.exchange();
    pair.connector.handle_command(ConnectorCommand::Handled { channel, number: 5, sm_in: 8 }, pair.now);
    pair.lose();
    pair.dial();
    pair.exchange();
    let events = pair.relay_events();
    assert!(events.contains(&RelayEvent::Handled { session: KEY, number: 5, sm_in: 8 }), "{events:?}");
}
