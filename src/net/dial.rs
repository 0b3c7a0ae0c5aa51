//! Reaches a relay over TCP, directly or through a proxy. What comes back is a plain connection; TLS is the carrier's.
//!
//! Every step has its deadline, so that no proxy holds a dial for longer: it may neither fall silent nor drip.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;

use crate::config::proxy::{Proxy, ProxyKind};
use crate::net::carrier::Cause;
use crate::proto::http_connect::{self, Answer, ProxyCredentials};
use crate::proto::socks5::Socks5;

/// For a TCP connection to stand.
const CONNECT: Duration = Duration::from_secs(5);

/// For a proxy to open the way, all of its answers together: it may first have to reach the relay itself.
const PROXY: Duration = Duration::from_secs(10);

/// Largest credentials file.
const MAX_CREDENTIALS: u64 = 1024;

/// Bytes that may wait in the kernel unsent: what is behind them can still be overtaken by control frames.
const NOTSENT_LOWAT: u32 = 64 * 1024;

/// Silence of the peer's kernel, with bytes under way, after which the connection is over.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Segment size that passes every path of IPv6's least MTU (1280), so that a path whose ICMP is lost swallows nothing.
const SEGMENT: u32 = 1220;

/// Where a TCP carrier goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To one address of the relay.
    Direct(SocketAddr),
    /// Through a proxy, which resolves the relay's name.
    Proxied {
        /// The proxy.
        proxy: Proxy,
        /// The relay, `HOST:PORT`.
        relay: String,
    },
}

/// Why a dial came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialFault {
    /// Of what kind it is.
    pub cause: Cause,
    /// In words, for the log.
    pub why: String,
}

impl DialFault {
    pub(super) fn new(cause: Cause, why: impl Into<String>) -> Self {
        Self { cause, why: why.into() }
    }

    fn of_socket(what: &str, fault: &io::Error) -> Self {
        let cause = if is_blocked(fault) { Cause::Blocked } else { Cause::Unreachable };
        Self::new(cause, format!("{what}: {fault}"))
    }
}

/// Whether this host's own firewall forbids it: nothing changes by waiting.
fn is_blocked(fault: &io::Error) -> bool {
    fault.kind() == io::ErrorKind::PermissionDenied
}

/// Reaches the relay.
///
/// # Errors
/// It cannot be reached so.
pub(super) async fn reach(route: &Route) -> Result<TcpStream, DialFault> {
    match route {
        Route::Direct(address) => connect(*address).await.map_err(|fault| DialFault::of_socket("TCP", &fault)),
        Route::Proxied { proxy, relay } => {
            let credentials = credentials_aside(proxy).await.map_err(|why| DialFault::new(Cause::Configuration, why))?;
            let stream = connect_by_name(&proxy.url.host, proxy.url.port).await?;
            let opening = async {
                match proxy.url.kind {
                    ProxyKind::Http => open_http(stream, relay, credentials).await,
                    ProxyKind::Socks5 => open_socks5(stream, relay, credentials).await,
                }
            };
            let slow = |_| DialFault::new(Cause::Unreachable, "the proxy did not open the way in time");
            timeout(PROXY, opening).await.map_err(slow)?
        }
    }
}

/// Whether datagrams to `address` leave this host: sends an empty one, which nobody answers. A firewall of this host that
/// refuses them and a missing route are told at once, where QUIC would wait for its answer until its time is up.
pub(super) async fn datagrams_leave(address: SocketAddr) -> Result<(), DialFault> {
    let any = if address.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0; 16], 0)) };
    let asking = async {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        socket.send(&[]).await
    };
    asking.await.map(drop).map_err(|fault| DialFault::of_socket("UDP", &fault))
}

/// Gives a carrier's TCP socket its options. On a listening socket they are inherited by what it accepts.
pub(super) fn tune(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_mss(SEGMENT)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    tune(SockRef::from(&socket))?;
    socket.set_nodelay(true)?;
    timeout(CONNECT, socket.connect(address)).await?
}

/// Tries a proxy's addresses one after the other.
async fn connect_by_name(host: &str, port: u16) -> Result<TcpStream, DialFault> {
    let fault = |what: &str, fault: &io::Error| DialFault::of_socket(&format!("the proxy {what}"), fault);
    let trying = async {
        let mut last = DialFault::new(Cause::Unreachable, "the proxy's name has no address");
        for address in lookup_host((host, port)).await.map_err(|error| fault("cannot be looked up", &error))? {
            match connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = fault("cannot be reached", &error),
            }
        }
        Err(last)
    };
    timeout(PROXY, trying).await.unwrap_or_else(|_| Err(DialFault::new(Cause::Unreachable, "the proxy does not answer")))
}

async fn open_http(mut stream: TcpStream, relay: &str, credentials: Option<ProxyCredentials>) -> Result<TcpStream, DialFault> {
    let request = http_connect::request(relay, credentials.as_ref())
        .ok_or_else(|| DialFault::new(Cause::Configuration, "the relay's address cannot stand in an HTTP request"))?;
    stream.write_all(&request).await.map_err(|fault| hung_up(&fault))?;
    let mut answer = Answer::new(credentials.is_some());
    loop {
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk).await.map_err(|fault| hung_up(&fault))?;
        if count == 0 {
            return Err(hung_up(&io::ErrorKind::UnexpectedEof.into()));
        }
        let is_open = answer.handle_bytes(&chunk[..count]).map_err(|fault| {
            let cause = if fault.is_configuration() { Cause::Configuration } else { Cause::Unreachable };
            DialFault::new(cause, fault.to_string())
        })?;
        if is_open {
            return Ok(stream);
        }
    }
}

async fn open_socks5(mut stream: TcpStream, relay: &str, credentials: Option<ProxyCredentials>) -> Result<TcpStream, DialFault> {
    let refused = |fault: crate::proto::socks5::SocksFault| {
        let cause = if fault.is_configuration() { Cause::Configuration } else { Cause::Unreachable };
        DialFault::new(cause, fault.to_string())
    };
    let (host, port) = split(relay).ok_or_else(|| DialFault::new(Cause::Configuration, "the relay's address is not HOST:PORT"))?;
    let mut socks = Socks5::new(host, port, credentials).map_err(refused)?;
    loop {
        let bytes = socks.poll_transmit();
        stream.write_all(&bytes).await.map_err(|fault| hung_up(&fault))?;
        let mut chunk = [0; 512];
        let count = stream.read(&mut chunk).await.map_err(|fault| hung_up(&fault))?;
        if count == 0 {
            return Err(hung_up(&io::ErrorKind::UnexpectedEof.into()));
        }
        if socks.handle_bytes(&chunk[..count]).map_err(refused)? {
            return Ok(stream);
        }
    }
}

fn hung_up(fault: &io::Error) -> DialFault {
    DialFault::new(Cause::Unreachable, format!("the proxy hung up: {}", fault.kind()))
}

/// Host and port of `HOST:PORT`, the host without brackets.
fn split(relay: &str) -> Option<(&str, u16)> {
    let (host, port) = relay.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((bare, port.parse().ok()?))
}

/// The same beside all else that goes on: a disk, or a file system that is elsewhere, may take its time.
async fn credentials_aside(proxy: &Proxy) -> Result<Option<ProxyCredentials>, String> {
    if proxy.credentials_file.is_none() {
        return Ok(None);
    }
    let proxy = proxy.clone();
    let reading = tokio::task::spawn_blocking(move || credentials_of(&proxy));
    match timeout(PROXY, reading).await {
        Ok(Ok(credentials)) => credentials,
        Ok(Err(_)) | Err(_) => Err("the proxy's credentials file was not read in time".to_owned()),
    }
}

/// The credentials in a proxy's file, if it has one. Read at every dial, so that a corrected file counts from the next one on.
///
/// # Errors
/// The file cannot be read, or holds something else; its name and what is wrong, never its content.
pub fn credentials_of(proxy: &Proxy) -> Result<Option<ProxyCredentials>, String> {
    use std::io::Read as _;
    let Some(file) = &proxy.credentials_file else { return Ok(None) };
    let fault = |why: String| format!("{}: {why}", file.display());
    let opened = std::fs::File::open(file).map_err(|error| fault(error.to_string()))?;
    let mut text = zeroize::Zeroizing::new(String::new());
    opened.take(MAX_CREDENTIALS).read_to_string(&mut text).map_err(|error| fault(error.kind().to_string()))?;
    ProxyCredentials::parse(&text).map(Some).map_err(|error| fault(error.to_string()))
}
