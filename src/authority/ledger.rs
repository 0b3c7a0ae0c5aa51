//! What was issued, and what of it was revoked.

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::AuthorityError;
use super::folder::Folder;
use crate::net::certificates::{Subject, Validity};

const ISSUED: &str = "issued.jsonl";
const REVOKED: &str = "revoked.jsonl";

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its serial, hexadecimal.
    pub serial: String,
    /// Whose it is, `outgate://ORG/ROLE/NAME`.
    pub name: String,
    /// A relay's hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Its first second, since 1970.
    pub begin: u64,
    /// Its last.
    pub end: u64,
    /// Which CA issued it, from 1.
    pub generation: u32,
    /// On whose word: a token, a renewal, or offline.
    pub by: String,
    /// When.
    pub at: u64,
}

/// One certificate that holds no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Its serial, hexadecimal.
    pub serial: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Why, in the admin's words.
    pub why: String,
}

/// How a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It holds.
    Valid,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl Entry {
    /// Reads a certificate of the CA.
    pub(super) fn of(certificate: &CertificateDer<'_>, generation: u32, by: &str, now: u64) -> Result<Self, AuthorityError> {
        let subject = Subject::of(certificate)?;
        let validity = Validity::of(certificate).ok_or(AuthorityError::Unreadable)?;
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_other| AuthorityError::Unreadable)?;
        Ok(Self {
            serial: to_hex(parsed.raw_serial()),
            name: subject.name.to_string(),
            hosts: subject.hosts,
            begin: validity.begin,
            end: validity.end,
            generation,
            by: by.to_owned(),
            at: now,
        })
    }

    /// The last part of its name.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    pub(super) fn state(&self, revoked: &[Revocation], now: u64) -> State {
        if revoked.iter().any(|revoked| revoked.serial == self.serial) {
            State::Revoked
        } else if now > self.end {
            State::Expired
        } else {
            State::Valid
        }
    }
}

/// Keeps a certificate in mind.
pub(super) fn issued(folder: &Folder, entry: &Entry) -> Result<(), AuthorityError> {
    folder.append(ISSUED, entry)
}

/// All that was issued.
pub(super) fn all(folder: &Folder) -> Result<Vec<Entry>, AuthorityError> {
    folder.lines(ISSUED)
}

/// Revokes.
pub(super) fn revoke(folder: &Folder, revocation: &Revocation) -> Result<(), AuthorityError> {
    folder.append(REVOKED, revocation)
}

/// All that was revoked.
pub(super) fn revoked(folder: &Folder) -> Result<Vec<Revocation>, AuthorityError> {
    folder.lines(REVOKED)
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}
