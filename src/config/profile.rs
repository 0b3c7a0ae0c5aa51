//! Certificate profiles (`certs/*.toml`): what `outgate ca` puts into a certificate.

use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::Fault;
use super::reader::{Document, Table};
use super::value::{FromValue, Wrong};

/// What a certificate is for and how long it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Common name of the subject; the organisation stands beside it.
    pub common_name: String,
    /// From its beginning to its end.
    pub lifetime: Duration,
    /// How far before its making it begins.
    pub backdate: Duration,
    /// What its key may do.
    pub key_usage: Vec<KeyUsage>,
    /// In which part of TLS it may be shown; empty for a CA.
    pub extended_key_usage: Vec<ExtendedKeyUsage>,
}

/// Key usages in use (RFC 5280 §4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUsage {
    /// Signs handshakes.
    DigitalSignature,
    /// Signs certificates.
    KeyCertSign,
    /// Signs revocation lists.
    CrlSign,
}

/// Extended key usages in use (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtendedKeyUsage {
    /// TLS server.
    ServerAuth,
    /// TLS client.
    ClientAuth,
}

impl Profile {
    /// Reads `text`, the content of `file`.
    ///
    /// # Errors
    /// All faults of the text, in its order.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<Fault>> {
        Document::new(file, text).read(Self::read)
    }

    fn read(root: &Table<'_>) -> Option<Self> {
        let common_name = root.required("common_name", "\"Outgate relay\"");
        let lifetime = root.required("lifetime", "\"30d\"");
        let backdate = root.or("backdate", Duration::ZERO, "\"5m\"");
        let key_usage = root.list("key_usage", "\"digital_signature\"");
        let extended_key_usage = root.list("extended_key_usage", "\"server_auth\"");
        root.finish();
        Some(Self {
            common_name: common_name?,
            lifetime: lifetime?,
            backdate,
            key_usage: key_usage.unwrap_or_default(),
            extended_key_usage: extended_key_usage.unwrap_or_default(),
        })
    }
}

impl FromValue for KeyUsage {
    const EXPECTED: &'static str = "\"digital_signature\", \"key_cert_sign\" or \"crl_sign\"";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        match value.as_str().ok_or(Wrong::Kind)? {
            "digital_signature" => Ok(Self::DigitalSignature),
            "key_cert_sign" => Ok(Self::KeyCertSign),
            "crl_sign" => Ok(Self::CrlSign),
            other => Err(Wrong::Value(format!("\"{other}\" is no key usage"))),
        }
    }
}

impl FromValue for ExtendedKeyUsage {
    const EXPECTED: &'static str = "\"server_auth\" or \"client_auth\"";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        match value.as_str().ok_or(Wrong::Kind)? {
            "server_auth" => Ok(Self::ServerAuth),
            "client_auth" => Ok(Self::ClientAuth),
            other => Err(Wrong::Value(format!("\"{other}\" is no extended key usage"))),
        }
    }
}
