//! Promises of the sockets: carriers over QUIC and TLS, TLS for people, sockets that were handed over.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use outgate::net::carrier::{CarrierHandle, CarrierInput, Carriers, Cause, TlsDialler, Transport};
use outgate::net::certificates::Live;
use outgate::net::dial::Route;
use outgate::net::inherited::Origin;
use outgate::net::listener::Listener;
use outgate::net::quic::{self, Credentials};
use outgate::net::stream::{Opening, Stream};
use outgate::net::tls::{Acceptor, Alpn, TlsError};
use outgate::proto::tunnel::frame::{Frame, decode};
use outgate::proto::tunnel::{CarrierId, Identity, Lane};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::authority::Authority;

pub(crate) mod authority;
mod hello;
mod inherited;

/// Far above what anything here takes: a test that waits longer has failed.
const SOON: Duration = Duration::from_secs(30);

const BOTH: [Transport; 2] = [Transport::Quic, Transport::Tls];

#[tokio::test]
async fn a_carrier_brings_frames_both_ways_and_names_the_peer() {
    let authority = Authority::new();
    for over in BOTH {
        let mut ends = Ends::new(over, &authority, &authority, &authority);
        let (connector, at_connector) = ends.dialled().await;
        let (relay, at_relay) = ends.accepted().await;
        assert_eq!(at_connector, Identity("outgate://test/relay/r1".into()));
        assert_eq!(at_relay, Identity("outgate://test/connector/c1".into()));

        connector.control.send(control(b"hello")).await.unwrap();
        assert_eq!(ends.relay_frames(Lane::Control, 1).await, frames(&[control(b"hello")]));
        relay.control.send(control(b"welcome")).await.unwrap();
        assert_eq!(ends.connector_frames(Lane::Control, 1).await, frames(&[control(b"welcome")]));

        // Several in one buffer, the smallest and the largest there are.
        connector.read_data.send(true).unwrap();
        relay.read_data.send(true).unwrap();
        let all = [data(b"one"), data(b""), data(&vec![7; 65_536]), data(b"three")];
        for handle in [&connector, &relay] {
            handle.data.send([all[0].clone(), all[1].clone()].concat().into()).await.unwrap();
            handle.data.send([all[2].clone(), all[3].clone()].concat().into()).await.unwrap();
        }
        assert_eq!(ends.relay_frames(Lane::Data, 4).await, frames(&all));
        assert_eq!(ends.connector_frames(Lane::Data, 4).await, frames(&all));
    }
}

#[tokio::test]
async fn frames_are_read_however_the_stream_is_cut() {
    let authority = Authority::new();
    let mut ends = Ends::new(Transport::Tls, &authority, &authority, &authority);
    let mut stream = ends.raw(&authority).await;
    let (relay, _) = ends.accepted().await;
    relay.read_data.send(true).unwrap();
    let (first, second) = (control(&[1; 300]), data(&[2; 40_000]));
    for byte in &first {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert_eq!(ends.relay_frames(Lane::Control, 1).await, frames(&[first]));
    for part in second.chunks(997) {
        stream.write_all(part).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert_eq!(ends.relay_frames(Lane::Data, 1).await, frames(&[second]));
    // Half a frame, then the end: nothing comes of it.
    stream.write_all(&control(b"never whole")[..5]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(lost(&mut ends.at_relay).await, "the peer closed it");
}

#[tokio::test]
async fn over_tls_control_overtakes_the_data_that_waits() {
    let authority = Authority::new();
    let mut ends = Ends::new(Transport::Tls, &authority, &authority, &authority);
    // A relay that reads nothing: the connector's data fills the kernel's buffers and then its lane.
    let mut peer = ends.raw(&authority).await;
    let (relay, _) = ends.accepted().await;
    let bulk = data(&vec![1; 60_000]);
    let mut sent = 0;
    while timeout(Duration::from_millis(300), relay.data.send(bulk.clone())).await.is_ok() {
        sent += 1;
    }
    relay.control.send(control(b"ping")).await.unwrap();
    let mut received = BytesMut::new();
    let mut before_ping = 0;
    loop {
        match decode(&mut received).unwrap() {
            Some(frame) if frame.kind == DATA => before_ping += 1,
            Some(_) => break,
            None => assert!(timeout(SOON, peer.read_buf(&mut received)).await.unwrap().unwrap() > 0),
        }
    }
    // What waits in the lane's queue comes behind it.
    assert!(before_ping < sent, "{before_ping} of {sent} buffers went before the control frame");
}

#[tokio::test]
async fn the_data_lane_waits_for_leave_and_the_control_lane_does_not_wait_for_it() {
    let authority = Authority::new();
    let mut ends = Ends::new(Transport::Quic, &authority, &authority, &authority);
    let (connector, _) = ends.dialled().await;
    let (relay, _) = ends.accepted().await;
    connector.data.send(data(b"data")).await.unwrap();
    for _ in 0..20 {
        connector.control.send(control(b"control")).await.unwrap();
        assert_eq!(ends.relay_frames(Lane::Control, 1).await, frames(&[control(b"control")]));
    }
    relay.read_data.send(true).unwrap();
    assert_eq!(ends.relay_frames(Lane::Data, 1).await, frames(&[data(b"data")]));
}

#[tokio::test]
async fn a_full_lane_is_told_when_it_has_room() {
    let authority = Authority::new();
    for over in BOTH {
        let mut ends = Ends::new(over, &authority, &authority, &authority);
        let writable = ends.dialling.writable();
        let (connector, _) = ends.dialled().await;
        let (relay, _) = ends.accepted().await;
        relay.read_data.send(true).unwrap();
        let filling = async {
            for _ in 0..200 {
                let mut bytes = data(&[1; 60_000]);
                while let Err(refused) = connector.data.try_send(bytes) {
                    bytes = refused.into_inner();
                    writable.notified().await;
                }
            }
        };
        let (frames, ()) = timeout(SOON, async { tokio::join!(frames_on(&mut ends.at_relay, Lane::Data, 200), filling) }).await.unwrap();
        assert_eq!(frames.len(), 200);
    }
}

#[tokio::test]
async fn a_carrier_ends_at_both_sides_when_one_lets_go() {
    let authority = Authority::new();
    for (over, word) in [(Transport::Quic, "the peer closed it with code 0"), (Transport::Tls, "the peer closed it")] {
        let mut ends = Ends::new(over, &authority, &authority, &authority);
        let (connector, _) = ends.dialled().await;
        let (_relay, _) = ends.accepted().await;
        drop(connector);
        assert_eq!(lost(&mut ends.at_connector).await, "closed here");
        assert_eq!(lost(&mut ends.at_relay).await, word);
    }
}

#[tokio::test]
async fn what_is_no_frame_costs_the_carrier() {
    let authority = Authority::new();
    for (over, word) in [(Transport::Quic, "the peer closed it with code 1"), (Transport::Tls, "the peer closed it")] {
        let mut ends = Ends::new(over, &authority, &authority, &authority);
        let (connector, _) = ends.dialled().await;
        let (_relay, _) = ends.accepted().await;
        connector.control.send(Bytes::from_static(&[0xff; 64])).await.unwrap();
        assert!(lost(&mut ends.at_relay).await.contains("no frame"));
        assert_eq!(lost(&mut ends.at_connector).await, word);
    }
}

#[tokio::test]
async fn certificates_of_another_ca_are_refused_by_either_side() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for over in BOTH {
        // A connector of a foreign CA that knows ours: only the relay can refuse it.
        let mut ends = Ends::new(over, &ours, &theirs, &ours);
        ends.dial("relay.test");
        let why = ended(&mut ends.at_connector).await;
        assert!(why.contains("closed") || why.contains("failed") || why.contains("refused"), "{why}");
        refused(&mut ends.at_relay).await;

        // A relay of a foreign CA.
        let mut ends = Ends::new(over, &theirs, &ours, &ours);
        ends.dial("relay.test");
        lost(&mut ends.at_connector).await;
        refused(&mut ends.at_relay).await;
    }
}

#[tokio::test]
async fn a_relay_by_another_name_is_refused() {
    let authority = Authority::new();
    for over in BOTH {
        let mut ends = Ends::new(over, &authority, &authority, &authority);
        ends.dial("other.test");
        lost(&mut ends.at_connector).await;
        refused(&mut ends.at_relay).await;
    }
}

#[tokio::test]
async fn who_stands_between_and_opens_tls_is_named() {
    let (ours, inspector) = (Authority::new(), Authority::named("Blue Coat at Example"));
    let mut ends = Ends::new(Transport::Tls, &ours, &ours, &ours);
    let listener = tokio::net::TcpListener::bind(loopback()).await.unwrap();
    ends.relay_addr = listener.local_addr().unwrap();
    let shown = inspector.web_server("relay.test");
    let mut inspecting = JoinSet::new();
    inspecting.spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        drop(tokio_rustls::TlsAcceptor::from(shown).accept(socket).await);
    });
    ends.dial("relay.test");
    match timeout(SOON, ends.at_connector.recv()).await.unwrap().unwrap() {
        CarrierInput::Lost { cause, why, .. } => {
            assert_eq!(cause, Cause::Inspected);
            assert_eq!(
                why,
                "the certificate was issued by `CN=Blue Coat at Example`, not by the tunnel CA: something on the way inspects TLS"
            );
        }
        other @ (CarrierInput::Frames { .. } | CarrierInput::Opened { .. } | CarrierInput::Refused { .. }) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn datagrams_that_this_host_forbids_are_told_at_once() {
    let authority = Authority::new();
    let mut ends = Ends::new(Transport::Quic, &authority, &authority, &authority);
    // Whoever may not broadcast is refused by the same error as by a firewall's rule for what leaves this host.
    ends.relay_addr = SocketAddr::from((Ipv4Addr::BROADCAST, 7443));
    ends.dial("relay.test");
    match timeout(Duration::from_secs(2), ends.at_connector.recv()).await.unwrap().unwrap() {
        CarrierInput::Lost { cause, why, .. } => assert_eq!(cause, Cause::Blocked, "{why}"),
        other @ (CarrierInput::Frames { .. } | CarrierInput::Opened { .. } | CarrierInput::Refused { .. }) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_connector_without_a_certificate_is_refused() {
    let authority = Authority::new();
    let mut ends = Ends::new(Transport::Quic, &authority, &authority, &authority);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![quic::ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    let connecting = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(crypto)), ends.relay_addr, "relay.test").unwrap();
    let refused = match timeout(SOON, connecting).await.unwrap() {
        Ok(connection) => timeout(SOON, connection.closed()).await.unwrap(),
        Err(refused) => refused,
    };
    assert!(matches!(refused, quinn::ConnectionError::ConnectionClosed(_)), "{refused:?}");
    self::refused(&mut ends.at_relay).await;
}

#[tokio::test]
async fn peers_that_open_no_lane_hold_up_nobody() {
    let authority = Authority::new();
    let mut ends = Ends::new(Transport::Quic, &authority, &authority, &authority);
    let idle = quic::client(quic::bind(loopback()).unwrap(), Origin::Bound, &Live::new(&authority.connector()).unwrap()).unwrap();
    let mut silent = Vec::new();
    // More than may come unproven, fewer than one address may have.
    for _ in 0..40 {
        silent.push(timeout(SOON, idle.connect(ends.relay_addr, "relay.test").unwrap()).await.unwrap().unwrap());
    }
    // Well before the first of the silent ones is given up.
    timeout(Duration::from_secs(4), async { (ends.dialled().await, ends.accepted().await) }).await.unwrap();
    assert!(silent.iter().all(|connection| connection.close_reason().is_none()));
}

#[tokio::test]
async fn people_get_tls_whatever_their_alpn_and_silent_ones_hold_up_nobody() {
    let authority = Authority::new();
    let credentials = authority.relay();
    let acceptor = Arc::new(Acceptor::new(credentials.chain, credentials.key).unwrap());
    let listener = Listener::bind(loopback()).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let (settled, mut outcomes) = mpsc::channel(8);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await;
            let (acceptor, settled) = (acceptor.clone(), settled.clone());
            connections.spawn(async move {
                let stream = Stream::Plain(stream);
                let Ok(Opening::Tls) = stream.peek().await else { return };
                let Stream::Plain(socket) = stream else { unreachable!("nothing changed it") };
                let mut accepted = acceptor.accept(socket, SOON, |_| Ok(())).await.unwrap();
                let name = accepted.server_name().map(str::to_owned);
                accepted.stream.write_all(b"hi").await.unwrap();
                accepted.stream.shutdown().await.unwrap();
                settled.send((accepted.alpn, name)).await.unwrap();
            });
        }
    });
    let cases: [(&[&[u8]], Alpn); 5] = [
        (&[], Alpn::Unsettled),
        (&[b"xmpp-client"], Alpn::Xmpp),
        (&[b"h2", b"http/1.1"], Alpn::Http),
        (&[b"http/1.1", b"xmpp-client"], Alpn::Xmpp),
        (&[b"acme-tls/1"], Alpn::Unsettled),
    ];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (offered, expected) in cases {
            let connector = tokio_rustls::TlsConnector::from(authority.web_client(version, offered));
            let tcp = TcpStream::connect(addr).await.unwrap();
            let mut stream = connector.connect("relay.test".try_into().unwrap(), tcp).await.unwrap();
            let mut greeting = String::new();
            stream.read_to_string(&mut greeting).await.unwrap();
            assert_eq!(greeting, "hi");
            assert_eq!(outcomes.recv().await.unwrap(), (expected, Some("relay.test".to_owned())), "{offered:?}");
        }
    }
}

#[tokio::test]
async fn a_handshake_has_the_time_that_its_listener_gives() {
    let credentials = Authority::new().relay();
    let acceptor = Acceptor::new(credentials.chain, credentials.key).unwrap();
    let (_silent, io) = tokio::io::duplex(64);
    let outcome = timeout(SOON, acceptor.accept(io, Duration::from_millis(10), |_| Ok(()))).await.unwrap();
    assert!(matches!(outcome, Err(TlsError::Slow)));
}

/// A relay that accepts, and a connector to dial it.
struct Ends {
    over: Transport,
    relay_addr: SocketAddr,
    dialling: Carriers,
    endpoint: quinn::Endpoint,
    dialler: TlsDialler,
    at_connector: mpsc::Receiver<CarrierInput>,
    at_relay: mpsc::Receiver<CarrierInput>,
    _accepting: Carriers,
}

impl Ends {
    /// The relay's and the connector's certificates come from these two; the relay trusts `trusted`, and so does the connector.
    fn new(over: Transport, relay: &Authority, connector: &Authority, trusted: &Authority) -> Self {
        let authorities = vec![trusted.certificate()];
        let relay = Live::new(&Credentials { authorities: authorities.clone(), ..relay.relay() }).unwrap();
        let (mut accepting, at_relay) = Carriers::new();
        let relay_addr = match over {
            Transport::Quic => {
                let server = quic::server(quic::bind(loopback()).unwrap(), Origin::Bound, &relay).unwrap();
                let addr = server.local_addr().unwrap();
                accepting.accept(server);
                addr
            }
            Transport::Tls => {
                let listener = Listener::bind(loopback()).unwrap();
                let addr = listener.local_addr().unwrap();
                accepting.accept_tls(listener, &relay).unwrap();
                addr
            }
        };
        let connector = Credentials { authorities, ..connector.connector() };
        let connector = Live::new(&connector).unwrap();
        let endpoint = quic::client(quic::bind(loopback()).unwrap(), Origin::Bound, &connector).unwrap();
        let dialler = TlsDialler::new(&connector).unwrap();
        let (dialling, at_connector) = Carriers::new();
        Self { over, relay_addr, dialling, endpoint, dialler, at_connector, at_relay, _accepting: accepting }
    }

    fn dial(&mut self, name: &str) -> CarrierId {
        match self.over {
            Transport::Quic => self.dialling.dial(&self.endpoint, self.relay_addr, name).carrier,
            Transport::Tls => self.dialling.dial_tls(&self.dialler, Route::Direct(self.relay_addr), name).carrier,
        }
    }

    /// A connector's bare TLS connection.
    async fn raw(&self, authority: &Authority) -> tokio_rustls::client::TlsStream<TcpStream> {
        let socket = TcpStream::connect(self.relay_addr).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(authority.tunnel_client());
        connector.connect("relay.test".try_into().unwrap(), socket).await.unwrap()
    }

    async fn dialled(&mut self) -> (CarrierHandle, Identity) {
        self.dial("relay.test");
        opened(&mut self.at_connector).await
    }

    async fn accepted(&mut self) -> (CarrierHandle, Identity) {
        opened(&mut self.at_relay).await
    }

    async fn relay_frames(&mut self, lane: Lane, count: usize) -> Vec<Frame> {
        timeout(SOON, frames_on(&mut self.at_relay, lane, count)).await.unwrap()
    }

    async fn connector_frames(&mut self, lane: Lane, count: usize) -> Vec<Frame> {
        timeout(SOON, frames_on(&mut self.at_connector, lane, count)).await.unwrap()
    }
}

async fn frames_on(queue: &mut mpsc::Receiver<CarrierInput>, lane: Lane, count: usize) -> Vec<Frame> {
    let mut all = Vec::new();
    while all.len() < count {
        match queue.recv().await.unwrap() {
            CarrierInput::Frames { lane: came_on, frames, .. } if came_on == lane => all.extend(frames),
            other @ (CarrierInput::Frames { .. }
            | CarrierInput::Opened { .. }
            | CarrierInput::Lost { .. }
            | CarrierInput::Refused { .. }) => panic!("{other:?}"),
        }
    }
    all
}

async fn opened(queue: &mut mpsc::Receiver<CarrierInput>) -> (CarrierHandle, Identity) {
    match timeout(SOON, queue.recv()).await.unwrap().unwrap() {
        CarrierInput::Opened { handle, identity, .. } => (handle, identity),
        other @ (CarrierInput::Frames { .. } | CarrierInput::Lost { .. } | CarrierInput::Refused { .. }) => panic!("{other:?}"),
    }
}

/// The relay hears of one peer that did not come in, and of nobody else.
async fn refused(inputs: &mut mpsc::Receiver<CarrierInput>) {
    let input = timeout(SOON, inputs.recv()).await.unwrap();
    assert!(matches!(input, Some(CarrierInput::Refused { .. })), "{input:?}");
    assert!(inputs.try_recv().is_err());
}

/// The end of a carrier of which nothing else is heard any more.
async fn lost(queue: &mut mpsc::Receiver<CarrierInput>) -> String {
    match timeout(SOON, queue.recv()).await.unwrap().unwrap() {
        CarrierInput::Lost { why, .. } => why,
        other @ (CarrierInput::Frames { .. } | CarrierInput::Opened { .. } | CarrierInput::Refused { .. }) => panic!("{other:?}"),
    }
}

/// The end of a carrier that may have stood for a moment: a TLS 1.3 client is done before the server has judged its certificate.
async fn ended(queue: &mut mpsc::Receiver<CarrierInput>) -> String {
    let mut handles = Vec::new();
    loop {
        match timeout(SOON, queue.recv()).await.unwrap().unwrap() {
            CarrierInput::Lost { why, .. } => return why,
            CarrierInput::Opened { handle, .. } => handles.push(handle),
            frames @ (CarrierInput::Frames { .. } | CarrierInput::Refused { .. }) => panic!("{frames:?}"),
        }
    }
}

/// The type of DATA.
const DATA: u8 = 9;

/// A control frame's bytes: of a type that may be ignored, on no channel.
fn control(body: &[u8]) -> Bytes {
    wire(99, body)
}

/// A data frame's bytes.
fn data(body: &[u8]) -> Bytes {
    wire(DATA, body)
}

fn wire(kind: u8, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    Frame { kind, flags: 0x80, channel: 0, body: Bytes::copy_from_slice(body) }.encode(&mut bytes);
    bytes.freeze()
}

fn frames(wires: &[Bytes]) -> Vec<Frame> {
    wires.iter().map(|wire| decode(&mut BytesMut::from(&wire[..])).unwrap().unwrap()).collect()
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn bound() -> UdpSocket {
    UdpSocket::bind(loopback()).unwrap()
}
