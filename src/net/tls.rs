//! TLS towards customers and agents: 1.2 and 1.3, the admin's certificate, no certificate asked of the client.
//!
//! ALPN is offered and never demanded. rustls refuses a client whose ALPN list shares nothing with the server's, so the
//! ClientHello is read first and the configuration chosen that has something in common with it, or no ALPN at all. Its fingerprint is
//! known by then too, and may be reason enough to go no further.

mod hello;

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{ClientHello, NoServerSessionStorage};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::StartHandshake;
pub use tokio_rustls::server::TlsStream;

use crate::fingerprint::Fingerprint;
use crate::proto::client_hello::HelloFault;

/// ALPN of XMPP over direct TLS (XEP-0368).
const XMPP: &[u8] = b"xmpp-client";

/// ALPN of HTTP/1.1 (RFC 7301).
const HTTP: &[u8] = b"http/1.1";

/// What the ALPN of a connection settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// The client asked for XMPP.
    Xmpp,
    /// The client asked for HTTP/1.1.
    Http,
    /// The client asked for nothing, or nothing known here: its first byte tells.
    Unsettled,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The connection.
    pub stream: TlsStream<IO>,
    /// What it is for.
    pub alpn: Alpn,
    /// How the client said hello.
    pub fingerprint: Fingerprint,
}

impl<IO> Accepted<IO> {
    /// The server name that the client asked for, if any.
    pub fn server_name(&self) -> Option<&str> {
        self.stream.get_ref().1.server_name()
    }
}

/// Why a handshake failed. All of it is the client's doing, or its network's.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It took longer than it may.
    #[error("the TLS handshake took too long")]
    Slow,
    /// The client left, spoke no TLS, or nothing that is spoken here.
    #[error("the TLS handshake failed")]
    Failed(#[source] io::Error),
    /// Its hello is larger than is read, or not one.
    #[error(transparent)]
    Hello(HelloFault),
    /// Its hello is refused, for this reason.
    #[error("the TLS hello is refused: {0}")]
    Refused(&'static str),
}

/// Takes TLS handshakes with a certificate that can be replaced while connections stand.
#[derive(Debug)]
pub struct Acceptor {
    configs: RwLock<Configs>,
}

impl Acceptor {
    /// Makes an acceptor that shows `chain` and signs with `key`.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, rustls::Error> {
        Ok(Self { configs: RwLock::new(Configs::new(chain, key)?) })
    }

    /// Shows another certificate to those who come from now on; keeps the old one where the new cannot be used.
    pub fn replace(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), rustls::Error> {
        let configs = Configs::new(chain, key)?;
        *self.configs.write().unwrap_or_else(PoisonError::into_inner) = configs;
        Ok(())
    }

    /// The certificate that is shown now.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.configs.read().unwrap_or_else(PoisonError::into_inner).certificate.clone()
    }

    /// The configuration without ALPN, which refuses no client for its ALPN.
    pub fn without_alpn(&self) -> Arc<ServerConfig> {
        self.configs.read().unwrap_or_else(PoisonError::into_inner).unsettled.clone()
    }

    /// Takes the handshake of a client on `io`, within `within`, unless `screen` has a reason against its hello: then nothing is
    /// computed for it.
    pub async fn accept<IO>(
        &self,
        mut io: IO,
        within: Duration,
        screen: impl FnOnce(&Fingerprint) -> Result<(), &'static str>,
    ) -> Result<Accepted<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = async {
            let hello::Heard { accepted, fingerprint } = hello::hear(&mut io).await?;
            if let Err(reason) = screen(&fingerprint) {
                hello::deny(io).await;
                return Err(TlsError::Refused(reason));
            }
            let (alpn, config) = self.configs.read().unwrap_or_else(PoisonError::into_inner).fitting(&accepted.client_hello());
            let stream = StartHandshake::from_parts(accepted, io).into_stream(config).await.map_err(TlsError::Failed)?;
            Ok(Accepted { stream, alpn, fingerprint })
        };
        timeout(within, handshake).await.map_err(|_| TlsError::Slow)?
    }
}

/// One certificate's configurations, which differ in ALPN only and share their session tickets.
#[derive(Debug)]
struct Configs {
    certificate: Option<CertificateDer<'static>>,
    xmpp: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    unsettled: Arc<ServerConfig>,
}

impl Configs {
    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, rustls::Error> {
        let certificate = chain.first().cloned();
        let mut unsettled = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        // Tickets hold the session's state at the client: nothing is kept here for those who never return.
        unsettled.ticketer = Ticketer::new()?;
        unsettled.session_storage = Arc::new(NoServerSessionStorage {});
        unsettled.send_tls13_tickets = 1;
        let with = |alpn: &[u8]| {
            let mut config = unsettled.clone();
            config.alpn_protocols = vec![alpn.to_vec()];
            Arc::new(config)
        };
        Ok(Self { certificate, xmpp: with(XMPP), http: with(HTTP), unsettled: Arc::new(unsettled) })
    }

    fn fitting(&self, hello: &ClientHello<'_>) -> (Alpn, Arc<ServerConfig>) {
        let offers = |wanted: &[u8]| hello.alpn().is_some_and(|mut offered| offered.any(|alpn| alpn == wanted));
        if offers(XMPP) {
            (Alpn::Xmpp, self.xmpp.clone())
        } else if offers(HTTP) {
            (Alpn::Http, self.http.clone())
        } else {
            (Alpn::Unsettled, self.unsettled.clone())
        }
    }
}
