//! Herds, memory, and peers that do not answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use outgate::proto::tunnel::{
    ConnectorCommand, ConnectorEnd, ConnectorEvent, Lane, Payload, Rate, RefusalCode, RelayCommand, RelayEvent, ReplayMemory, ResetCode,
    SessionKey, Settings,
};
use outgate::session::CloseReason;

use super::pair::{KEY, Pair, event, fin, identity};

const SECOND: Duration = Duration::from_secs(1);

fn opens(events: &[ConnectorEvent]) -> usize {
    events.iter().filter(|event| matches!(event, ConnectorEvent::Open { .. })).count()
}

fn refusal(events: &[ConnectorEvent]) -> Option<(String, Duration)> {
    events
        .iter()
        .find_map(|event| if let ConnectorEvent::Refused { code, retry_after } = event { Some((code.clone(), *retry_after)) } else { None })
}

fn accept_all(pair: &mut Pair) -> usize {
    let mut accepted = 0;
    for event in pair.connector_events() {
        if let ConnectorEvent::Open { channel, .. } = event {
            let accept = ConnectorCommand::Accept { channel, attachment: 1, in_next: 1, out_first: 1, out: Vec::new() };
            pair.connector.handle_command(accept, pair.now);
            accepted += 1;
        }
    }
    accepted
}

#[test]
fn a_herd_of_attaches_is_refused_with_the_time_to_come_again_and_a_switch_never_is() {
    let settings = Settings { attach_rate: Rate { per_second: 1, burst: 2 }, ..Settings::default() };
    let mut pair = Pair::with(settings, Settings::default());
    for _ in 0..2 {
        pair.dial();
        pair.exchange();
        assert_eq!(refusal(&pair.connector_events()), None);
        pair.lose();
    }
    pair.dial();
    pair.exchange();
    let (code, wait) = refusal(&pair.connector_events()).unwrap();
    assert_eq!(code, "busy");
    assert!(wait > Duration::ZERO && wait <= SECOND, "{wait:?}");
    pair.lose();
    pair.wait(wait);
    pair.dial();
    pair.exchange();
    assert!(pair.relay.is_attached(&identity()));
    let old = pair.carrier;
    pair.dial();
    pair.exchange();
    pair.connector.carrier_lost(old, pair.now);
    pair.exchange();
    assert_eq!(refusal(&pair.connector_events()), None, "the relay still has the old carrier");
}

#[test]
fn sessions_come_back_to_a_new_connector_at_a_governed_rate_and_new_ones_do_not_wait_for_them() {
    let settings = Settings { reopen_rate: Rate { per_second: 10, burst: 2 }, ..Settings::default() };
    let mut pair = Pair::with(settings, Settings::default());
    pair.dial();
    pair.exchange();
    for name in 1..=6 {
        pair.open_as(name);
    }
    pair.exchange();
    assert_eq!(accept_all(&mut pair), 6);
    pair.exchange();
    pair.lose();
    pair.connector = ConnectorEnd::new(Settings::default(), [7; 16]);
    pair.dial();
    pair.exchange();
    assert_eq!(opens(&pair.connector_events()), 2, "the burst");
    pair.open_as(7);
    pair.exchange();
    assert_eq!(opens(&pair.connector_events()), 1, "the new one");
    for _ in 0..4 {
        let due = pair.relay.poll_timeout().unwrap();
        assert!(due > pair.now && due <= pair.now + Duration::from_millis(100));
        pair.wait(due - pair.now);
        pair.exchange();
        assert_eq!(opens(&pair.connector_events()), 1);
    }
}

/// A minute of PINGs and ACKs without a byte on the data lane.
fn control_only(pair: &mut Pair, seconds: u32) {
    for _ in 0..seconds {
        pair.wait(SECOND);
        let mut bytes = BytesMut::new();
        pair.relay.poll_transmit(pair.carrier, Lane::Data, 1 << 20, &mut bytes, pair.now);
        pair.exchange();
    }
}

#[test]
fn a_carrier_that_swallows_what_is_sent_is_closed_after_thirty_seconds() {
    let (mut pair, _) = Pair::opened();
    pair.relay.handle_command(RelayCommand::Send { session: KEY, payload: event("lost"), sm_in: 1 }, pair.now);
    let mut swallowed = BytesMut::new();
    assert!(pair.relay.poll_transmit(pair.carrier, Lane::Data, 1 << 20, &mut swallowed, pair.now));
    control_only(&mut pair, 29);
    assert!(pair.relay.is_attached(&identity()));
    control_only(&mut pair, 1);
    assert!(!pair.relay.is_attached(&identity()));
}

#[test]
fn a_peer_that_receives_and_does_not_handle_for_minutes_is_no_fault() {
    let (mut pair, _) = Pair::opened();
    pair.relay.handle_command(RelayCommand::Send { session: KEY, payload: event("slow"), sm_in: 1 }, pair.now);
    pair.exchange();
    control_only(&mut pair, 100);
    assert!(pair.relay.is_attached(&identity()));
    assert_eq!(pair.relay.stats()[0].1.attached, 1);
}

#[test]
fn a_relay_whose_replay_memory_is_full_refuses_new_sessions_and_keeps_what_it_has() {
    let memory = ReplayMemory::new(2_000);
    let settings = Settings { replay_memory: memory.clone(), ..Settings::default() };
    let (mut pair, channel) = Pair::with(settings, Settings::default()).into_opened();
    let body = Payload::Event(Bytes::from(vec![b'x'; 1_200]));
    for sm_in in 1..=2 {
        pair.relay.handle_command(RelayCommand::Send { session: KEY, payload: body.clone(), sm_in }, pair.now);
    }
    assert!(memory.is_full());
    pair.open_as(2);
    let told = pair.relay_events();
    assert!(matches!(told[..], [RelayEvent::OpenRefused { session: SessionKey(2), code: RefusalCode::Busy, .. }]), "{told:?}");
    pair.exchange();
    pair.connector.handle_command(ConnectorCommand::Handled { channel, number: 2, sm_in: 2 }, pair.now);
    pair.wait(SECOND);
    pair.exchange();
    assert_eq!(memory.held(), 0);
    pair.relay_events();
    pair.open_as(3);
    assert!(pair.relay_events().is_empty());
}

#[test]
fn replay_memory_is_shared_by_the_tunnels_of_a_connector_and_given_back_with_each() {
    let settings = Settings { replay_memory: ReplayMemory::new(1_000), ..Settings::default() };
    let (mut first, channel) = Pair::with(Settings::default(), settings.clone()).into_opened();
    let payload = Payload::Event(Bytes::from(vec![b'x'; 1_200]));
    first.connector.handle_command(ConnectorCommand::Send { channel, number: 1, payload }, first.now);
    let mut second = Pair::with(Settings::default(), settings.clone());
    second.dial();
    second.open();
    second.exchange();
    assert_eq!(opens(&second.connector_events()), 0);
    let told = second.relay_events();
    assert!(told.iter().any(|event| matches!(event, RelayEvent::OpenRefused { code: RefusalCode::Busy, .. })), "{told:?}");
    drop(first);
    assert_eq!(settings.replay_memory.held(), 0);
    second.open_as(2);
    second.exchange();
    assert_eq!(opens(&second.connector_events()), 1);
}

#[test]
fn a_session_whose_return_nobody_answers_is_asked_for_again_and_told_after_the_detach_window() {
    let patient = Settings { stalled_after: Duration::from_secs(1000), ..Settings::default() };
    let (mut pair, _) = Pair::with(patient, Settings::default()).into_opened();
    pair.relay_events();
    pair.lose();
    pair.connector = ConnectorEnd::new(Settings::default(), [7; 16]);
    pair.dial();
    pair.exchange();
    assert_eq!(opens(&pair.connector_events()), 1);
    let mut asked = 1;
    let gone = RelayEvent::Gone { session: KEY, reason: CloseReason::DetachExpired };
    for second in 1..=130 {
        pair.wait(SECOND);
        pair.exchange();
        let events = pair.connector_events();
        if opens(&events) > 0 {
            asked += opens(&events);
            let reset = |event: &ConnectorEvent| matches!(event, ConnectorEvent::Reset { code: ResetCode::Cancelled, .. });
            assert!(events.iter().any(reset), "the earlier OPEN is withdrawn");
        }
        let told = pair.relay_events();
        assert_eq!(told.contains(&gone), second == 120, "second {second}: {told:?}");
    }
    assert_eq!(asked, 12);
    assert_eq!(pair.connector.stats().channels, 0);
}

#[test]
fn an_open_that_is_withdrawn_before_its_answer_is_told_to_the_desk() {
    let mut pair = Pair::attached();
    pair.open();
    pair.exchange();
    let channel = pair.opened_channel();
    pair.relay.handle_command(RelayCommand::Finish { session: KEY, fin: fin() }, pair.now);
    pair.exchange();
    assert_eq!(pair.connector_events(), [ConnectorEvent::Reset { channel, code: ResetCode::Cancelled }]);
    let accept = ConnectorCommand::Accept { channel, attachment: 1, in_next: 1, out_first: 1, out: Vec::new() };
    pair.connector.handle_command(accept, pair.now);
    pair.exchange();
    assert_eq!((pair.connector.stats().channels, pair.relay.stats()[0].1.channels), (0, 0), "its answer changes nothing");
    crate::fault_table::proven(41, "OPEN withdrawn");
}

#[test]
fn a_refusal_that_is_lost_with_its_carrier_is_said_again() {
    let mut pair = Pair::attached();
    pair.open();
    pair.exchange();
    let channel = pair.opened_channel();
    pair.lose();
    let refuse = ConnectorCommand::Refuse { channel, code: RefusalCode::NoQueue, text: String::new(), retry_after: None };
    pair.connector.handle_command(refuse, pair.now);
    pair.dial();
    pair.exchange();
    let refused = |event: &RelayEvent| matches!(event, RelayEvent::OpenRefused { session: KEY, code: RefusalCode::NoQueue, .. });
    assert!(pair.relay_events().iter().any(refused));
}

#[test]
fn a_carrier_whose_data_lane_brings_no_answer_to_any_open_is_closed_after_thirty_seconds() {
    let mut pair = Pair::attached();
    for second in 0..=40 {
        if second % 5 == 0 {
            pair.open_as(10 + second);
        }
        control_only(&mut pair, 1);
        pair.connector_events();
        assert_eq!(pair.relay.is_attached(&identity()), second < 29, "second {second}");
    }
}

#[test]
fn a_channel_that_the_desk_ends_while_the_attachment_is_on_its_way_is_ended_at_the_relay_too() {
    let (mut pair, channel) = Pair::opened();
    pair.lose();
    pair.relay_events();
    pair.dial();
    pair.carry_to_relay();
    pair.carry_to_connector();
    assert!(pair.carry_to_relay(), "ATTACH names the channel");
    pair.connector.handle_command(ConnectorCommand::Reset { channel, code: ResetCode::Moved }, pair.now);
    pair.exchange();
    assert!(pair.relay_events().contains(&RelayEvent::Gone { session: KEY, reason: CloseReason::CustomerLost }));
}
