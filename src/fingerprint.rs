//! What is known of a client's software, and how it is known.

/// Largest software name, version or system that is kept, in bytes.
pub const MAX_SOFTWARE_BYTES: usize = 256;

pub mod catalogue;
pub mod client_hello;
mod denial;
mod features;
pub mod ja4;
mod learned_caps;
pub mod version;

pub use catalogue::Catalogue;
pub use denial::Denial;
pub use features::Features;
pub use ja4::{Fingerprint, Ja4};
pub use learned_caps::{Knowledge, LearnedCaps};

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
    /// How it says hello in TLS.
    pub ja4: Option<Ja4>,
    /// The TLS library that says hello so; empty where unknown.
    pub library: String,
    /// Whether something that it did is not what this software does.
    pub is_contradicted: bool,
    /// What it lacks of what a conversation can carry, as far as is known.
    pub lacks: Features,
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
            ja4: None,
            library: String::new(),
            is_contradicted: false,
            lacks: Features::NONE,
        }
    }
}

impl std::fmt::Display for ClientSoftware {
    /// Writes "Profanity 0.13.1", or "unknown software", and what is to be known of it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.name.is_empty() { "unknown software" } else { &self.name })?;
        if !self.version.is_empty() {
            write!(f, " {}", self.version)?;
        }
        if !self.lacks.is_empty() {
            write!(f, " (lacks {})", self.lacks)?;
        }
        match (self.is_contradicted, self.library.as_str()) {
            (false, _) => Ok(()),
            (true, "") => f.write_str(" (doubtful)"),
            (true, library) => write!(f, " (doubtful: its TLS is that of {library})"),
        }
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
    /// The way in which it said hello in TLS.
    Ja4,
}

impl SoftwareSource {
    /// The word used in records and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Asked => "asked",
            Self::Caps => "caps",
            Self::Ja4 => "ja4",
        }
    }
}

/// How far knowledge of a client's software can be relied on. None of it is proof.
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
