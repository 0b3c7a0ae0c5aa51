//! The part of a certificate verifier that is the same in each of ours: the signature in the handshake, by the library's algorithms.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// Signatures as the library verifies them; stands within an `impl` of rustls' verifiers of clients or servers.
macro_rules! library_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &rustls_pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = $crate::net::signatures::provider().signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls_pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = $crate::net::signatures::provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            $crate::net::signatures::provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

pub(in crate::net) use library_signatures;

/// The library's cryptography.
pub(in crate::net) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
