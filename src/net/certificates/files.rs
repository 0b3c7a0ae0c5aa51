//! PEM files with certificates and keys, and what is wrong with them.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Issued;
use crate::net::quic::Credentials;

/// Largest PEM file that is read: a chain is a few kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// Certificate chain and key of one TLS end.
pub struct Loaded {
    /// The certificate first, then what chains it to its root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the first certificate.
    pub key: PrivateKeyDer<'static>,
    /// What is not wrong but should not be, a sentence each.
    pub warnings: Vec<String>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificates = self.chain.len();
        f.debug_struct("Loaded").field("certificates", &certificates).field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Too large to be what it should be.
    #[error("{} is larger than 1 MiB: not a PEM file", .0.display())]
    TooLarge(PathBuf),
    /// Holds no certificate.
    #[error("{} holds no certificate in PEM (`-----BEGIN CERTIFICATE-----`)", .0.display())]
    NoCertificate(PathBuf),
    /// Holds no key.
    #[error("{} holds no private key in PEM (`-----BEGIN PRIVATE KEY-----`)", .0.display())]
    NoKey(PathBuf),
    /// They do not belong together, or the key is of a kind that TLS does not take.
    #[error("the key {} does not belong to the certificate {}: {reason}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        reason: String,
    },
}

/// Reads a certificate chain and its key, and checks that they belong together.
///
/// # Errors
/// A file is missing, is not PEM, or the two do not match.
pub fn load(certificate: &Path, key: &Path) -> Result<Loaded, FileError> {
    let chain = load_authorities(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_no_key| FileError::NoKey(key.to_owned()))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider).map_err(|error| FileError::Mismatch {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(Loaded { chain, key: private, warnings: permissions(key).into_iter().collect() })
}

/// Reads all certificates of a file, at least one.
///
/// # Errors
/// The file is missing or holds none.
pub fn load_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let none = || FileError::NoCertificate(path.to_owned());
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    all.ok().filter(|chain| !chain.is_empty()).ok_or_else(none)
}

/// Credentials of what was just issued, and the CAs in `authorities`.
///
/// # Errors
/// One of them is not PEM.
pub fn own_and_authorities(own: &Issued, authorities: &str) -> Result<Credentials, FileError> {
    let all = |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let none = |_damaged| FileError::NoCertificate(PathBuf::from("what was issued"));
    Ok(Credentials {
        chain: all(&own.certificate).map_err(none)?,
        key: PrivateKeyDer::from_pem_slice(own.key.as_bytes()).map_err(none)?,
        authorities: all(authorities).map_err(none)?,
    })
}

/// The private key in `pem`.
pub fn private_key(pem: &str) -> Option<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()
}

/// The first certificate in `pem`.
pub(super) fn first_certificate(pem: &[u8]) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem).ok()
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    std::fs::read(path).map_err(unreadable)
}

/// Says so where everybody on the host can read a private key.
fn permissions(key: &Path) -> Option<String> {
    let mode = std::fs::metadata(key).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| {
        let path = key.display();
        format!("everybody on this host can read the private key {path}: chmod 600 {path}")
    })
}
