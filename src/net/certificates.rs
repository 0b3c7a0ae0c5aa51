//! Certificates: the tunnel CA, names in certificates, PEM files.
//!
//! [`TunnelCa`] makes the CA and what it issues; [`identity_of`] reads who a tunnel certificate
//! belongs to; [`load`] and [`load_authorities`] read files and say what is wrong with them. Chains
//! are verified by rustls, not here.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::config::profile::{ExtendedKeyUsage, KeyUsage, Profile};
use crate::config::tunnel_name::{Role, TunnelName, is_name};
use crate::proto::tunnel::Identity;

mod files;
mod live;
pub mod reload;
mod request;
mod revocation;
mod signing;
mod validity;
mod words;
mod write;

pub use files::{FileError, Loaded, load, load_authorities, own_and_authorities, private_key};
pub(in crate::net) use live::with_leeway;
pub use live::{LEEWAY, Live, LiveError, OptionalClients};
pub use request::{Csr, NewKey, csr_from_pem, csr_to_pem, is_signed_by, sign_with};
pub use revocation::{RevocationError, Revocations, Taken, lists_in, lists_to_pem};
pub use signing::{Revoked, SERVICE_HOST, SERVICE_LIFE, Subject, is_vouched_for};
pub use validity::{Validity, WARN_BELOW};
pub use words::{alert_in_words, in_words};
pub use write::{Readers, finish_pair, replace_pair, write_atomically};

const CA_PROFILE: &str = include_str!("../../certs/ca.toml");
const RELAY_PROFILE: &str = include_str!("../../certs/relay.toml");
const CONNECTOR_PROFILE: &str = include_str!("../../certs/connector.toml");

/// A certificate that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The organisation's name cannot stand in a tunnel name.
    #[error("`{0}` is no name: use 1 to 63 letters, digits, `-`, `_` and `.` only")]
    BadName(String),
    /// A host name or address that cannot stand in a certificate.
    #[error("`{0}` is no DNS name or IP address")]
    BadHost(String),
    /// The CA's files are not a CA made by `outgate ca init`.
    #[error("not a tunnel CA made by `outgate ca init`: {0}")]
    NotACa(&'static str),
    /// Not an X.509 certificate.
    #[error("not an X.509 certificate")]
    Unreadable,
    /// No tunnel name, or more than one.
    #[error("the certificate carries {0} names `outgate://ORG/ROLE/NAME`, expected one")]
    Names(usize),
    /// Not a request for a certificate that the tunnel's CA takes.
    #[error("not a request (PKCS#10) for a P-256 key, signed by that key")]
    BadRequest,
    /// The library refused.
    #[error("the certificate could not be made: {0}")]
    Library(#[from] rcgen::Error),
}

/// A certificate and its key, as PEM.
pub struct Issued {
    /// The certificate, and what chains it to its root.
    pub certificate: String,
    /// The private key (PKCS#8).
    pub key: Zeroizing<String>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The CA of a tunnel.
pub struct TunnelCa {
    org: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for TunnelCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelCa").field("org", &self.org).finish_non_exhaustive()
    }
}

impl TunnelCa {
    /// Makes the CA of `org` at `now` (seconds since 1970), with its certificate and key.
    ///
    /// # Errors
    /// `org` is no name, or the library refused.
    pub fn create(org: &str, now: u64) -> Result<(Self, Issued), CertificateError> {
        if !is_name(org) {
            return Err(CertificateError::BadName(org.to_owned()));
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = ca_params(&profile(CA_PROFILE), org, &key, now);
        let issued = Issued { certificate: params.self_signed(&key)?.pem(), key: Zeroizing::new(key.serialize_pem()) };
        Ok((Self { org: org.to_owned(), issuer: Issuer::new(params, key) }, issued))
    }

    /// Reads the CA's certificate and key.
    ///
    /// # Errors
    /// They are not those of a tunnel CA, or do not belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::from_pem(key).map_err(|_other| CertificateError::NotACa("its key is not a private key in PEM"))?;
        let der = files::first_certificate(certificate.as_bytes()).ok_or(CertificateError::NotACa("its certificate is not one in PEM"))?;
        let (_rest, parsed) = X509Certificate::from_der(&der).map_err(|_other| CertificateError::Unreadable)?;
        if !parsed.is_ca() {
            return Err(CertificateError::NotACa("its certificate is not a CA's"));
        }
        let public = &parsed.public_key().subject_public_key.data;
        if public.as_ref() != rcgen::PublicKeyData::der_bytes(&key) {
            return Err(CertificateError::NotACa("key and certificate do not belong together"));
        }
        let org = organisation(&parsed).filter(|org| is_name(org));
        let org = org.ok_or(CertificateError::NotACa("its certificate names no organisation"))?;
        Ok(Self { org, issuer: Issuer::from_ca_cert_der(&der, key)? })
    }

    /// Issues the certificate of a relay or connector at `now`. A relay's is good for `hosts`, DNS
    /// names or addresses that connectors dial.
    ///
    /// # Errors
    /// A name cannot stand in a certificate, or the library refused.
    pub fn issue(&self, role: Role, name: &str, hosts: &[String], now: u64) -> Result<(TunnelName, Issued), CertificateError> {
        self.issue_for(role, name, hosts, None, now)
    }

    /// [`Self::issue`] with a life of its own.
    ///
    /// # Errors
    /// As there.
    pub fn issue_for(
        &self,
        role: Role,
        name: &str,
        hosts: &[String],
        life: Option<Duration>,
        now: u64,
    ) -> Result<(TunnelName, Issued), CertificateError> {
        if !is_name(name) {
            return Err(CertificateError::BadName(name.to_owned()));
        }
        let subject = Subject { name: TunnelName { org: self.org.clone(), role, name: name.to_owned() }, hosts: hosts.to_vec() };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = self.certificate_for(&subject, &key, life, now)?;
        Ok((subject.name, Issued { certificate: certificate_to_pem(&certificate), key: Zeroizing::new(key.serialize_pem()) }))
    }

    /// The organisation.
    pub fn org(&self) -> &str {
        &self.org
    }
}

/// A listener's certificate for `domain` with a CA of its own, for the demo and tests: clients trust
/// it by the CA's PEM, the first of the two answers.
///
/// # Errors
/// `domain` cannot stand in a certificate, or the library refused.
pub fn self_signed(domain: &str, now: u64) -> Result<(String, Issued), CertificateError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let ca = ca_params(&Profile { lifetime: LISTENER_LIFETIME, ..profile(CA_PROFILE) }, domain, &key, now);
    let ca_pem = ca.self_signed(&key)?.pem();
    let params = leaf_params(&profile(RELAY_PROFILE), domain, &[domain.to_owned()], now)?;
    Ok((ca_pem, issue(&params, &Issuer::new(ca, key))?))
}

const LISTENER_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// The identity in a tunnel certificate: its one SAN URI of the form `outgate://ORG/ROLE/NAME`.
/// Call it only with a certificate whose chain was verified.
///
/// # Errors
/// There is none, or more than one.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, CertificateError> {
    let (_rest, parsed) = X509Certificate::from_der(certificate).map_err(|_other| CertificateError::Unreadable)?;
    let san = parsed.subject_alternative_name().map_err(|_twice| CertificateError::Unreadable)?;
    let names: Vec<TunnelName> = san
        .iter()
        .flat_map(|san| &san.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { uri.parse().ok() } else { None })
        .collect();
    match names.as_slice() {
        [one] => Ok(Identity(one.to_string())),
        none_or_many => Err(CertificateError::Names(none_or_many.len())),
    }
}

fn issue(params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<Issued, CertificateError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, issuer)?.pem();
    Ok(Issued { certificate, key: Zeroizing::new(key.serialize_pem()) })
}

fn ca_params(profile: &Profile, org: &str, key: &KeyPair, now: u64) -> CertificateParams {
    let mut params = params(profile, org, now);
    // A name of its own: lists of two CAs are told apart by it.
    let digest = digest(&SHA256, rcgen::PublicKeyData::der_bytes(key));
    let mark: String = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("{} {mark}", profile.common_name));
    // No intermediate below it: it signs what relays and connectors show, nothing else.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
}

fn leaf_params(profile: &Profile, org: &str, hosts: &[String], now: u64) -> Result<CertificateParams, CertificateError> {
    let mut params = params(profile, org, now);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    for host in hosts {
        params.subject_alt_names.push(san(host)?);
    }
    Ok(params)
}

fn san(host: &str) -> Result<SanType, CertificateError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || CertificateError::BadHost(host.to_owned());
    if rustls_pki_types::DnsName::try_from(host).is_err() {
        return Err(bad());
    }
    Ok(SanType::DnsName(host.try_into().map_err(|_not_ascii| bad())?))
}

fn params(profile: &Profile, org: &str, now: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(signing::serial());
    let begin = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.saturating_sub(profile.backdate.as_secs()));
    params.not_before = begin;
    params.not_after = begin + profile.lifetime;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, org);
    params.distinguished_name.push(DnType::CommonName, profile.common_name.as_str());
    params.key_usages = profile.key_usage.iter().map(key_usage).collect();
    params.extended_key_usages = profile.extended_key_usage.iter().map(extended_key_usage).collect();
    params
}

fn key_usage(usage: &KeyUsage) -> KeyUsagePurpose {
    match usage {
        KeyUsage::DigitalSignature => KeyUsagePurpose::DigitalSignature,
        KeyUsage::KeyCertSign => KeyUsagePurpose::KeyCertSign,
        KeyUsage::CrlSign => KeyUsagePurpose::CrlSign,
    }
}

fn extended_key_usage(usage: &ExtendedKeyUsage) -> ExtendedKeyUsagePurpose {
    match usage {
        ExtendedKeyUsage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
    }
}

#[expect(clippy::expect_used, reason = "the profiles are part of the program and a test parses them")]
fn profile(text: &str) -> Profile {
    Profile::parse(Path::new("certs"), text).expect("an embedded profile has no fault")
}

fn organisation(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut organisations = certificate.subject().iter_organization();
    Some(organisations.next()?.as_str().ok()?.to_owned())
}

/// A certificate as PEM.
pub fn certificate_to_pem(certificate: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", certificate)
}

/// The SHA-256 fingerprint of a certificate, as `openssl x509 -fingerprint -sha256` prints it but for the colons.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    digest(&SHA256, certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One PEM block (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut block = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        block.push_str(&String::from_utf8_lossy(line));
        block.push('\n');
    }
    block + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests;
