//! Keys of links: JWK sets to verify with, a private key to sign with.
//!
//! A key belongs to an issuer. `iss` stands in the part of a token that is read only after its
//! signature holds, so a key is found by `kid` over all issuers, and the claimed issuer must then be
//! one whose set holds that very key. Key ids are taken as the set gives them; those that
//! [`SigningKey`] writes are RFC 7638 thumbprints.

pub mod reload;
mod signing;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use std::{fmt, fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm};
use jsonwebtoken::{DecodingKey, crypto};

use crate::config::Issuer;
use crate::link::token::{self, Algorithm, Header, LinkRefusal, LinkTerms};

pub use self::signing::SigningKey;

/// Keys of one set are few; a set beyond this is a mistake.
const MAX_KEYS_PER_ISSUER: usize = 64;

/// A JWK set or private key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkKeyError {
    /// Not a JWK set.
    #[error("not a JWK set: {0}")]
    NotASet(String),
    /// A private or symmetric key where only public ones belong.
    #[error("key {0} of the set is private or symmetric: a relay holds public keys only")]
    Private(usize),
    /// A key of the set without a name.
    #[error("key {0} of the set has no `kid`")]
    Nameless(usize),
    /// No Ed25519 or P-256 key in it.
    #[error("no Ed25519 or P-256 key in the set")]
    NoneUsable,
    /// Too many keys.
    #[error("more than {MAX_KEYS_PER_ISSUER} keys in the set")]
    TooMany,
    /// Not a private key of a kind that signs links.
    #[error("not an Ed25519 or P-256 private key in PKCS#8 PEM")]
    NotASigningKey,
    /// The cryptographic library refused.
    #[error("the key could not be used")]
    Unusable,
}

/// A file with a JWK set that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkKeyFileError {
    /// Cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its content cannot be used.
    #[error("{}: {source}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: LinkKeyError,
    },
}

/// The keys of issuers' files, read again where a file's content has changed.
#[derive(Debug)]
pub struct LinkKeyFiles {
    issuers: Vec<Issuer>,
    now: RwLock<Read>,
}

/// What the files held when they were read.
#[derive(Clone, Debug)]
struct Read {
    /// Text by text, in the issuers' order.
    texts: Arc<Vec<String>>,
    keys: Arc<LinkKeys>,
}

impl LinkKeyFiles {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn open(issuers: &[Issuer]) -> Result<Self, LinkKeyFileError> {
        let now = RwLock::new(Read::of(issuers)?);
        Ok(Self { issuers: issuers.to_vec(), now })
    }

    /// Reads the files again; tells whether their content has changed. What cannot be used changes nothing.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn reload(&self) -> Result<bool, LinkKeyFileError> {
        let read = Read::of(&self.issuers)?;
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let changed = now.texts != read.texts;
        if changed {
            *now = read;
        }
        Ok(changed)
    }

    /// The keys as last read.
    pub fn keys(&self) -> Arc<LinkKeys> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).keys)
    }

    /// Each issuer with the text of its JWK set as last read.
    pub fn sets(&self) -> Vec<(String, String)> {
        let texts = Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).texts);
        self.issuers.iter().zip(texts.iter()).map(|(issuer, text)| (issuer.iss.clone(), text.clone())).collect()
    }
}

impl Read {
    fn of(issuers: &[Issuer]) -> Result<Self, LinkKeyFileError> {
        let mut keys = LinkKeys::default();
        let mut texts = Vec::new();
        for issuer in issuers {
            texts.push(keys.add_file(issuer)?);
        }
        Ok(Self { texts: Arc::new(texts), keys: Arc::new(keys) })
    }
}

/// Public keys of all issuers.
#[derive(Debug, Default)]
pub struct LinkKeys {
    keys: Vec<PublicKey>,
}

struct PublicKey {
    issuer: String,
    kid: String,
    alg: Algorithm,
    key: DecodingKey,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {} {})", self.issuer, self.alg.as_str(), self.kid)
    }
}

impl LinkKeys {
    /// Adds the keys of `issuer` from its file; answers the file's text.
    ///
    /// # Errors
    /// The file or its content cannot be used; nothing of it was added.
    pub fn add_file(&mut self, issuer: &Issuer) -> Result<String, LinkKeyFileError> {
        let path = || issuer.jwks.clone();
        let json = fs::read_to_string(&issuer.jwks).map_err(|source| LinkKeyFileError::Unreadable { path: path(), source })?;
        self.add_set(&issuer.iss, &json).map_err(|source| LinkKeyFileError::Unusable { path: path(), source })?;
        Ok(json)
    }

    /// Adds the keys of `issuer` from the text of its JWK set (RFC 7517 §5). Keys of kinds that do
    /// not sign links are passed over, if at least one remains.
    ///
    /// # Errors
    /// The set cannot be used; nothing of it was added.
    pub fn add_set(&mut self, issuer: &str, json: &str) -> Result<(), LinkKeyError> {
        let not_a_set = |why: serde_json::Error| LinkKeyError::NotASet(why.to_string());
        let set: RawSet = serde_json::from_str(json).map_err(not_a_set)?;
        if set.keys.len() > MAX_KEYS_PER_ISSUER {
            return Err(LinkKeyError::TooMany);
        }
        let mut added = Vec::new();
        for (index, value) in set.keys.into_iter().enumerate() {
            if value.get("d").is_some() || value.get("k").is_some() {
                return Err(LinkKeyError::Private(index + 1));
            }
            let jwk: Jwk = serde_json::from_value(value).map_err(not_a_set)?;
            let Some(alg) = signing_algorithm(&jwk) else { continue };
            let kid = jwk.common.key_id.clone().filter(|kid| !kid.is_empty());
            let kid = kid.ok_or(LinkKeyError::Nameless(index + 1))?;
            let key = DecodingKey::from_jwk(&jwk).map_err(|_refused| LinkKeyError::Unusable)?;
            added.push(PublicKey { issuer: issuer.to_owned(), kid, alg, key });
        }
        if added.is_empty() {
            return Err(LinkKeyError::NoneUsable);
        }
        self.keys.append(&mut added);
        Ok(())
    }

    /// The terms of the link `token`, if it is well signed and holds at `now` (seconds since 1970)
    /// for `audience`.
    ///
    /// # Errors
    /// Why not. Whether its queue exists is the caller's to judge.
    pub fn verify_link(&self, token: &str, now: u64, audience: &str, leeway: Duration) -> Result<LinkTerms, LinkRefusal> {
        let mut issuers = Vec::new();
        let (header, claims) = token::verified(token, |header, signed, signature| {
            issuers = self.signers(header, signed, signature)?;
            Ok(())
        })?;
        if !issuers.contains(&claims.iss.as_str()) {
            return Err(LinkRefusal::Issuer);
        }
        token::check(header, claims, now, leeway, audience)
    }

    /// Issuer, key id and algorithm of each key.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str, &'static str)> {
        self.keys.iter().map(|key| (key.issuer.as_str(), key.kid.as_str(), key.alg.as_str()))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The issuers whose key of this name made `signature`.
    fn signers(&self, header: &Header, signed: &[u8], signature: &[u8]) -> Result<Vec<&str>, LinkRefusal> {
        let mut named = self.keys.iter().filter(|key| key.kid == header.kid).peekable();
        if named.peek().is_none() {
            return Err(LinkRefusal::UnknownKey);
        }
        let issuers: Vec<&str> =
            named.filter(|key| key.alg == header.alg && key.made(signed, signature)).map(|key| key.issuer.as_str()).collect();
        if issuers.is_empty() { Err(LinkRefusal::BadSignature) } else { Ok(issuers) }
    }
}

impl PublicKey {
    fn made(&self, signed: &[u8], signature: &[u8]) -> bool {
        let signature = URL_SAFE_NO_PAD.encode(signature);
        crypto::verify(&signature, signed, &self.key, library_algorithm(self.alg)).unwrap_or(false)
    }
}

#[derive(serde::Deserialize)]
struct RawSet {
    keys: Vec<serde_json::Value>,
}

/// The algorithm that a public key of this kind signs links with, if any.
fn signing_algorithm(jwk: &Jwk) -> Option<Algorithm> {
    let by_kind = if let AlgorithmParameters::OctetKeyPair(pair) = &jwk.algorithm {
        (pair.curve == EllipticCurve::Ed25519).then_some(Algorithm::EdDsa)
    } else if let AlgorithmParameters::EllipticCurve(point) = &jwk.algorithm {
        (point.curve == EllipticCurve::P256).then_some(Algorithm::Es256)
    } else {
        None
    };
    // `alg` is optional in a set (RFC 7517 §4.4); where it stands it must agree.
    by_kind.filter(|alg| {
        jwk.common.key_algorithm.is_none_or(|named| match alg {
            Algorithm::EdDsa => named == KeyAlgorithm::EdDSA,
            Algorithm::Es256 => named == KeyAlgorithm::ES256,
        })
    })
}

fn library_algorithm(alg: Algorithm) -> jsonwebtoken::Algorithm {
    match alg {
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
    }
}

#[cfg(test)]
mod tests;
