//! The CA rolls under tunnels that stand.

use std::time::Duration;

use outgate::net::certificates::Live;
use outgate::net::certificates::own_and_authorities;
use outgate::net::wall_clock::unix_now;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::fault_table::proven;

use super::site::{Site, until};

#[tokio::test(flavor = "multi_thread")]
async fn fault_29_the_ca_rolls_under_a_tunnel_that_stands_and_both_ends_follow() {
    let mut site = Site::new();
    site.certify(None);
    let url = site.serve();
    let relay = site.start_relay();
    let connector = site.start_connector("lan1", relay, Some(&url)).await;
    site.attached("lan1", true).await;
    let before = authorities(&site.read("relay/ca.pem"));

    let issues_from = site.authority().roll(Duration::from_secs(4), unix_now()).unwrap();
    until("both ends trust two CAs", async || {
        ["relay", "lan1"].iter().all(|side| authorities(&site.read(&format!("{side}/ca.pem"))).len() == 2)
    })
    .await;
    assert!(unix_now() < issues_from, "before the new one issues");

    // Its turn: what it issues is good on both sides, and so is what the old one issued.
    until("the new CA issues", async || unix_now() >= issues_from).await;
    site.write_pair("lan2/tunnel", &site.issue(outgate::config::Role::Connector, "lan2", None));
    site.write("lan2/ca.pem", &site.authority().bundle(unix_now()).unwrap());
    let issuer = site.read("lan2/tunnel.pem");
    let newest = Live::new(&own_and_authorities(&issued(&site, "lan2/tunnel"), &site.read("lan2/ca.pem")).unwrap()).unwrap();
    let leaf = CertificateDer::from_pem_slice(issuer.as_bytes()).unwrap();
    assert!(newest.vouches_for(&leaf) && !vouched_by(&before, &leaf));
    let other = site.start_connector("lan2", relay, Some(&url)).await;
    site.attached("lan2", true).await;
    assert_eq!(site.attached("lan1", true).await, 1);
    site.stop([connector, other]).await;
    proven(29, "the CA rolls under a tunnel that stands");
}

fn authorities(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}

fn issued(site: &Site, name: &str) -> outgate::net::certificates::Issued {
    let (certificate, key) = (site.read(&format!("{name}.pem")), site.read(&format!("{name}-key.pem")));
    outgate::net::certificates::Issued { certificate, key: key.into() }
}

fn vouched_by(authorities: &[CertificateDer<'_>], leaf: &CertificateDer<'_>) -> bool {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
    authorities.iter().any(|authority| {
        let (_, authority) = X509Certificate::from_der(authority).unwrap();
        leaf.verify_signature(Some(authority.public_key())).is_ok()
    })
}
