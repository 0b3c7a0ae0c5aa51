//! Who issued a relay's certificate that is not the tunnel CA's: on the way out of a company there may stand a box that opens TLS
//! and shows a certificate of its own.

use std::fmt;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::net::certificates::identity_of;

/// Longest issuer's name that is repeated, in characters: the name is the stranger's choice.
const MAX_ISSUER: usize = 80;

/// The certificate shown is not from the tunnel CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignCertificate {
    /// It is no tunnel certificate at all: somebody on the way opens TLS.
    Inspected {
        /// Who issued it, as it says itself.
        issuer: String,
    },
    /// It is a tunnel certificate of another CA.
    OtherTunnel {
        /// Who issued it, as it says itself.
        issuer: String,
    },
}

impl fmt::Display for ForeignCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inspected { issuer } => {
                write!(f, "the certificate was issued by {issuer}, not by the tunnel CA: something on the way inspects TLS")
            }
            Self::OtherTunnel { issuer } => {
                write!(
                    f,
                    "the certificate was issued by {issuer}, not by the tunnel CA in tunnel_tls.ca: the relay belongs to another tunnel"
                )
            }
        }
    }
}

impl std::error::Error for ForeignCertificate {}

/// Says who issued a certificate that was refused for its unknown issuer.
pub(super) fn name_issuer(fault: rustls::Error, certificate: &CertificateDer<'_>) -> rustls::Error {
    if !matches!(fault, rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) {
        return fault;
    }
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(foreign(certificate)))))
}

/// What a failed handshake says of the certificate, where that was the fault.
pub(super) fn foreign_in(fault: &rustls::Error) -> Option<&ForeignCertificate> {
    if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = fault { other.downcast_ref() } else { None }
}

fn foreign(certificate: &CertificateDer<'_>) -> ForeignCertificate {
    let issuer = X509Certificate::from_der(certificate).map(|(_rest, parsed)| parsed.issuer().to_string());
    let issuer = issuer.map_or_else(|_| "nobody that can be read".to_owned(), |name| plain(&name));
    if identity_of(certificate).is_ok() { ForeignCertificate::OtherTunnel { issuer } } else { ForeignCertificate::Inspected { issuer } }
}

/// The name without what could deceive a reader of logs.
fn plain(name: &str) -> String {
    let shown: String = name.chars().filter(|c| c.is_alphanumeric() || " .,=-_@/&'()+".contains(*c)).take(MAX_ISSUER).collect();
    format!("`{shown}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuers_name_cannot_forge_a_log_line() {
        let name = plain(&format!("CN=Proxy\nlevel=ERROR\u{202e}`{}", "x".repeat(500)));
        assert!(name.starts_with("`CN=Proxylevel=ERRORxx") && name.chars().count() == MAX_ISSUER + 2, "{name}");
    }
}
