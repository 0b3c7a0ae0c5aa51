//! The path between the outer and the inner end: takes its time, and can be cut.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// One way.
const DELAY: Duration = Duration::from_millis(10);

/// Kernel buffers of the forwarder's UDP sockets: the path is to lose nothing by itself.
const UDP_BUFFER: usize = 4 << 20;

/// A path to one address, for TCP and UDP.
pub(crate) struct Path {
    pub(crate) port: u16,
    cuts: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Path {
    pub(crate) async fn to(target: u16) -> Self {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap());
        let (cuts, cut) = watch::channel(());
        let mut tasks = JoinSet::new();
        tasks.spawn(carry_tcp(listener, target, cut.clone()));
        tasks.spawn(carry_udp(near, target, cut));
        Self { port, cuts, _tasks: tasks }
    }

    /// Ends all that stands on the path. What comes after passes.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(());
    }
}

async fn carry_tcp(listener: TcpListener, target: SocketAddr, mut cut: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                cut.mark_unchanged();
                connections.spawn(carry_connection(near, target, cut.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry_connection(mut near: TcpStream, target: SocketAddr, mut cut: watch::Receiver<()>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    let _delays = (near.set_nodelay(true), far.set_nodelay(true));
    let is_cut = {
        let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
        tokio::select! {
            _ = async { tokio::join!(pipe(near_read, far_write), pipe(far_read, near_write)) } => false,
            _ = cut.changed() => true,
        }
    };
    if is_cut {
        // Closed so, a connection is reset.
        for socket in [SockRef::from(&near), SockRef::from(&far)] {
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}

/// Moves bytes one way, each [`DELAY`] later.
async fn pipe(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if queue.send((Instant::now() + DELAY, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = queued.recv().await {
            tokio::time::sleep_until(at.into()).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _gone = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// A flow is all datagrams of one sender.
async fn carry_udp(near: Arc<UdpSocket>, target: SocketAddr, mut cut: watch::Receiver<()>) {
    SockRef::from(&*near).set_recv_buffer_size(UDP_BUFFER).unwrap();
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut dead: HashSet<SocketAddr> = HashSet::new();
    let mut buffer = vec![0; 2048];
    loop {
        tokio::select! {
            biased;
            _ = cut.changed() => dead.extend(flows.drain().map(|(sender, _)| sender)),
            received = near.recv_from(&mut buffer) => {
                let Ok((length, sender)) = received else { continue };
                if dead.contains(&sender) {
                    continue;
                }
                let flow = match flows.entry(sender) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => new.insert(Flow::new(near.clone(), sender, target).await),
                };
                // What finds no room is lost, as on any path.
                drop(flow.outward.try_send((Instant::now() + DELAY, buffer[..length].to_vec())));
            }
        }
    }
}

struct Flow {
    outward: mpsc::Sender<(Instant, Vec<u8>)>,
    _tasks: JoinSet<()>,
}

impl Flow {
    async fn new(near: Arc<UdpSocket>, sender: SocketAddr, target: SocketAddr) -> Self {
        let far = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        SockRef::from(&*far).set_recv_buffer_size(UDP_BUFFER).unwrap();
        far.connect(target).await.unwrap();
        let mut tasks = JoinSet::new();
        let (outward, mut going) = mpsc::channel::<(Instant, Vec<u8>)>(8192);
        let (inward, mut coming) = mpsc::channel::<(Instant, Vec<u8>)>(8192);
        let to = far.clone();
        tasks.spawn(async move {
            while let Some((at, bytes)) = going.recv().await {
                tokio::time::sleep_until(at.into()).await;
                let _lost = to.send(&bytes).await;
            }
        });
        tasks.spawn(async move {
            let mut buffer = vec![0; 2048];
            loop {
                if let Ok(length) = far.recv(&mut buffer).await {
                    drop(inward.try_send((Instant::now() + DELAY, buffer[..length].to_vec())));
                }
            }
        });
        tasks.spawn(async move {
            while let Some((at, bytes)) = coming.recv().await {
                tokio::time::sleep_until(at.into()).await;
                let _lost = near.send_to(&bytes, sender).await;
            }
        });
        Self { outward, _tasks: tasks }
    }
}
