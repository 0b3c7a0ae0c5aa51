//! What is known of a client's software, and how it is known.

/// Largest software name, version or system that is kept, in bytes.
pub const MAX_SOFTWARE_BYTES: usize = 256;

pub mod client_hello;
mod denial;
pub mod ja4;

pub use denial::Denial;
pub use ja4::{Fingerprint, Ja4};

/// A client's software as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSoftware {
    /// Its name, "Profanity"; empty where unknown.
    pub name: String,
    /// Its version, "0.13.1"; empty where unknown.
    pub version: String,
    /// The operating system it names; empty where unknown.
    pub system: String,
    /// Where the knowledge comes from.
    pub source: SoftwareSource,
    /// How far it can be relied on.
    pub confidence: Confidence,
}

impl ClientSoftware {
    /// Software of which nothing is known.
    pub fn unknown() -> Self {
        Self {
            name: String::new(),
            version: String::new(),
            system: String::new(),
            source: SoftwareSource::None,
            confidence: Confidence::Unknown,
        }
    }
}

impl std::fmt::Display for ClientSoftware {
    /// Writes "Profanity 0.13.1", or "unknown software".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.is_empty() {
            return f.write_str("unknown software");
        }
        f.write_str(&self.name)?;
        if !self.version.is_empty() {
            write!(f, " {}", self.version)?;
        }
        Ok(())
    }
}

/// Where knowledge of a client's software comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftwareSource {
    /// Nowhere: nothing is known.
    None,
    /// The client answered when asked (XEP-0092).
    Asked,
    /// The client announced its capabilities (XEP-0115, XEP-0030).
    Caps,
}

impl SoftwareSource {
    /// The word used in records and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Asked => "asked",
            Self::Caps => "caps",
        }
    }
}

/// How far knowledge of a client's software can be relied on. All of it is the client's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// The client said so in words.
    Stated,
    /// Derived from something the client did.
    Inferred,
    /// Not known.
    Unknown,
}

impl Confidence {
    /// The word used in records and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stated => "stated",
            Self::Inferred => "inferred",
            Self::Unknown => "unknown",
        }
    }
}
