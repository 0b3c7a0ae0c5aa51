//! How a connector talks with the issuing CA: enrolment, renewal, and whom to trust.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::net::certificates::reload::EXPIRED_REMEDY;
use crate::net::certificates::{CertificateError, LEEWAY, Live, NewKey, Readers, csr_to_pem, write_atomically};
use crate::net::https::{AskError, Asker, ServiceUrl, ask};
use crate::net::wall_clock::unix_now;
use crate::proto::enrolment::{Enroll, Granted, MAX_BODY, MAX_TRUST, Refusal, Renew, RenewRelay, TrustStore};

/// Longest sentence that is taken over from the CA.
const MAX_SENTENCE: usize = 500;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// The CA cannot be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Our own certificate's time is over: the CA would not speak with us.
    #[error("this connector's tunnel certificate {0}")]
    Expired(String),
    /// It refuses.
    #[error("the CA refuses: {error}")]
    Refused {
        /// Why.
        error: String,
        /// What to do about it.
        remedy: String,
    },
    /// It answers what this version does not read.
    #[error("the CA's answer cannot be read: is it the same version?")]
    Unreadable,
    /// It certified another key than ours, or another name.
    #[error("the CA answered with a certificate that is not the one asked for")]
    Foreign,
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] CertificateError),
    /// Something is there already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The folder.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl EnrolmentError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Ask(AskError::Unreachable { .. }) => "does `outgate ca serve` run there, and does the LAN let you through?".to_owned(),
            Self::Ask(AskError::NoAnswer(_)) => {
                "try again; if the token turns out to be used, make a new one with `outgate ca token`".to_owned()
            }
            Self::Ask(_) => "compare --ca and --ca-sha256 with what `outgate ca token` printed, and the clocks of both hosts".to_owned(),
            Self::Expired(_) => EXPIRED_REMEDY.to_owned(),
            Self::Refused { remedy, .. } => remedy.clone(),
            Self::Unreadable | Self::Foreign | Self::Key(_) => "use the same version at both ends".to_owned(),
            Self::Exists(_) => "name another --out, or move it away first: nothing is overwritten".to_owned(),
            Self::Write { .. } => "may you write there?".to_owned(),
        }
    }
}

/// What an enrolment wrote.
#[derive(Debug)]
pub struct Enrolled {
    /// The connector's tunnel name.
    pub name: String,
    /// Its certificate, its key, the CAs.
    pub files: [PathBuf; 3],
}

/// Enrols with a token: makes a key in `out`, which nobody else ever sees, and writes the certificate and the CAs beside it.
///
/// # Errors
/// The CA refuses or cannot be asked, or `out` cannot be written. No file stays behind then.
pub async fn enroll(url: &ServiceUrl, fingerprint: &str, token: &str, out: &Path) -> Result<Enrolled, EnrolmentError> {
    let files = ["connector.pem", "connector-key.pem", "ca.pem"].map(|name| out.join(name));
    if let Some(there) = files.iter().find(|file| file.exists()) {
        return Err(EnrolmentError::Exists(there.clone()));
    }
    let [certificate, key, authorities] = &files;
    let new = NewKey::make()?;
    // Written first: a folder that cannot be written must not cost the token.
    write(key, &new.key, Readers::Owner)?;
    let request = Enroll { token: token.to_owned(), csr: csr_to_pem(&new.csr) };
    let granted = call(url, &Asker::Newcomer(fingerprint.to_owned()), "/v1/enroll", Some(&request), MAX_BODY).await;
    let granted: Granted = match granted.and_then(|granted: Granted| checked(granted, &new, None)) {
        Ok(granted) => granted,
        Err(error) => {
            drop(std::fs::remove_file(key));
            return Err(error);
        }
    };
    write(authorities, &granted.authorities, Readers::Everybody)?;
    write(certificate, &granted.certificate, Readers::Everybody)?;
    Ok(Enrolled { name: granted.name, files })
}

/// Asks for the next certificate by the present one.
pub(super) async fn renew(url: &ServiceUrl, live: &Live, name: &str) -> Result<(NewKey, Granted), EnrolmentError> {
    let new = NewKey::make()?;
    let request = Renew { csr: csr_to_pem(&new.csr) };
    let granted: Granted = call(url, &Asker::Holder(live.clone()), "/v1/renew", Some(&request), MAX_BODY).await?;
    let granted = checked(granted, &new, Some(name))?;
    Ok((new, granted))
}

/// Asks for a relay.
pub(super) async fn renew_relay(url: &ServiceUrl, live: &Live, request: &RenewRelay) -> Result<Granted, EnrolmentError> {
    call(url, &Asker::Holder(live.clone()), "/v1/renew-relay", Some(request), MAX_BODY).await
}

/// Asks whom to trust.
pub(super) async fn trust(url: &ServiceUrl, live: &Live) -> Result<TrustStore, EnrolmentError> {
    call::<(), _>(url, &Asker::Holder(live.clone()), "/v1/trust", None, MAX_TRUST).await
}

async fn call<B: Serialize, T: DeserializeOwned>(
    url: &ServiceUrl,
    asker: &Asker,
    path: &str,
    body: Option<&B>,
    max: usize,
) -> Result<T, EnrolmentError> {
    if let Asker::Holder(live) = asker {
        check_own(live, unix_now())?;
    }
    let body = body.map(serde_json::to_string).transpose().map_err(|_never| EnrolmentError::Unreadable)?;
    let (status, answer) = ask(url, asker, path, body, max).await?;
    if status.is_success() {
        return serde_json::from_slice(&answer).map_err(|_other| EnrolmentError::Unreadable);
    }
    let refusal: Refusal = serde_json::from_slice(&answer).map_err(|_other| EnrolmentError::Unreadable)?;
    Err(EnrolmentError::Refused { error: sentence(&refusal.error), remedy: sentence(&refusal.remedy) })
}

/// Whether the certificate that we would show holds.
fn check_own(live: &Live, now: u64) -> Result<(), EnrolmentError> {
    let over = live.validity().filter(|validity| now > validity.end + LEEWAY.as_secs());
    over.and_then(|validity| validity.warning(now)).map_or(Ok(()), |warning| Err(EnrolmentError::Expired(warning)))
}

/// A sentence of the CA's, as it may stand in a log or on a terminal.
fn sentence(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_SENTENCE).collect()
}

/// What was granted must be for our key, and for our name where we have one.
fn checked(granted: Granted, new: &NewKey, name: Option<&str>) -> Result<Granted, EnrolmentError> {
    let certificate = CertificateDer::from_pem_slice(granted.certificate.as_bytes()).map_err(|_none| EnrolmentError::Unreadable)?;
    let identity = crate::net::certificates::identity_of(&certificate)?;
    let is_ours = new.is_of(&certificate) && identity.0 == granted.name && name.is_none_or(|name| name == identity.0);
    if is_ours { Ok(granted) } else { Err(EnrolmentError::Foreign) }
}

fn write(path: &Path, text: &str, readers: Readers) -> Result<(), EnrolmentError> {
    write_atomically(path, text.as_bytes(), readers).map_err(|source| EnrolmentError::Write { path: path.to_owned(), source })
}
