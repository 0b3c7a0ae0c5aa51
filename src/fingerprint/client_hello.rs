//! A TLS ClientHello as far as it tells one TLS library from another (RFC 8446 §4.1.2).

/// What a client offers in its first TLS message, in its own order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The version in the message itself, which TLS 1.3 freezes at 0x0303.
    pub legacy_version: u16,
    /// Cipher suites.
    pub cipher_suites: Vec<u16>,
    /// Types of the extensions.
    pub extensions: Vec<u16>,
    /// Versions of the `supported_versions` extension; `None` without it.
    pub supported_versions: Option<Vec<u16>>,
    /// Signature schemes of the `signature_algorithms` extension.
    pub signature_schemes: Vec<u16>,
    /// The first protocol of the ALPN extension; empty without it.
    pub alpn: Vec<u8>,
}

impl ClientHello {
    /// Whether an extension of this type is there.
    pub fn has(&self, extension: u16) -> bool {
        self.extensions.contains(&extension)
    }
}

/// The extension types that have a meaning here.
pub mod extension {
    /// Server name (RFC 6066).
    pub const SERVER_NAME: u16 = 0x0000;
    /// Signature algorithms (RFC 8446).
    pub const SIGNATURE_ALGORITHMS: u16 = 0x000d;
    /// Application-layer protocol negotiation (RFC 7301).
    pub const ALPN: u16 = 0x0010;
    /// Padding (RFC 7685).
    pub const PADDING: u16 = 0x0015;
    /// Session ticket (RFC 5077).
    pub const SESSION_TICKET: u16 = 0x0023;
    /// Pre-shared key (RFC 8446).
    pub const PRE_SHARED_KEY: u16 = 0x0029;
    /// Supported versions (RFC 8446).
    pub const SUPPORTED_VERSIONS: u16 = 0x002b;
}
