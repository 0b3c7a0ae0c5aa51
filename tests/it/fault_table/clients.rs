//! Faults of a customer's own connection, as they are seen on the LAN side.

use std::sync::Arc;
use std::time::Duration;

use outgate::relay::client::Idle;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::town::{Layout, PATIENCE, Town};
use super::{Tally, Trial, alone};
use crate::crash::client::Absence;
use crate::faults::site;

/// A customer's connection is reset, ended or falls silent: the session ends on the LAN side, what he had said is there.
#[test]
fn fault_34_a_client_resets_ends_or_falls_silent() {
    alone(async || {
        let idle = Idle { ping_after: Duration::from_millis(300), close_after: Duration::from_millis(900) };
        let mut town = Town::start(Layout { idle, ..Layout::over("quic").customers(0) }).await;
        let trial = Trial::begin(34);
        let mut slowest = Duration::ZERO;
        let mut tally = Tally::default();
        for way in ["ends", "falls silent", "vanishes"] {
            town.customers.clear();
            town.invite(1).await;
            town.burst(5, 0);
            tally = tally.and(town.settle().await);
            let began = tokio::time::Instant::now();
            let customer = town.customers.remove(0);
            let silent = match way {
                "ends" => {
                    customer.client.close();
                    Some(customer)
                }
                "falls silent" => {
                    customer.client.leave(Absence::Frozen);
                    Some(customer)
                }
                _ => {
                    drop(customer);
                    None
                }
            };
            town.soon(way, async || sessions(&town).await == 0).await;
            slowest = slowest.max(began.elapsed());
            drop(silent);
        }
        let stream = log_in(&town).await;
        town.soon("the session", async || sessions(&town).await == 1).await;
        socket2::SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO)).unwrap();
        let began = tokio::time::Instant::now();
        drop(stream);
        town.soon("the end by RST", async || sessions(&town).await == 0).await;
        slowest = slowest.max(began.elapsed());
        trial.end(tally, slowest, "a silent client is given up after 0.9 s here; the shipped 10 min are longer than a run").await;
        town.stop().await;
    });
}

/// A client ends its sending half and goes on reading: TLS says the same, and the session ends in order.
#[test]
fn fault_35_half_close() {
    alone(async || {
        let town = Town::start(Layout::over("quic").customers(0)).await;
        let trial = Trial::begin(35);
        let mut stream = log_in(&town).await;
        town.soon("the session", async || sessions(&town).await == 1).await;
        town.agent.until("his first word", |log| log.shown.iter().any(|said| said.body == "by hand").then_some(())).await;
        let began = tokio::time::Instant::now();
        stream.write_all(b"<message to='hello@chat.example.com' type='chat'><body>the last word</body></message>").await.unwrap();
        // close_notify and FIN; reading goes on.
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the relay hangs up too");
        drop(stream);
        town.soon("the session's end", async || sessions(&town).await == 0).await;
        let took = began.elapsed();
        town.agent.until("the last word", |log| log.shown.iter().any(|said| said.body == "the last word").then_some(())).await;
        let shown = town.agent.log().shown.iter().filter(|said| said.body == "the last word").count();
        trial.end(Tally::of(&vec![1; shown], 1), took, "after close_notify and FIN").await;
        town.stop().await;
    });
}

async fn sessions(town: &Town) -> usize {
    town.connector_status().await["sessions"].as_array().map_or(usize::MAX, Vec::len)
}

/// A customer by hand, bound and in a session.
async fn log_in(town: &Town) -> tokio_rustls::client::TlsStream<TcpStream> {
    let account = town.customer_account();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(account.ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let socket = TcpStream::connect(account.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(site::CUSTOMERS.try_into().unwrap(), socket).await.unwrap();
    let header =
        "<stream:stream to='chat.example.com' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    let steps = [
        (header, "</stream:features>"),
        ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>", "<success"),
        (header, "</stream:features>"),
        ("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "</iq>"),
        ("<presence/><message to='hello@chat.example.com' type='chat'><body>by hand</body></message>", ""),
    ];
    for (said, wanted) in steps {
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut heard = String::new();
        while !heard.contains(wanted) {
            let mut chunk = [0; 4096];
            let count = stream.read(&mut chunk).await.unwrap();
            assert!(count > 0, "{heard}");
            heard.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
        }
    }
    stream
}
