//! QUIC endpoints for tunnels: mutual TLS 1.3, ALPN `outgate/1`, certificates from the tunnel CA only.
//!
//! An endpoint is built on a socket that is there already, bound or inherited, and opens no other. There is no 0-RTT and no
//! session ticket, so that each carrier's certificate is checked anew; there are no datagrams.

pub mod hello;

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

pub use quinn::Endpoint;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AckFrequencyConfig, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use rustls::client::Resumption;
use rustls::version;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::SockRef;

use crate::net::certificates::{CertificateError, Live, identity_of};
use crate::net::inherited::Origin;
use crate::net::signatures::provider;
use crate::proto::tunnel::Identity;

/// What both ends speak; the number is the protocol's major version.
pub const ALPN: &[u8] = b"outgate/1";

/// Silence after which a keep-alive is sent: shorter than any NAT's memory of a UDP flow.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Silence after which the carrier is dead.
const IDLE: Duration = Duration::from_secs(15);

/// Bytes a peer may have under way on a connection.
const RECEIVE_WINDOW: u32 = 16 << 20;

/// Bytes a peer may have under way on one stream: a long fat path at 100 Mbit/s and 160 ms.
const STREAM_WINDOW: u32 = 2 << 20;

/// Streams a peer may open; a carrier uses two.
const STREAMS: u32 = 4;

/// Kernel buffer of the UDP socket: below it, bursts are lost on the host itself.
const UDP_BUFFER: usize = 2 << 20;

/// Packets that a peer may leave unacknowledged for as long as nothing is missing (draft-ietf-quic-ack-frequency); a peer without
/// the extension acknowledges every second one. Messages that go both ways carry acknowledgements with them: each packet with
/// nothing else in it costs as much as a message's.
const UNACKNOWLEDGED: u32 = 10;

/// Connections that may wait for the accept loop; it takes them off at once.
const INCOMING: usize = 1024;

/// One end's certificate, its key, and the CA of the tunnel.
pub struct Credentials {
    /// Our certificate, then its issuers but for the CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// Our key.
    pub key: PrivateKeyDer<'static>,
    /// Whom we trust: the tunnel CA, two of them while it changes.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), authorities: self.authorities.clone() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (chain, authorities) = (self.chain.len(), self.authorities.len());
        write!(f, "Credentials {{ chain: {chain} certificates, key: MASKED, authorities: {authorities} certificates }}")
    }
}

/// Why an endpoint cannot be made. All of it is our own configuration or machine.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The certificate, its key or the CA do not fit together.
    #[error("the tunnel's certificate, key or CA cannot be used")]
    Credentials(#[from] rustls::Error),
    /// No cipher suite that QUIC needs.
    #[error("TLS has no cipher suite for QUIC")]
    CipherSuite(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The socket cannot be used.
    #[error("the tunnel's UDP socket cannot be used")]
    Socket(#[from] io::Error),
}

/// Makes the relay's endpoint on `socket`: connectors are accepted, nobody can be dialled.
pub fn server(socket: UdpSocket, origin: Origin, credentials: &Live) -> Result<Endpoint, EndpointError> {
    let tls = server_tls(credentials)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport()).migration(true).max_incoming(INCOMING);
    endpoint(socket, origin, Some(config))
}

/// Makes the connector's endpoint on `socket`: it dials, and nobody can dial it.
pub fn client(socket: UdpSocket, origin: Origin, credentials: &Live) -> Result<Endpoint, EndpointError> {
    let tls = client_tls(credentials)?;
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport());
    let mut endpoint = endpoint(socket, origin, None)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// The relay's TLS, the same under QUIC and over TCP.
pub(super) fn server_tls(credentials: &Live) -> Result<rustls::ServerConfig, EndpointError> {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::new(credentials.clone()))
        .with_cert_resolver(Arc::new(credentials.clone()));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    Ok(tls)
}

/// The connector's TLS, the same under QUIC and over TCP.
pub(super) fn client_tls(credentials: &Live) -> Result<rustls::ClientConfig, EndpointError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(credentials.clone()))
        .with_client_cert_resolver(Arc::new(credentials.clone()));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    Ok(tls)
}

/// Binds a UDP socket for an endpoint; `[::]` takes IPv4 too.
pub fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Why a peer has no name.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No certificate came with the handshake.
    #[error("the peer shows no certificate")]
    NoCertificate,
    /// The certificate holds no name, or several.
    #[error("the peer's certificate: {0}")]
    Certificate(#[from] CertificateError),
}

/// The tunnel name in the certificate by which the peer of `connection` was verified.
pub fn peer_identity(connection: &quinn::Connection) -> Result<Identity, IdentityError> {
    Ok(identity_of(&peer_certificate(connection).ok_or(IdentityError::NoCertificate)?)?)
}

/// The certificate by which the peer of `connection` was verified.
pub fn peer_certificate(connection: &quinn::Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().next()
}

fn endpoint(socket: UdpSocket, origin: Origin, config: Option<quinn::ServerConfig>) -> Result<Endpoint, EndpointError> {
    socket.set_nonblocking(true)?;
    widen_buffers(&socket)?;
    let same = socket.try_clone()?;
    let endpoint = Endpoint::new(EndpointConfig::default(), config, socket, Arc::new(TokioRuntime))?;
    match origin {
        Origin::Inherited => clear_gro(&same)?,
        Origin::Bound => {}
    }
    Ok(endpoint)
}

/// Switches off UDP_GRO, which quinn-udp 0.5 switches on for every socket. It learns how many segments then arrive in one read by
/// opening a socket of its own; where that is refused it makes room for one, the kernel cuts the others off, and bulk falls to a
/// thousandth. An inherited socket is the mark of such a place.
fn clear_gro(socket: &UdpSocket) -> io::Result<()> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::UdpGroSegment, &false).map_err(io::Error::from)
}

fn widen_buffers(socket: &UdpSocket) -> io::Result<()> {
    let socket = SockRef::from(socket);
    // An inherited socket may have been given more than the process itself could ask for.
    if socket.recv_buffer_size()? < UDP_BUFFER {
        socket.set_recv_buffer_size(UDP_BUFFER)?;
    }
    if socket.send_buffer_size()? < UDP_BUFFER {
        socket.set_send_buffer_size(UDP_BUFFER)?;
    }
    let (receive, send) = (socket.recv_buffer_size()?, socket.send_buffer_size()?);
    if receive < UDP_BUFFER || send < UDP_BUFFER {
        tracing::warn!(
            receive,
            send,
            wanted = UDP_BUFFER,
            "the kernel clips the tunnel's UDP buffers: raise net.core.rmem_max and wmem_max"
        );
    }
    Ok(())
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED));
    let idle = u32::try_from(IDLE.as_millis()).map_or(VarInt::MAX, VarInt::from_u32);
    transport
        .ack_frequency_config(Some(acknowledgements))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(idle)))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    Arc::new(transport)
}
