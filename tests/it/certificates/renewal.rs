//! Both ends renew in time, and nobody notices.

use std::time::Duration;

use outgate::config::Role;
use outgate::connector::enrolment::enroll;
use outgate::net::certificates::load;
use outgate::net::wall_clock::unix_now;

use crate::fault_table::proven;

use super::site::{DUE, Site, days_left, mode, until};

#[tokio::test(flavor = "multi_thread")]
async fn fault_29_both_ends_renew_themselves_and_no_carrier_is_disturbed() {
    let mut site = Site::new();
    site.certify(Some(DUE));
    let url = site.serve();
    let relay = site.start_relay();
    let old = [site.read("relay/tunnel.pem"), site.read("lan1/tunnel.pem")];
    let connector = site.start_connector("lan1", relay, Some(&url)).await;
    site.attached("lan1", true).await;

    until("the connector renews", async || days_left(&connector).await >= Some(29)).await;
    until("the relay renews through it", async || site.relay_certificate("tunnel").await.is_some_and(|(days, _)| days >= 29)).await;
    assert_eq!(site.attached("lan1", true).await, 1, "the carrier that stood stands");

    // On disk they are whole, new, and the keys their owner's alone.
    for (side, old) in ["relay", "lan1"].into_iter().zip(old) {
        let (certificate, key) = (site.path(&format!("{side}/tunnel.pem")), site.path(&format!("{side}/tunnel-key.pem")));
        until("the files are replaced", async || site.read(&format!("{side}/tunnel.pem")) != old).await;
        assert!(load(&certificate, &key).is_ok());
        assert_eq!(mode(&key), 0o600);
    }
    let by: Vec<String> = site.authority.list(0).unwrap().into_iter().map(|(entry, _)| entry.by).collect();
    assert!(by.iter().any(|by| by == "renewal") && by.iter().any(|by| by.ends_with("through outgate://example/connector/lan1")), "{by:?}");

    // The next handshake shows the new ones.
    connector.shutdown().await;
    let connector = site.start_connector("lan1", relay, Some(&url)).await;
    until("attached anew", async || site.attached("lan1", true).await == 2).await;
    site.stop([connector]).await;
    proven(29, "both ends renew under a tunnel that stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_folder_cannot_be_written_keeps_its_new_certificate_in_memory() {
    let mut site = Site::new();
    site.certify(None);
    site.write_pair("relay/tunnel", &site.issue(Role::Relay, "dmz1", Some(DUE)));
    let old = site.read("relay/tunnel.pem");
    // Whoever runs the tests may write every folder; this name cannot be taken by a file even so.
    std::fs::create_dir_all(site.path("relay/tunnel-key.pem.next/taken")).unwrap();
    let url = site.serve();
    let relay = site.start_relay();
    let connector = site.start_connector("lan1", relay, Some(&url)).await;
    until("the relay renews", async || site.relay_certificate("tunnel").await.is_some_and(|(days, _)| days >= 29)).await;
    // Looks at the old files do not bring the old certificate back.
    tokio::time::sleep(super::site::LOOK_EVERY * 5).await;
    assert!(site.relay_certificate("tunnel").await.is_some_and(|(days, fault)| days >= 29 && fault.is_none()));
    assert_eq!(site.read("relay/tunnel.pem"), old);
    site.stop([connector]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_issuing_ca_nothing_is_renewed_and_the_tunnel_stands() {
    let mut site = Site::new();
    site.certify(Some(DUE));
    let relay = site.start_relay();
    let connector = site.start_connector("lan1", relay, None).await;
    site.attached("lan1", true).await;
    tokio::time::sleep(super::site::LOOK_EVERY * 5).await;
    assert_eq!(days_left(&connector).await, Some(0));
    assert_eq!(site.attached("lan1", true).await, 1);
    site.stop([connector]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_was_off_for_31_days_says_what_to_do_and_comes_back_when_that_is_done() {
    let mut site = Site::new();
    site.certify(None);
    let long_ago = unix_now() - 31 * 86_400;
    let expired = site.authority().issue(Role::Connector, "lan1", &[], long_ago).unwrap().1;
    site.write_pair("lan1/tunnel", &expired);
    let url = site.serve();
    let relay = site.start_relay();
    let connector = site.start_connector("lan1", relay, Some(&url)).await;
    let status = async || connector.status().await.unwrap();
    let is_told = |text: &str| {
        ["has expired", " ago", "outgate ca token", "outgate connector enroll", "clock"].iter().all(|part| text.contains(part))
    };
    until("the status tells cause and remedy", async || {
        let fault = status().await["certificates"][0]["fault"].clone();
        fault.as_str().is_some_and(is_told)
    })
    .await;
    until("so does what the relay said", async || {
        let said = status().await["tunnels"][0]["last_end"].clone();
        said.as_str().is_some_and(|said| said.contains("a certificate has expired") && said.contains("enrol again"))
    })
    .await;
    site.attached("lan1", false).await;

    // As told.
    let (token, _made) = site.authority().token("lan1", Duration::from_secs(3600), unix_now()).unwrap();
    let fingerprint = site.authority().fingerprint(unix_now()).unwrap();
    let enrolled = enroll(&url.parse().unwrap(), &fingerprint, &token, &site.path("lan1")).await.err();
    assert!(enrolled.is_some_and(|error| error.remedy().contains("--out")), "ca.pem is there: nothing is overwritten");
    std::fs::create_dir(site.path("new")).unwrap();
    enroll(&url.parse().unwrap(), &fingerprint, &token, &site.path("new")).await.unwrap();
    site.write("lan1/tunnel-key.pem", &site.read("new/connector-key.pem"));
    site.write("lan1/tunnel.pem", &site.read("new/connector.pem"));
    site.attached("lan1", true).await;
    until("nothing is at fault any more", async || status().await["certificates"][0]["fault"].is_null()).await;
    site.stop([connector]).await;
}
