//! A customer's client made of bytes, so that it can be wrong in every way.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use outgate::net::tls::Acceptor;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(20);

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

/// A customer's client.
pub(crate) struct Customer {
    stream: Pin<Box<dyn Stream>>,
    heard: String,
    domain: &'static str,
    roots: Arc<rustls::RootCertStore>,
}

/// A certificate for `domain` and the roots that trust it.
pub(crate) fn certificate(domain: &str) -> (Arc<Acceptor>, Arc<rustls::RootCertStore>) {
    let made = rcgen::generate_simple_self_signed([domain.to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let acceptor = Acceptor::new(vec![made.cert.der().clone()], key).unwrap();
    (Arc::new(acceptor), Arc::new(roots))
}

impl Customer {
    pub(crate) async fn connect(addr: SocketAddr, domain: &'static str, roots: Arc<rustls::RootCertStore>) -> Self {
        let stream = Box::pin(TcpStream::connect(addr).await.unwrap());
        Self { stream, heard: String::new(), domain, roots }
    }

    /// Connects from an address of this host of the same family.
    pub(crate) async fn connect_from(source: IpAddr, addr: SocketAddr, domain: &'static str, roots: Arc<rustls::RootCertStore>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source, 0)).unwrap();
        let stream = Box::pin(socket.connect(addr).await.unwrap());
        Self { stream, heard: String::new(), domain, roots }
    }

    pub(crate) async fn direct_tls(self) -> Self {
        self.try_direct_tls().await.unwrap()
    }

    /// Where it comes to nothing, why.
    pub(crate) async fn try_direct_tls(self) -> Result<Self, String> {
        let Self { stream, domain, roots, .. } = self;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&roots))
            .with_no_client_auth();
        let name = ServerName::try_from(domain).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|fault| fault.to_string())?;
        Ok(Self { stream: Box::pin(stream), heard: String::new(), domain, roots })
    }

    pub(crate) async fn starttls(mut self) -> Self {
        self.open_stream().await;
        self.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
        self.until("<proceed").await;
        self.direct_tls().await
    }

    /// Sends a header and waits for the features.
    pub(crate) async fn open_stream(&mut self) {
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
            self.domain
        );
        self.say(&header).await;
        self.until("</stream:features>").await;
    }

    pub(crate) async fn plain(&mut self, password: &str) {
        let message = base64::engine::general_purpose::STANDARD.encode(format!("\0me\0{password}"));
        self.say(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>")).await;
    }

    pub(crate) async fn log_in(&mut self, link: &str) {
        self.open_stream().await;
        self.plain(link).await;
        self.bind().await;
    }

    pub(crate) async fn log_in_anonymously(&mut self) {
        self.open_stream().await;
        self.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>").await;
        self.bind().await;
    }

    async fn bind(&mut self) {
        self.until("<success").await;
        self.heard.clear();
        self.open_stream().await;
        self.say("<iq type='set' id='bind1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>phone</resource></bind></iq>").await;
        let bound = self.until("</iq>").await;
        assert!(bound.contains("<jid>guest-") && bound.contains("/phone</jid>"), "{bound}");
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.send(text.as_bytes()).await;
    }

    /// Sends what it can: the other side may have closed already.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _closed = self.stream.write_all(bytes).await;
        let _closed = self.stream.flush().await;
    }

    /// Sends one byte after the other until the other side closes.
    pub(crate) async fn drip(&mut self, text: &str, pause: Duration) {
        for byte in text.bytes() {
            if self.stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads up to and including `mark`.
    pub(crate) async fn until(&mut self, mark: &str) -> String {
        loop {
            if let Some(at) = self.heard.find(mark) {
                let rest = self.heard.split_off(at + mark.len());
                return std::mem::replace(&mut self.heard, rest);
            }
            assert!(self.more().await, "the stream ended before {mark}: {}", self.heard);
        }
    }

    /// Reads up to and including the first of these marks to come.
    pub(crate) async fn until_any(&mut self, marks: &[&str]) -> String {
        loop {
            let ends = marks.iter().filter_map(|mark| self.heard.find(mark).map(|at| at + mark.len()));
            if let Some(end) = ends.min() {
                let rest = self.heard.split_off(end);
                return std::mem::replace(&mut self.heard, rest);
            }
            assert!(self.more().await, "the stream ended before any of {marks:?}: {}", self.heard);
        }
    }

    /// Reads to the end.
    pub(crate) async fn end(&mut self) -> String {
        while self.more().await {}
        std::mem::take(&mut self.heard)
    }

    async fn more(&mut self) -> bool {
        let mut chunk = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut chunk)).await;
        match read.unwrap_or_else(|_| panic!("nothing came after {}", self.heard)) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.heard.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
                true
            }
        }
    }
}
