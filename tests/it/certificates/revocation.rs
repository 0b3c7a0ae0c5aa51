//! A revocation bites: at the handshake and on the tunnel that stands, however the list comes.

use outgate::net::certificates::lists_in;
use outgate::net::wall_clock::unix_now;
use outgate::proto::tunnel::certificate::MAX_CERTIFICATE_BYTES;

use crate::fault_table::proven;

use super::site::{Site, until};

#[tokio::test(flavor = "multi_thread")]
async fn fault_29_a_revoked_connector_loses_its_tunnel_and_gets_no_other_while_its_neighbour_goes_on() {
    let mut site = Site::new();
    site.certify(None);
    let url = site.serve();
    let relay = site.start_relay();
    let first = site.start_connector("lan1", relay, Some(&url)).await;
    let second = site.start_connector("lan2", relay, Some(&url)).await;
    site.attached("lan1", true).await;
    assert_eq!(site.attached("lan2", true).await, 1);

    site.authority().revoke("lan1", "stolen", unix_now()).unwrap();
    let carriers = site.attached("lan1", false).await;
    // It dials again, and is refused at every handshake.
    let refused = async || site.relay().status().await.counts.reasons.get("carrier-handshake").copied().unwrap_or(0);
    until("two more handshakes are refused", async || refused().await >= 2).await;
    assert_eq!(site.attached("lan1", false).await, carriers);
    assert_eq!(site.attached("lan2", true).await, 1, "the neighbour's carrier stands");
    assert!(site.read("relay/revoked.pem").contains("X509 CRL"), "the relay knows it after a restart too");

    // A new start of the relay without anybody to tell it.
    first.shutdown().await;
    second.shutdown().await;
    site.relay.take().unwrap().stop().await;
    let relay = site.start_relay();
    let first = site.start_connector("lan1", relay, None).await;
    until("the handshake is refused", async || refused_at(&site).await >= 1).await;
    site.stop([first]).await;
    proven(29, "live revocation: the carrier is closed, no other is made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_relay_loses_its_tunnel() {
    let mut site = Site::new();
    site.certify(None);
    let url = site.serve();
    let relay = site.start_relay();
    let connector = site.start_connector("lan1", relay, Some(&url)).await;
    site.attached("lan1", true).await;
    site.authority().revoke("outgate://example/relay/dmz1", "", unix_now()).unwrap();
    site.attached("lan1", false).await;
    until("the connector refuses the relay", async || refused_at(&site).await >= 1).await;
    site.stop([connector]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_comes_as_a_file_bites_too_and_an_older_one_does_not_lift_it() {
    let mut site = Site::new();
    site.certify(None);
    let relay = site.start_relay();
    let connector = site.start_connector("lan1", relay, None).await;
    let other = site.start_connector("lan2", relay, None).await;
    site.attached("lan1", true).await;
    site.attached("lan2", true).await;

    // An older list, which revokes the other one's former certificate, of which nobody makes use.
    let former = site.issue(outgate::config::Role::Connector, "lan9", None);
    assert!(!former.certificate.is_empty());
    site.authority().revoke("lan9", "", unix_now()).unwrap();
    let older = site.read("ca/revoked.pem");
    site.authority().revoke("lan1", "", unix_now()).unwrap();
    site.write("relay/revoked.pem", &site.read("ca/revoked.pem"));
    site.attached("lan1", false).await;

    site.write("relay/revoked.pem", &older);
    until("the older list is refused in words", async || {
        site.relay_certificate("tunnel").await.is_some_and(|(_, fault)| fault.is_some_and(|fault| fault.contains("lists only rise")))
    })
    .await;
    let before = refused_at(&site).await;
    until("it is refused still", async || refused_at(&site).await > before).await;
    site.attached("lan1", false).await;
    assert_eq!(site.attached("lan2", true).await, 1);
    site.stop([connector, other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_thousands_bites_over_the_tunnel() {
    let mut site = Site::new();
    site.certify(None);
    site.add_revoked(5000);
    let url = site.serve();
    let relay = site.start_relay();
    let first = site.start_connector("lan1", relay, Some(&url)).await;
    let second = site.start_connector("lan2", relay, Some(&url)).await;
    site.attached("lan1", true).await;
    assert_eq!(site.attached("lan2", true).await, 1);

    site.authority().revoke("lan1", "stolen", unix_now()).unwrap();
    site.attached("lan1", false).await;
    assert_eq!(site.attached("lan2", true).await, 1, "the neighbour's carrier stands");
    let list = lists_in(site.read("relay/revoked.pem").as_bytes()).unwrap().remove(0);
    assert!(list.len() > 10 * MAX_CERTIFICATE_BYTES, "{} bytes", list.len());
    site.stop([first, second]).await;
}

async fn refused_at(site: &Site) -> u64 {
    site.relay().status().await.counts.reasons.get("carrier-handshake").copied().unwrap_or(0)
}
