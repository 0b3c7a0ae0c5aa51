//! The TCP forwarder.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Kind, Line, Out, Shared, Way};

/// The kernel's buffers at the forwarder: small, as on a path, so that a slow wire is felt at its ends.
const BUFFER: u32 = 64 * 1024;

/// Bytes read at once.
const CHUNK: usize = 4096;

/// Chunks on the wire.
const DEPTH: usize = 64;

pub(super) fn listen(addr: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
    socket.bind(addr).unwrap();
    socket.listen(1024).unwrap()
}

pub(super) async fn forward(listener: TcpListener, relay: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        if shared.is_blocked(Kind::Tcp) {
            reset(&near);
        } else {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            connections.spawn(connection(near, relay, shared.clone()));
        }
    }
}

async fn connection(mut near: TcpStream, relay: SocketAddr, shared: Arc<Shared>) {
    // Before the relay can know of it: who has accepted it may cut it.
    let mut changed = shared.changed.subscribe();
    let cuts = changed.borrow().cuts;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
    let Ok(mut far) = socket.connect(relay).await else { return reset(&near) };
    for side in [&near, &far] {
        side.set_nodelay(true).unwrap();
        SockRef::from(side).set_send_buffer_size(BUFFER as usize).unwrap();
        // Whatever ends a connection here without a word of its end resets it.
        reset(side);
    }
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    let line = |way| {
        let (queue, queued) = mpsc::channel(DEPTH);
        (queue, Line::new(&shared, Kind::Tcp, way, queued))
    };
    let ((there, there_line), (home, home_line)) = (line(Way::ToRelay), line(Way::ToConnector));
    let cut = changed.wait_for(|change| change.cuts != cuts || change.blocked[Kind::Tcp as usize]);
    // A way that ends leaves the other open; a cut ends both.
    let passing = async {
        let takers = async { tokio::join!(take(near_read, there), take(far_read, home)) };
        let givers = async { tokio::try_join!(give(there_line, far_write), give(home_line, near_write)) };
        tokio::select! {
            _ = givers => {}
            ((), ()) = async { takers.await; std::future::pending().await } => {}
        }
    };
    tokio::select! {
        () = passing => {}
        _ = cut => {}
    }
}

async fn take(mut read: ReadHalf<'_>, queue: mpsc::Sender<(Instant, bytes::Bytes)>) {
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        match read.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if queue.send((Instant::now(), chunk.freeze())).await.is_err() {
            return;
        }
    }
}

async fn give(mut line: Line, mut write: WriteHalf<'_>) -> Result<(), Cut> {
    loop {
        match line.next().await {
            Out::Bytes(bytes) => write.write_all(&bytes).await.map_err(|_| Cut)?,
            Out::Cut(bytes) => {
                drop(write.write_all(&bytes).await);
                return Err(Cut);
            }
            Out::End => {
                drop(write.shutdown().await);
                return Ok(());
            }
        }
    }
}

/// The whole connection ends.
struct Cut;

/// Closing the connection will reset it.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(super::Duration::ZERO)).unwrap();
}
