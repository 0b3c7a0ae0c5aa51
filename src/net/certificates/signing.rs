//! What the tunnel CA signs besides certificates with a key of its own making: the keys of others, revocation lists, its successor.

use std::time::Duration;

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, RevocationReason, RevokedCertParams,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::{CA_PROFILE, CONNECTOR_PROFILE, CertificateError, Csr, Issued, RELAY_PROFILE, TunnelCa, ca_params, leaf_params, profile};
use crate::config::tunnel_name::{Role, TunnelName, is_name};
use crate::net::entropy;

/// The name under which the issuing CA's service is verified, wherever it runs. No relay gets a certificate for it.
pub const SERVICE_HOST: &str = "ca.outgate.internal";

/// Life of the service's own certificate: it makes a new one whenever it starts, and again in good time.
pub const SERVICE_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// How long a revocation list says that it is good. What it revokes stays revoked after that.
const LIST_LIFE: Duration = Duration::from_secs(3650 * 86_400);

/// Whom a certificate is for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The tunnel name.
    pub name: TunnelName,
    /// DNS names and addresses; a relay's only.
    pub hosts: Vec<String>,
}

impl Subject {
    /// Reads the subject of a tunnel certificate.
    ///
    /// # Errors
    /// It is no tunnel certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let identity = super::identity_of(certificate)?;
        let name = identity.0.parse().map_err(|_other| CertificateError::Names(0))?;
        let (_rest, parsed) = X509Certificate::from_der(certificate).map_err(|_other| CertificateError::Unreadable)?;
        let san = parsed.subject_alternative_name().map_err(|_twice| CertificateError::Unreadable)?;
        let hosts = san.iter().flat_map(|san| &san.value.general_names).filter_map(host);
        Ok(Self { name, hosts: hosts.collect() })
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some((*name).to_owned());
    }
    let GeneralName::IPAddress(bytes) = name else { return None };
    let address = match bytes.len() {
        4 => std::net::IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?),
        _ => std::net::IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
    };
    Some(address.to_string())
}

/// One entry of a revocation list.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// The certificate's serial.
    pub serial: Vec<u8>,
    /// When it was revoked, in seconds since 1970.
    pub at: u64,
}

impl TunnelCa {
    /// Certifies the key of a request for `subject`, for `life` from `now` (the profile's where there is none). Nothing but the
    /// key is taken from the request.
    ///
    /// # Errors
    /// A name cannot stand in a certificate, or the library refused.
    pub fn certify(
        &self,
        subject: &Subject,
        csr: &Csr,
        life: Option<Duration>,
        now: u64,
    ) -> Result<CertificateDer<'static>, CertificateError> {
        self.certificate_for(subject, csr.public_key(), life, now)
    }

    pub(super) fn certificate_for(
        &self,
        subject: &Subject,
        key: &impl PublicKeyData,
        life: Option<Duration>,
        now: u64,
    ) -> Result<CertificateDer<'static>, CertificateError> {
        let name = &subject.name;
        if name.org != self.org() || !is_name(&name.name) {
            return Err(CertificateError::BadName(name.to_string()));
        }
        if let Some(reserved) = subject.hosts.iter().find(|host| host.trim_end_matches('.').eq_ignore_ascii_case(SERVICE_HOST)) {
            return Err(CertificateError::BadHost(reserved.clone()));
        }
        let mut profile = match name.role {
            Role::Relay => profile(RELAY_PROFILE),
            Role::Connector => profile(CONNECTOR_PROFILE),
        };
        profile.lifetime = life.map_or(profile.lifetime, |life| life + profile.backdate);
        let mut params = leaf_params(&profile, self.org(), &subject.hosts, now)?;
        let uri = name.to_string();
        let uri = uri.as_str().try_into().map_err(|_not_ascii| CertificateError::BadName(uri.clone()))?;
        params.subject_alt_names.push(SanType::URI(uri));
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }

    /// A certificate and key for the issuing CA's service.
    ///
    /// # Errors
    /// The library refused.
    pub fn certify_service(&self, now: u64) -> Result<Issued, CertificateError> {
        let mut profile = profile(RELAY_PROFILE);
        profile.lifetime = SERVICE_LIFE;
        let params = leaf_params(&profile, self.org(), &[SERVICE_HOST.to_owned()], now)?;
        super::issue(&params, &self.issuer)
    }

    /// Signs the list of what is revoked. A higher `number` replaces a lower one.
    ///
    /// # Errors
    /// The library refused.
    pub fn revocation_list(&self, revoked: &[Revoked], number: u64, now: u64) -> Result<Vec<u8>, CertificateError> {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let entry = |revoked: &Revoked| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&revoked.serial),
            revocation_time: epoch + Duration::from_secs(revoked.at),
            reason_code: Some(RevocationReason::Unspecified),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: epoch + Duration::from_secs(now),
            next_update: epoch + Duration::from_secs(now) + LIST_LIFE,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.der().to_vec())
    }

    /// Makes the CA that follows this one, with its certificate and key, and this one's word for its key: who trusts this one may
    /// trust that one too (RFC 4210 §4.4, "new with old").
    ///
    /// # Errors
    /// The library refused.
    pub fn successor(&self, now: u64) -> Result<(Issued, Vec<u8>), CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = ca_params(&profile(CA_PROFILE), self.org(), &key, now);
        let vouched = params.signed_by(&key, &self.issuer)?.der().to_vec();
        let certificate = params.self_signed(&key)?.pem();
        Ok((Issued { certificate, key: Zeroizing::new(key.serialize_pem()) }, vouched))
    }
}

/// Whether one of `links` shows that a CA of `trusted` vouches for the CA `newcomer` at `now`.
pub fn is_vouched_for(newcomer: &CertificateDer<'_>, links: &[impl AsRef<[u8]>], trusted: &[CertificateDer<'_>], now: u64) -> bool {
    let Ok((_, new)) = X509Certificate::from_der(newcomer) else { return false };
    let Some(now) = i64::try_from(now).ok().and_then(|now| x509_parser::time::ASN1Time::from_timestamp(now).ok()) else { return false };
    let own = new.is_ca() && new.verify_signature(None).is_ok() && new.validity().is_valid_at(now);
    own && links.iter().filter_map(|link| X509Certificate::from_der(link.as_ref()).ok()).any(|(_, link)| {
        let same = link.is_ca() && link.subject().as_raw() == new.subject().as_raw() && link.public_key().raw == new.public_key().raw;
        same && trusted.iter().filter_map(|old| X509Certificate::from_der(old).ok()).any(|(_, old)| {
            old.is_ca()
                && old.validity().is_valid_at(now)
                && old.subject().as_raw() == link.issuer().as_raw()
                && link.verify_signature(Some(old.public_key())).is_ok()
        })
    })
}

/// A serial of 127 random bits.
pub(super) fn serial() -> SerialNumber {
    let mut bytes = entropy::sixteen();
    // Positive, and always as long.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}
