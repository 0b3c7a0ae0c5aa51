//! What the audit log is told of the tunnels.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::dial_relay::TunnelStatus;
use crate::net::shutdown::Stop;
use crate::telemetry::audit::{Audit, Event};

/// Tells of each tunnel when it has a carrier and when it has none any more, until `stop`.
pub(super) async fn tell_tunnels(mut tunnels: watch::Receiver<Vec<TunnelStatus>>, audit: Audit, mut stop: Stop) {
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        for event in changes(&mut known, &tunnels.borrow_and_update()) {
            audit.record(event);
        }
        tokio::select! {
            changed = tunnels.changed() => if changed.is_err() { return },
            () = stop.requested() => return,
        }
    }
}

/// What has changed; `known` holds the epoch of each tunnel that has a carrier.
fn changes(known: &mut BTreeMap<String, u64>, tunnels: &[TunnelStatus]) -> Vec<Event> {
    let mut events = Vec::new();
    for TunnelStatus { relay, attached, epoch, .. } in tunnels {
        let peer = relay.clone();
        match (known.get(relay).copied(), *attached) {
            (Some(_), false) => {
                known.remove(relay);
                events.push(Event::TunnelDetached { peer });
            }
            (before, true) if before != Some(*epoch) => {
                known.insert(relay.clone(), *epoch);
                events.push(Event::TunnelAttached { peer, epoch: Some(*epoch) });
            }
            (_, _) => {}
        }
    }
    events
}
