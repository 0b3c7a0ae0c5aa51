//! What a confined process may still do, and what not: tried from within by this test, run again as a process of its own under the
//! very filter of the relay; and looked at from without in the relay and the connector as they run.

use std::env;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use outgate::net::confinement::{Dialing, confine, drop_capabilities};
use outgate::telemetry::readiness;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use socket2::{Domain, MsgHdr, SockAddr, Socket, Type};

use super::site::Site;
use crate::setup::{outgate, prepare, substitute};

/// Says to this test, run again, that it confines itself, and whom it could reach.
const REACHABLE: &str = "OUTGATE_TEST_REACHABLE";

/// Says to this test, run again, which relay it becomes on a kernel that knows no filters.
const RELAY_FILE: &str = "OUTGATE_TEST_RELAY_FILE";

const TRIED: &str = "hostile::confinement::a_confined_process_cannot_dial_listen_run_programs_or_look_into_others";
const OLD_KERNEL: &str = "hostile::confinement::where_the_kernel_takes_no_filter_a_relay_starts_only_if_told_so";

#[test]
fn a_confined_process_cannot_dial_listen_run_programs_or_look_into_others() {
    if let Ok(reachable) = env::var(REACHABLE) {
        return try_everything(reachable.parse().unwrap());
    }
    let home = tempfile::tempdir().unwrap();
    let manager = home.path().join("notify");
    let readiness = UnixDatagram::bind(&manager).unwrap();
    let reachable = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut again = again(TRIED);
    again.env(REACHABLE, reachable.local_addr().unwrap().to_string()).env("NOTIFY_SOCKET", manager);
    let Output { status, stdout, stderr } = thread::spawn(move || {
        without_capabilities_to_pass_on();
        again.output().unwrap()
    })
    .join()
    .unwrap();
    assert!(status.success(), "{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let mut told = [0; 16];
    readiness.set_nonblocking(true).unwrap();
    let length = readiness.recv(&mut told).unwrap();
    assert_eq!(&told[..length], b"READY=1");
}

/// What this thread starts has no capability, also where the tests are root's: not all threads of a test can give theirs up.
fn without_capabilities_to_pass_on() {
    for bit in 0..=63 {
        // Those that the kernel does not know, and a thread without any to give up, leave nothing to do.
        let _nothing_left = remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit));
    }
}

/// First all of it free, then confined.
fn try_everything(reachable: SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stream = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let [mut sockets, free] = [(); 2].map(|()| [(); 5].map(|()| stream()));
    assert_eq!(attempts(&free, reachable).into_iter().filter(|(_, outcome)| outcome.is_err()).count(), 0, "all of it works before");
    let (go, told) = sync_channel::<()>(0);
    let beside = thread::spawn(move || {
        drop_capabilities().unwrap();
        told.recv().unwrap();
        TcpStream::connect(reachable)
    });

    confine(Dialing::Never).unwrap();

    let mut wrong = Vec::new();
    for (what, outcome) in attempts(&sockets, reachable) {
        if outcome.as_ref().err().and_then(io::Error::raw_os_error) != Some(Errno::EPERM as i32) {
            wrong.push(format!("{what}: {outcome:?}"));
        }
    }
    go.send(()).unwrap();
    let of_another_thread = beside.join().unwrap().map(drop);
    assert_eq!(of_another_thread.unwrap_err().raw_os_error(), Some(Errno::EPERM as i32), "a thread that ran before");
    assert!(wrong.is_empty(), "{wrong:#?}");

    let (accepted, _) = listener.accept().unwrap();
    accepted.set_nodelay(true).unwrap();
    io::Write::write_all(&mut &accepted, b"x").unwrap();
    datagrams.send_to(b"x", datagrams.local_addr().unwrap()).unwrap();
    assert!(fs::read_to_string("/proc/self/status").unwrap().contains("Seccomp:\t2"));
    let written = tempfile::NamedTempFile::new().unwrap();
    fs::write(written.path(), "x").unwrap();
    thread::spawn(|| ()).join().unwrap();
    readiness::notify("READY=1");
    drop((waiting, sockets.as_mut_slice()));
}

/// What a captured relay would try; each wants a socket of its own.
fn attempts(sockets: &[Socket; 5], reachable: SocketAddr) -> Vec<(&'static str, io::Result<()>)> {
    let [connecting, binding, sending, sending_parts, listening] = sockets;
    let peer = SockAddr::from(reachable);
    let buffers = [IoSlice::new(b"x")];
    let parts = MsgHdr::new().with_addr(&peer).with_buffers(&buffers);
    let secret = [7_u8; 8];
    let mut read = [0; 8];
    let mut local = [IoSliceMut::new(&mut read)];
    let remote = [RemoteIoVec { base: secret.as_ptr() as usize, len: secret.len() }];
    let fast = nix::libc::MSG_FASTOPEN;
    vec![
        ("socket for TCP", TcpListener::bind("127.0.0.1:0").map(drop)),
        ("socket for UDP", UdpSocket::bind("127.0.0.1:0").map(drop)),
        ("local stream socket", Socket::new(Domain::UNIX, Type::STREAM, None).map(drop)),
        ("connect", connecting.connect(&peer)),
        ("bind", binding.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())),
        ("listen", listening.listen(1)),
        ("connect by sendto", sending.send_to_with_flags(b"x", &peer, fast).map(drop)),
        ("connect by sendmsg", sending_parts.sendmsg(&parts, fast).map(drop)),
        ("execve", Command::new("true").status().map(drop)),
        ("process_vm_readv", process_vm_readv(Pid::this(), &mut local, &remote).map(drop).map_err(io::Error::from)),
        ("ptrace", ptrace::getsiginfo(Pid::this()).map(drop).or_else(free_refusal)),
    ]
}

/// Nobody is traced here: the kernel says so where it is asked at all.
fn free_refusal(fault: Errno) -> io::Result<()> {
    if fault == Errno::ESRCH { Ok(()) } else { Err(fault.into()) }
}

#[tokio::test]
async fn a_running_relay_and_connector_are_confined_in_every_thread_and_go_on() {
    let site = Site::start();
    for (pid, capabilities) in [(site.relay_pid(), Some("0000000000000000")), (site.connector_pid(), None)] {
        let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|thread| thread.unwrap().path()).collect();
        assert!(threads.len() > 1, "{threads:?}");
        for thread in threads {
            let status = fs::read_to_string(thread.join("status")).unwrap();
            assert_eq!((value(&status, "Seccomp"), value(&status, "NoNewPrivs")), ("2", "1"), "{status}");
            if let Some(none) = capabilities {
                assert_eq!((value(&status, "CapEff"), value(&status, "CapPrm"), value(&status, "CapInh")), (none, none, none), "{status}");
            }
        }
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
    }
    assert_eq!(site.status()["confinement"], "on");
    // It still accepts, reads its files again, and answers here.
    let mut customer = site.customer().await.direct_tls().await;
    customer.log_in(&site.good_link()).await;
    outgate(&["reload", "--socket", site.path("relay.sock").to_str().unwrap()]);
    assert_eq!(site.status()["sessions"], 1);
}

fn value<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

#[test]
fn where_the_kernel_takes_no_filter_a_relay_starts_only_if_told_so() {
    if let Ok(file) = env::var(RELAY_FILE) {
        return become_a_relay_on_an_old_kernel(Path::new(&file));
    }
    let home = tempfile::Builder::new().prefix("confine").tempdir().unwrap();
    drop(prepare(home.path()));
    let file = home.path().join("dmz/relay.toml");
    let write = |confinement: &str| {
        let changes = [
            ("# confinement = \"on\"", format!("confinement = \"{confinement}\"")),
            ("# client = [\"[::]:5222\"]", "client = [\"127.0.0.1:0\"]".to_owned()),
            ("# tunnel = \"[::]:7443\"", "tunnel = \"127.0.0.1:0\"".to_owned()),
            ("# admin = \"/run/outgate-relay/admin.sock\"", format!("admin = \"{}\"", home.path().join("relay.sock").display())),
        ];
        substitute("relay.toml", &file, &changes);
        let mut again = again(OLD_KERNEL);
        again.env(RELAY_FILE, &file).stderr(Stdio::piped());
        again.spawn().unwrap()
    };
    let Output { status, stderr, .. } = write("on").wait_with_output().unwrap();
    let told = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && told.contains("error: the process cannot be confined") && told.contains("hint: "), "{status}: {told}");

    let mut relay = write("off");
    let log = io::BufRead::lines(io::BufReader::new(relay.stderr.take().unwrap()));
    let told: Vec<_> = log.map_while(Result::ok).take(20).take_while(|line| !line.contains("relay started")).collect();
    assert!(relay.try_wait().unwrap().is_none(), "it runs: {told:?}");
    assert!(told.iter().any(|line| line.contains("not confined")), "{told:?}");
    relay.kill().unwrap();
    relay.wait().unwrap();
}

fn become_a_relay_on_an_old_kernel(file: &Path) {
    let rules = [(nix::libc::SYS_seccomp, vec![])].into_iter().collect();
    let refusal = SeccompAction::Errno(nix::libc::ENOSYS.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, env::consts::ARCH.try_into().unwrap()).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    let fault = Command::new(env!("CARGO_BIN_EXE_outgate")).arg("relay").arg("--config").arg(file).exec();
    panic!("{fault}");
}

/// This test alone, once more, on the first thread of a process of its own.
fn again(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "--test-threads=1", test]).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}
