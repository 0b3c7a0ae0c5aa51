//! Strangers at the tunnel's port: silence, nonsense and handshakes without a certificate over TCP, and datagrams of any kind.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::super::PATIENCE;
use super::{Random, Trial};

const DATAGRAMS: usize = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnel_port() {
    const STRANGERS: usize = 400;
    let trial = Trial::begin("tunnel port").await;
    let (tunnel, datagrams) = (trial.site.tunnel, datagrams(trial.site.tunnel));
    let connections = trial.strangers_at_once(STRANGERS, STRANGERS, move |_, number| async move {
        let mut random = Random::new(number);
        let mut stranger = TcpStream::connect(tunnel).await.unwrap();
        let bytes = match number % 4 {
            0 => Vec::new(),
            1 => vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3],
            2 => random.bytes(2000),
            _ => [&[22, 3, 1, 1, 0][..], &random.bytes(256)].concat(),
        };
        // The relay may have hung up within them.
        drop(stranger.write_all(&bytes).await);
        let mut rest = Vec::new();
        drop(timeout(PATIENCE, stranger.read_to_end(&mut rest)).await.expect("the relay hangs up"));
    });
    tokio::join!(connections, datagrams);
    trial.end(STRANGERS + DATAGRAMS).await;
}

/// Noise, packets that look like QUIC's first, of this version and of none, and short ones of connections that do not exist.
async fn datagrams(tunnel: SocketAddr) {
    let mut random = Random::new(1);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for number in 0..DATAGRAMS {
        let mut packet = random.bytes(1200);
        match number % 4 {
            0 => packet.truncate(1 + number % 1200),
            1 => packet[..7].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8, 8]),
            2 => packet[..7].copy_from_slice(&[0xc3, 0x1a, 0x2a, 0x3a, 0x4a, 8, 8]),
            _ => packet[0] = 0x40,
        }
        drop(socket.send_to(&packet, tunnel).await);
        if number % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
}
