//! A certificate whose time is over ends the carrier that stands on it, at whichever end; a new one brings the tunnel back.

use std::time::Duration;

use outgate::config::Role;
use outgate::net::certificates::Issued;
use outgate::net::wall_clock::unix_now;

use crate::fault_table::proven;

use super::site::{Site, until};

/// So long after now a certificate's time is over, the ten minutes that clocks may differ by included: a carrier comes up before, even
/// on a machine that has much else to do.
const SOON_OVER: u64 = 10;

const LEEWAY: u64 = 600;
const LIFE: u64 = 3600;

fn soon_over(site: &Site, role: Role, name: &str) -> Issued {
    let hosts = match role {
        Role::Relay => vec!["relay.example".to_owned()],
        Role::Connector => Vec::new(),
    };
    let issued_at = unix_now() + SOON_OVER - LEEWAY - LIFE;
    site.authority().with_life(Some(Duration::from_secs(LIFE))).issue(role, name, &hosts, issued_at).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_29_a_connector_whose_certificate_expires_loses_its_carrier_until_it_has_another() {
    let mut site = Site::new();
    site.certify(None);
    let relay = site.start_relay();
    let neighbour = site.start_connector("lan2", relay, None).await;
    site.attached("lan2", true).await;
    site.write_pair("lan1/tunnel", &soon_over(&site, Role::Connector, "lan1"));
    let connector = site.start_connector("lan1", relay, None).await;
    let carriers = site.attached("lan1", true).await;
    site.attached("lan1", false).await;
    assert_eq!(why(&site, "lan1").await, "the peer's certificate has expired");
    assert_eq!(site.attached("lan2", true).await, 1, "the neighbour's carrier stands");
    site.write_pair("lan1/tunnel", &site.issue(Role::Connector, "lan1", None));
    assert!(site.attached("lan1", true).await > carriers);
    site.stop([connector, neighbour]).await;
    proven(29, "expired while the carrier stands: it is closed, a new certificate brings it back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_certificate_expires_loses_its_carrier_until_it_has_another() {
    let mut site = Site::new();
    site.certify(None);
    site.write_pair("relay/tunnel", &soon_over(&site, Role::Relay, "dmz1"));
    let relay = site.start_relay();
    let connector = site.start_connector("lan1", relay, None).await;
    let carriers = site.attached("lan1", true).await;
    site.attached("lan1", false).await;
    site.write_pair("relay/tunnel", &site.issue(Role::Relay, "dmz1", None));
    assert!(site.attached("lan1", true).await > carriers);
    site.stop([connector]).await;
}

/// Why the last carrier ended, as the relay tells it.
async fn why(site: &Site, name: &str) -> String {
    let identity = format!("outgate://example/connector/{name}");
    let mut told = String::new();
    until("the end's reason", async || {
        let status = site.relay().status().await;
        let last = status.tunnels.into_iter().find(|tunnel| tunnel.identity == identity).and_then(|tunnel| tunnel.last_end);
        told = last.unwrap_or_default();
        !told.is_empty()
    })
    .await;
    told.split_once(": ").map_or_else(String::new, |(_, why)| why.to_owned())
}
