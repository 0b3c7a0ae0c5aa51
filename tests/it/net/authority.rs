//! A CA that lives as long as its test, and the certificates it issues.

use std::sync::Arc;

use outgate::net::quic::{self, Credentials};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::SupportedProtocolVersion;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A CA of its own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("a tunnel CA")
    }

    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// Credentials of the relay `relay.test`.
    pub(crate) fn relay(&self) -> Credentials {
        self.issue(vec!["relay.test".into()], "outgate://test/relay/r1", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Credentials of a connector.
    pub(crate) fn connector(&self) -> Credentials {
        self.issue(vec![], "outgate://test/connector/c1", ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A person's client that trusts this CA.
    pub(crate) fn web_client(&self, version: &'static SupportedProtocolVersion, alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
        Arc::new(config)
    }

    /// A connector's TLS, for who speaks it by hand.
    pub(crate) fn tunnel_client(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate()).unwrap();
        let Credentials { chain, key, .. } = self.connector();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let mut config = config.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
        config.alpn_protocols = vec![quic::ALPN.to_vec()];
        Arc::new(config)
    }

    /// What a box that opens TLS shows for `name`: no tunnel certificate, and it asks for none.
    pub(crate) fn web_server(&self, name: &str) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = vec![quic::ALPN.to_vec()];
        Arc::new(config)
    }

    fn issue(&self, names: Vec<String>, identity: &str, usage: ExtendedKeyUsagePurpose) -> Credentials {
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.push(SanType::URI(identity.try_into().unwrap()));
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Credentials { chain: vec![certificate], key, authorities: vec![self.certificate()] }
    }
}
