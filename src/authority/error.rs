//! Why the issuing CA does not, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::net::certificates::CertificateError;

/// Why the issuing CA does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The folder.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No CA there.
    #[error("{} holds no CA", .0.display())]
    None(PathBuf),
    /// There is one already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// A certificate cannot be made or read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// What was just made cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// Not a name.
    #[error("`{0}` is no name: use 1 to 63 letters, digits, `-`, `_` and `.` only")]
    BadName(String),
    /// A successor waits for its turn.
    #[error("a successor was made already, and issues from {} on", rfc3339(*issues_from))]
    RollUnderWay {
        /// From when.
        issues_from: u64,
    },
    /// No such token was made here.
    #[error("the token is not one of this CA")]
    WrongToken,
    /// Somebody used it.
    #[error("the token was used already, at {}", rfc3339(*at))]
    TokenUsed {
        /// When.
        at: u64,
    },
    /// Too late.
    #[error("the token expired at {}", rfc3339(*at))]
    TokenExpired {
        /// When.
        at: u64,
    },
    /// The certificate shown is not of this CA.
    #[error("the present certificate is not one of this CA")]
    NotOurs,
    /// It has expired.
    #[error("the certificate of {name} is not valid now (it ends at {}): an expired one cannot be renewed", rfc3339(*at))]
    Expired {
        /// Whose.
        name: String,
        /// Its end.
        at: u64,
    },
    /// It was revoked.
    #[error("the certificate of {name} was revoked at {}", rfc3339(*at))]
    Revoked {
        /// Whose.
        name: String,
        /// When.
        at: u64,
    },
    /// A relay's request that the relay did not make.
    #[error("the request is not signed by the relay's present key")]
    BadProof,
    /// A connector asks for itself by its own certificate, not in a relay's way.
    #[error("the certificate in the request is not a relay's")]
    NotARelay,
    /// Nothing of this name or serial.
    #[error("no valid certificate has the name or serial `{0}`")]
    NothingToRevoke(String),
    /// A relay and a connector share the name.
    #[error("`{what}` names more than one: {}", names.join(", "))]
    Ambiguous {
        /// What was given.
        what: String,
        /// Whom it could mean.
        names: Vec<String>,
    },
}

impl AuthorityError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "is it this CA's folder, and may you write it?",
            Self::None(_) => "`outgate ca init DIR --org ORG` makes a CA",
            Self::Exists(_) => "move it away first: nothing is overwritten",
            Self::Certificate(_) | Self::Unreadable | Self::BadName(_) => "correct what was given, and try again",
            Self::RollUnderWay { .. } => "`outgate ca list` shows both; wait until the successor issues",
            Self::WrongToken => "compare it with what `outgate ca token` printed, or make a new one",
            Self::TokenUsed { .. } => {
                "if you used it yourself and the answer was lost, make a new one with `outgate ca token`; if it was not you, revoke what \
                 was issued for it (`outgate ca list`, `outgate ca revoke`)"
            }
            Self::TokenExpired { .. } => "make a new one with `outgate ca token`, with a longer --ttl if need be",
            Self::NotOurs => "enrol with this CA: `outgate ca token`, `outgate connector enroll`",
            Self::Expired { .. } | Self::Revoked { .. } => {
                "a connector enrols anew (`outgate ca token`, `outgate connector enroll`); a relay needs `outgate ca issue`"
            }
            Self::BadProof | Self::NotARelay => "the relay asks again by itself; if this goes on, revoke the connector that forwards it",
            Self::NothingToRevoke(_) => "`outgate ca list` shows names and serials",
            Self::Ambiguous { .. } => "give the whole name, `outgate://ORG/ROLE/NAME`, or a serial",
        }
    }

    /// Whether who asked is at fault, rather than this host.
    pub fn is_of_the_asker(&self) -> bool {
        match self {
            Self::Folder { .. } | Self::None(_) | Self::Exists(_) | Self::Unreadable | Self::RollUnderWay { .. } => false,
            Self::Certificate(error) => {
                matches!(error, CertificateError::BadRequest | CertificateError::Names(_) | CertificateError::Unreadable)
            }
            Self::BadName(_)
            | Self::WrongToken
            | Self::TokenUsed { .. }
            | Self::TokenExpired { .. }
            | Self::NotOurs
            | Self::Expired { .. }
            | Self::Revoked { .. }
            | Self::BadProof
            | Self::NotARelay
            | Self::NothingToRevoke(_)
            | Self::Ambiguous { .. } => true,
        }
    }
}

fn rfc3339(seconds: u64) -> String {
    crate::telemetry::utc(seconds)
}
