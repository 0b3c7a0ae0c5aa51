//! A TLS client for the demo's own conversation: the demo's listeners are reached as any client reaches them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The byte stream of such a client.
pub type ClientStream = TlsStream<TcpStream>;

/// Connects to `address` with direct TLS (XEP-0368) and verifies that its certificate is `domain`'s by the authority in `ca_pem`.
///
/// # Errors
/// Nothing listens there, or its certificate does not hold.
pub async fn connect(address: SocketAddr, domain: &str, ca_pem: &str) -> io::Result<ClientStream> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    let name = ServerName::try_from(domain.to_owned()).map_err(io::Error::other)?;
    let socket = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}
