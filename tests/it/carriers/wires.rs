//! The failing wires fail as they say, shown with plain sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::faults::{Kind, Way, Wire};

const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_millis(150);

#[tokio::test]
async fn a_tcp_connection_passes_freezes_and_is_cut_at_its_byte() {
    let (relay, wire) = tcp().await;
    let mut near = TcpStream::connect(wire.addr()).await.unwrap();
    let (mut far, _) = relay.accept().await.unwrap();
    let mut word = [0; 5];
    near.write_all(b"hello").await.unwrap();
    far.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"hello");

    wire.rule(Kind::Tcp, Way::ToConnector, |rule| rule.frozen = true);
    far.write_all(b"later").await.unwrap();
    assert!(timeout(NEVER, near.read_exact(&mut word)).await.is_err());
    wire.rule(Kind::Tcp, Way::ToConnector, |rule| rule.frozen = false);
    timeout(SOON, near.read_exact(&mut word)).await.unwrap().unwrap();
    assert_eq!(&word, b"later");

    wire.rule(Kind::Tcp, Way::ToRelay, |rule| rule.cut_at = Some(8));
    near.write_all(b"world").await.unwrap();
    let mut rest = Vec::new();
    let end = timeout(SOON, far.read_to_end(&mut rest)).await.unwrap();
    assert_eq!((rest.as_slice(), end.unwrap_err().kind()), (&b"wor"[..], std::io::ErrorKind::ConnectionReset));
    assert_eq!((wire.passed(Kind::Tcp, Way::ToRelay), wire.connections()), (8, 1));
}

#[tokio::test]
async fn tcp_connections_are_cut_and_blocked() {
    let (relay, wire) = tcp().await;
    let mut near = TcpStream::connect(wire.addr()).await.unwrap();
    let _far = relay.accept().await.unwrap();
    wire.cut();
    assert!(timeout(SOON, near.read_u8()).await.unwrap().is_err());
    wire.block(Kind::Tcp, true);
    let refused = async { TcpStream::connect(wire.addr()).await?.read_u8().await };
    assert!(timeout(SOON, refused).await.unwrap().is_err());
    wire.block(Kind::Tcp, false);
    let _near = TcpStream::connect(wire.addr()).await.unwrap();
    timeout(SOON, relay.accept()).await.unwrap().unwrap();
}

#[tokio::test]
async fn datagrams_pass_vanish_repeat_and_change_their_port() {
    let relay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let wire = Wire::to(relay.local_addr().unwrap());
    let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    near.connect(wire.addr()).await.unwrap();
    let mut buffer = [0; 16];
    near.send(b"one").await.unwrap();
    let (_, first) = timeout(SOON, relay.recv_from(&mut buffer)).await.unwrap().unwrap();
    relay.send_to(b"two", first).await.unwrap();
    assert_eq!(timeout(SOON, near.recv(&mut buffer)).await.unwrap().unwrap(), 3);

    wire.rule(Kind::Udp, Way::ToConnector, |rule| rule.hole = true);
    relay.send_to(b"lost", first).await.unwrap();
    assert!(timeout(NEVER, near.recv(&mut buffer)).await.is_err());
    wire.every(|rule| (rule.hole, rule.twice_every) = (false, Some(1)));
    relay.send_to(b"twice", first).await.unwrap();
    for _ in 0..2 {
        assert_eq!(timeout(SOON, near.recv(&mut buffer)).await.unwrap().unwrap(), 5);
    }

    wire.every(|rule| rule.twice_every = None);
    wire.rebind();
    let second = loop {
        near.send(b"three").await.unwrap();
        let from: SocketAddr = timeout(SOON, relay.recv_from(&mut buffer)).await.unwrap().unwrap().1;
        if from != first {
            break from;
        }
    };
    relay.send_to(b"four", second).await.unwrap();
    assert_eq!(timeout(SOON, near.recv(&mut buffer)).await.unwrap().unwrap(), 4);
}

#[tokio::test]
async fn a_slow_wire_takes_its_time() {
    let (relay, wire) = tcp().await;
    wire.every(|rule| (rule.bytes_per_second, rule.delay) = (Some(100_000), Duration::from_millis(50)));
    let mut near = TcpStream::connect(wire.addr()).await.unwrap();
    let (mut far, _) = relay.accept().await.unwrap();
    let began = tokio::time::Instant::now();
    near.write_all(&[0; 30_000]).await.unwrap();
    far.read_exact(&mut [0; 30_000]).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(350), "{:?}", began.elapsed());
}

async fn tcp() -> (TcpListener, Wire) {
    let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let wire = Wire::to(relay.local_addr().unwrap());
    (relay, wire)
}
