//! The private key of an issuer: mints links, and publishes its public half.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, ThumbprintHash};
use jsonwebtoken::{EncodingKey, crypto};
use zeroize::Zeroizing;

use crate::link::token::{self, Algorithm, Claims, Header};

use super::{LinkKeyError, library_algorithm};

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
        Self::generate_for(Algorithm::EdDsa)
    }

    /// A new key of the kind that `alg` wants, with its PEM.
    ///
    /// # Errors
    /// No randomness.
    pub fn generate_for(alg: Algorithm) -> Result<(Self, Zeroizing<String>), LinkKeyError> {
        // Version 1 (RFC 5208) is what OpenSSL and other JWT libraries read.
        let pem = match alg {
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::generate().map_err(|_unspecified| LinkKeyError::Unusable)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_unspecified| LinkKeyError::Unusable)?;
                pem_of("PRIVATE KEY", der.as_ref())
            }
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_unspecified| LinkKeyError::Unusable)?;
                let der = pair.to_pkcs8v1().map_err(|_unspecified| LinkKeyError::Unusable)?;
                pem_of("PRIVATE KEY", der.as_ref())
            }
        };
        let pem = Zeroizing::new(pem);
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
        let signature = self.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{signature}"))
    }

    /// The signature of `signed`, encoded.
    pub(super) fn sign(&self, signed: &[u8]) -> Result<String, LinkKeyError> {
        crypto::sign(signed, &self.key, library_algorithm(self.alg)).map_err(|_refused| LinkKeyError::Unusable)
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

/// PEM (RFC 7468) with lines of 64 characters.
pub(super) fn pem_of(label: &str, der: &[u8]) -> String {
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
