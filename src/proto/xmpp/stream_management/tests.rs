//! XEP-0198 against naive models, also where counts wrap.

use proptest::prelude::*;

use super::*;

#[test]
fn nonzas_are_read_as_clients_write_them() {
    let enable = nonza("enable");
    assert_eq!(nonza_of(&enable), Some(Nonza::Enable { resume: false }));
    assert_eq!(nonza_of(&enable.clone().with_attribute("resume", "true")), Some(Nonza::Enable { resume: true }));
    assert_eq!(nonza_of(&enable.clone().with_attribute("resume", "1")), Some(Nonza::Enable { resume: true }));
    assert_eq!(nonza_of(&enable.with_attribute("resume", "false")), Some(Nonza::Enable { resume: false }));
    assert_eq!(nonza_of(&nonza("r")), Some(Nonza::Request));
    assert_eq!(nonza_of(&nonza("a").with_attribute("h", "4294967295")), Some(Nonza::Answer { h: u32::MAX }));
    let resume = nonza("resume").with_attribute("previd", "some-long-sm-id").with_attribute("h", "7");
    assert_eq!(nonza_of(&resume), Some(Nonza::Resume { previd: "some-long-sm-id".into(), h: 7 }));
}

#[test]
fn malformed_and_foreign_nonzas_are_none() {
    for h in ["", "-1", "+1", " 1", "1.0", "4294967296", "x"] {
        assert_eq!(nonza_of(&nonza("a").with_attribute("h", h)), None, "h={h:?}");
    }
    assert_eq!(nonza_of(&nonza("a")), None);
    assert_eq!(nonza_of(&nonza("resume").with_attribute("h", "1")), None);
    assert_eq!(nonza_of(&nonza("resume").with_attribute("previd", "x")), None);
    assert_eq!(nonza_of(&nonza("resume").with_attribute("previd", "x".repeat(4001)).with_attribute("h", "1")), None);
    assert_eq!(nonza_of(&nonza("enabled")), None);
    assert_eq!(nonza_of(&Element::new("r", "urn:xmpp:sm:2")), None);
    assert_eq!(nonza_of(&Element::new("active", "urn:xmpp:csi:0")), None);
}

#[test]
fn only_stanzas_count() {
    for name in ["message", "presence", "iq"] {
        assert!(counts(&Element::new(name, ns::CLIENT)));
        assert!(!counts(&Element::new(name, ns::STREAM_MANAGEMENT)));
    }
    assert!(!counts(&nonza("r")));
    assert!(!counts(&Element::new("auth", ns::CLIENT)));
}

#[test]
fn nonzas_are_written_as_the_standard_shows_them() {
    assert_eq!(enabled(None, Some(120)).to_xml(), "<enabled xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(enabled(Some("id1"), Some(120)).to_xml(), "<enabled xmlns='urn:xmpp:sm:3' id='id1' resume='true' max='120'/>");
    assert_eq!(answer(4_294_967_295).to_xml(), "<a xmlns='urn:xmpp:sm:3' h='4294967295'/>");
    assert_eq!(request().to_xml(), "<r xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(resumed("id1", 3).to_xml(), "<resumed xmlns='urn:xmpp:sm:3' previd='id1' h='3'/>");
    assert_eq!(
        failed("item-not-found", Some(9)).to_xml(),
        "<failed xmlns='urn:xmpp:sm:3' h='9'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    );
    assert_eq!(failed("unexpected-request", None).attribute("h"), None);
}

#[test]
fn an_iq_behind_an_unhandled_message_waits_too() {
    let mut prefix = HandledPrefix::default();
    assert_eq!(prefix.arrived(0), 1);
    assert_eq!(prefix.h(), 1);
    assert_eq!(prefix.arrived(2), 2);
    assert_eq!(prefix.arrived(0), 3);
    assert_eq!((prefix.h(), prefix.waiting()), (1, 2));
    prefix.handled(1);
    assert_eq!((prefix.h(), prefix.waiting()), (1, 1));
    prefix.handled(2);
    assert_eq!((prefix.h(), prefix.waiting()), (3, 0));
}

#[test]
fn an_event_that_never_arrived_cannot_be_handled_beforehand() {
    let mut prefix = HandledPrefix::default();
    prefix.handled(u64::MAX);
    prefix.arrived(1);
    assert_eq!((prefix.h(), prefix.waiting()), (0, 1));
}

#[test]
fn the_told_count_wraps() {
    let mut prefix = HandledPrefix::resumed_at(u32::MAX, 10);
    assert_eq!(prefix.h(), u32::MAX);
    assert_eq!(prefix.arrived(1), 0);
    assert_eq!(prefix.h(), u32::MAX);
    prefix.handled(11);
    assert_eq!(prefix.h(), 0);
}

#[test]
fn more_than_was_sent_is_refused_and_an_old_count_is_not() {
    let mut account = Unacknowledged::new();
    for number in 1..=5 {
        assert_eq!(account.sent(number), number);
    }
    assert_eq!(account.acknowledged(3), Ok(vec![1, 2, 3]));
    assert_eq!(account.acknowledged(2), Ok(vec![]));
    assert_eq!(account.acknowledged(6), Err(HandledTooHigh { h: 6, sent: 5 }));
    assert_eq!(account.acknowledged(u32::MAX), Err(HandledTooHigh { h: u32::MAX, sent: 5 }));
    assert_eq!(account.iter().copied().collect::<Vec<_>>(), [4, 5]);
    assert_eq!(account.acknowledged(5), Ok(vec![4, 5]));
    assert!(account.is_empty());
}

#[test]
fn acknowledgements_cross_the_wrap() {
    let mut account = Unacknowledged::resumed_at(u32::MAX - 1);
    assert_eq!([account.sent('a'), account.sent('b'), account.sent('c')], [u32::MAX, 0, 1]);
    assert_eq!(account.acknowledged(2), Err(HandledTooHigh { h: 2, sent: 1 }));
    assert_eq!(account.acknowledged(0), Ok(vec!['a', 'b']));
    assert_eq!(account.acknowledged(u32::MAX), Ok(vec![]));
    assert_eq!(account.acknowledged(1), Ok(vec!['c']));
}

/// A step of the inbound account.
#[derive(Clone, Debug)]
enum In {
    Arrived(u32),
    Handled(u64),
}

/// A step of the outbound account; an acknowledgement is told relative to what was sent.
#[derive(Clone, Debug)]
enum Out {
    Sent,
    Acknowledged(i64),
}

fn start() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), any::<u32>(), (0..50_u32).prop_map(|below| u32::MAX - below)]
}

fn in_step() -> impl Strategy<Value = In> {
    prop_oneof![(0..4_u32).prop_map(In::Arrived), (0..80_u64).prop_map(In::Handled)]
}

fn out_step() -> impl Strategy<Value = Out> {
    prop_oneof![3 => Just(Out::Sent), 1 => (-60..3_i64).prop_map(Out::Acknowledged)]
}

proptest! {
    #[test]
    fn the_told_prefix_is_what_a_list_of_all_stanzas_says(start in start(), steps in prop::collection::vec(in_step(), 0..120)) {
        let mut prefix = HandledPrefix::resumed_at(start, 0);
        let mut last_events: Vec<u64> = Vec::new();
        let (mut handled, mut told) = (0, 0);
        for step in steps {
            let arrived = last_events.last().copied().unwrap_or(0);
            match step {
                In::Arrived(events) => {
                    last_events.push(arrived + u64::from(events));
                    prop_assert_eq!(prefix.arrived(events), start.wrapping_add(last_events.len() as u32));
                }
                In::Handled(number) => {
                    handled = handled.max(number.min(arrived));
                    prefix.handled(number);
                }
            }
            let expected = last_events.iter().take_while(|last| **last <= handled).count() as u32;
            prop_assert_eq!(prefix.h(), start.wrapping_add(expected));
            prop_assert!(expected >= told, "h went back");
            told = expected;
            prop_assert_eq!(prefix.waiting() as u64, last_events.last().copied().unwrap_or(0) - handled);
        }
    }

    #[test]
    fn acknowledgements_yield_each_tag_once_in_order(start in start(), steps in prop::collection::vec(out_step(), 0..120)) {
        let mut account = Unacknowledged::resumed_at(start);
        let (begun, mut sent, mut acknowledged) = (i64::from(start), 0_i64, 0_i64);
        for step in steps {
            match step {
                Out::Sent => {
                    sent += 1;
                    prop_assert_eq!(account.sent(sent), start.wrapping_add(sent as u32));
                }
                Out::Acknowledged(relative) => {
                    let reached = sent + relative;
                    let h = start.wrapping_add(reached as u32);
                    let result = account.acknowledged(h);
                    if reached > sent || begun + reached < 0 {
                        prop_assert_eq!(result, Err(HandledTooHigh { h, sent: start.wrapping_add(sent as u32) }));
                    } else {
                        let newly: Vec<i64> = (acknowledged + 1..=reached).collect();
                        acknowledged = acknowledged.max(reached);
                        prop_assert_eq!(result, Ok(newly));
                    }
                }
            }
            prop_assert_eq!(account.len() as i64, sent - acknowledged);
        }
    }
}
