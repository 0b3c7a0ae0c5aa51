//! HTTPS between the issuing CA's service and those who enrol and renew: one request a connection, small bodies, deadlines.
//!
//! Both ends are ours. The service is verified by the name [`SERVICE_HOST`] and the tunnel's CA, wherever it runs; at enrolment, when
//! the CA is not known yet, by the CA's fingerprint.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::certificates::{Live, SERVICE_HOST, alert_in_words, fingerprint, in_words};
use super::crowd::{Crowd, Limits, Place};
use super::listener::Listener;
use super::shutdown::Stop;
use super::signatures::{library_signatures, provider};

/// Connections at one time.
const CONNECTIONS: Limits = Limits { in_all: 64, per_source: 16 };

/// From the first byte of a connection to its last.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// A request as it came.
#[derive(Debug)]
pub struct Asked {
    /// What is wanted: the method and the path.
    pub what: (Method, String),
    /// The body, which no `Debug` shows.
    pub body: Body,
    /// From where.
    pub address: IpAddr,
    /// The certificate of who asks, verified; `None` for who showed none.
    pub certificate: Option<CertificateDer<'static>>,
}

/// A body, which may hold secrets.
pub struct Body(pub Bytes);

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What is answered: JSON.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub json: String,
    /// When to come again.
    pub retry_after: Option<Duration>,
}

/// Who answers.
pub trait Serve: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn serve(&self, asked: Asked) -> impl Future<Output = Answer> + Send;
}

/// Serves until `stop` says so. `max` bounds the body of a request.
pub async fn serve(listener: Listener, credentials: &Live, max: usize, service: impl Serve, mut stop: Stop) -> Result<(), rustls::Error> {
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::new(credentials.optional()))
        .with_cert_resolver(Arc::new(credentials.clone()));
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.send_tls13_tickets = 0;
    let tls = TlsAcceptor::from(Arc::new(tls));
    let mut connections = Crowd::new(CONNECTIONS);
    loop {
        tokio::select! {
            (socket, peer) = listener.accept() => {
                let (tls, service) = (tls.clone(), service.clone());
                // Who gives way, or is turned away, sees its connection closed.
                connections.begin(peer, |place| async move {
                    let served = serve_one(socket, peer.ip(), tls, max, Held { service, place });
                    if let Ok(Err(error)) = timeout(DEADLINE, served).await {
                        tracing::debug!(address = %peer.ip(), why = told(&error), "a request to the CA failed");
                    }
                });
            }
            Some(_ended) = connections.next() => {}
            () = stop.requested() => break,
        }
    }
    connections.shutdown().await;
    Ok(())
}

/// Holds its place while a request is answered: what is done cannot be undone, and the asker must hear of it.
#[derive(Clone)]
struct Held<S> {
    service: S,
    place: Place,
}

impl<S: Serve> Serve for Held<S> {
    async fn serve(&self, asked: Asked) -> Answer {
        self.place.hold();
        let answer = self.service.serve(asked).await;
        self.place.free();
        answer
    }
}

async fn serve_one(socket: TcpStream, address: IpAddr, tls: TlsAcceptor, max: usize, service: impl Serve) -> io::Result<()> {
    let stream = tls.accept(socket).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
    let answering = service_fn(|request: Request<Incoming>| answer(request, address, certificate.clone(), max, service.clone()));
    let connection =
        server::conn::http1::Builder::new().keep_alive(false).max_buf_size(16 * 1024).serve_connection(TokioIo::new(stream), answering);
    connection.await.map_err(io::Error::other)
}

async fn answer(
    request: Request<Incoming>,
    address: IpAddr,
    certificate: Option<CertificateDer<'static>>,
    max: usize,
    service: impl Serve,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let what = (request.method().clone(), request.uri().path().to_owned());
    let answer = match Limited::new(request.into_body(), max).collect().await {
        Ok(body) => service.serve(Asked { what, body: Body(body.to_bytes()), address, certificate }).await,
        Err(_) => Answer { status: StatusCode::PAYLOAD_TOO_LARGE, json: "{}".to_owned(), retry_after: None },
    };
    let mut response = Response::builder().status(answer.status).header(CONTENT_TYPE, "application/json");
    if let Some(wait) = answer.retry_after {
        response = response.header(RETRY_AFTER, wait.as_secs().max(1));
    }
    Ok(response.body(Full::new(Bytes::from(answer.json))).unwrap_or_default())
}

/// Where the service is: `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl(String);

/// Not an address of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected https://HOST:PORT")]
pub struct NotAServiceUrl;

impl std::str::FromStr for ServiceUrl {
    type Err = NotAServiceUrl;

    fn from_str(text: &str) -> Result<Self, NotAServiceUrl> {
        let address = text.strip_prefix("https://").ok_or(NotAServiceUrl)?;
        let address = address.strip_suffix('/').unwrap_or(address);
        let (host, port) = address.rsplit_once(':').ok_or(NotAServiceUrl)?;
        let good = !host.is_empty() && !host.contains(|letter: char| letter == '/' || letter == '@' || letter.is_whitespace());
        if !good || port.parse::<u16>().is_err() {
            return Err(NotAServiceUrl);
        }
        Ok(Self(address.to_owned()))
    }
}

impl std::fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}", self.0)
    }
}

/// Why the service gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It cannot be reached.
    #[error("cannot reach the CA at {url}: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
    /// It, or we, could not be verified.
    #[error("no secure connection to the CA at {url}: {why}")]
    Tls {
        /// Where.
        url: String,
        /// Why, in words.
        why: String,
    },
    /// It broke off or said what is no HTTP.
    #[error("the CA at {0} gave no answer")]
    NoAnswer(String),
    /// Our own configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// As whom to ask, and whom to believe.
#[derive(Clone, Debug)]
pub enum Asker {
    /// By the present certificate.
    Holder(Live),
    /// Without a certificate, believing the CA that has this SHA-256 fingerprint (64 hexadecimal digits).
    Newcomer(String),
}

/// Asks the service: `POST` where there is a body, else `GET`. Answers with status and body, of at most `max` bytes.
///
/// # Errors
/// There was no answer.
pub async fn ask(url: &ServiceUrl, asker: &Asker, path: &str, body: Option<String>, max: usize) -> Result<(StatusCode, Bytes), AskError> {
    let told_late = || AskError::NoAnswer(url.to_string());
    timeout(DEADLINE, ask_without_deadline(url, asker, path, body, max)).await.unwrap_or_else(|_late| Err(told_late()))
}

async fn ask_without_deadline(
    url: &ServiceUrl,
    asker: &Asker,
    path: &str,
    body: Option<String>,
    max: usize,
) -> Result<(StatusCode, Bytes), AskError> {
    let unreachable = |why: String| AskError::Unreachable { url: url.to_string(), why };
    let socket = match timeout(CONNECT, TcpStream::connect(url.0.as_str())).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable(format!("no answer within {} s", CONNECT.as_secs()))),
    };
    let name = ServerName::try_from(SERVICE_HOST).map_err(|_never| told_no_answer(url))?;
    let tls = TlsConnector::from(Arc::new(asker.config()?)).connect(name, socket).await;
    let stream = tls.map_err(|error| AskError::Tls { url: url.to_string(), why: told(&error) })?;
    let failed = |error: &hyper::Error| match std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>()) {
        // TLS 1.3: the service judges our certificate after our handshake is over.
        Some(error) if tls_error(error).is_some() => AskError::Tls { url: url.to_string(), why: told(error) },
        Some(_) | None => told_no_answer(url),
    };
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let request = Request::builder().method(method).uri(path).header(HOST, SERVICE_HOST).header(CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(Bytes::from(body.unwrap_or_default()))).map_err(|_never| told_no_answer(url))?;
    let answering = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), max).collect().await.map_err(|_cut| told_no_answer(url))?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answering, connection);
    tokio::select! {
        answer = &mut answering => answer,
        ended = &mut connection => match ended {
            Ok(()) => answering.await,
            Err(error) => Err(failed(&error)),
        },
    }
}

fn told_no_answer(url: &ServiceUrl) -> AskError {
    AskError::NoAnswer(url.to_string())
}

impl Asker {
    fn config(&self) -> Result<ClientConfig, rustls::Error> {
        let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&version::TLS13])?.dangerous();
        let mut config = match self {
            Self::Holder(live) => {
                config.with_custom_certificate_verifier(Arc::new(live.clone())).with_client_cert_resolver(Arc::new(live.clone()))
            }
            Self::Newcomer(fingerprint) => {
                config.with_custom_certificate_verifier(Arc::new(Pinned(fingerprint.clone()))).with_no_client_auth()
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

/// Believes the CA with this fingerprint, which the service shows behind its own certificate.
#[derive(Debug)]
struct Pinned(String);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|certificate| fingerprint(certificate) == self.0);
        let authority = authority.ok_or_else(|| rustls::Error::General(WRONG_FINGERPRINT.to_owned()))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        super::certificates::with_leeway(now, |at| verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at))
            .map_err(|error| rustls::Error::General(in_words(&error, end_entity, now)))
    }

    library_signatures!();
}

const WRONG_FINGERPRINT: &str = "its CA has another fingerprint than --ca-sha256: compare it with what `outgate ca token` printed; if they are the \
     same, something between here and the CA inspects TLS";

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Why TLS failed, without words of the peer's choice.
fn told(error: &io::Error) -> String {
    match tls_error(error) {
        Some(rustls::Error::AlertReceived(alert)) => {
            let words = alert_in_words(u8::from(*alert)).map_or_else(|| format!("it was refused ({alert:?})"), str::to_owned);
            format!("the other side says: {words}")
        }
        Some(rustls::Error::General(words)) => words.clone(),
        Some(error @ rustls::Error::InvalidCertificate(_)) => {
            in_words(error, &CertificateDer::from(Vec::new()), UnixTime::since_unix_epoch(Duration::ZERO))
        }
        Some(error) => error.to_string(),
        None => error.kind().to_string(),
    }
}
