//! What is said between the issuing CA and those who enrol and renew: JSON bodies over HTTPS.
//!
//! | request | who | body → answer |
//! |---|---|---|
//! | `POST /v1/enroll` | anybody with a token | [`Enroll`] → [`Granted`] |
//! | `POST /v1/renew` | a connector, by its present certificate | [`Renew`] → [`Granted`] |
//! | `POST /v1/renew-relay` | a connector, for a relay that signs | [`RenewRelay`] → [`Granted`] |
//! | `GET /v1/trust` | anybody | [`TrustStore`] |
//!
//! Certificates, requests and lists are PEM. Whatever fails is a [`Refusal`] with a status of 400 or more.

use serde::{Deserialize, Serialize};

/// Largest body of a request or an answer that is not [`TrustStore`].
pub const MAX_BODY: usize = 16 * 1024;

/// Largest [`TrustStore`].
pub const MAX_TRUST: usize = 2 << 20;

/// A new connector shows its token. `Debug` does not.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enroll {
    /// What `outgate ca token` printed.
    pub token: String,
    /// The request for the connector's own key.
    pub csr: String,
}

impl std::fmt::Debug for Enroll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enroll").field("token", &"MASKED").finish_non_exhaustive()
    }
}

/// Who has a certificate asks for the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// The request for the new key.
    pub csr: String,
}

/// A relay asks through a connector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRelay {
    /// The request for the relay's new key.
    pub csr: String,
    /// The relay's present certificate.
    pub certificate: String,
    /// By the present certificate's key over [`signed_text`](super::tunnel::certificate::signed_text) of the request; hexadecimal.
    pub signature: String,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// For whom.
    pub name: String,
    /// The certificate, and what chains it to its CA.
    pub certificate: String,
    /// The CAs to trust.
    pub authorities: String,
}

/// Whom to trust, and whom no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustStore {
    /// The CAs to trust.
    pub authorities: String,
    /// Each new CA's key, certified by the one before it.
    pub links: String,
    /// Revocation lists, one for each CA.
    pub revocations: String,
}

/// Why not, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A sentence.
    pub error: String,
    /// Another.
    pub remedy: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let enroll = Enroll { token: "secret".into(), csr: String::new() };
        assert!(!format!("{enroll:?}").contains("secret"));
    }
}
