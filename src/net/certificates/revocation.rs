//! Revocation lists of the tunnel CA: X.509 CRLs (RFC 5280 §5) with a number that only rises.

use std::collections::HashSet;
use std::fmt;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use crate::proto::tunnel::certificate::MAX_LIST_BYTES;

/// A list whose signature was verified.
#[derive(Clone)]
pub struct Revocations {
    der: CertificateRevocationListDer<'static>,
    issuer: Vec<u8>,
    number: u128,
    serials: HashSet<Vec<u8>>,
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocations {{ number: {}, entries: {} }}", self.number, self.serials.len())
    }
}

/// Why a list is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// No CRL, or larger than any of ours.
    #[error("not a revocation list (CRL) that can be read")]
    Unreadable,
    /// Without a number nobody could tell an old list from a new one.
    #[error("the revocation list has no number")]
    NoNumber,
    /// Signed by nobody whom we trust.
    #[error("the revocation list is not signed by a CA of the tunnel")]
    Foreign,
    /// A list with a higher number was seen.
    #[error("the revocation list has number {given}, and number {held} is known: lists only rise")]
    Older {
        /// Its number.
        given: u128,
        /// The number of the list that is held.
        held: u128,
    },
}

/// What became of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in force now.
    New,
    /// It was already.
    Known,
}

impl Revocations {
    /// Reads a list and verifies that one of `authorities` signed it.
    ///
    /// # Errors
    /// It is none, has no number, or is signed by somebody else.
    pub fn read(der: &[u8], authorities: &[CertificateDer<'_>]) -> Result<Self, RevocationError> {
        if der.len() > MAX_LIST_BYTES {
            return Err(RevocationError::Unreadable);
        }
        let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_other| RevocationError::Unreadable)?;
        if !rest.is_empty() {
            return Err(RevocationError::Unreadable);
        }
        let signed = authorities.iter().filter_map(|authority| X509Certificate::from_der(authority).ok()).any(|(_, authority)| {
            authority.subject().as_raw() == list.issuer().as_raw() && list.verify_signature(authority.public_key()).is_ok()
        });
        if !signed {
            return Err(RevocationError::Foreign);
        }
        let number = list.crl_number().and_then(|number| u128::try_from(number).ok()).ok_or(RevocationError::NoNumber)?;
        Ok(Self {
            der: CertificateRevocationListDer::from(der.to_vec()),
            issuer: list.issuer().as_raw().to_vec(),
            number,
            serials: list.iter_revoked_certificates().map(|entry| significant(entry.raw_serial()).to_vec()).collect(),
        })
    }

    /// Puts this list among `held`, of which each CA has at most one; refuses a lower number.
    pub(super) fn join(self, held: &mut Vec<Self>) -> Result<Taken, RevocationError> {
        let Some(other) = held.iter_mut().find(|other| other.issuer == self.issuer) else {
            held.push(self);
            return Ok(Taken::New);
        };
        match self.number.cmp(&other.number) {
            std::cmp::Ordering::Less => Err(RevocationError::Older { given: self.number, held: other.number }),
            std::cmp::Ordering::Equal => Ok(Taken::Known),
            std::cmp::Ordering::Greater => {
                *other = self;
                Ok(Taken::New)
            }
        }
    }

    /// Whether `certificate` stands on this list.
    pub fn revokes(&self, certificate: &CertificateDer<'_>) -> bool {
        X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| {
            certificate.issuer().as_raw() == self.issuer && self.serials.contains(significant(certificate.raw_serial()))
        })
    }

    /// Its number.
    pub fn number(&self) -> u128 {
        self.number
    }

    /// The list as it was signed.
    pub fn der(&self) -> &CertificateRevocationListDer<'static> {
        &self.der
    }
}

/// All lists in `pem`.
///
/// # Errors
/// A block is cut or damaged.
pub fn lists_in(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, RevocationError> {
    CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_damaged| RevocationError::Unreadable)
}

/// Lists as PEM, one block each.
pub fn lists_to_pem<'a>(lists: impl IntoIterator<Item = &'a [u8]>) -> String {
    lists.into_iter().map(|list| super::pem("X509 CRL", list)).collect()
}

/// A serial without leading zero bytes: encoders differ in them.
fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros.min(serial.len())..]
}
