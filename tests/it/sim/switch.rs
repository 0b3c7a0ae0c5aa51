//! Several carriers at once, and GOAWAY.

use std::time::Duration;

use outgate::proto::tunnel::{CarrierId, ChannelId, ConnectorCommand, ConnectorEvent, GoAway, GoAwayReason, RelayCommand, RelayEvent};

use super::pair::{KEY, Pair, event, identity};

const SECOND: Duration = Duration::from_secs(1);

fn goaway() -> GoAway {
    GoAway { reason: GoAwayReason::Stopping, deadline: 30 * SECOND, alternates: vec!["relay2.example:7443".to_owned()] }
}

fn ready(events: &[ConnectorEvent]) -> Vec<CarrierId> {
    events.iter().filter_map(|event| if let ConnectorEvent::CandidateReady { carrier } = event { Some(*carrier) } else { None }).collect()
}

fn closed(events: &[ConnectorEvent]) -> Vec<CarrierId> {
    events.iter().filter_map(|event| if let ConnectorEvent::CloseCarrier { carrier, .. } = event { Some(*carrier) } else { None }).collect()
}

/// A session over an attached carrier, and a candidate that is ready beside it.
fn with_candidate() -> (Pair, ChannelId, CarrierId) {
    let (mut pair, channel) = Pair::opened();
    let old = pair.carrier;
    pair.dial();
    pair.exchange();
    for _ in 0..3 {
        pair.wait(SECOND);
        pair.exchange();
    }
    assert_eq!(ready(&pair.connector_events()), [pair.carrier]);
    pair.exchange_on(old);
    (pair, channel, old)
}

fn say(pair: &mut Pair, text: &'static str, sm_in: u32) {
    pair.relay.handle_command(RelayCommand::Send { session: KEY, payload: event(text), sm_in }, pair.now);
}

#[test]
fn the_first_hello_ack_gets_the_attach_and_the_others_are_closed_unattached() {
    let mut pair = Pair::new();
    pair.dial();
    let slow = pair.carrier;
    pair.dial();
    let fast = pair.carrier;
    pair.exchange_on(fast);
    assert_eq!(closed(&pair.connector_events()), [slow]);
    assert_eq!(pair.connector.stats().attached, 1);
    pair.exchange_on(slow);
    assert_eq!(pair.relay.stats()[0].1.attached, 1, "one ATTACH was sent");
    crate::fault_table::proven(9, "pure: one ATTACH of several carriers");
}

#[test]
fn a_candidate_is_ready_after_three_pongs_a_second_apart_and_not_before() {
    let (mut pair, _) = Pair::opened();
    pair.dial();
    pair.exchange();
    for turn in 1..=3 {
        pair.wait(if turn == 1 { Duration::ZERO } else { SECOND });
        assert!(ready(&pair.connector_events()).is_empty(), "before PONG {turn}");
        pair.exchange();
    }
    assert_eq!(ready(&pair.connector_events()), [pair.carrier]);
    assert_eq!(pair.connector.stats().attached, 1);
}

#[test]
fn a_candidate_that_answers_late_starts_over() {
    let (mut pair, _) = Pair::opened();
    pair.dial();
    pair.exchange();
    for turn in 0..6 {
        pair.wait(SECOND);
        // The second PONG comes after the third PING.
        if turn != 1 {
            pair.exchange();
        }
        assert_eq!(ready(&pair.connector_events()).is_empty(), turn != 4, "turn {turn}");
    }
}

#[test]
fn switching_moves_the_session_with_what_is_on_the_way_and_closes_the_old_carrier() {
    let (mut pair, channel, old) = with_candidate();
    let new = pair.carrier;
    say(&mut pair, "on the old", 1);
    assert!(pair.connector.switch_to(new, pair.now));
    pair.connector.handle_command(ConnectorCommand::Send { channel, number: 1, payload: event("queued") }, pair.now);
    pair.carry_to_connector_on(old);
    assert!(pair.connector_events().is_empty(), "the old carrier is read no more once the cursors are written");
    pair.exchange();
    let events = pair.connector_events();
    assert!(!events.contains(&ConnectorEvent::Detached));
    assert!(events.contains(&ConnectorEvent::Attached { epoch: 2, resumed: true }));
    assert!(events.contains(&ConnectorEvent::Data { channel, number: 1, sm_in: 1, payload: event("on the old") }));
    assert_eq!(closed(&events), [old]);
    assert!(pair.relay_events().contains(&RelayEvent::Data { session: KEY, number: 1, payload: event("queued") }));
    assert_eq!((pair.connector.stats().switched, pair.relay.stats()[0].1.switched), (1, 1));
}

#[test]
fn an_ack_that_waits_on_the_old_carrier_is_told_by_the_new_one() {
    let (mut pair, channel, old) = with_candidate();
    say(&mut pair, "hello", 1);
    pair.carry_to_connector_on(old);
    pair.connector_events();
    pair.connector.handle_command(ConnectorCommand::Handled { channel, number: 1, sm_in: 1 }, pair.now);
    assert!(pair.connector.switch_to(pair.carrier, pair.now));
    pair.exchange();
    assert!(pair.relay_events().contains(&RelayEvent::Handled { session: KEY, number: 1, sm_in: 1 }));
    assert_eq!(pair.relay.stats()[0].1.held_bytes, 0);
}

#[test]
fn a_candidate_takes_over_by_itself_when_the_attached_carrier_is_lost() {
    let (mut pair, _, old) = with_candidate();
    pair.connector.carrier_lost(old, pair.now);
    pair.exchange();
    let events = pair.connector_events();
    assert!(events.contains(&ConnectorEvent::Attached { epoch: 2, resumed: true }), "{events:?}");
}

#[test]
fn a_switch_to_a_carrier_that_dies_falls_back_to_dialling() {
    let (mut pair, _, old) = with_candidate();
    let new = pair.carrier;
    assert!(pair.connector.switch_to(new, pair.now));
    pair.connector.carrier_lost(new, pair.now);
    let events = pair.connector_events();
    assert!(events.contains(&ConnectorEvent::Detached), "{events:?}");
    assert_eq!(closed(&events), [old]);
    pair.lose();
    pair.dial();
    pair.exchange();
    assert!(pair.connector_events().contains(&ConnectorEvent::Attached { epoch: 2, resumed: true }));
}

#[test]
fn only_a_candidate_beside_an_attached_carrier_can_be_switched_to() {
    let (mut pair, _) = Pair::opened();
    let attached = pair.carrier;
    assert!(!pair.connector.switch_to(attached, pair.now));
    assert!(!pair.connector.switch_to(CarrierId(77), pair.now));
    pair.dial();
    assert!(!pair.connector.switch_to(pair.carrier, pair.now), "no HELLO_ACK yet");
}

#[test]
fn a_draining_relay_says_so_serves_on_and_makes_candidates_ready_at_once() {
    let (mut pair, _) = Pair::opened();
    pair.relay.drain(goaway(), pair.now);
    pair.exchange();
    assert_eq!(pair.connector_events(), [ConnectorEvent::GoAway { goaway: goaway() }]);
    pair.relay.handle_command(RelayCommand::Finish { session: KEY, fin: super::pair::fin() }, pair.now);
    pair.open_as(2);
    pair.exchange();
    pair.opened_channel();
    pair.dial();
    pair.exchange();
    assert_eq!(ready(&pair.connector_events()), [pair.carrier]);
    assert!(pair.connector.switch_to(pair.carrier, pair.now));
    pair.wait(SECOND);
    pair.exchange();
    let told = GoAway { deadline: 29 * SECOND, ..goaway() };
    assert!(pair.connector_events().contains(&ConnectorEvent::GoAway { goaway: told }), "the new carrier hears it too");
}

#[test]
fn a_draining_connector_is_heard_at_the_relay() {
    let (mut pair, _) = Pair::opened();
    pair.connector.drain(goaway(), pair.now);
    pair.exchange();
    assert_eq!(pair.relay_events(), [RelayEvent::GoAway { identity: identity(), goaway: goaway() }]);
    assert!(pair.relay.is_attached(&identity()));
}

#[test]
fn a_carrier_that_the_relay_retires_is_replaced_or_closed_at_its_deadline() {
    let (mut pair, _) = Pair::opened();
    let old = pair.carrier;
    pair.relay.retire(old, 10 * SECOND, pair.now);
    pair.exchange();
    let told = GoAway { reason: GoAwayReason::CarrierEnds, deadline: 10 * SECOND, alternates: Vec::new() };
    assert_eq!(pair.connector_events(), [ConnectorEvent::GoAway { goaway: told }]);
    pair.wait(4 * SECOND);
    pair.exchange();
    pair.wait(4 * SECOND);
    assert!(pair.relay.is_attached(&identity()));
    pair.wait(2 * SECOND);
    assert!(!pair.relay.is_attached(&identity()));
}

#[test]
fn a_candidate_that_nobody_takes_is_closed_after_thirty_seconds_on_both_sides() {
    let (mut pair, _, old) = with_candidate();
    for _ in 0..26 {
        pair.wait(SECOND);
        pair.exchange_on(old);
        pair.exchange();
    }
    assert!(closed(&pair.connector_events()).is_empty() && !super::pair::closes(&pair.relay_events()));
    pair.wait(SECOND);
    assert_eq!(closed(&pair.connector_events()), [pair.carrier]);
    assert!(super::pair::closes(&pair.relay_events()));
    assert!(pair.relay.is_attached(&identity()));
}
