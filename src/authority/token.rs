//! Tokens for connectors that enrol: 256 random bits, for one use, of which only the hash is kept.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::AuthorityError;
use super::folder::Folder;
use super::ledger::{from_hex, to_hex};
use crate::net::entropy;

const FILE: &str = "tokens.jsonl";

/// What every token begins with, so that scanners for secrets know one.
const PREFIX: &str = "outgate-token-";

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Names it in lists and logs.
    pub id: String,
    /// The connector that it is for.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub at: u64,
    /// Until when it may be used.
    pub end: u64,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Made(Made),
    Used { id: String, at: u64 },
}

/// Makes a token.
pub(super) fn make(folder: &Folder, name: &str, end: u64, now: u64) -> Result<(Zeroizing<String>, Made), AuthorityError> {
    let secret = Zeroizing::new(entropy::thirty_two());
    let token = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(*secret)));
    let made = Made { id: entropy::short_id(), name: name.to_owned(), at: now, end, sha256: to_hex(&hash(&token)) };
    folder.append(FILE, &Line::Made(made.clone()))?;
    Ok((token, made))
}

/// The token that `text` is, if it may be used.
pub(super) fn find(folder: &Folder, text: &str, now: u64) -> Result<Made, AuthorityError> {
    let lines: Vec<Line> = folder.lines(FILE)?;
    let shown = hash(text.trim());
    let is_it = |made: &Made| from_hex(&made.sha256).is_some_and(|kept| verify_slices_are_equal(&kept, &shown).is_ok());
    let made = lines.iter().find_map(|line| match line {
        Line::Made(made) if is_it(made) => Some(made),
        Line::Made(_) | Line::Used { .. } => None,
    });
    let made = made.ok_or(AuthorityError::WrongToken)?;
    if let Some(at) = used_at(&lines, &made.id) {
        return Err(AuthorityError::TokenUsed { at });
    }
    if now > made.end {
        return Err(AuthorityError::TokenExpired { at: made.end });
    }
    Ok(made.clone())
}

/// Nobody may use it again.
pub(super) fn used(folder: &Folder, id: &str, now: u64) -> Result<(), AuthorityError> {
    folder.append(FILE, &Line::Used { id: id.to_owned(), at: now })
}

/// The tokens that may still be used.
pub(super) fn open(folder: &Folder, now: u64) -> Result<Vec<Made>, AuthorityError> {
    let lines: Vec<Line> = folder.lines(FILE)?;
    let open = lines.iter().filter_map(|line| match line {
        Line::Made(made) if now <= made.end && used_at(&lines, &made.id).is_none() => Some(made.clone()),
        Line::Made(_) | Line::Used { .. } => None,
    });
    Ok(open.collect())
}

fn used_at(lines: &[Line], of: &str) -> Option<u64> {
    lines.iter().find_map(|line| match line {
        Line::Used { id, at } if id == of => Some(*at),
        Line::Used { .. } | Line::Made(_) => None,
    })
}

fn hash(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}
