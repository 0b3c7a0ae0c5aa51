//! Values between the domain's types and SQLite's: integers are signed there, and words stand for variants.

use crate::fingerprint::{Confidence, SoftwareSource};
use crate::im::Availability;
use crate::session::CloseReason;
use crate::store::StoreError;

/// A number as SQLite keeps it. What does not fit 63 bits is cut off there: no count or time of ours comes near.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number that [`integer`] wrote.
pub(super) fn natural(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The reason for a word.
pub(super) fn reason(word: &str) -> Result<CloseReason, StoreError> {
    let all = [
        CloseReason::CustomerLeft,
        CloseReason::CustomerLost,
        CloseReason::AgentDone,
        CloseReason::Shutdown,
        CloseReason::DetachExpired,
        CloseReason::StoreRegressed,
        CloseReason::Fault,
    ];
    all.into_iter().find(|reason| reason.as_str() == word).ok_or(StoreError::Damaged { what: "reason of an end" })
}

const SHOWN: [(Availability, &str); 5] = [
    (Availability::Available, "available"),
    (Availability::Chat, "chat"),
    (Availability::Away, "away"),
    (Availability::ExtendedAway, "xa"),
    (Availability::DoNotDisturb, "dnd"),
];

/// The word for what a client shows; none where it is not there.
pub(super) fn shown(presence: Option<Availability>) -> &'static str {
    SHOWN.iter().find(|(shown, _)| Some(*shown) == presence).map_or("", |(_, word)| word)
}

/// What a client shows, for a word.
pub(super) fn presence(word: &str) -> Option<Availability> {
    SHOWN.iter().find(|(_, known)| *known == word).map(|(shown, _)| *shown)
}

/// The source for a word.
pub(super) fn source(word: &str) -> Result<SoftwareSource, StoreError> {
    let all = [SoftwareSource::None, SoftwareSource::Asked, SoftwareSource::Caps, SoftwareSource::Ja4];
    all.into_iter().find(|source| source.as_str() == word).ok_or(StoreError::Damaged { what: "source of the software" })
}

/// The confidence for a word.
pub(super) fn confidence(word: &str) -> Result<Confidence, StoreError> {
    let all = [Confidence::Stated, Confidence::Inferred, Confidence::Unknown];
    all.into_iter().find(|confidence| confidence.as_str() == word).ok_or(StoreError::Damaged { what: "confidence in the software" })
}
