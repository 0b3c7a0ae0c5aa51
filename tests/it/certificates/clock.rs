//! Clocks that differ, and certificates whose time is over: ten minutes are forgiven, more is said in words.

use std::time::Duration;

use outgate::config::Role;
use outgate::net::carrier::{CarrierInput, Carriers};
use outgate::net::certificates::{Issued, Live, TunnelCa, own_and_authorities};
use outgate::net::inherited::Origin;
use outgate::net::quic;
use outgate::net::wall_clock::unix_now;

use crate::fault_table::proven;

use super::site::{SOON, loopback};

const MINUTE: u64 = 60;

#[tokio::test]
async fn fault_29_clocks_may_differ_by_ten_minutes_either_way() {
    let now = unix_now();
    let (ca, root) = TunnelCa::create("example", now - 86_400).unwrap();
    let life = Duration::from_secs(3600);
    let hour_from = |begin: u64| (begin + 5 * MINUTE, life);
    // From when to when it holds, seen from here; and whether it does.
    for (at, holds) in [
        (hour_from(now), true),
        (hour_from(now + 9 * MINUTE), true),
        (hour_from(now + 11 * MINUTE), false),
        (hour_from(now - 3600 - 5 * MINUTE - 9 * MINUTE), true),
        (hour_from(now - 3600 - 5 * MINUTE - 11 * MINUTE), false),
    ] {
        let good = |role, name: &str, hosts: &[String]| ca.issue(role, name, hosts, now).unwrap().1;
        let hosts = ["relay.example".to_owned()];
        let odd_relay = ca.issue_for(Role::Relay, "dmz1", &hosts, Some(at.1), at.0).unwrap().1;
        let odd_connector = ca.issue_for(Role::Connector, "lan1", &[], Some(at.1), at.0).unwrap().1;
        let (relay, connector) = (good(Role::Relay, "dmz1", &hosts), good(Role::Connector, "lan1", &[]));
        for (relay, connector) in [(&odd_relay, &connector), (&relay, &odd_connector)] {
            let outcome = meet(&root, relay, connector).await;
            assert_eq!(outcome.is_ok(), holds, "{outcome:?}");
            if let Err(why) = outcome {
                assert!(why.contains("clock") && why.contains("expired"), "{why}");
            }
        }
    }
    proven(29, "an expired certificate, and clocks ten minutes apart");
}

/// Dials with these certificates; the relay's end must come up too.
async fn meet(root: &Issued, relay: &Issued, connector: &Issued) -> Result<(), String> {
    let live = |own: &Issued| Live::new(&own_and_authorities(own, &root.certificate).unwrap()).unwrap();
    let server = quic::server(quic::bind(loopback()).unwrap(), Origin::Bound, &live(relay)).unwrap();
    let address = server.local_addr().unwrap();
    let (mut accepting, mut at_relay) = Carriers::new();
    accepting.accept(server);
    let endpoint = quic::client(quic::bind(loopback()).unwrap(), Origin::Bound, &live(connector)).unwrap();
    let (mut dialling, mut at_connector) = Carriers::new();
    let dial = dialling.dial(&endpoint, address, "relay.example");
    let came = tokio::time::timeout(SOON, async {
        let mut handles = Vec::new();
        loop {
            tokio::select! {
                // A TLS 1.3 client is done before the server has judged its certificate.
                Some(input) = at_connector.recv() => match input {
                    CarrierInput::Opened { handle, .. } => handles.push(handle),
                    CarrierInput::Lost { why, .. } => return Err(why),
                    CarrierInput::Frames { .. } | CarrierInput::Refused { .. } => {}
                },
                Some(input) = at_relay.recv() => if let CarrierInput::Opened { .. } = input {
                    return Ok(());
                },
            }
        }
    })
    .await
    .unwrap();
    drop(dial);
    came
}
