//! What a tunnel's task does by itself, without a relay.

use std::net::{Ipv4Addr, UdpSocket};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;

use super::link::Aim;
use super::*;
use crate::connector::certificates::Keeper;
use crate::net::carrier::CarrierInput;
use crate::net::quic::Credentials;

#[tokio::test]
async fn a_dial_that_failed_is_followed_by_one_from_a_new_socket() {
    let relay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = relay.local_addr().unwrap();
    let (mut link, mut carrier_inputs) = link(address.to_string());
    assert!(link.pace.is_due(link::now()));
    link.begin_round(Aim::Attach);
    link.handle_addresses(Ok(vec![address]));
    let first = link.ways.v4.clone().unwrap();
    // As when its socket fails under it: whoever uses this endpoint is refused for ever.
    first.close(0u32.into(), b"");
    link.handle_carrier(carrier_inputs.recv().await.unwrap());
    assert!(link.round.is_none() && link.pace.dial_at().is_some(), "it dials again");
    link.begin_round(Aim::Attach);
    link.handle_addresses(Ok(vec![address]));
    let second = link.ways.v4.clone().unwrap();
    assert_ne!(first.local_addr().unwrap(), second.local_addr().unwrap());
}

fn link(address: String) -> (Link, mpsc::Receiver<CarrierInput>) {
    let (carriers, carrier_inputs) = Carriers::new();
    let (transport, server_name) = (TransportChoice::Quic, "relay.test".to_owned());
    let relay = RelayAddress {
        address,
        server_name,
        transport,
        switch_every: Duration::ZERO,
        climb_every: CLIMB_EVERY,
        proxy: None,
        resolver: Resolver::System,
    };
    let ways = Ways::new(credentials(), &relay).unwrap();
    let status = watch::channel(Vec::new()).0;
    let end = ConnectorEnd::new(tunnel::Settings::default(), [1; 16]);
    let certificates = CertificateLink::new(RelayIndex(0), Keeper::new(credentials(), files(), None).1);
    (Link::new(RelayIndex(0), relay, end, carriers, ways, certificates, status), carrier_inputs)
}

fn files() -> crate::config::TunnelTls {
    let [certificate, key, ca, revoked] = ["c", "k", "a", "r"].map(Into::into);
    crate::config::TunnelTls { certificate, key, ca, revoked }
}

fn credentials() -> Live {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Live::new(&Credentials { chain: vec![certificate.clone()], key, authorities: vec![certificate] }).unwrap()
}
