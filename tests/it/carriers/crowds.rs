//! Strangers at the tunnel's door, and a process without descriptors.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::fault_table::tallied;
use crate::faults::site::{Plan, Site};

/// The first bytes of a ClientHello, and no more.
const HALF_TLS: [u8; 11] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_30_a_thousand_peers_that_never_finish_do_not_keep_a_connector_out() {
    let site = Site::start(Plan::with("transport = \"tls\"")).await;
    site.carried_by("tls").await;
    let mut talk = site.talk().await;
    let mut strangers = Vec::new();
    for number in 0..1000_u32 {
        // From the connector's own address and from others.
        let from = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + number % 8);
        let mut stranger = connect(SocketAddr::from((from, 0)), site.tunnel).await;
        if number % 2 == 0 {
            stranger.write_all(&HALF_TLS).await.unwrap();
        }
        strangers.push(stranger);
    }
    talk.burst(5);
    site.reattach().await;
    let (took, _) = site.until("the next carrier", |tunnel| tunnel["epoch"] == 2 && tunnel["attached"] == true).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    talk.burst(5);
    talk.settle().await;
    let reasons = site.relay.status().await.counts.reasons;
    assert!(reasons.get("carrier-handshake").copied() >= Some(700), "those that gave way are counted: {reasons:?}");
    drop(strangers);
    tallied(30, talk.said(), Some(took), "500 silent and 500 half-TLS peers: the connector attaches");
    site.stop().await;
}

async fn connect(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(from).unwrap();
    socket.connect(to).await.unwrap()
}
