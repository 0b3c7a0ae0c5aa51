//! Wires that fail: forwarders between a connector and its relay, one for UDP and one for TCP, at the level of bytes.
//!
//! ```ignore
//! let wire = Wire::to(relay);                       // the connector dials wire.addr() instead of the relay
//! wire.rule(Kind::Udp, Way::ToRelay, |rule| rule.hole = true);
//! wire.every(|rule| rule.delay = Duration::from_millis(50));
//! wire.cut();                                       // RST on every TCP connection, now
//! ```
//! A wire has a thread of its own and may be used from tests with and without a runtime. Rules hold from the moment they are
//! set, also for what is under way; dropping the wire ends all that runs over it.

pub(crate) mod site;
mod tcp;
pub(crate) mod udp;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// Which of the two forwarders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Udp,
    Tcp,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToRelay,
    ToConnector,
}

/// What a wire does to what passes one way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rule {
    /// Everything comes so much later.
    pub(crate) delay: Duration,
    /// No more than so many bytes a second.
    pub(crate) bytes_per_second: Option<u64>,
    /// Everything waits until this is taken back.
    pub(crate) frozen: bool,
    /// Datagrams are lost. TCP, which would send again what is lost, waits as if it were frozen.
    pub(crate) hole: bool,
    /// Every so many-th datagram is lost.
    pub(crate) lose_every: Option<u64>,
    /// Every so many-th datagram comes twice.
    pub(crate) twice_every: Option<u64>,
    /// Longer datagrams are lost.
    pub(crate) largest: Option<usize>,
    /// A TCP connection is reset when so many of its bytes have passed this way, not one more; a UDP flow falls silent there.
    pub(crate) cut_at: Option<u64>,
}

/// Both forwarders, at one port of this host.
#[derive(Debug)]
pub(crate) struct Wire {
    shared: Arc<Shared>,
    addr: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Forwards to `relay`.
    pub(crate) fn to(relay: SocketAddr) -> Self {
        let (changed, _) = watch::channel(Change::default());
        let shared = Arc::new(Shared { rules: Mutex::default(), changed, passed: Default::default(), connections: AtomicU64::new(0) });
        let (end, ended) = oneshot::channel();
        let (told, telling) = std::sync::mpsc::sync_channel(1);
        let for_thread = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (udp, tcp) = bind().await;
                told.send(udp.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = udp::forward(udp, relay, for_thread.clone()) => {}
                    () = tcp::forward(tcp, relay, for_thread) => {}
                    _ = ended => {}
                }
            });
        });
        let addr = telling.recv().unwrap();
        Self { shared, addr, end: Some(end), thread: Some(thread) }
    }

    /// Where the connector dials.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes one rule.
    pub(crate) fn rule(&self, kind: Kind, way: Way, change: impl FnOnce(&mut Rule)) {
        change(&mut self.shared.lock()[kind as usize][way as usize]);
        self.shared.changed.send_modify(|_| {});
    }

    /// Changes the rules of both forwarders and ways alike.
    pub(crate) fn every(&self, change: impl Fn(&mut Rule)) {
        self.shared.lock().iter_mut().flatten().for_each(change);
        self.shared.changed.send_modify(|_| {});
    }

    /// Blocks one forwarder both ways, or lets it pass again: datagrams are lost, TCP connections are reset and new ones too.
    pub(crate) fn block(&self, kind: Kind, blocked: bool) {
        self.shared.changed.send_modify(|change| change.blocked[kind as usize] = blocked);
    }

    /// Resets every TCP connection.
    pub(crate) fn cut(&self) {
        self.shared.changed.send_modify(|change| change.cuts += 1);
    }

    /// From now on the relay sees every UDP flow come from another port, as behind a NAT that lost its memory.
    pub(crate) fn rebind(&self) {
        self.shared.changed.send_modify(|change| change.rebinds += 1);
    }

    /// Bytes that have passed.
    pub(crate) fn passed(&self, kind: Kind, way: Way) -> u64 {
        self.shared.passed[kind as usize][way as usize].load(Ordering::Relaxed)
    }

    /// TCP connections that have been made.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What happens at one moment rather than by rule.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    blocked: [bool; 2],
    cuts: u64,
    rebinds: u64,
}

#[derive(Debug)]
struct Shared {
    rules: Mutex<[[Rule; 2]; 2]>,
    changed: watch::Sender<Change>,
    passed: [[AtomicU64; 2]; 2],
    connections: AtomicU64,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, [[Rule; 2]; 2]> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rule(&self, kind: Kind, way: Way) -> Rule {
        self.lock()[kind as usize][way as usize]
    }

    fn is_blocked(&self, kind: Kind) -> bool {
        self.changed.borrow().blocked[kind as usize]
    }
}

/// One way of one connection or flow: what goes in comes out by the rules.
#[derive(Debug)]
struct Line {
    shared: Arc<Shared>,
    kind: Kind,
    way: Way,
    queue: mpsc::Receiver<(Instant, Bytes)>,
    changed: watch::Receiver<Change>,
    busy_until: Instant,
    /// Bytes of this connection or flow that came out.
    passed: u64,
}

/// What comes out of a line.
#[derive(Debug)]
enum Out {
    Bytes(Bytes),
    /// These are the last before the cut.
    Cut(Bytes),
    End,
}

impl Line {
    fn new(shared: &Arc<Shared>, kind: Kind, way: Way, queue: mpsc::Receiver<(Instant, Bytes)>) -> Self {
        let (shared, changed) = (shared.clone(), shared.changed.subscribe());
        Self { shared, kind, way, queue, changed, busy_until: Instant::now(), passed: 0 }
    }

    async fn next(&mut self) -> Out {
        'next: loop {
            let Some((arrived, mut bytes)) = self.queue.recv().await else { return Out::End };
            let rule = loop {
                self.changed.mark_unchanged();
                let rule = self.shared.rule(self.kind, self.way);
                let is_long = rule.largest.is_some_and(|largest| self.kind == Kind::Udp && bytes.len() > largest);
                let lost = rule.hole || is_long || self.shared.is_blocked(self.kind);
                if lost && self.kind == Kind::Udp {
                    continue 'next;
                }
                if !lost && !rule.frozen {
                    break rule;
                }
                if self.changed.changed().await.is_err() {
                    return Out::End;
                }
            };
            sleep_until(arrived + rule.delay).await;
            if let Some(rate) = rule.bytes_per_second {
                let takes = Duration::from_secs_f64(bytes.len() as f64 / rate as f64);
                self.busy_until = self.busy_until.max(Instant::now()) + takes;
                sleep_until(self.busy_until).await;
            }
            let left = rule.cut_at.map(|at| usize::try_from(at.saturating_sub(self.passed)).unwrap());
            let is_cut = left.is_some_and(|left| left <= bytes.len());
            if let Some(left) = left {
                bytes.truncate(left);
            }
            self.passed += bytes.len() as u64;
            self.shared.passed[self.kind as usize][self.way as usize].fetch_add(bytes.len() as u64, Ordering::Relaxed);
            return if is_cut { Out::Cut(bytes) } else { Out::Bytes(bytes) };
        }
    }
}

/// A UDP socket and a TCP listener at one port.
async fn bind() -> (tokio::net::UdpSocket, tokio::net::TcpListener) {
    for _ in 0..50 {
        let tcp = tcp::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        if let Ok(udp) = tokio::net::UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for UDP and TCP");
}
