//! The rules of attach, fence and replay, explored exhaustively within small bounds.

use outgate_sim::model::{Bounds, Fault, explore};

const NOTHING: Bounds = Bounds { relays: 1, carriers: 0, events: 2, losses: 0, connector_crashes: 0, relay_crashes: 0, moves: 0 };

/// Bounds that together meet every kind of trouble, each small enough to be explored whole.
const CASES: [(&str, Bounds); 5] = [
    ("losses and a switch", Bounds { carriers: 1, losses: 1, ..NOTHING }),
    ("a crash of the connector", Bounds { losses: 1, connector_crashes: 1, ..NOTHING }),
    ("a crash of the relay", Bounds { relays: 2, losses: 1, relay_crashes: 1, ..NOTHING }),
    // He leaves a relay that lives on, and asks for his session there when the connector has forgotten where it was.
    ("a move to another relay", Bounds { relays: 2, losses: 1, moves: 1, ..NOTHING }),
    ("a move and a crash of the connector", Bounds { relays: 2, events: 0, moves: 1, connector_crashes: 1, ..NOTHING }),
];

#[test]
#[expect(clippy::print_stderr, reason = "how much was explored is part of the proof")]
fn one_live_epoch_and_attachment_h_never_back_nothing_lost_or_doubled_in_every_order() {
    for (what, bounds) in CASES {
        let explored = explore(bounds, None);
        eprintln!("model: {what}: {} states, {} at rest", explored.states, explored.settled);
        assert!(explored.violation.is_none(), "{what}: {explored:#?}");
        assert!(explored.settled > 0, "{what}: nothing comes to rest");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "how soon each fault is found is part of the proof")]
fn every_broken_rule_is_found() {
    let faults = [
        Fault::GrantedTwice,
        Fault::EpochReused,
        Fault::OldCarrierRead,
        Fault::AckBeforeCommit,
        Fault::OldAttachmentTaken,
        Fault::StaleOpenTaken,
        Fault::LogDroppedWhenSent,
    ];
    for fault in faults {
        let found = CASES.iter().find_map(|(what, bounds)| Some((what, explore(*bounds, Some(fault)).violation?)));
        let (what, violation) = found.unwrap_or_else(|| panic!("{fault:?} breaks nothing"));
        eprintln!("model: {fault:?} is found in {what}: {}", violation.chars().take(100).collect::<String>());
    }
}
