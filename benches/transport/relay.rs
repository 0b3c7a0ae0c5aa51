//! The tunnel's outer end: the relay's own owner of tunnels, behind a listener that makes an event of each message.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use outgate::fingerprint::ClientSoftware;
use outgate::net::carrier::Carriers;
use outgate::net::certificates::{Live, load, load_authorities};
use outgate::net::entropy;
use outgate::net::inherited::Origin;
use outgate::net::listener::Listener;
use outgate::net::quic::{self, Credentials};
use outgate::proto::tunnel::{
    Admission, Assertion, Fin, Identity, Open, OpenKind, Payload, Proof, RelayCommand, RelayEvent, SessionKey, Settings,
};
use outgate::relay::attach::{SessionEvents, TunnelOwner, Tunnels};
use outgate::relay::counters::Counters;
use outgate::relay::policies::Policies;
use outgate::relay::settings::{ServedDomain, ServedQueue};
use outgate::session::{CloseReason, OpenId, SessionSecret};
use outgate::telemetry::audit::Audit;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use crate::{Args, CONNECTOR, MESSAGE, UNDER_WAY};

/// Room for one read of a customer's socket; there is none while he is silent.
const READ: usize = 16 * MESSAGE;

pub(crate) fn run(args: &Args) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(serve(args));
}

async fn serve(args: &Args) {
    let (mut carriers, inputs) = Carriers::new();
    let credentials = credentials(Path::new(&args.demand("--dir")), "relay");
    let at = |port: &str| SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(args.number(port, 0)).unwrap()));
    let socket = quic::bind(at("--tunnel")).unwrap();
    carriers.accept(quic::server(socket, Origin::Bound, &credentials).unwrap());
    carriers.accept_tls(Listener::bind(at("--tunnel")).unwrap(), &credentials).unwrap();
    let identity = Identity(CONNECTOR.to_owned());
    let queue = ServedQueue { id: "q".to_owned(), name: "q".to_owned(), identity: identity.clone() };
    let domain = ServedDomain { name: "bench.test".to_owned(), public_queue: Some("q".to_owned()), queues: vec![queue] };
    let policies = Arc::new(Policies::new(&[domain], Duration::from_secs(30)));
    let (owner, tunnels) =
        TunnelOwner::new(settings(args), policies, inputs, carriers.writable(), Arc::new(Counters::default()), Audit::off());
    tokio::spawn(owner.run());
    let customers = Listener::bind(at("--front")).unwrap();
    loop {
        let (stream, address) = customers.accept().await;
        tokio::spawn(customer(stream, address, identity.clone(), tunnels.clone()));
    }
}

pub(crate) fn settings(args: &Args) -> Settings {
    let mut settings = Settings::default();
    let dead_after = args.number("--dead-after-ms", 0);
    if dead_after > 0 {
        settings.dead_after = Duration::from_millis(dead_after);
        settings.ping_after = Duration::from_millis(dead_after / 3);
    }
    settings
}

pub(crate) fn credentials(folder: &Path, role: &str) -> Live {
    let own = load(&folder.join(format!("{role}.pem")), &folder.join(format!("{role}-key.pem"))).unwrap();
    let authorities = load_authorities(&folder.join("ca.pem")).unwrap();
    Live::new(&Credentials { chain: own.chain, key: own.key, authorities }).unwrap()
}

async fn customer(stream: TcpStream, address: SocketAddr, identity: Identity, tunnels: Tunnels) {
    let open = Open {
        kind: OpenKind::New { open_id: OpenId(entropy::sixteen()), secret: SessionSecret(entropy::sixteen()) },
        admission: Admission { domain: "bench.test".to_owned(), queue: "q".to_owned(), assertion: Assertion::Anonymous },
        client_addr: address,
        local_addr: address,
        protocol: "bench".to_owned(),
        sni: None,
        software: ClientSoftware::unknown(),
        resumable: false,
        waited: Duration::ZERO,
    };
    let (session, mut events) = tunnels.open(identity, Box::new(open)).await;
    let _why = converse(stream, session, &mut events, &tunnels).await;
    let fin = Fin { reason: CloseReason::CustomerLeft, text: String::new() };
    tunnels.command(RelayCommand::Finish { session, fin }).await;
}

async fn converse(stream: TcpStream, session: SessionKey, events: &mut SessionEvents, tunnels: &Tunnels) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut partial = BytesMut::new();
    let (mut sent, mut handled) = (0, 0);
    loop {
        tokio::select! {
            messages = messages(&read, &mut partial), if sent < handled + UNDER_WAY => {
                for message in messages? {
                    sent += 1;
                    tunnels.command(RelayCommand::Send { session, payload: Payload::Event(message), sm_in: 0 }).await;
                }
            }
            event = events.recv() => {
                let (mut out, mut last) = (BytesMut::new(), None);
                let mut next = event;
                while let Some(event) = next {
                    match event {
                        RelayEvent::Data { number, payload: Payload::Event(bytes), .. } => {
                            out.extend_from_slice(&bytes);
                            last = Some(number);
                        }
                        RelayEvent::Handled { number, .. } => handled = handled.max(number),
                        RelayEvent::Fin { .. } | RelayEvent::Gone { .. } | RelayEvent::OpenRefused { .. } => {
                            panic!("a session ended: {event:?}")
                        }
                        _ => {}
                    }
                    next = events.try_recv();
                }
                if let Some(number) = last {
                    write.write_all(&out).await?;
                    tunnels.command(RelayCommand::Handled { session, number, proof: Proof::Written }).await;
                }
            }
        }
    }
}

/// Waits for at least one whole message; cancelled, it loses nothing. No buffer is kept but for a message that is not whole.
pub(crate) async fn messages(read: &OwnedReadHalf, partial: &mut BytesMut) -> std::io::Result<Vec<Bytes>> {
    loop {
        read.readable().await?;
        partial.reserve(READ);
        match read.try_read_buf(partial) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Err(fault) if fault.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(fault) => return Err(fault),
            Ok(_) => {}
        }
        let whole: Vec<Bytes> = partial.chunks_exact(MESSAGE).map(Bytes::copy_from_slice).collect();
        *partial = BytesMut::from(&partial[whole.len() * MESSAGE..]);
        if !whole.is_empty() {
            return Ok(whole);
        }
    }
}
