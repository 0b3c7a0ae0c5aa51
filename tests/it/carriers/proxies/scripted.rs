//! A proxy that does what a script says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// What a proxy does with each connection.
#[derive(Clone)]
pub(super) enum Script {
    /// Reads once, says this, hangs up.
    Says(String),
    SaysBytes(Vec<u8>),
    /// Says nothing.
    Silent,
    /// A byte of header now and then, without end.
    Drips,
    /// Opens the way and answers TLS itself.
    Inspects(Arc<rustls::ServerConfig>),
    /// HTTP CONNECT, as it should be.
    Passes {
        cut_idle: Option<Duration>,
        max_life: Option<Duration>,
        credentials: Option<&'static str>,
    },
    /// SOCKS 5, as it should be.
    Socks {
        credentials: Option<&'static str>,
    },
}

impl Script {
    pub(super) const MAX_LIFE: Self = Self::Passes { cut_idle: None, max_life: Some(Duration::from_millis(900)), credentials: None };
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Self::Passes { cut_idle, max_life, .. } = self {
            write!(f, "cut_idle {cut_idle:?}, max_life {max_life:?}")
        } else {
            f.write_str("another script")
        }
    }
}

/// The proxy, until dropped.
pub(super) struct Scripted {
    pub(super) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Scripted {
    pub(super) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (mut tasks, count) = (JoinSet::new(), connections.clone());
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let script = script.clone();
                serving.spawn(async move {
                    // Whoever hangs up on the proxy ends its part.
                    drop(serve(near, script).await);
                });
            }
        });
        Self { addr, connections, _tasks: tasks }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(mut near: TcpStream, script: Script) -> std::io::Result<()> {
    match script {
        Script::Says(text) => says(near, text.as_bytes()).await,
        Script::SaysBytes(bytes) => says(near, &bytes).await,
        Script::Silent => std::future::pending().await,
        Script::Drips => {
            request(&mut near).await?;
            near.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                near.write_all(b"X").await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Script::Inspects(config) => {
            request(&mut near).await?;
            near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            tokio_rustls::TlsAcceptor::from(config).accept(near).await.map(drop)
        }
        Script::Passes { cut_idle, max_life, credentials } => {
            let head = request(&mut near).await?;
            if let Some(pair) = credentials
                && !head.contains(&format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(pair)))
            {
                return near.write_all(b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=\"here\"\r\n\r\n").await;
            }
            assert!(credentials.is_some() || !head.contains("Authorization"), "nobody asked for credentials");
            let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
            let far = TcpStream::connect(target).await?;
            near.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 here\r\n\r\n").await?;
            pass(near, far, cut_idle, max_life).await
        }
        Script::Socks { credentials } => {
            let target = socks(&mut near, credentials).await?;
            let far = TcpStream::connect(target).await?;
            near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            pass(near, far, None, None).await
        }
    }
}

async fn says(mut near: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    if near.read(&mut [0; 1024]).await? == 0 {
        return Ok(());
    }
    near.write_all(bytes).await?;
    near.shutdown().await
}

async fn request(near: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// The proxy's half of RFC 1928 and 1929; gives where to connect.
async fn socks(near: &mut TcpStream, credentials: Option<&str>) -> std::io::Result<SocketAddr> {
    assert_eq!(near.read_u8().await?, 5);
    let mut methods = vec![0; near.read_u8().await?.into()];
    near.read_exact(&mut methods).await?;
    let method = if credentials.is_some() { 2 } else { 0 };
    assert!(methods.contains(&method));
    near.write_all(&[5, method]).await?;
    if let Some(pair) = credentials {
        assert_eq!(near.read_u8().await?, 1);
        let mut parts = Vec::new();
        for _ in 0..2 {
            let mut part = vec![0; near.read_u8().await?.into()];
            near.read_exact(&mut part).await?;
            parts.push(String::from_utf8(part).unwrap());
        }
        assert_eq!(parts.join(":"), pair);
        near.write_all(&[1, 0]).await?;
    }
    let mut head = [0; 4];
    near.read_exact(&mut head).await?;
    assert_eq!(head, [5, 1, 0, 1], "CONNECT to an IPv4 address");
    let mut address = [0; 4];
    near.read_exact(&mut address).await?;
    Ok(SocketAddr::from((address, near.read_u16().await?)))
}

async fn pass(mut near: TcpStream, mut far: TcpStream, cut_idle: Option<Duration>, max_life: Option<Duration>) -> std::io::Result<()> {
    let end = Instant::now() + max_life.unwrap_or(Duration::from_secs(3600));
    let idle = cut_idle.unwrap_or(Duration::from_secs(3600));
    let (mut there, mut back) = ([0; 16_384], [0; 16_384]);
    loop {
        let turn = async {
            tokio::select! {
                count = near.read(&mut there) => {
                    let count = count?;
                    far.write_all(&there[..count]).await?;
                    std::io::Result::Ok(count)
                }
                count = far.read(&mut back) => {
                    let count = count?;
                    near.write_all(&back[..count]).await?;
                    Ok(count)
                }
                () = sleep_until(end) => Ok(0),
            }
        };
        match timeout(idle, turn).await {
            Ok(Ok(count)) if count > 0 => {}
            _ => return Ok(()),
        }
    }
}
