//! What is wrong with a certificate, in words, with a remedy.

use rustls::CertificateError as Fault;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::net::issuer_named::foreign_in;

use super::validity::{Validity, ago, span};

/// What `error` says of `certificate`, seen at `now`. Holds no word of the peer's choice.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls may add others")]
pub fn in_words(error: &rustls::Error, certificate: &CertificateDer<'_>, now: UnixTime) -> String {
    let rustls::Error::InvalidCertificate(fault) = error else { return "the certificate could not be verified".to_owned() };
    if let Some(foreign) = foreign_in(error) {
        return foreign.to_string();
    }
    let validity = Validity::of(certificate);
    match fault {
        Fault::Expired | Fault::ExpiredContext { .. } => {
            let since = validity.map_or_else(String::new, |validity| format!(" {}", ago(now.as_secs().saturating_sub(validity.end))));
            format!("it has expired{since}: renew it (`outgate connector enroll`, `outgate ca issue`), or set the clock that is wrong")
        }
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            let until = validity.map_or_else(String::new, |validity| format!(" for {}", span(validity.begin.saturating_sub(now.as_secs()))));
            format!("it is not valid yet{until}: one of the two clocks is wrong")
        }
        Fault::Revoked => "it was revoked (`outgate ca list` tells when); its owner needs a new one".to_owned(),
        Fault::UnknownIssuer | Fault::BadSignature => {
            "it is not from a CA that is trusted here: is `tunnel_tls.ca` that of `outgate ca init`, and does no proxy inspect TLS on the way?"
                .to_owned()
        }
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
            "it is for other hosts than the one that was dialled: issue it with `--dns HOST`, or set the relay's `server_name`".to_owned()
        }
        Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. } => "it is for the other role: relay and connector have different ones".to_owned(),
        other => format!("it cannot be verified ({other:?})").chars().take(200).collect(),
    }
}

/// What the TLS alert `code` (RFC 8446 §6) says of a certificate; `None` for alerts about other things.
pub fn alert_in_words(code: u8) -> Option<&'static str> {
    match code {
        42 | 43 | 46 => Some("a certificate was refused: is it one of the tunnel's CA, and for this role?"),
        44 => Some("a certificate was revoked: enrol again (`outgate ca token`, `outgate connector enroll`)"),
        45 => Some("a certificate has expired, or a clock is wrong by more than ten minutes: enrol again, or issue a new one"),
        48 => Some("a certificate is from a CA that the other side does not trust: compare `tunnel_tls.ca` of both"),
        116 => Some("a certificate was asked for and none was shown"),
        _ => None,
    }
}
