//! The UDP forwarder: a flow for each address that datagrams come from.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Kind, Line, Out, Shared, Way};

/// Datagrams on the wire, each way; more are lost, as at a router.
const DEPTH: usize = 256;

type Datagrams = mpsc::Sender<(Instant, Bytes)>;

pub(super) async fn forward(socket: UdpSocket, relay: SocketAddr, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, Datagrams> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; 65_536];
    loop {
        // An error tells of an earlier datagram that nobody took.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let queue = flows.entry(from).or_insert_with(|| {
            let (queue, queued) = mpsc::channel(DEPTH);
            tasks.spawn(flow(queued, socket.clone(), from, relay, shared.clone()));
            queue
        });
        drop(queue.try_send((Instant::now(), Bytes::copy_from_slice(&buffer[..length]))));
    }
}

async fn flow(queued: mpsc::Receiver<(Instant, Bytes)>, near: Arc<UdpSocket>, client: SocketAddr, relay: SocketAddr, shared: Arc<Shared>) {
    let (back, backs) = mpsc::channel(DEPTH);
    let mut there = Line::new(&shared, Kind::Udp, Way::ToRelay, queued);
    let mut home = Line::new(&shared, Kind::Udp, Way::ToConnector, backs);
    let mut changed = shared.changed.subscribe();
    let mut rebinds = changed.borrow_and_update().rebinds;
    let far = Mutex::new(outside().await);
    let outward = async {
        let mut count = 0;
        let mut is_cut = false;
        loop {
            let (bytes, cuts) = match there.next().await {
                Out::Bytes(bytes) => (bytes, false),
                Out::Cut(bytes) => (bytes, true),
                Out::End => return,
            };
            let far = far.lock().unwrap().clone();
            for _ in 0..copies(&shared, Way::ToRelay, &mut count, is_cut) {
                drop(far.0.send_to(&bytes, relay).await);
            }
            is_cut |= cuts;
        }
    };
    let answers = async {
        let mut buffer = vec![0; 65_536];
        loop {
            let current = far.lock().unwrap().clone();
            tokio::select! {
                Ok((length, _)) = current.0.recv_from(&mut buffer) => {
                    drop(back.try_send((Instant::now(), Bytes::copy_from_slice(&buffer[..length]))));
                }
                _ = changed.changed() => {
                    let now = changed.borrow_and_update().rebinds;
                    if std::mem::replace(&mut rebinds, now) != now {
                        let fresh = outside().await;
                        *far.lock().unwrap() = fresh;
                    }
                }
            }
        }
    };
    let inward = async {
        let mut count = 0;
        let mut is_cut = false;
        loop {
            let (bytes, cuts) = match home.next().await {
                Out::Bytes(bytes) => (bytes, false),
                Out::Cut(bytes) => (bytes, true),
                Out::End => return,
            };
            for _ in 0..copies(&shared, Way::ToConnector, &mut count, is_cut) {
                drop(near.send_to(&bytes, client).await);
            }
            is_cut |= cuts;
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(outward, inward) } => {}
        () = answers => {}
    }
}

/// A socket as which the relay sees a flow.
async fn outside() -> Arc<Outside> {
    OUTSIDE.fetch_add(1, Ordering::Relaxed);
    Arc::new(Outside(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()))
}

/// Such sockets in this process: a flow's stays as long as its wire, which no count of a fault's descriptors may mistake for a leak.
pub(crate) static OUTSIDE: AtomicI64 = AtomicI64::new(0);

/// One of them.
struct Outside(UdpSocket);

impl Drop for Outside {
    fn drop(&mut self) {
        OUTSIDE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often the next datagram arrives.
fn copies(shared: &Shared, way: Way, count: &mut u64, is_cut: bool) -> u64 {
    *count += 1;
    let rule = shared.rule(Kind::Udp, way);
    let is_nth = |every: Option<u64>| every.is_some_and(|every| (*count).is_multiple_of(every));
    if is_cut || is_nth(rule.lose_every) { 0 } else { 1 + u64::from(is_nth(rule.twice_every)) }
}
