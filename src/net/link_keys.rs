//! Keys of links: JWK sets to verify with, a private key to sign with.
//!
//! A key belongs to an issuer. `iss` stands in the part of a token that is read only after its
//! signature holds, so a key is found by `kid` over all issuers, and the claimed issuer must then be
//! one whose set holds that very key. Key ids are taken as the set gives them; those that
//! [`SigningKey`] writes are RFC 7638 thumbprints.

pub mod reload;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use std::{fmt, fs, io};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, ThumbprintHash};
use jsonwebtoken::{DecodingKey, EncodingKey, crypto};
use zeroize::Zeroizing;

use crate::config::Issuer;
use crate::link::token::{self, Algorithm, Claims, Header, LinkRefusal, LinkTerms};

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

/// A private key that signs links.
pub struct SigningKey {
    key: EncodingKey,
    alg: Algorithm,
    public: Jwk,
    kid: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} {}, MASKED)", self.alg.as_str(), self.kid)
    }
}

impl SigningKey {
    /// A new Ed25519 key, with its PKCS#8 PEM to be kept in a file of mode 0600.
    ///
    /// # Errors
    /// No randomness.
    pub fn generate() -> Result<(Self, Zeroizing<String>), LinkKeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_unspecified| LinkKeyError::Unusable)?;
        // Version 1 (RFC 5208) is what OpenSSL and other JWT libraries read.
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_unspecified| LinkKeyError::Unusable)?;
        let pem = Zeroizing::new(pem_of("PRIVATE KEY", der.as_ref()));
        Ok((Self::from_pkcs8_pem(&pem)?, pem))
    }

    /// Reads an Ed25519 or P-256 private key in PKCS#8 PEM.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, LinkKeyError> {
        if let Ok(key) = EncodingKey::from_ed_pem(pem.as_bytes()) {
            return Self::ed25519(key);
        }
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|_other| LinkKeyError::NotASigningKey)?;
        let public = Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::ES256).map_err(|_other_curve| LinkKeyError::NotASigningKey)?;
        Self::new(key, Algorithm::Es256, public)
    }

    /// Signs `claims` and answers the token.
    ///
    /// # Errors
    /// The library refused.
    pub fn mint(&self, claims: &Claims) -> Result<String, LinkKeyError> {
        let header = Header { alg: self.alg, kid: self.kid.clone() };
        let signed = token::signing_input(&header, claims).map_err(|_not_json| LinkKeyError::Unusable)?;
        let signature =
            crypto::sign(signed.as_bytes(), &self.key, library_algorithm(self.alg)).map_err(|_refused| LinkKeyError::Unusable)?;
        Ok(format!("{signed}.{signature}"))
    }

    /// The key's id, its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The JWK set to publish: the public half alone.
    pub fn public_set(&self) -> serde_json::Value {
        serde_json::json!({ "keys": [self.public] })
    }

    fn ed25519(key: EncodingKey) -> Result<Self, LinkKeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(key.as_bytes()).map_err(|_rejected| LinkKeyError::NotASigningKey)?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let public = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        let public = serde_json::from_value(public).map_err(|_shape| LinkKeyError::Unusable)?;
        Self::new(key, Algorithm::EdDsa, public)
    }

    fn new(key: EncodingKey, alg: Algorithm, mut public: Jwk) -> Result<Self, LinkKeyError> {
        let kid = public.thumbprint(ThumbprintHash::SHA256).map_err(|_no_thumbprint| LinkKeyError::Unusable)?;
        public.common.key_id = Some(kid.clone());
        public.common.key_algorithm = Some(match alg {
            Algorithm::EdDsa => KeyAlgorithm::EdDSA,
            Algorithm::Es256 => KeyAlgorithm::ES256,
        });
        public.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        Ok(Self { key, alg, public, kid })
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

/// PEM (RFC 7468) with lines of 64 characters.
fn pem_of(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::token::Terms;

    const NOW: u64 = 1_800_000_000;
    const ISSUER: &str = "https://example.com";

    #[test]
    fn a_minted_link_is_verified_with_the_published_set() {
        for key in [SigningKey::generate().unwrap().0, p256()] {
            let keys = keys_of(ISSUER, &key);
            let token = key.mint(&claims(ISSUER)).unwrap();
            let terms = verify(&keys, &token).unwrap();
            assert_eq!((terms.queue.as_str(), terms.kid.as_str()), ("support", key.kid()));
        }
    }

    #[test]
    fn a_changed_payload_or_signature_is_refused() {
        let (key, _) = SigningKey::generate().unwrap();
        let keys = keys_of(ISSUER, &key);
        let token = key.mint(&claims(ISSUER)).unwrap();
        let other = key.mint(&Claims { jti: "other".into(), ..claims(ISSUER) }).unwrap();
        let (head, _) = token.rsplit_once('.').unwrap();
        let (_, foreign) = other.rsplit_once('.').unwrap();
        assert_eq!(verify(&keys, &format!("{head}.{foreign}")), Err(LinkRefusal::BadSignature));
        assert_eq!(verify(&keys, &format!("{head}.")), Err(LinkRefusal::BadSignature));
    }

    #[test]
    fn a_key_nobody_knows_is_refused() {
        let keys = keys_of(ISSUER, &SigningKey::generate().unwrap().0);
        let token = SigningKey::generate().unwrap().0.mint(&claims(ISSUER)).unwrap();
        assert_eq!(verify(&keys, &token), Err(LinkRefusal::UnknownKey));
    }

    #[test]
    fn an_issuer_cannot_sign_for_another() {
        let (mine, _) = SigningKey::generate().unwrap();
        let (theirs, _) = SigningKey::generate().unwrap();
        let mut keys = keys_of(ISSUER, &mine);
        keys.add_set("https://other.example", &theirs.public_set().to_string()).unwrap();
        let forged = theirs.mint(&claims(ISSUER)).unwrap();
        assert_eq!(verify(&keys, &forged), Err(LinkRefusal::Issuer));
        assert!(verify(&keys, &theirs.mint(&claims("https://other.example")).unwrap()).is_ok());
    }

    #[test]
    fn one_key_name_in_two_sets_does_not_mix_issuers() {
        let (mine, _) = SigningKey::generate().unwrap();
        let (theirs, _) = SigningKey::generate().unwrap();
        let same_name = theirs.public_set().to_string().replace(theirs.kid(), mine.kid());
        let mut keys = LinkKeys::default();
        keys.add_set("https://other.example", &same_name).unwrap();
        keys.add_set(ISSUER, &mine.public_set().to_string()).unwrap();
        assert!(verify(&keys, &mine.mint(&claims(ISSUER)).unwrap()).is_ok());
        let forged = mine.mint(&claims("https://other.example")).unwrap();
        assert_eq!(verify(&keys, &forged), Err(LinkRefusal::Issuer));
    }

    #[test]
    fn secrets_in_a_set_are_refused() {
        let mut keys = LinkKeys::default();
        for set in [
            r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a","alg":"HS256"}]}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA","kid":"a"}]}"#,
        ] {
            assert!(matches!(keys.add_set(ISSUER, set), Err(LinkKeyError::Private(1))));
        }
        assert!(matches!(keys.add_set(ISSUER, r#"{"keys":[]}"#), Err(LinkKeyError::NoneUsable)));
        assert!(matches!(keys.add_set(ISSUER, "[]"), Err(LinkKeyError::NotASet(_))));
        assert!(keys.is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = Issuer { iss: ISSUER.into(), jwks: folder.path().join("set.json") };
        let mut keys = LinkKeys::default();
        let missing = keys.add_file(&issuer).unwrap_err().to_string();
        assert!(missing.contains("set.json") && missing.starts_with("cannot read"), "{missing}");
        fs::write(&issuer.jwks, "{}").unwrap();
        let wrong = keys.add_file(&issuer).unwrap_err().to_string();
        assert!(wrong.contains("set.json: not a JWK set"), "{wrong}");
        let set = SigningKey::generate().unwrap().0.public_set().to_string();
        fs::write(&issuer.jwks, set).unwrap();
        keys.add_file(&issuer).unwrap();
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn a_rotated_key_is_read_by_content_and_a_broken_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = Issuer { iss: ISSUER.into(), jwks: folder.path().join("set.json") };
        let (old, new) = (SigningKey::generate().unwrap().0, SigningKey::generate().unwrap().0);
        fs::write(&issuer.jwks, old.public_set().to_string()).unwrap();
        let files = LinkKeyFiles::open(std::slice::from_ref(&issuer)).unwrap();
        assert!(!files.reload().unwrap());
        fs::write(&issuer.jwks, "{\"keys\":").unwrap();
        assert!(files.reload().is_err());
        assert!(verify(&files.keys(), &old.mint(&claims(ISSUER)).unwrap()).is_ok());
        fs::write(&issuer.jwks, new.public_set().to_string()).unwrap();
        assert!(files.reload().unwrap());
        assert!(verify(&files.keys(), &new.mint(&claims(ISSUER)).unwrap()).is_ok());
        assert_eq!(verify(&files.keys(), &old.mint(&claims(ISSUER)).unwrap()), Err(LinkRefusal::UnknownKey));
        assert_eq!(files.sets(), vec![(ISSUER.to_owned(), new.public_set().to_string())]);
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        let pem = pem_of("PRIVATE KEY", &rfc8037_key());
        let key = SigningKey::from_pkcs8_pem(&pem).unwrap();
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert!(!key.public_set().to_string().contains("\"d\""));
        assert!(!format!("{key:?}").contains("nWGxne"));
    }

    #[test]
    fn what_is_no_signing_key_is_refused() {
        for pem in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(matches!(SigningKey::from_pkcs8_pem(pem), Err(LinkKeyError::NotASigningKey)));
        }
    }

    fn verify(keys: &LinkKeys, token: &str) -> Result<LinkTerms, LinkRefusal> {
        keys.verify_link(token, NOW, "chat.example.com", Duration::ZERO)
    }

    #[test]
    fn a_set_without_alg_is_taken_and_one_with_another_alg_is_not() {
        let (key, _) = SigningKey::generate().unwrap();
        let set = key.public_set().to_string();
        let mut keys = LinkKeys::default();
        keys.add_set(ISSUER, &set.replace(r#""alg":"EdDSA","#, "")).unwrap();
        assert!(verify(&keys, &key.mint(&claims(ISSUER)).unwrap()).is_ok());
        let other = set.replace("EdDSA", "RS256");
        assert_ne!(other, set);
        assert!(matches!(keys.add_set(ISSUER, &other), Err(LinkKeyError::NoneUsable)));
    }

    fn keys_of(issuer: &str, key: &SigningKey) -> LinkKeys {
        let mut keys = LinkKeys::default();
        keys.add_set(issuer, &key.public_set().to_string()).unwrap();
        keys
    }

    fn claims(issuer: &str) -> Claims {
        Claims {
            iss: issuer.into(),
            aud: vec!["chat.example.com".into()],
            exp: NOW + 100,
            nbf: None,
            jti: "j1".into(),
            sub: None,
            outgate: Terms { queue: "support".into(), ..Terms::default() },
        }
    }

    fn p256() -> SigningKey {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        SigningKey::from_pkcs8_pem(&pair.serialize_pem()).unwrap()
    }

    /// The private key of RFC 8037, appendix A.1, in PKCS#8 version 1.
    fn rfc8037_key() -> Vec<u8> {
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let header = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        [&header[..], &seed].concat()
    }
}
