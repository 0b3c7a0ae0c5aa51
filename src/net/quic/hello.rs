//! Sees how a QUIC client says hello, and decides whether it may go on.
//!
//! quinn hands a TLS session the handshake's bytes in their order, without records and already decrypted. [`Listening`] stands before
//! the session that rustls makes, reads the hello out of those bytes, and passes everything on as it came: ALPN, server name and
//! certificates are rustls's as before. What both have learned comes out of `handshake_data()` as [`Greeted`].

use std::any::Any;
use std::sync::Arc;

use quinn_proto::crypto::{ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode};

use crate::fingerprint::ja4::{Fingerprint, Over};
use crate::proto::client_hello::{HelloFault, MessageReader};

/// The alert `access_denied` (RFC 8446 §6).
const ACCESS_DENIED: u8 = 49;

/// The alert `decode_error`.
const DECODE_ERROR: u8 = 50;

/// Judges a hello before anything is computed for it: the reason's code against it.
pub type Screen = dyn Fn(&Fingerprint) -> Result<(), &'static str> + Send + Sync;

/// What a QUIC handshake has told.
pub struct Greeted {
    /// How the client said hello.
    pub fingerprint: Fingerprint,
    /// What rustls tells: [`quinn::crypto::rustls::HandshakeData`].
    pub inner: Box<dyn Any>,
}

impl std::fmt::Debug for Greeted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Greeted").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// A server's cryptography that sees hellos.
pub struct Listening {
    inner: Arc<dyn ServerConfig>,
    screen: Arc<Screen>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}

impl Listening {
    /// Stands before `inner`; `screen` is asked of every hello.
    pub fn new(inner: Arc<dyn ServerConfig>, screen: Arc<Screen>) -> Self {
        Self { inner, screen }
    }
}

impl ServerConfig for Listening {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.inner.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.inner.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        let inner = Arc::clone(&self.inner).start_session(version, params);
        Box::new(ListeningSession { inner, screen: Arc::clone(&self.screen), heard: Heard::Part(Held::default()) })
    }
}

/// What has come of the hello.
enum Heard {
    Part(Held),
    Whole(Fingerprint),
}

/// Bytes that wait for the rest of their hello.
#[derive(Default)]
struct Held {
    reader: MessageReader,
    bytes: Vec<u8>,
}

struct ListeningSession {
    inner: Box<dyn Session>,
    screen: Arc<Screen>,
    heard: Heard,
}

impl Session for ListeningSession {
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let Heard::Part(held) = &mut self.heard else { return self.inner.read_handshake(buf) };
        held.bytes.extend_from_slice(buf);
        let Some(hello) = held.reader.push(buf).map_err(unreadable)? else { return Ok(false) };
        let fingerprint = Fingerprint::of(&hello, Over::Quic);
        (self.screen)(&fingerprint).map_err(|reason| fatal(ACCESS_DENIED, reason.to_owned()))?;
        let bytes = std::mem::take(&mut held.bytes);
        self.heard = Heard::Whole(fingerprint);
        self.inner.read_handshake(&bytes)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let Heard::Whole(fingerprint) = self.heard else { return None };
        let inner = self.inner.handshake_data()?;
        Some(Box::new(Greeted { fingerprint, inner }))
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(&self, output: &mut [u8], label: &[u8], context: &[u8]) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

fn unreadable(fault: HelloFault) -> TransportError {
    fatal(DECODE_ERROR, fault.to_string())
}

fn fatal(alert: u8, reason: String) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(alert), frame: None, reason }
}
