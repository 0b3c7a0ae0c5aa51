//! The CA and its successors.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::AuthorityError;
use super::folder::Folder;
use crate::net::certificates::{Issued, TunnelCa, certificate_to_pem};

const FILE: &str = "generations.jsonl";

/// One CA.
#[derive(Debug)]
pub(super) struct Generation {
    /// From 1.
    pub(super) number: u32,
    pub(super) ca: TunnelCa,
    pub(super) certificate: CertificateDer<'static>,
    /// Its key, certified by the one before it.
    pub(super) link: Option<CertificateDer<'static>>,
    /// When it begins to issue, in seconds since 1970.
    pub(super) issues_from: u64,
}

impl Generation {
    /// Whether it issued `certificate`.
    pub(super) fn issued(&self, certificate: &CertificateDer<'_>) -> bool {
        let (Ok((_, own)), Ok((_, other))) = (X509Certificate::from_der(&self.certificate), X509Certificate::from_der(certificate)) else {
            return false;
        };
        own.subject().as_raw() == other.issuer().as_raw() && other.verify_signature(Some(own.public_key())).is_ok()
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    generation: u32,
    made: u64,
    issues_from: u64,
}

/// All CAs of the folder, in their order; at least one.
pub(super) fn load(folder: &Folder) -> Result<Vec<Generation>, AuthorityError> {
    let mut generations = vec![read(folder, 1, 0)?];
    for line in folder.lines::<Line>(FILE)? {
        generations.push(read(folder, line.generation, line.issues_from)?);
    }
    Ok(generations)
}

/// Makes the CA that follows `newest`.
pub(super) fn succeed(folder: &Folder, newest: &Generation, issues_from: u64, now: u64) -> Result<u64, AuthorityError> {
    let (issued, link) = newest.ca.successor(now)?;
    let number = newest.number + 1;
    keep(folder, number, &issued)?;
    folder.write(&format!("ca-{number}-link.pem"), &certificate_to_pem(&CertificateDer::from(link)))?;
    // Only this line makes it one of the CAs.
    folder.append(FILE, &Line { generation: number, made: now, issues_from })?;
    Ok(issues_from)
}

/// Writes a CA's files.
pub(super) fn keep(folder: &Folder, number: u32, issued: &Issued) -> Result<(), AuthorityError> {
    folder.write_key(&key_file(number), &issued.key)?;
    folder.write(&certificate_file(number), &issued.certificate)
}

/// The first certificate in `pem`.
pub(super) fn first(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

fn read(folder: &Folder, number: u32, issues_from: u64) -> Result<Generation, AuthorityError> {
    let certificate = folder.read(&certificate_file(number))?.ok_or_else(|| folder.none())?;
    let key = Zeroizing::new(folder.read(&key_file(number))?.ok_or_else(|| folder.none())?);
    let link = if number == 1 { None } else { folder.read(&format!("ca-{number}-link.pem"))? };
    Ok(Generation {
        number,
        ca: TunnelCa::from_pem(&certificate, &key)?,
        certificate: first(&certificate).ok_or(AuthorityError::Unreadable)?,
        link: link.and_then(|link| first(&link)),
        issues_from,
    })
}

fn certificate_file(number: u32) -> String {
    if number == 1 { "ca.pem".to_owned() } else { format!("ca-{number}.pem") }
}

fn key_file(number: u32) -> String {
    if number == 1 { "ca-key.pem".to_owned() } else { format!("ca-{number}-key.pem") }
}
