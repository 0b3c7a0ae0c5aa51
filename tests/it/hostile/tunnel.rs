//! Captured and foreign peers at the tunnel: refused before any frame, counted, and nobody else is harmed.

use std::path::Path;
use std::sync::Arc;

use outgate::net::certificates::{load, load_authorities};
use outgate::net::quic::ALPN;
use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;

use super::PATIENCE;
use super::site::Site;
use crate::setup::outgate;

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

#[tokio::test]
async fn who_is_no_granted_connector_is_refused_before_any_frame() {
    let site = Site::start();
    let path = |name: &str| site.path(name).to_str().unwrap().to_owned();
    outgate(&["ca", "init", &path("foreign"), "--org", "example"]);
    outgate(&["ca", "issue", &path("foreign"), "--connector", "lan1", "--out", &path("foreign-tunnel")]);
    outgate(&["ca", "issue", &path("ca"), "--connector", "lan9", "--out", &path("ungranted")]);
    let mut live = site.customer().await.direct_tls().await;
    live.log_in(&site.good_link()).await;
    let tunnel = site.status()["tunnels"].clone();
    for (who, shown, reason) in [
        ("a foreign CA's connector of the right name", Some(pair(&site.path("foreign-tunnel"), "connector")), "carrier-handshake"),
        ("nobody", None, "carrier-handshake"),
        ("a captured relay", Some(pair(&site.path("dmz/tunnel"), "relay")), "carrier-handshake"),
        ("a connector without a queue", Some(pair(&site.path("ungranted"), "connector")), "unknown-identity"),
    ] {
        let before = site.reasons();
        let frames = timeout(PATIENCE, knock(&site, shown)).await.unwrap_or_else(|_| panic!("{who} was kept waiting"));
        assert_eq!(frames, 0, "{who} was sent bytes");
        site.counted(&before, reason, 1).await;
    }
    assert_eq!(site.status()["tunnels"][0]["epoch"], tunnel[0]["epoch"], "the tunnel noticed nothing");
    assert_eq!(site.status()["tunnels"].as_array().map(Vec::len), tunnel.as_array().map(Vec::len));
    live.say("<message to='support@chat.example.com' type='chat' id='m1'><body>still here</body></message><r xmlns='urn:xmpp:sm:3'/>")
        .await;
    live.until("</message>").await;
    assert_eq!(site.status()["sessions"], 1);
    crate::fault_table::proven(11, "another CA, role or identity is refused before any frame");
}

/// Dials as a connector does and opens both lanes; tells how many bytes the relay sent before it hung up.
async fn knock(site: &Site, shown: Option<Pair>) -> usize {
    let mut roots = rustls::RootCertStore::empty();
    for authority in load_authorities(&site.path("dmz/tunnel/ca.pem")).unwrap() {
        roots.add(authority).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let tls = tls.with_root_certificates(roots);
    let mut tls = match shown {
        Some((chain, key)) => tls.with_client_auth_cert(chain, key).unwrap(),
        None => tls.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())));
    let connecting = endpoint.connect(site.tunnel, "relay.example.com").unwrap();
    // In TLS 1.3 a client is through before its certificate is judged.
    let Ok(connection) = connecting.await else { return 0 };
    let mut bytes = 0;
    let mut lanes = Vec::new();
    for name in [0, 1] {
        if let Ok((mut send, receive)) = connection.open_bi().await {
            drop(send.write_all(&[name]).await);
            lanes.push((send, receive));
        }
    }
    for (_send, receive) in &mut lanes {
        let mut chunk = [0; 1024];
        while let Ok(Some(count)) = receive.read(&mut chunk).await {
            bytes += count;
        }
    }
    connection.closed().await;
    bytes
}

fn pair(folder: &Path, role: &str) -> Pair {
    let loaded = load(&folder.join(format!("{role}.pem")), &folder.join(format!("{role}-key.pem"))).unwrap();
    (loaded.chain, loaded.key)
}
