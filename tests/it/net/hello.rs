//! How clients say hello, as it is seen over TCP and over QUIC, and what a reason against it does.

use std::io::Read as _;
use std::sync::{Arc, Mutex};

use outgate::fingerprint::Fingerprint;
use outgate::fingerprint::ja4::Over;
use outgate::net::quic::hello::{Greeted, Listening};
use outgate::net::tls::{Acceptor, TlsError};
use outgate::proto::client_hello::RecordReader;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::authority::Authority;
use super::{SOON, loopback};

#[tokio::test]
async fn a_hello_in_many_small_segments_and_records_has_the_same_fingerprint_and_the_handshake_goes_on() {
    let authority = Authority::new();
    let credentials = authority.relay();
    let acceptor = Acceptor::new(credentials.chain, credentials.key).unwrap();
    let mut seen = Vec::new();
    // The smallest room between the two cuts the hello, 1,500 bytes with its post-quantum share, into as many reads.
    for room in [7, 536, 65_536] {
        let (near, far) = tokio::io::duplex(room);
        let serving = async {
            let accepted = acceptor.accept(far, SOON, |_| Ok(())).await;
            let mut accepted = accepted.unwrap_or_else(|fault| panic!("with room for {room}: {fault:?}"));
            accepted.stream.write_all(b"hi").await.unwrap();
            accepted.stream.shutdown().await.unwrap();
            accepted.fingerprint
        };
        let connector = tokio_rustls::TlsConnector::from(authority.web_client(&rustls::version::TLS13, &[b"xmpp-client"]));
        let dialling = async {
            let mut stream = connector.connect("relay.test".try_into().unwrap(), near).await.unwrap();
            let mut greeting = String::new();
            stream.read_to_string(&mut greeting).await.unwrap();
            greeting
        };
        let (fingerprint, greeting) = timeout(SOON, async { tokio::join!(serving, dialling) }).await.unwrap();
        assert_eq!(greeting, "hi");
        seen.push(fingerprint);
    }
    assert!(seen[0].ja4.as_str().starts_with("t13d") && seen[0].ja4.as_str().contains("xt_"), "{}", seen[0].ja4);
    assert!(seen.iter().all(|fingerprint| fingerprint == &seen[0]), "{seen:?}");
}

#[tokio::test]
async fn a_reason_against_a_hello_ends_it_with_an_alert_before_anything_is_computed() {
    let authority = Authority::new();
    let credentials = authority.relay();
    let acceptor = Acceptor::new(credentials.chain, credentials.key).unwrap();
    let (near, far) = tokio::io::duplex(65_536);
    let connector = tokio_rustls::TlsConnector::from(authority.web_client(&rustls::version::TLS13, &[]));
    let (refused, told) = tokio::join!(acceptor.accept(far, SOON, |_| Err("ja4-denied")), async {
        connector.connect("relay.test".try_into().unwrap(), near).await.map(drop)
    });
    assert!(matches!(refused, Err(TlsError::Refused("ja4-denied"))), "{refused:?}");
    assert!(told.unwrap_err().to_string().contains("AccessDenied"));
}

#[tokio::test]
async fn a_hello_without_end_is_refused_at_its_limit() {
    let credentials = Authority::new().relay();
    let acceptor = Acceptor::new(credentials.chain, credentials.key).unwrap();
    let (mut near, far) = tokio::io::duplex(65_536);
    // It announces 40 kB in records of 100.
    let message = [&[1, 0, 0x9c, 0x40][..], &[0; 20_000]].concat();
    for part in message.chunks(100) {
        near.write_all(&[&[22, 3, 1, 0, u8::try_from(part.len()).unwrap()][..], part].concat()).await.unwrap();
    }
    assert!(matches!(acceptor.accept(far, SOON, |_| Ok(())).await, Err(TlsError::Hello(_))));
}

#[tokio::test]
async fn a_quic_hello_is_seen_and_its_alpn_and_server_name_come_through() {
    let authority = Authority::new();
    let (greeted, connected) = quic(&authority, |_| Ok(())).await;
    assert!(connected.is_ok(), "{connected:?}");
    let (fingerprint, alpn, name) = greeted.unwrap();
    assert!(fingerprint.ja4.as_str().starts_with("q13d") && fingerprint.ja4.as_str().contains("xt_"), "{}", fingerprint.ja4);
    assert_eq!((alpn.as_deref(), name.as_deref()), (Some(&b"xmpp-client"[..]), Some("relay.test")));
}

#[tokio::test]
async fn a_reason_against_a_quic_hello_ends_it_with_the_same_alert() {
    let authority = Authority::new();
    let (greeted, connected) = quic(&authority, |_| Err("ja4-denied")).await;
    assert!(greeted.is_none());
    assert!(connected.unwrap_err().contains("ja4-denied"));
}

#[tokio::test]
async fn what_rustls_says_over_tcp_is_read_from_its_records() {
    let config = Authority::new().web_client(&rustls::version::TLS13, &[b"xmpp-client"]);
    let mut client = rustls::ClientConnection::new(config, "relay.test".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut reader = RecordReader::default();
    let hello = reader.push(&hello).unwrap().unwrap();
    assert_eq!((hello.alpn.as_slice(), hello.supported_versions.as_deref()), (&b"xmpp-client"[..], Some(&[0x0304][..])));
    assert!(Fingerprint::of(&hello, Over::Tcp).ja4.as_str().starts_with("t13d"));
    assert!(client.reader().read(&mut [0]).is_err(), "nothing has come back");
}

type Seen = Option<(Fingerprint, Option<Vec<u8>>, Option<String>)>;

/// A QUIC client meets a server that listens; what the server has seen, and whether the client came in.
async fn quic(
    authority: &Authority,
    screen: impl Fn(&Fingerprint) -> Result<(), &'static str> + Send + Sync + 'static,
) -> (Seen, Result<(), String>) {
    let credentials = authority.relay();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(credentials.chain, credentials.key)
        .unwrap();
    tls.alpn_protocols = vec![b"xmpp-client".to_vec()];
    let inner = QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(Listening::new(Arc::new(inner), Arc::new(screen))));
    let server = quinn::Endpoint::server(config, loopback()).unwrap();
    let addr = server.local_addr().unwrap();
    let mut client = quinn::Endpoint::client(loopback()).unwrap();
    let tls = Arc::unwrap_or_clone(authority.web_client(&rustls::version::TLS13, &[b"xmpp-client"]));
    client.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())));
    let seen = Mutex::new(None);
    let serving = async {
        let Ok(connection) = server.accept().await.unwrap().await else { return };
        let greeted = connection.handshake_data().unwrap().downcast::<Greeted>().unwrap();
        let inner = greeted.inner.downcast::<HandshakeData>().unwrap();
        *seen.lock().unwrap() = Some((greeted.fingerprint, inner.protocol, inner.server_name));
    };
    let dialling = async { client.connect(addr, "relay.test").unwrap().await.map(drop).map_err(|fault| fault.to_string()) };
    let ((), connected) = timeout(SOON, async { tokio::join!(serving, dialling) }).await.unwrap();
    (seen.into_inner().unwrap(), connected)
}
