//! The issuing CA's service on the LAN: enrolment by token, renewal by certificate, and whom to trust.
//!
//! Every act is one line of the log with `audit` in it; no token, key or request body stands in any.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::ledger::from_hex;
use super::wrong_tokens::WrongTokens;
use super::{Authority, AuthorityError};
use crate::net::certificates::{Live, Taken, Validity, csr_from_pem, identity_of, lists_in, own_and_authorities};
use crate::net::https::{self, Answer, Asked, Serve};
use crate::net::listener::Listener;
use crate::net::shutdown::{self, Stopper};
use crate::net::wall_clock::unix_now;
use crate::proto::enrolment::{Enroll, Granted, MAX_BODY, Refusal, Renew, RenewRelay, TrustStore};

/// How often the folder is looked at for what other processes changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often everything is made anew, changed or not: CAs take their turn by the clock.
const REFRESH_EVERY: Duration = Duration::from_secs(3600);

/// A running service.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    tasks: JoinSet<()>,
    stopper: Stopper,
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The socket.
    #[error("cannot listen on {0}: {1}")]
    Socket(SocketAddr, std::io::Error),
    /// The certificate of its own.
    #[error("the service's own certificate cannot be used: {0}")]
    Certificate(String),
}

impl Service {
    /// Begins to serve `authority` on `address`.
    ///
    /// # Errors
    /// The folder or the address cannot be used.
    pub fn start(authority: Authority, address: SocketAddr) -> Result<Self, StartError> {
        let listener = Listener::bind(address).map_err(|error| StartError::Socket(address, error))?;
        let address = listener.local_addr().map_err(|error| StartError::Socket(address, error))?;
        let now = unix_now();
        let (credentials, trust) = standing(&authority, now)?;
        let live = Live::new(&credentials).map_err(|error| StartError::Certificate(error.to_string()))?;
        take_lists(&live, &trust);
        let office = Office(Arc::new(Shared { authority, trust: RwLock::new(Arc::new(trust)), wrong: Mutex::default() }));
        let (stopper, mut stop) = shutdown::pair();
        let mut tasks = JoinSet::new();
        let (desk, serving, ended) = (office.clone(), live.clone(), stop.clone());
        tasks.spawn(async move {
            if let Err(error) = https::serve(listener, &serving, MAX_BODY, desk, ended).await {
                tracing::error!(%error, "the CA's service cannot serve");
            }
        });
        tasks.spawn(async move {
            tokio::select! {
                () = refresh(office, live) => {}
                () = stop.requested() => {}
            }
        });
        Ok(Self { address, tasks, stopper })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops, and awaits every task.
    pub async fn stop(mut self) {
        self.stopper.stop();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn standing(authority: &Authority, now: u64) -> Result<(crate::net::quic::Credentials, TrustStore), StartError> {
    let own = authority.service_certificate(now)?;
    let trust = authority.trust(now)?;
    let credentials = own_and_authorities(&own, &trust.authorities).map_err(|error| StartError::Certificate(error.to_string()))?;
    Ok((credentials, trust))
}

fn take_lists(live: &Live, trust: &TrustStore) {
    for list in lists_in(trust.revocations.as_bytes()).unwrap_or_default() {
        match live.revoke(&list) {
            Ok(Taken::New | Taken::Known) => {}
            Err(error) => tracing::error!(%error, "the CA's own revocation list"),
        }
    }
}

/// Follows what the verbs change in the folder, and the clock.
async fn refresh(office: Office, live: Live) {
    let mut mark = office.0.authority.mark();
    let mut made = instant();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let current = office.0.authority.mark();
        let is_due = live.validity().is_none_or(|validity: Validity| unix_now() >= validity.renew_at());
        if current == mark && !is_due && made.elapsed() < REFRESH_EVERY {
            continue;
        }
        match office.refreshed(&live).await {
            Ok(()) => (mark, made) = (current, instant()),
            Err(error) => tracing::error!(error = %error, "the CA's folder cannot be read again"),
        }
    }
}

/// What the service's tasks share.
#[derive(Clone)]
struct Office(Arc<Shared>);

struct Shared {
    authority: Authority,
    trust: RwLock<Arc<TrustStore>>,
    wrong: Mutex<WrongTokens>,
}

/// A refusal on its way out.
struct Refused {
    status: StatusCode,
    error: String,
    remedy: String,
    retry_after: Option<Duration>,
}

impl Serve for Office {
    async fn serve(&self, asked: Asked) -> Answer {
        let (method, path) = &asked.what;
        let outcome = match (method, path.as_str()) {
            (&Method::POST, "/v1/enroll") => self.enroll(&asked).await.and_then(|granted| json(&granted)),
            (&Method::POST, "/v1/renew") => self.renew(&asked).await.and_then(|granted| json(&granted)),
            (&Method::POST, "/v1/renew-relay") => self.renew_relay(&asked).await.and_then(|granted| json(&granted)),
            (&Method::GET, "/v1/trust") => json(&*self.trust()),
            _ => Err(refused(StatusCode::NOT_FOUND, "there is nothing here", "this is the issuing CA of an Outgate tunnel")),
        };
        outcome.unwrap_or_else(|refused| {
            let refusal = Refusal { error: refused.error, remedy: refused.remedy };
            let json = serde_json::to_string(&refusal).unwrap_or_default();
            Answer { status: refused.status, json, retry_after: refused.retry_after }
        })
    }
}

impl Office {
    async fn enroll(&self, asked: &Asked) -> Result<Granted, Refused> {
        if let Some(wait) = self.wrong().wait(asked.address, instant()) {
            tracing::warn!(audit = "enroll", address = %asked.address, reason = "too-many-wrong-tokens", "refused");
            let told = refused(
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens were shown, by your address or by all together",
                "wait a minute",
            );
            return Err(Refused { retry_after: Some(wait), ..told });
        }
        let request: Enroll = parsed(asked)?;
        let csr = csr(&request.csr)?;
        let outcome = self.work(move |authority| authority.enroll(&request.token, &csr, unix_now())).await;
        if let Err(AuthorityError::WrongToken | AuthorityError::TokenUsed { .. } | AuthorityError::TokenExpired { .. }) = &outcome {
            self.wrong().count(asked.address, instant());
        }
        told("enroll", asked, outcome)
    }

    async fn renew(&self, asked: &Asked) -> Result<Granted, Refused> {
        let present = present(asked)?;
        let csr = csr(&parsed::<Renew>(asked)?.csr)?;
        told("renew", asked, self.work(move |authority| authority.renew(&present, &csr, unix_now())).await)
    }

    async fn renew_relay(&self, asked: &Asked) -> Result<Granted, Refused> {
        let through = identity_of(&present(asked)?).map_err(|error| bad_request(&error))?.0;
        let request: RenewRelay = parsed(asked)?;
        let csr = csr(&request.csr)?;
        let relay =
            CertificateDer::from_pem_slice(request.certificate.as_bytes()).map_err(|_none| bad_request(&"no certificate in PEM"))?;
        let signature = from_hex(&request.signature).ok_or_else(|| bad_request(&"the signature is not hexadecimal"))?;
        let outcome = self.work(move |authority| authority.renew_relay(&through, &relay, &csr, &signature, unix_now())).await;
        told("renew-relay", asked, outcome)
    }

    /// Runs `act` where waiting for the disk holds up nobody.
    async fn work<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Authority) -> Result<T, AuthorityError> + Send + 'static,
    ) -> Result<T, AuthorityError> {
        let office = self.clone();
        tokio::task::spawn_blocking(move || act(&office.0.authority)).await.unwrap_or(Err(AuthorityError::Unreadable))
    }

    async fn refreshed(&self, live: &Live) -> Result<(), StartError> {
        let office = self.clone();
        let read = tokio::task::spawn_blocking(move || standing(&office.0.authority, unix_now())).await;
        let (credentials, trust) = read.map_err(|error| StartError::Certificate(error.to_string()))??;
        live.replace(&credentials).map_err(|error| StartError::Certificate(error.to_string()))?;
        take_lists(live, &trust);
        *self.0.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
        Ok(())
    }

    fn trust(&self) -> Arc<TrustStore> {
        Arc::clone(&self.0.trust.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn wrong(&self) -> std::sync::MutexGuard<'_, WrongTokens> {
        self.0.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the audit line, and makes an answer of the outcome.
fn told(act: &'static str, asked: &Asked, outcome: Result<Granted, AuthorityError>) -> Result<Granted, Refused> {
    let by = asked.certificate.as_ref().and_then(|certificate| identity_of(certificate).ok()).map(|identity| identity.0);
    match outcome {
        Ok(granted) => {
            tracing::info!(audit = act, address = %asked.address, by, name = granted.name, "issued");
            Ok(granted)
        }
        Err(error) if error.is_of_the_asker() => {
            tracing::warn!(audit = act, address = %asked.address, by, reason = %error, "refused");
            let status = if matches!(error, AuthorityError::TokenUsed { .. }) { StatusCode::CONFLICT } else { StatusCode::FORBIDDEN };
            Err(refused(status, &error, error.remedy()))
        }
        Err(error) => {
            tracing::error!(audit = act, address = %asked.address, by, reason = %error, remedy = error.remedy(), "failed");
            Err(refused(StatusCode::INTERNAL_SERVER_ERROR, "the CA cannot issue now", "its log says why"))
        }
    }
}

fn present(asked: &Asked) -> Result<CertificateDer<'static>, Refused> {
    let none = || {
        refused(
            StatusCode::UNAUTHORIZED,
            "no certificate was shown",
            "only who has one may renew; others enrol: `outgate ca token`, `outgate connector enroll`",
        )
    };
    asked.certificate.clone().ok_or_else(none)
}

fn parsed<T: DeserializeOwned>(asked: &Asked) -> Result<T, Refused> {
    // What serde says could quote the body.
    serde_json::from_slice(&asked.body.0).map_err(|_other| bad_request(&"the body is not what this version reads"))
}

fn csr(pem: &str) -> Result<Vec<u8>, Refused> {
    csr_from_pem(pem).map_err(|error| bad_request(&error))
}

fn json(value: &impl Serialize) -> Result<Answer, Refused> {
    let json = serde_json::to_string(value).map_err(|_never| refused(StatusCode::INTERNAL_SERVER_ERROR, "no answer", ""))?;
    Ok(Answer { status: StatusCode::OK, json, retry_after: None })
}

fn bad_request(error: &dyn Display) -> Refused {
    refused(StatusCode::BAD_REQUEST, error, "is it the same version at both ends?")
}

fn refused(status: StatusCode, error: impl Display, remedy: &str) -> Refused {
    Refused { status, error: error.to_string(), remedy: remedy.to_owned(), retry_after: None }
}

#[expect(clippy::disallowed_methods, reason = "the service is a shell: pauses are measured here")]
fn instant() -> Instant {
    Instant::now()
}
