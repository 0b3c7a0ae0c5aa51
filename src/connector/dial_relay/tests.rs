//! What a tunnel's task does by itself, without a relay.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use bytes::BytesMut;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;

use super::link::Aim;
use super::preference::Change;
use super::standby::Duty;
use super::*;
use crate::connector::certificates::Keeper;
use crate::net::carrier::{CarrierHandle, CarrierInput, Cause, Transport};
use crate::net::quic::Credentials;
use crate::proto::tunnel::{CarrierId, Identity, Lane, RelayEnd, frame};

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

/// A candidate is no more than a dial: where it is lost, the search for it is over and the tunnel notices nothing.
#[tokio::test]
async fn a_candidate_that_is_lost_is_a_dial_that_failed_and_no_loss_of_the_tunnel() {
    let relay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = relay.local_addr().unwrap();
    let (mut link, _carrier_inputs) = link(address.to_string());
    let mut end = RelayEnd::new(tunnel::Settings::default(), Box::new(|| [7; 16]));
    assert!(link.pace.is_due(link::now()));
    let (attached, _held) = open(&mut link, address, Aim::Attach);
    end.carrier_opened(attached, Identity("outgate://example/connector/lan1".to_owned()), link::now());
    for _ in 0..4 {
        exchange(&mut link, &mut end, attached);
    }
    assert_eq!(link.end.attached_carrier(), Some(attached));
    link.drain_events();
    assert!(link.round.is_none() && link.attached.is_some());
    let (candidate, _held) = open(&mut link, address, Aim::Change(Change::Leaving));
    assert!(link.round.is_some());
    link.handle_carrier(CarrierInput::Lost { carrier: candidate, cause: Cause::Silent, why: "silent".to_owned() });
    assert!(link.round.is_none(), "the search is over");
    assert_eq!(link.pace.dial_at(), None, "nothing is dialled in the tunnel's stead");
    assert_eq!(link.attached.map(|(carrier, _)| carrier), Some(attached));
    assert!(link.preference.poll_timeout().is_some(), "it is looked for again");
}

/// Begins a round, and lets its first dial come up.
fn open(link: &mut Link, address: SocketAddr, aim: Aim) -> (CarrierId, impl Sized + use<>) {
    link.begin_round(aim);
    link.handle_addresses(Ok(vec![address]));
    let carrier = *link.round.as_ref().unwrap().dials.keys().next().unwrap();
    let ((control, at_control), (data, at_data), (read_data, gate)) = (mpsc::channel(2), mpsc::channel(2), watch::channel(false));
    let handle = CarrierHandle { control, data, read_data };
    let identity = Identity("outgate://example/relay/dmz1".to_owned());
    link.handle_carrier(CarrierInput::Opened { carrier, identity, transport: Transport::Quic, handle });
    (carrier, (at_control, at_data, gate))
}

/// Carries control frames to and fro.
fn exchange(link: &mut Link, end: &mut RelayEnd, carrier: CarrierId) {
    let (mut there, mut back) = (BytesMut::new(), BytesMut::new());
    link.end.poll_transmit(carrier, Lane::Control, 65536, &mut there, link::now());
    while let Some(frame) = frame::decode(&mut there).unwrap() {
        end.handle_frame(carrier, frame, link::now());
    }
    end.poll_transmit(carrier, Lane::Control, 65536, &mut back, link::now());
    while let Some(frame) = frame::decode(&mut back).unwrap() {
        link.handle_carrier(CarrierInput::Frames { carrier, lane: Lane::Control, frames: vec![frame] });
    }
}

fn link(address: String) -> (Link, mpsc::Receiver<CarrierInput>) {
    let (carriers, carrier_inputs) = Carriers::new();
    let (transport, server_name) = (TransportChoice::Quic, "relay.test".to_owned());
    let relay = RelayAddress {
        alternates: Vec::new(),
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
    (Link::new(RelayIndex(0), (relay, Duty::Always(Vec::new())), end, carriers, ways, certificates, status), carrier_inputs)
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
