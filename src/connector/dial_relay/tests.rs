//! What a tunnel's task does by itself, without a relay.

use std::net::{Ipv4Addr, UdpSocket};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;

use super::*;

#[tokio::test]
async fn a_dial_that_failed_is_followed_by_one_from_a_new_socket() {
    let relay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = relay.local_addr().unwrap();
    let (mut link, mut carrier_inputs) = link(address.to_string());
    link.dial(Ok(vec![address]));
    let first = link.endpoints.v4.clone().unwrap();
    // As when its socket fails under it: whoever uses this endpoint is refused for ever.
    first.close(0u32.into(), b"");
    link.handle_carrier(carrier_inputs.recv().await.unwrap());
    assert!(link.dialling.is_none() && link.pace.dial_at().is_some(), "it dials again");
    link.dial(Ok(vec![address]));
    let second = link.endpoints.v4.clone().unwrap();
    assert_ne!(first.local_addr().unwrap(), second.local_addr().unwrap());
}

fn link(relay: String) -> (Link, mpsc::Receiver<CarrierInput>) {
    let (carriers, carrier_inputs) = Carriers::new();
    let link = Link {
        index: RelayIndex(0),
        relay: RelayAddress { address: relay, server_name: "relay.test".into() },
        end: ConnectorEnd::new(tunnel::Settings::default(), [1; 16]),
        carriers,
        lanes: Lanes::default(),
        endpoints: Endpoints { credentials: credentials(), v4: None, v6: None },
        dialling: None,
        pace: Pace::new(now()),
        pending: None,
        report_at: None,
        status: watch::channel(Vec::new()).0,
    };
    (link, carrier_inputs)
}

fn credentials() -> Credentials {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Credentials { chain: vec![certificate.clone()], key, authorities: vec![certificate] }
}
