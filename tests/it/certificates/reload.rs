//! Files are taken up by what they hold, whole or not at all, and no connection is disturbed.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use outgate::config::Role;
use outgate::net::certificates::{Issued, self_signed};
use outgate::net::wall_clock::unix_now;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::site::{LOOK_EVERY, Site, until};

const DOMAIN: &str = "chat.example";

#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_link_brings_new_certificates_to_customers_and_tunnel_and_who_is_connected_stays() {
    let mut site = Site::new();
    site.certify(None);
    // As a secret is mounted: every file a link through `now`, which is swapped.
    let roots = [version(&site, "v1", None), version(&site, "v2", Some(Role::Relay))];
    symlink("v1", site.path("relay/now")).unwrap();
    for file in ["tls.pem", "tls-key.pem", "tunnel.pem", "tunnel-key.pem"] {
        drop(std::fs::remove_file(site.path(&format!("relay/{file}"))));
        symlink(format!("now/{file}"), site.path(&format!("relay/{file}"))).unwrap();
    }
    let relay = site.start_relay();
    let connector = site.start_connector("lan1", relay, None).await;
    site.attached("lan1", true).await;
    let mut customer = customer(&site, &roots[0]).await.unwrap();
    assert!(self::customer(&site, &roots[1]).await.is_err());

    symlink("v2", site.path("relay/next")).unwrap();
    std::fs::rename(site.path("relay/next"), site.path("relay/now")).unwrap();
    until("customers see the new one", async || self::customer(&site, &roots[1]).await.is_ok()).await;
    assert!(self::customer(&site, &roots[0]).await.is_err());
    // Who was connected is connected still.
    customer.write_all(b"<?xml version='1.0'?><stream:stream to='chat.example' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>").await.unwrap();
    let mut answer = [0; 16];
    customer.read_exact(&mut answer).await.unwrap();
    assert_eq!(site.attached("lan1", true).await, 1);
    // The tunnel's too: its end says so, sixty days instead of thirty.
    until("the tunnel's is new", async || site.relay_certificate("tunnel").await.is_some_and(|(days, _)| days >= 50)).await;
    connector.shutdown().await;
    let connector = site.start_connector("lan1", relay, None).await;
    until("the tunnel stands anew", async || site.attached("lan1", true).await == 2).await;
    site.stop([connector]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_written_files_never_replace_a_good_pair() {
    let mut site = Site::new();
    site.certify(None);
    let (root, listener) = self_signed(DOMAIN, unix_now()).unwrap();
    site.write_pair("relay/tls", &listener);
    let relay = site.start_relay();
    let connector = site.start_connector("lan1", relay, None).await;
    site.attached("lan1", true).await;

    let (other_root, other) = self_signed(DOMAIN, unix_now()).unwrap();
    let half = &other.certificate[..other.certificate.len() / 2];
    // The new certificate beside the old key, half of it, and nothing.
    for (certificate, fault) in
        [(other.certificate.as_str(), "does not belong"), (half, "holds no certificate"), ("", "holds no certificate")]
    {
        site.write("relay/tls.pem", certificate);
        until("the fault is told", async || told(&site, "customers").await.is_some_and(|told| told.contains(fault))).await;
        assert!(customer(&site, &root).await.is_ok(), "{fault}");
    }
    std::fs::remove_file(site.path("relay/tls.pem")).unwrap();
    until("the fault is told", async || told(&site, "customers").await.is_some_and(|told| told.contains("cannot read"))).await;
    assert!(customer(&site, &root).await.is_ok());
    site.write_pair("relay/tls", &other);
    until("the whole pair is taken up", async || customer(&site, &other_root).await.is_ok()).await;
    assert_eq!(told(&site, "customers").await, None);

    // The tunnel's likewise, its CA included.
    let whole = site.read("relay/tunnel-key.pem");
    site.write("relay/tunnel-key.pem", &whole[..whole.len() / 2]);
    until("the fault is told", async || told(&site, "tunnel").await.is_some()).await;
    site.write("relay/tunnel-key.pem", &whole);
    until("it is whole again", async || told(&site, "tunnel").await.is_none()).await;
    site.write("relay/ca.pem", "");
    until("the fault is told", async || told(&site, "tunnel").await.is_some()).await;
    connector.shutdown().await;
    let connector = site.start_connector("lan1", relay, None).await;
    until("the CA that was in force is", async || site.attached("lan1", true).await == 2).await;
    site.stop([connector]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_listener_takes_up_new_files_too() {
    let mut site = Site::new();
    site.certify(None);
    let relay = site.start_relay();
    let connector = site.start_connector("lan1", relay, None).await;
    let (root, listener) = self_signed(DOMAIN, unix_now()).unwrap();
    assert!(connect(connector.agents_addr(), &root).await.is_err());
    site.write_pair("lan1/tls", &listener);
    until("agents see it", async || connect(connector.agents_addr(), &root).await.is_ok()).await;
    tokio::time::sleep(LOOK_EVERY).await;
    site.stop([connector]).await;
}

/// Writes a version of the relay's files into a folder of their own; answers with the root of its customers' certificate.
fn version(site: &Site, name: &str, tunnel: Option<Role>) -> String {
    std::fs::create_dir(site.path(&format!("relay/{name}"))).unwrap();
    let (root, listener) = self_signed(DOMAIN, unix_now()).unwrap();
    site.write_pair(&format!("relay/{name}/tls"), &listener);
    let issued: Issued = match tunnel {
        Some(role) => site.issue(role, "dmz1", Some(std::time::Duration::from_secs(60 * 86_400))),
        None => site.issue(Role::Relay, "dmz1", None),
    };
    site.write_pair(&format!("relay/{name}/tunnel"), &issued);
    root
}

async fn told(site: &Site, name: &str) -> Option<String> {
    site.relay_certificate(name).await.and_then(|(_, fault)| fault)
}

async fn customer(site: &Site, root: &str) -> std::io::Result<TlsStream<TcpStream>> {
    connect(site.relay().client_addresses()[0], root).await
}

async fn connect(address: std::net::SocketAddr, root: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(DOMAIN).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}
