//! Credentials of a tunnel end that change while it runs: renewed certificates, a second CA, revocations.
//!
//! A [`Live`] is handed to TLS in place of a certificate and a list of CAs. Every handshake asks it anew, so that a change needs
//! no new socket and disturbs no carrier that stands, but for one whose peer has been revoked: [`Live::revoked`] tells.
//! Clocks may differ by [`LEEWAY`]. What is refused is said in words.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::is_vouched_for;
use super::revocation::{RevocationError, Revocations, Taken};
use super::validity::Validity;
use super::words::in_words;
use crate::net::issuer_named::name_issuer;
use crate::net::quic::Credentials;
use crate::net::signatures::{library_signatures, provider};

/// How far the clocks of the two ends may differ where a certificate begins or ends.
pub const LEEWAY: Duration = Duration::from_secs(600);

/// Pause between two lines of the log about peers that were refused: strangers can cause them.
const QUIET: Duration = Duration::from_secs(10);

/// CAs that may be admitted while a process runs: each is in force for at least a certificate's life.
const MAX_ADMITTED: usize = 4;

/// Credentials that can be exchanged; clones are the same.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    state: RwLock<Arc<State>>,
    version: watch::Sender<u64>,
    told: Mutex<Option<Instant>>,
}

/// What holds at one moment.
struct State {
    credentials: Credentials,
    /// CAs that an older one vouched for, beside those of the credentials' file.
    admitted: Vec<CertificateDer<'static>>,
    own: Arc<CertifiedKey>,
    revocations: Vec<Revocations>,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Live").field("credentials", &state.credentials).field("revocations", &state.revocations).finish()
    }
}

/// Credentials that cannot be used. All of it is our own configuration.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The certificate, its key or a CA is not of use.
    #[error("the tunnel's certificate, key or CA cannot be used")]
    Credentials(#[from] rustls::Error),
    /// The CA's certificates cannot verify anybody.
    #[error("the tunnel's CA cannot be used")]
    Authority(#[from] VerifierBuilderError),
}

impl Live {
    /// Takes the first credentials.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn new(credentials: &Credentials) -> Result<Self, LiveError> {
        let state = State::new(credentials.clone(), Vec::new(), Vec::new())?;
        let version = watch::Sender::new(0);
        Ok(Self(Arc::new(Shared { state: RwLock::new(Arc::new(state)), version, told: Mutex::default() })))
    }

    /// Shows and trusts `credentials` from now on; keeps what is there where they cannot be used. Revocations stay, and CAs that
    /// were admitted.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), LiveError> {
        self.change(|state| Ok((State::new(credentials.clone(), state.admitted.clone(), state.revocations.clone())?, ())))
    }

    /// Trusts those of `authorities` too for which `links` show that one vouches that is trusted already; answers with them.
    pub fn admit(&self, authorities: &[CertificateDer<'static>], links: &[impl AsRef<[u8]>], now: u64) -> Vec<CertificateDer<'static>> {
        let known = self.authorities();
        let is_new = |newcomer: &&CertificateDer<'static>| !known.contains(newcomer) && is_vouched_for(newcomer, links, &known, now);
        // Two at most are under way, however many somebody sends.
        let room = MAX_ADMITTED.saturating_sub(self.state().admitted.len());
        let newcomers: Vec<_> = authorities.iter().filter(is_new).take(room).cloned().collect();
        if newcomers.is_empty() {
            return newcomers;
        }
        let changed = self.change(|state| {
            let admitted = state.admitted.iter().chain(&newcomers).cloned().collect();
            State::new(state.credentials.clone(), admitted, state.revocations.clone()).map(|state| (state, ()))
        });
        if changed.is_ok() { newcomers } else { Vec::new() }
    }

    /// All CAs that are trusted now.
    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        self.state().authorities()
    }

    /// Takes a revocation list, whoever brought it.
    ///
    /// # Errors
    /// It is not signed by a CA that is trusted here, or an older one than is held.
    pub fn revoke(&self, list: &[u8]) -> Result<Taken, RevocationError> {
        // Most lists that arrive are known: looking first keeps the verifiers as they are.
        let before = self.state();
        let list = Revocations::read(list, &before.authorities())?;
        let mut joined = before.revocations.clone();
        if list.clone().join(&mut joined)? == Taken::Known {
            return Ok(Taken::Known);
        }
        self.change(|state| {
            let mut revocations = state.revocations.clone();
            let taken = list.join(&mut revocations)?;
            let next = State::new(state.credentials.clone(), state.admitted.clone(), revocations)
                .map_err(|_unusable| RevocationError::Unreadable)?;
            Ok((next, taken))
        })
    }

    /// The lists that are held.
    pub fn revocations(&self) -> Vec<Revocations> {
        self.state().revocations.clone()
    }

    /// The credentials that hold now.
    pub fn credentials(&self) -> Credentials {
        self.state().credentials.clone()
    }

    /// From when to when our own certificate holds.
    pub fn validity(&self) -> Option<Validity> {
        Validity::of(self.state().credentials.chain.first()?)
    }

    /// Waits until the certificate that a peer showed is revoked, which may be never; tells why its carrier ends.
    pub async fn revoked(&self, certificate: &CertificateDer<'_>) -> String {
        let mut version = self.0.version.subscribe();
        loop {
            if self.is_revoked(certificate) {
                return "the peer's certificate was revoked".to_owned();
            }
            // The sender lives as long as this clone.
            drop(version.changed().await);
        }
    }

    /// Whether a certificate stands on a list.
    pub fn is_revoked(&self, certificate: &CertificateDer<'_>) -> bool {
        self.state().revocations.iter().any(|list| list.revokes(certificate))
    }

    /// Whether a CA that is trusted now issued this very certificate.
    pub fn vouches_for(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, leaf)) = X509Certificate::from_der(certificate) else { return false };
        self.authorities().iter().filter_map(|authority| X509Certificate::from_der(authority).ok()).any(|(_, authority)| {
            authority.subject().as_raw() == leaf.issuer().as_raw() && leaf.verify_signature(Some(authority.public_key())).is_ok()
        })
    }

    /// Told of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// A verifier that also lets in clients without a certificate.
    pub fn optional(&self) -> OptionalClients {
        OptionalClients(self.clone())
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.0.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T, E>(&self, next: impl FnOnce(&State) -> Result<(State, T), E>) -> Result<T, E> {
        let mut slot = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        let (state, value) = next(&slot)?;
        *slot = Arc::new(state);
        drop(slot);
        self.0.version.send_modify(|version| *version += 1);
        Ok(value)
    }

    /// Says in the log what is wrong with a peer's certificate, not more than once in a while.
    fn tell(&self, certificate: &CertificateDer<'_>, now: UnixTime, error: &rustls::Error) {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let instant = instant();
        if told.is_none_or(|told| instant.duration_since(told) >= QUIET) {
            *told = Some(instant);
            drop(told);
            tracing::warn!(reason = in_words(error, certificate, now), "the peer's certificate is refused");
        }
    }
}

impl State {
    fn new(credentials: Credentials, admitted: Vec<CertificateDer<'static>>, revocations: Vec<Revocations>) -> Result<Self, LiveError> {
        let own = CertifiedKey::from_der(credentials.chain.clone(), credentials.key.clone_key(), &provider())?;
        let mut roots = RootCertStore::empty();
        for authority in credentials.authorities.iter().chain(&admitted) {
            roots.add(authority.clone())?;
        }
        let roots = Arc::new(roots);
        let lists = || revocations.iter().map(|list| list.der().clone());
        // Where no list of a CA is known, nothing of it is revoked. A list that is overdue still revokes.
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .with_crls(lists())
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .with_crls(lists())
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()?;
        Ok(Self { credentials, admitted, own: Arc::new(own), revocations, clients, servers })
    }
}

impl State {
    fn authorities(&self) -> Vec<CertificateDer<'static>> {
        let mut all = self.credentials.authorities.clone();
        all.extend(self.admitted.iter().filter(|admitted| !self.credentials.authorities.contains(admitted)).cloned());
        all
    }
}

impl ServerCertVerifier for Live {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let servers = Arc::clone(&self.state().servers);
        with_leeway(now, |at| servers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at))
            .map_err(|fault| name_issuer(fault, end_entity))
            .inspect_err(|error| self.tell(end_entity, now, error))
    }

    library_signatures!();
}

impl ClientCertVerifier for Live {
    /// None are named: they may change between two handshakes, and each end has one certificate to show.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let clients = Arc::clone(&self.state().clients);
        with_leeway(now, |at| clients.verify_client_cert(end_entity, intermediates, at))
            .inspect_err(|error| self.tell(end_entity, now, error))
    }

    library_signatures!();
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.state().own))
    }
}

impl ResolvesClientCert for Live {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _sigschemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.state().own))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// [`Live`] as the issuing CA's service verifies its clients: one without a certificate may come in with a token.
#[derive(Clone, Debug)]
pub struct OptionalClients(Live);

impl ClientCertVerifier for OptionalClients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify_client_cert(end_entity, intermediates, now)
    }

    library_signatures!();
}

/// Verifies at `now`; a certificate whose time has just passed, or is just to come, is judged by a clock that differs by [`LEEWAY`].
pub(in crate::net) fn with_leeway<T>(now: UnixTime, verify: impl Fn(UnixTime) -> Result<T, rustls::Error>) -> Result<T, rustls::Error> {
    use rustls::CertificateError as Fault;
    let shifted = match verify(now) {
        Err(rustls::Error::InvalidCertificate(Fault::Expired | Fault::ExpiredContext { .. })) => {
            now.as_secs().saturating_sub(LEEWAY.as_secs())
        }
        Err(rustls::Error::InvalidCertificate(Fault::NotValidYet | Fault::NotValidYetContext { .. })) => now.as_secs() + LEEWAY.as_secs(),
        verdict => return verdict,
    };
    verify(UnixTime::since_unix_epoch(Duration::from_secs(shifted)))
}

#[expect(clippy::disallowed_methods, reason = "a pause between two lines of the log")]
fn instant() -> Instant {
    Instant::now()
}
