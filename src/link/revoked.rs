//! Links that their issuer or the company has taken back before they expire.

/// The expiry of a revocation whose link's own is not known: it is kept for good.
pub const NEVER_EXPIRES: u64 = i64::MAX as u64;

/// A link that holds no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevokedLink {
    /// Who signed it.
    pub issuer: String,
    /// Its name, the token's `jti`.
    pub jti: String,
    /// When the link itself ends, seconds since 1970: from then on nobody needs this entry.
    pub expires: u64,
}

impl RevokedLink {
    /// Whether this is the link `jti` of `issuer`.
    pub fn names(&self, issuer: &str, jti: &str) -> bool {
        self.issuer == issuer && self.jti == jti
    }
}
