//! How many QUIC streams a tunnel's data wants: one for all sessions, several, or one for each.
//!
//! `cargo bench --bench lanes`
//!
//! 500 sessions send messages of 256 bytes to a receiver in the same process, over real sockets: once as fast as they can, and once
//! 2,000 a second over a path of 20 ms that loses one datagram of a hundred. A message's latency is from its queue to its reader.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, reason = "a measuring program")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use quinn::{ClientConfig, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const SESSIONS: usize = 500;
const MESSAGE: usize = 256;

/// Messages of the saturated run.
const MANY: usize = 300_000;

/// Messages a second of the paced run, and its length.
const RATE: usize = 2000;
const PACED_FOR: Duration = Duration::from_secs(6);

/// One way.
const DELAY: Duration = Duration::from_millis(10);

/// Of so many datagrams one is lost.
const LOSE_ONE_OF: u64 = 100;

fn main() {
    println!("| streams | saturated: CPU µs/message | messages/s | 2000/s, 20 ms, 1 % lost: p50 ms | p99 ms | worst ms | CPU µs/message |");
    println!("|---|---|---|---|---|---|---|");
    for streams in [1, 4, SESSIONS] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (cpu, rate) = runtime.block_on(saturated(streams));
        let (latencies, paced_cpu) = runtime.block_on(paced(streams));
        let at = |share: usize| latencies[(latencies.len() - 1) * share / 1000].as_secs_f64() * 1e3;
        println!("| {streams} | {cpu:.2} | {rate:.0} | {:.1} | {:.1} | {:.1} | {paced_cpu:.0} |", at(500), at(990), at(1000));
    }
}

async fn saturated(streams: usize) -> (f64, f64) {
    let (server, client) = endpoints();
    let lines = Lines::open(&server, &client, server.local_addr().unwrap(), streams).await;
    let (began, used) = (Instant::now(), cpu());
    for number in 0..MANY {
        lines.send(number % SESSIONS).await;
    }
    let latencies = lines.finish(MANY).await;
    assert_eq!(latencies.len(), MANY);
    ((cpu() - used).as_secs_f64() * 1e6 / MANY as f64, MANY as f64 / began.elapsed().as_secs_f64())
}

async fn paced(streams: usize) -> (Vec<Duration>, f64) {
    let (server, client) = endpoints();
    let mut path = JoinSet::new();
    let between = forward(server.local_addr().unwrap(), &mut path).await;
    let lines = Lines::open(&server, &client, between, streams).await;
    let (began, used) = (Instant::now(), cpu());
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    let mut sent = 0;
    while began.elapsed() < PACED_FOR {
        tick.tick().await;
        for _ in 0..RATE / 500 {
            lines.send(sent * 7 % SESSIONS).await;
            sent += 1;
        }
    }
    let mut latencies = lines.finish(sent).await;
    let per_message = (cpu() - used).as_secs_f64() * 1e6 / sent as f64;
    latencies.sort_unstable();
    (latencies, per_message)
}

/// The streams of one connection, with a writer and a reader each.
struct Lines {
    queues: Vec<mpsc::Sender<[u8; 8]>>,
    writers: JoinSet<()>,
    heard: mpsc::Receiver<Duration>,
    _readers: JoinSet<()>,
    _connections: (quinn::Connection, quinn::Connection),
}

impl Lines {
    async fn open(server: &Endpoint, client: &Endpoint, addr: SocketAddr, streams: usize) -> Self {
        let (dialled, accepted) = tokio::join!(async { client.connect(addr, "relay.test").unwrap().await.unwrap() }, async {
            server.accept().await.unwrap().await.unwrap()
        });
        let (told, heard) = mpsc::channel(MANY);
        let (mut queues, mut writers, mut readers) = (Vec::new(), JoinSet::new(), JoinSet::new());
        for _ in 0..streams {
            let mut send = dialled.open_uni().await.unwrap();
            send.write_all(&[0]).await.unwrap();
            let receive = accepted.accept_uni().await.unwrap();
            let (queue, queued) = mpsc::channel(1024);
            queues.push(queue);
            writers.spawn(write(queued, send));
            readers.spawn(read(receive, told.clone()));
        }
        Self { queues, writers, heard, _readers: readers, _connections: (dialled, accepted) }
    }

    async fn send(&self, session: usize) {
        let nanos = u64::try_from(epoch().elapsed().as_nanos()).unwrap();
        self.queues[session % self.queues.len()].send(nanos.to_be_bytes()).await.unwrap();
    }

    async fn finish(mut self, count: usize) -> Vec<Duration> {
        let mut latencies = Vec::with_capacity(count);
        while latencies.len() < count {
            latencies.push(self.heard.recv().await.unwrap());
        }
        self.queues.clear();
        while self.writers.join_next().await.is_some() {}
        latencies
    }
}

/// What times count from.
fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// As a lane does: what waits goes out in one buffer of 16 KiB at most.
async fn write(mut queue: mpsc::Receiver<[u8; 8]>, mut send: SendStream) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, 64).await > 0 {
        let mut bytes = BytesMut::with_capacity(waiting.len() * MESSAGE);
        for sent_at in waiting.drain(..) {
            bytes.put_slice(&sent_at);
            bytes.put_bytes(0, MESSAGE - sent_at.len());
        }
        send.write_chunk(bytes.freeze()).await.unwrap();
    }
}

async fn read(mut receive: RecvStream, told: mpsc::Sender<Duration>) {
    let mut message = [0; MESSAGE];
    if receive.read_exact(&mut [0]).await.is_err() {
        return;
    }
    while receive.read_exact(&mut message).await.is_ok() {
        let sent_at = Duration::from_nanos(u64::from_be_bytes(message[..8].try_into().unwrap()));
        if told.send(epoch().elapsed().saturating_sub(sent_at)).await.is_err() {
            return;
        }
    }
}

/// Both ends, with the windows of a tunnel.
fn endpoints() -> (Endpoint, Endpoint) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["relay.test".into()]).unwrap().self_signed(&key).unwrap().der().clone();
    let mut transport = TransportConfig::default();
    transport
        .receive_window(VarInt::from_u32(16 << 20))
        .stream_receive_window(VarInt::from_u32(2 << 20))
        .max_concurrent_uni_streams(VarInt::from_u32(1000));
    let transport = Arc::new(transport);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut accepts = ServerConfig::with_single_cert(vec![certificate.clone()], key).unwrap();
    accepts.transport_config(transport.clone());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut dials = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
    dials.transport_config(transport);
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Endpoint::server(accepts, anywhere).unwrap();
    let mut client = Endpoint::client(anywhere).unwrap();
    client.set_default_client_config(dials);
    (server, client)
}

/// A path that takes its time and loses some; gives where it begins.
async fn forward(relay: SocketAddr, tasks: &mut JoinSet<()>) -> SocketAddr {
    let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    let far = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    let addr = near.local_addr().unwrap();
    let (client_is, client) = tokio::sync::watch::channel(addr);
    for (from, to, outward) in [(near.clone(), far.clone(), true), (far, near, false)] {
        let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
        let client_is = client_is.clone();
        tasks.spawn(async move {
            let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
            let mut buffer = vec![0; 2048];
            loop {
                let (length, sender) = from.recv_from(&mut buffer).await.unwrap();
                if outward {
                    client_is.send_if_modified(|known| std::mem::replace(known, sender) != sender);
                }
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                if !dice.is_multiple_of(LOSE_ONE_OF) {
                    drop(queue.try_send((Instant::now() + DELAY, buffer[..length].to_vec())));
                }
            }
        });
        let client = client.clone();
        tasks.spawn(async move {
            while let Some((at, bytes)) = queued.recv().await {
                tokio::time::sleep_until(at.into()).await;
                let target = if outward { relay } else { *client.borrow() };
                drop(to.send_to(&bytes, target).await);
            }
        });
    }
    addr
}

/// Processor time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}
