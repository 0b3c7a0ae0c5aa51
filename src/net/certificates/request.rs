//! Requests for certificates: a key made here and a CSR for it, and the proof by the present key that a relay's request carries.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData as _,
    SigningKey as _,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::CertificateError;

/// Largest CSR that is read.
const MAX_CSR: usize = 4096;

/// A request whose own signature holds: whoever made it has the key.
#[derive(Debug)]
pub struct Csr(CertificateSigningRequestParams);

impl Csr {
    /// Reads a request, DER.
    ///
    /// # Errors
    /// It is none, not signed by its own key, or the key is not of the kind that the tunnel uses.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CSR {
            return Err(CertificateError::BadRequest);
        }
        let read = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der));
        let request = read.map_err(|_other| CertificateError::BadRequest)?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(CertificateError::BadRequest);
        }
        Ok(Self(request))
    }

    pub(super) fn public_key(&self) -> &PublicKey {
        &self.0.public_key
    }

    /// The key that it is for, as it stands in a certificate.
    pub fn key_bytes(&self) -> &[u8] {
        self.0.public_key.der_bytes()
    }
}

/// A new key and a request for its certificate.
pub struct NewKey {
    /// PKCS#8 PEM.
    pub key: Zeroizing<String>,
    /// PKCS#10 DER.
    pub csr: Vec<u8>,
    public: Vec<u8>,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewKey {{ key: MASKED, csr: {} bytes }}", self.csr.len())
    }
}

impl NewKey {
    /// Makes a key. The request names nobody: the CA knows whom it certifies.
    ///
    /// # Errors
    /// The library refused.
    pub fn make() -> Result<Self, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { csr, public: key.der_bytes().to_vec(), key: Zeroizing::new(key.serialize_pem()) })
    }

    /// Whether `certificate` is for this key.
    pub fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        X509Certificate::from_der(certificate)
            .is_ok_and(|(_, parsed)| parsed.public_key().subject_public_key.data == self.public.as_slice())
    }
}

/// A request in PEM.
pub fn csr_to_pem(csr: &[u8]) -> String {
    super::pem("CERTIFICATE REQUEST", csr)
}

/// The request in `pem`.
///
/// # Errors
/// There is none.
pub fn csr_from_pem(pem: &str) -> Result<Vec<u8>, CertificateError> {
    let read = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes());
    Ok(read.map_err(|_other| CertificateError::BadRequest)?.to_vec())
}

/// Signs `text` with the present key.
///
/// # Errors
/// The key is not of the kind that the tunnel's CA certifies.
pub fn sign_with(key: &PrivateKeyDer<'_>, text: &[u8]) -> Result<Vec<u8>, CertificateError> {
    let key = KeyPair::try_from(key)?;
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(CertificateError::BadRequest);
    }
    Ok(key.sign(text)?)
}

/// Whether the key of `certificate` signed `text`.
pub fn is_signed_by(certificate: &CertificateDer<'_>, text: &[u8], signature: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
        let key = &parsed.public_key().subject_public_key.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.as_ref()).verify(text, signature).is_ok()
    })
}
