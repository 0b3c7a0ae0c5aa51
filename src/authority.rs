//! The issuing CA of the tunnel: a folder on a LAN host, and the service that issues from it.
//!
//! ```text
//! folder    ca.pem ca-key.pem       the first CA; ca-2.pem … its successors
//!           generations.jsonl       since when each successor issues
//!           issued.jsonl            every certificate
//!           tokens.jsonl            hashes of tokens, and which were used
//!           revoked.jsonl           what was revoked; their count is the revocation lists' number
//! ```
//! Files of JSON lines are only appended to, one line for each act, written to disk before it is answered. One lock serves the verbs
//! and the service, which may run at once. All times come in as arguments. [`service`] is the way in from the LAN.

mod error;
mod folder;
mod generation;
mod ledger;
pub mod service;
mod token;
mod wrong_tokens;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::config::tunnel_name::{Role, TunnelName, is_name};
use crate::net::certificates::{
    Csr, Issued, LEEWAY, Revoked, Subject, TunnelCa, certificate_to_pem, fingerprint, identity_of, is_signed_by, lists_to_pem,
};
use crate::proto::enrolment::{Granted, TrustStore};
use crate::proto::tunnel::certificate::signed_text;

pub use self::error::AuthorityError;
use self::folder::Folder;
use self::generation::Generation;
pub use self::ledger::{Entry, Revocation, State};
pub use self::token::Made;

/// How long a successor is only trusted before it issues: the life of a certificate, so that by then everybody has heard of it.
pub const SETTLE: Duration = Duration::from_secs(30 * 86_400);

/// The issuing CA.
#[derive(Debug)]
pub struct Authority {
    folder: Folder,
    life: Option<Duration>,
}

/// What a revocation found.
#[derive(Debug)]
pub struct RevokedEntries {
    /// The certificates that were revoked now.
    pub entries: Vec<Entry>,
    /// The number of the lists from now on.
    pub number: u64,
}

impl Authority {
    /// Makes a CA for `org` in `dir`.
    ///
    /// # Errors
    /// There is one, the folder cannot be written, or `org` is no name.
    pub fn init(dir: &Path, org: &str, now: u64) -> Result<Self, AuthorityError> {
        let (_ca, issued) = TunnelCa::create(org, now)?;
        let folder = Folder::make(dir)?;
        generation::keep(&folder, 1, &issued)?;
        Ok(Self { folder, life: None })
    }

    /// Opens the CA in `dir`.
    ///
    /// # Errors
    /// There is none.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let folder = Folder::open(dir)?;
        generation::load(&folder)?;
        Ok(Self { folder, life: None })
    }

    /// Gives certificates another life than their profile's.
    #[must_use]
    pub fn with_life(self, life: Option<Duration>) -> Self {
        Self { life, ..self }
    }

    /// Makes a successor, trusted from now on, that issues after `settle`. The present CA goes on until then, and is trusted until
    /// nothing that it issued is valid. Answers from when it issues.
    ///
    /// # Errors
    /// One is under way, or the folder cannot be written.
    pub fn roll(&self, settle: Duration, now: u64) -> Result<u64, AuthorityError> {
        let _lock = self.folder.lock()?;
        let generations = generation::load(&self.folder)?;
        if let Some(coming) = generations.iter().find(|generation| generation.issues_from > now) {
            return Err(AuthorityError::RollUnderWay { issues_from: coming.issues_from });
        }
        let newest = generations.last().ok_or_else(|| self.folder.none())?;
        generation::succeed(&self.folder, newest, now + settle.as_secs(), now)
    }

    /// Makes a token for the connector `name`.
    ///
    /// # Errors
    /// `name` is none, or the folder cannot be written.
    pub fn token(&self, name: &str, ttl: Duration, now: u64) -> Result<(Zeroizing<String>, Made), AuthorityError> {
        if !is_name(name) {
            return Err(AuthorityError::BadName(name.to_owned()));
        }
        let _lock = self.folder.lock()?;
        token::make(&self.folder, name, now + ttl.as_secs(), now)
    }

    /// Issues a certificate with a key made here, for the first of a relay.
    ///
    /// # Errors
    /// A name cannot stand in a certificate, or the folder cannot be written.
    pub fn issue(&self, role: Role, name: &str, hosts: &[String], now: u64) -> Result<(TunnelName, Issued), AuthorityError> {
        let _lock = self.folder.lock()?;
        let issuer = self.issuer(now)?;
        let (name, issued) = issuer.ca.issue_for(role, name, hosts, self.life, now)?;
        let certificate = generation::first(&issued.certificate).ok_or(AuthorityError::Unreadable)?;
        ledger::issued(&self.folder, &Entry::of(&certificate, issuer.number, "offline", now)?)?;
        Ok((name, issued))
    }

    /// Gives the holder of a token its certificate, once.
    ///
    /// # Errors
    /// The token is wrong, used or too old; the request is none; the folder cannot be written.
    pub fn enroll(&self, token: &str, csr: &[u8], now: u64) -> Result<Granted, AuthorityError> {
        let csr = Csr::read(csr)?;
        let _lock = self.folder.lock()?;
        let found = token::find(&self.folder, token, now)?;
        let issuer = self.issuer(now)?;
        let name = TunnelName { org: issuer.ca.org().to_owned(), role: Role::Connector, name: found.name.clone() };
        let subject = Subject { name, hosts: Vec::new() };
        let certificate = issuer.ca.certify(&subject, &csr, self.life, now)?;
        // Used up before it leaves: an answer that is lost costs a token, a token used twice would be a stranger's certificate.
        token::used(&self.folder, &found.id, now)?;
        ledger::issued(&self.folder, &Entry::of(&certificate, issuer.number, &format!("token {}", found.id), now)?)?;
        self.granted(&subject.name, &certificate, now)
    }

    /// Gives the holder of a valid certificate its next one, for the same name and hosts.
    ///
    /// # Errors
    /// It is not valid any more, or not ours; the folder cannot be written.
    pub fn renew(&self, present: &CertificateDer<'_>, csr: &[u8], now: u64) -> Result<Granted, AuthorityError> {
        self.renew_as(present, csr, "renewal", now)
    }

    /// Gives a relay its next certificate, which the connector `through` asked for. The relay's present key must have signed.
    ///
    /// # Errors
    /// As [`Self::renew`], or the signature is not the relay's.
    pub fn renew_relay(
        &self,
        through: &str,
        present: &CertificateDer<'_>,
        csr: &[u8],
        signature: &[u8],
        now: u64,
    ) -> Result<Granted, AuthorityError> {
        if !is_signed_by(present, &signed_text(csr), signature) {
            return Err(AuthorityError::BadProof);
        }
        if Subject::of(present)?.name.role != Role::Relay {
            return Err(AuthorityError::NotARelay);
        }
        self.renew_as(present, csr, &format!("renewal through {through}"), now)
    }

    /// Revokes certificates by serial, or all valid ones of a name.
    ///
    /// # Errors
    /// None is found, or the folder cannot be written.
    pub fn revoke(&self, what: &str, why: &str, now: u64) -> Result<RevokedEntries, AuthorityError> {
        let _lock = self.folder.lock()?;
        let revoked = ledger::revoked(&self.folder)?;
        let stands = |entry: &Entry| entry.end >= now && !revoked.iter().any(|revoked| revoked.serial == entry.serial);
        let named = |entry: &Entry| entry.serial.eq_ignore_ascii_case(what) || entry.name == what || entry.short_name() == what;
        let entries: Vec<Entry> = ledger::all(&self.folder)?.into_iter().filter(|entry| named(entry) && stands(entry)).collect();
        let kinds: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        if kinds.len() > 1 {
            return Err(AuthorityError::Ambiguous { what: what.to_owned(), names: kinds.into_iter().map(str::to_owned).collect() });
        }
        if entries.is_empty() {
            return Err(AuthorityError::NothingToRevoke(what.to_owned()));
        }
        for entry in &entries {
            ledger::revoke(&self.folder, &Revocation { serial: entry.serial.clone(), at: now, why: why.to_owned() })?;
        }
        let number = ledger::revoked(&self.folder)?.len() as u64;
        let lists = self.lists(now)?;
        self.folder.write("revoked.pem", &lists_to_pem(lists.iter().map(Vec::as_slice)))?;
        Ok(RevokedEntries { entries, number })
    }

    /// Every certificate that was issued, oldest first, and how it stands.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self, now: u64) -> Result<Vec<(Entry, State)>, AuthorityError> {
        let revoked = ledger::revoked(&self.folder)?;
        let all = ledger::all(&self.folder)?.into_iter();
        Ok(all
            .map(|entry| {
                let state = entry.state(&revoked, now);
                (entry, state)
            })
            .collect())
    }

    /// Tokens that may still be used.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open_tokens(&self, now: u64) -> Result<Vec<Made>, AuthorityError> {
        token::open(&self.folder, now)
    }

    /// Whom to trust at `now`, and whom no longer.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn trust(&self, now: u64) -> Result<TrustStore, AuthorityError> {
        let generations = self.trusted(now)?;
        let links = generations.iter().filter_map(|generation| generation.link.as_ref());
        let lists = self.lists(now)?;
        Ok(TrustStore {
            authorities: self.bundle(now)?,
            links: links.map(|link| certificate_to_pem(link)).collect(),
            revocations: lists_to_pem(lists.iter().map(Vec::as_slice)),
        })
    }

    /// The CAs to trust at `now`, as PEM, the one that issues first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn bundle(&self, now: u64) -> Result<String, AuthorityError> {
        let mut generations = self.trusted(now)?;
        generations.sort_by_key(|generation| (generation.issues_from > now, std::cmp::Reverse(generation.number)));
        Ok(generations.iter().map(|generation| certificate_to_pem(&generation.certificate)).collect())
    }

    /// The SHA-256 fingerprint of the CA that issues at `now`.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn fingerprint(&self, now: u64) -> Result<String, AuthorityError> {
        Ok(fingerprint(&self.issuer(now)?.certificate))
    }

    /// A certificate and key for the service, its CA's certificate behind it.
    ///
    /// # Errors
    /// The folder cannot be read, or the library refused.
    pub fn service_certificate(&self, now: u64) -> Result<Issued, AuthorityError> {
        let issuer = self.issuer(now)?;
        let issued = issuer.ca.certify_service(now)?;
        Ok(Issued { certificate: format!("{}{}", issued.certificate, certificate_to_pem(&issuer.certificate)), key: issued.key })
    }

    /// Changes with every change of the folder that concerns [`Self::trust`].
    pub fn mark(&self) -> Vec<u64> {
        self.folder.sizes(&["generations.jsonl", "revoked.jsonl"])
    }

    fn renew_as(&self, present: &CertificateDer<'_>, csr: &[u8], how: &str, now: u64) -> Result<Granted, AuthorityError> {
        let csr = Csr::read(csr)?;
        let subject = Subject::of(present)?;
        let _lock = self.folder.lock()?;
        self.check_present(present, now)?;
        let issuer = self.issuer(now)?;
        let certificate = issuer.ca.certify(&subject, &csr, self.life, now)?;
        ledger::issued(&self.folder, &Entry::of(&certificate, issuer.number, how, now)?)?;
        self.granted(&subject.name, &certificate, now)
    }

    /// Whether `present` is one of ours that holds.
    fn check_present(&self, present: &CertificateDer<'_>, now: u64) -> Result<(), AuthorityError> {
        let issuer = self.trusted(now)?.into_iter().find(|generation| generation.issued(present)).ok_or(AuthorityError::NotOurs)?;
        let entry = Entry::of(present, issuer.number, "", now)?;
        let leeway = LEEWAY.as_secs();
        if now > entry.end + leeway || now + leeway < entry.begin {
            return Err(AuthorityError::Expired { name: identity_of(present)?.0, at: entry.end });
        }
        match ledger::revoked(&self.folder)?.into_iter().find(|revoked| revoked.serial == entry.serial) {
            Some(revoked) => Err(AuthorityError::Revoked { name: entry.name, at: revoked.at }),
            None => Ok(()),
        }
    }

    fn granted(&self, name: &TunnelName, certificate: &CertificateDer<'_>, now: u64) -> Result<Granted, AuthorityError> {
        Ok(Granted { name: name.to_string(), certificate: certificate_to_pem(certificate), authorities: self.bundle(now)? })
    }

    /// The CA that issues at `now`.
    fn issuer(&self, now: u64) -> Result<Generation, AuthorityError> {
        let generations = generation::load(&self.folder)?;
        generations.into_iter().rfind(|generation| generation.issues_from <= now).ok_or_else(|| self.folder.none())
    }

    /// The CAs that are trusted at `now`: the last two at most in practice.
    fn trusted(&self, now: u64) -> Result<Vec<Generation>, AuthorityError> {
        let generations = generation::load(&self.folder)?;
        let newest = generations.iter().filter(|generation| generation.issues_from <= now).map(|generation| generation.number).max();
        let valid: BTreeSet<u32> =
            ledger::all(&self.folder)?.iter().filter(|entry| entry.end + LEEWAY.as_secs() >= now).map(|entry| entry.generation).collect();
        let stands = |generation: &Generation| Some(generation.number) >= newest || valid.contains(&generation.number);
        Ok(generations.into_iter().filter(stands).collect())
    }

    /// The revocation lists, one for each trusted CA, under one number.
    fn lists(&self, now: u64) -> Result<Vec<Vec<u8>>, AuthorityError> {
        let revoked = ledger::revoked(&self.folder)?;
        let all = ledger::all(&self.folder)?;
        let number = revoked.len() as u64;
        let when: HashMap<&str, u64> = revoked.iter().rev().map(|revoked| (revoked.serial.as_str(), revoked.at)).collect();
        let mut lists = Vec::new();
        for generation in self.trusted(now)? {
            // An expired certificate needs no revocation: the lists stay short.
            let of_it = all.iter().filter(|entry| entry.generation == generation.number && entry.end + LEEWAY.as_secs() >= now);
            let on_it =
                of_it.filter_map(|entry| Some(Revoked { serial: ledger::from_hex(&entry.serial)?, at: *when.get(entry.serial.as_str())? }));
            lists.push(generation.ca.revocation_list(&on_it.collect::<Vec<_>>(), number, now)?);
        }
        Ok(lists)
    }
}

#[cfg(test)]
mod tests;
