//! Bulk over a UDP socket that was handed over, in a process that may open no other.
//!
//! quinn asks the kernel for merged datagrams and then, unable to open a probe socket, makes room for single ones; unless that is
//! undone, bulk falls to a thousandth while handshakes and short chats still pass. The test runs itself again as the server,
//! with the socket as descriptor 3, once free and once under a filter that refuses socket(2) and bind(2).

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outgate::net::certificates::Live;
use outgate::net::inherited::{Inherited, Origin};
use outgate::net::quic::{self, Credentials};
use rustls_pki_types::PrivateKeyDer;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use tempfile::TempDir;
use tokio::time::timeout;

use super::authority::Authority;
use super::{bound, loopback};

/// Says to this test, run again, where its credentials are.
const CREDENTIALS: &str = "OUTGATE_TEST_CREDENTIALS";

/// Says to this test, run again, that it may open no socket.
const CONFINED: &str = "OUTGATE_TEST_CONFINED";

/// Bytes pushed through one stream.
const BULK: usize = 32 << 20;

/// Far above what the bulk takes, far below what it takes when receive buffers collapse (three minutes).
const WITHIN: Duration = Duration::from_secs(45);

#[test]
fn bulk_over_an_inherited_socket_does_not_collapse_where_no_socket_may_be_opened() {
    if let Ok(credentials) = env::var(CREDENTIALS) {
        return serve(Path::new(&credentials), env::var(CONFINED).is_ok());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (free, confined) = runtime.block_on(async { (push(false).await, push(true).await) });
    assert!(confined >= free / 10.0, "{confined:.1} MB/s confined, {free:.1} MB/s free");
}

/// Pushes the bulk to a server in a process of its own; tells its rate in MB/s.
async fn push(confined: bool) -> f64 {
    let authority = Authority::new();
    let home = TempDir::new().unwrap();
    write(home.path(), &authority.relay());
    let socket = bound();
    let addr = socket.local_addr().unwrap();
    let mut server = Server(start(socket, home.path(), confined));
    let endpoint = quic::client(quic::bind(loopback()).unwrap(), Origin::Bound, &Live::new(&authority.connector()).unwrap()).unwrap();
    let pushing = async {
        let connection = endpoint.connect(addr, "relay.test").unwrap().await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let began = now();
        let chunk = vec![0; 1 << 16];
        for _ in 0..BULK / chunk.len() {
            send.write_all(&chunk).await.unwrap();
        }
        send.finish().unwrap();
        let count = receive.read_to_end(8).await.unwrap();
        assert_eq!(count, u64::try_from(BULK).unwrap().to_be_bytes());
        let rate = BULK as f64 / 1e6 / began.elapsed().as_secs_f64();
        connection.close(0_u32.into(), b"");
        drop(connection);
        endpoint.wait_idle().await;
        rate
    };
    let rate = timeout(WITHIN, pushing).await.unwrap_or_else(|_| panic!("{BULK} bytes took longer than {WITHIN:?}, confined: {confined}"));
    assert!(server.0.wait().unwrap().success());
    rate
}

/// Ends the server's process with its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Fails where it has ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(socket: std::net::UdpSocket, credentials: &Path, confined: bool) -> Child {
    let mut command = Command::new("sh");
    let name = "net::inherited::bulk_over_an_inherited_socket_does_not_collapse_where_no_socket_may_be_opened";
    command
        .args(["-c", r#"LISTEN_PID=$$ exec "$@" 3<&0 0</dev/null"#, "sh"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", name])
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "tunnel-quic")
        .env(CREDENTIALS, credentials)
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::null());
    if confined {
        command.env(CONFINED, "1");
    }
    command.spawn().unwrap()
}

/// The server's process: counts what comes, and answers with the count.
fn serve(credentials: &Path, confined: bool) {
    let credentials = read(credentials);
    let socket = Inherited::from_env().unwrap().udp("tunnel-quic").unwrap().remove(0);
    if confined {
        refuse_sockets();
    }
    let origin = if confined { Origin::Inherited } else { Origin::Bound };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = quic::server(socket, origin, &Live::new(&credentials).unwrap()).unwrap();
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (mut send, mut receive) = connection.accept_bi().await.unwrap();
        let mut count = 0_u64;
        while let Some(chunk) = receive.read_chunk(usize::MAX, true).await.unwrap() {
            count += u64::try_from(chunk.bytes.len()).unwrap();
        }
        send.write_all(&count.to_be_bytes()).await.unwrap();
        send.finish().unwrap();
        connection.closed().await;
    });
}

fn refuse_sockets() {
    let rules = BTreeMap::from([(nix::libc::SYS_socket, vec![]), (nix::libc::SYS_bind, vec![])]);
    let refusal = SeccompAction::Errno(nix::libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, env::consts::ARCH.try_into().unwrap()).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err(), "the filter does not hold");
}

fn write(home: &Path, credentials: &Credentials) {
    fs::write(home.join("certificate"), &credentials.chain[0]).unwrap();
    fs::write(home.join("key"), credentials.key.secret_der()).unwrap();
    fs::write(home.join("authority"), &credentials.authorities[0]).unwrap();
}

fn read(home: &Path) -> Credentials {
    Credentials {
        chain: vec![fs::read(home.join("certificate")).unwrap().into()],
        key: PrivateKeyDer::try_from(fs::read(home.join("key")).unwrap()).unwrap(),
        authorities: vec![fs::read(home.join("authority")).unwrap().into()],
    }
}

#[expect(clippy::disallowed_methods, reason = "a rate is measured, and compared with another of the same run")]
fn now() -> Instant {
    Instant::now()
}
