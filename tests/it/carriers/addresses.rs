//! Fault 39: of a name's addresses some are dead, and names change.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outgate::connector::dial_relay::Resolver;
use tokio::net::{TcpListener, UdpSocket};

use crate::fault_table::tallied;
use crate::faults::Wire;
use crate::faults::site::{Plan, Site};

/// Takes datagrams and connections, and never answers.
struct Dead {
    addr: SocketAddr,
    _tcp: TcpListener,
    _udp: UdpSocket,
}

impl Dead {
    async fn at(addr: impl Into<SocketAddr>) -> Self {
        let addr = addr.into();
        for _ in 0..50 {
            let tcp = TcpListener::bind(addr).await.unwrap();
            let addr = tcp.local_addr().unwrap();
            if let Ok(udp) = UdpSocket::bind(addr).await {
                return Self { addr, _tcp: tcp, _udp: udp };
            }
        }
        panic!("no port is free for UDP and TCP");
    }
}

/// Names that the test gives addresses.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<SocketAddr>>>);

impl Names {
    fn are(&self, addresses: &[SocketAddr]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    fn plan(&self, relay_lines: &str) -> Plan {
        let names = self.0.clone();
        let resolver = Resolver::Other(Arc::new(move |_| names.lock().unwrap().clone()));
        Plan { resolver, address: Some("relay.test:7443".into()), ..Plan::with(relay_lines) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_39_dead_addresses_cost_a_quarter_of_a_second_each() {
    let v6 = Dead::at((Ipv6Addr::LOCALHOST, 0)).await;
    let v4 = Dead::at((Ipv4Addr::new(127, 0, 0, 9), 0)).await;
    for transport in ["quic", "tls"] {
        let names = Names::default();
        let found = names.clone();
        let (v6, v4) = (v6.addr, v4.addr);
        let site = Site::start_on(names.plan(&format!("transport = \"{transport}\"")), move |wire| found.are(&[v6, v4, wire.addr()])).await;
        let (took, _) = site.carried_by(transport).await;
        assert!(took > Duration::from_millis(450) && took < Duration::from_millis(1500), "{transport}: {took:?}");
        // The one that won goes first from now on.
        site.reattach().await;
        let (took, _) = site.until("the next", |tunnel| tunnel["epoch"] == 2 && tunnel["attached"] == true).await;
        assert!(took < Duration::from_millis(240), "{transport}: {took:?}");
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_39_a_name_that_moves_is_followed_and_one_that_vanishes_is_remembered() {
    let names = Names::default();
    let found = names.clone();
    let site = Site::start_on(names.plan(""), move |wire| found.are(&[wire.addr()])).await;
    site.carried_by("quic").await;
    let mut talk = site.talk().await;
    talk.burst(10);
    let moved = Wire::to(site.tunnel);
    names.are(&[moved.addr()]);
    site.wire.every(|rule| rule.hole = true);
    talk.burst(10);
    site.until("the new address", |tunnel| tunnel["epoch"] == 2 && tunnel["attached"] == true).await;
    talk.settle().await;
    names.are(&[]);
    site.reattach().await;
    site.until("the remembered address", |tunnel| tunnel["epoch"] == 3 && tunnel["attached"] == true).await;
    talk.burst(10);
    talk.settle().await;
    tallied(39, talk.said(), None, "IPv6 dead, one of many addresses dead, the name moves and vanishes");
    site.stop().await;
}
