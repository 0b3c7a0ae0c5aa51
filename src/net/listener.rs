//! TCP listeners, bound here or inherited, whose accept never ends on an error.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

/// Connections the kernel holds while the process is busy or restarts.
const BACKLOG: i32 = 4096;

/// Pause after an error of the whole process, such as no descriptors left: others must end first.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening TCP socket.
#[derive(Debug)]
pub struct Listener {
    socket: tokio::net::TcpListener,
}

impl Listener {
    /// Binds `addr`; `[::]` takes IPv4 too.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        Self::from_std(bind(addr)?)
    }

    /// Takes over a socket that listens already.
    pub fn from_std(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: tokio::net::TcpListener::from_std(socket)? })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection, with Nagle's delay off, and the peer's address (an IPv4 one as such, also on `[::]`). Errors are waited out.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    // Fails only on a connection that is gone already, as its first read will show.
                    drop(stream.set_nodelay(true));
                    return (stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()));
                }
                Err(fault) if is_of_one_connection(&fault) => {}
                Err(fault) => {
                    tracing::warn!(error = %fault, "cannot accept connections; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl<'s> From<&'s Listener> for socket2::SockRef<'s> {
    fn from(listener: &'s Listener) -> Self {
        Self::from(&listener.socket)
    }
}

/// Binds `addr` and listens; `[::]` takes IPv4 too.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether the error concerns the one connection that was to be accepted (accept(2) passes on network errors of it).
fn is_of_one_connection(fault: &io::Error) -> bool {
    matches!(
        fault.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
    )
}
