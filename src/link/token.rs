//! The token of a link: JWS compact form, claims and their check.
//!
//! Flow: [`verified`] bounds and splits the text, reads the header, has the signature checked and
//! only then parses the claims; [`check`] holds the claims against time and audience. Nothing that
//! is not signed is ever parsed beyond the header. Whether a queue exists and how often a link was
//! used is not judged here.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Longest accepted token: what fits a SASL PLAIN message within the limits before login.
pub const MAX_TOKEN: usize = 4096;

/// Longest `reason`, in characters: it is shown in an agent's offer.
const MAX_REASON: usize = 200;

/// The protected header, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The signature's algorithm.
    pub alg: Algorithm,
    /// Names the key.
    pub kid: String,
}

/// Accepted algorithms. HS256 is not among them: it would put a secret that signs into the DMZ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 §3.4).
    Es256,
}

impl Algorithm {
    /// The name in a header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }
}

/// The claims of a link (RFC 7519 §4.1 and `outgate`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who signed.
    pub iss: String,
    /// The domains it is good for: one string or an array of them.
    #[serde(with = "audience")]
    pub aud: Vec<String>,
    /// Not good from this time on, seconds since 1970.
    #[serde(with = "numeric_date")]
    pub exp: u64,
    /// Not good before this time.
    #[serde(default, with = "optional_date", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Names the link.
    pub jti: String,
    /// Whom the issuer knows the customer as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Outgate's own terms.
    pub outgate: Terms,
}

/// Outgate's own terms within the claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The queue.
    pub queue: String,
    /// Skills that the agent should have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
    /// The customer's language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lang: Option<String>,
    /// Why the customer comes, for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the link is for one session.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// How many sessions it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
}

/// What a good link grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTerms {
    /// Who signed.
    pub issuer: String,
    /// With which key.
    pub kid: String,
    /// The link's name.
    pub jti: String,
    /// Whom the issuer knows the customer as.
    pub subject: Option<String>,
    /// The queue.
    pub queue: String,
    /// Skills that the agent should have.
    pub skills: Vec<String>,
    /// The customer's language.
    pub lang: Option<String>,
    /// Why the customer comes: one line, no control characters.
    pub reason: Option<String>,
    /// How many sessions it is for; `None` is any number.
    pub max_sessions: Option<u32>,
    /// When it ends, seconds since 1970.
    pub expires: u64,
    /// It has ended. It begins no session any more, and may only bring its customer back to the one that it began.
    pub lapsed: bool,
}

/// Why a link is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkRefusal {
    /// Not a token of this form.
    Malformed,
    /// Not signed, or with an algorithm that is not accepted.
    Algorithm,
    /// Signed with a key that nobody here knows.
    UnknownKey,
    /// The signature is wrong.
    BadSignature,
    /// Well signed, but a claim is missing or of the wrong kind.
    Claims,
    /// The key belongs to another issuer.
    Issuer,
    /// For another domain.
    Audience,
    /// Past its end.
    Expired,
    /// Before its beginning.
    NotYetValid,
    /// For a queue that is not served here.
    Queue,
    /// Taken back.
    Revoked,
}

impl LinkRefusal {
    /// The reason code for counters and the audit log.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "link-malformed",
            Self::Algorithm => "link-algorithm",
            Self::UnknownKey => "link-unknown-key",
            Self::BadSignature => "link-bad-signature",
            Self::Claims => "link-claims",
            Self::Issuer => "link-issuer",
            Self::Audience => "link-audience",
            Self::Expired => "link-expired",
            Self::NotYetValid => "link-not-yet-valid",
            Self::Queue => "link-queue",
            Self::Revoked => "link-revoked",
        }
    }

    /// What the customer is told. A forger learns from it only what an honest customer needs.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Malformed => "The password is not a complete link. Please copy the whole link.",
            Self::Algorithm | Self::UnknownKey | Self::BadSignature | Self::Claims | Self::Issuer => {
                "This link is not valid. Please ask for a new one."
            }
            Self::Audience => "This link is for another service.",
            Self::Expired => "This link has expired. Please ask for a new one.",
            Self::NotYetValid => "This link is not valid yet. Please try again later.",
            Self::Queue => "This link leads to a service that is not offered here.",
            Self::Revoked => "This link has been withdrawn. Please ask for a new one.",
        }
    }
}

impl fmt::Display for LinkRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl std::error::Error for LinkRefusal {}

/// Takes `token` apart and answers its header and claims if `verify` accepts the signature.
///
/// `verify` gets the header, the bytes that were signed and the signature.
///
/// # Errors
/// `Malformed`, `Algorithm`, what `verify` says, or `Claims`.
pub fn verified<V>(token: &str, verify: V) -> Result<(Header, Claims), LinkRefusal>
where
    V: FnOnce(&Header, &[u8], &[u8]) -> Result<(), LinkRefusal>,
{
    let parts = Parts::split(token)?;
    let header = parts.header()?;
    let signature = decode(parts.signature)?;
    verify(&header, parts.signed.as_bytes(), &signature)?;
    Ok((header, parts.claims()?))
}

/// Reads header and claims of a token whose signature nobody has checked, to show them to a person.
///
/// # Errors
/// `Malformed`, `Algorithm` or `Claims`.
pub fn dangerous_unverified(token: &str) -> Result<(Header, Claims), LinkRefusal> {
    verified(token, |_header, _signed, _signature| Ok(()))
}

/// The terms of `claims`, if they hold at `now` (seconds since 1970) for `audience`; of a link for one session also after its end,
/// and so marked.
///
/// # Errors
/// `Expired`, `NotYetValid`, `Audience` or `Claims`.
pub fn check(header: Header, claims: Claims, now: u64, leeway: Duration, audience: &str) -> Result<LinkTerms, LinkRefusal> {
    let leeway = leeway.as_secs();
    if !claims.aud.iter().any(|aud| aud == audience) {
        return Err(LinkRefusal::Audience);
    }
    let terms = claims.outgate;
    let max_sessions = if terms.once { Some(1) } else { terms.max_sessions };
    // RFC 7519 §4.1.4: not accepted on or after `exp`. A link for one session stands for that session as long as it lives, which
    // whoever keeps the session must judge.
    let lapsed = now >= claims.exp.saturating_add(leeway);
    if lapsed && max_sessions != Some(1) {
        return Err(LinkRefusal::Expired);
    }
    if claims.nbf.is_some_and(|nbf| now.saturating_add(leeway) < nbf) {
        return Err(LinkRefusal::NotYetValid);
    }
    if terms.queue.is_empty() || claims.jti.is_empty() || max_sessions == Some(0) {
        return Err(LinkRefusal::Claims);
    }
    Ok(LinkTerms {
        issuer: claims.iss,
        kid: header.kid,
        jti: claims.jti,
        subject: claims.sub,
        queue: terms.queue,
        skills: terms.skills,
        lang: terms.lang,
        reason: terms.reason.as_deref().map(one_line),
        max_sessions,
        expires: claims.exp,
        lapsed,
    })
}

/// The bytes that a signature of `claims` covers.
///
/// # Errors
/// Never for claims built by this program: they are always JSON.
pub fn signing_input(header: &Header, claims: &Claims) -> Result<String, serde_json::Error> {
    let header = WireHeader { alg: header.alg.as_str().into(), typ: Some("JWT".into()), kid: Some(header.kid.clone()), crit: None };
    let encode = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
    let head = encode(serde_json::to_vec(&header)?);
    let body = encode(serde_json::to_vec(claims)?);
    Ok(format!("{head}.{body}"))
}

/// The three parts of the compact form (RFC 7515 §7.1), still encoded.
struct Parts<'t> {
    signed: &'t str,
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Parts<'t> {
    fn split(token: &'t str) -> Result<Self, LinkRefusal> {
        if token.len() > MAX_TOKEN {
            return Err(LinkRefusal::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(LinkRefusal::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(LinkRefusal::Malformed)?;
        if header.is_empty() || payload.is_empty() || payload.contains('.') {
            return Err(LinkRefusal::Malformed);
        }
        Ok(Self { signed, header, payload, signature })
    }

    fn header(&self) -> Result<Header, LinkRefusal> {
        let wire: WireHeader = serde_json::from_slice(&decode(self.header)?).map_err(|_not_a_header| LinkRefusal::Malformed)?;
        let alg = [Algorithm::EdDsa, Algorithm::Es256].into_iter().find(|alg| alg.as_str() == wire.alg).ok_or(LinkRefusal::Algorithm)?;
        // RFC 7515 §4.1.11: an extension that must be understood and is not ends it.
        if wire.crit.is_some() {
            return Err(LinkRefusal::Malformed);
        }
        if wire.typ.is_some_and(|typ| !typ.eq_ignore_ascii_case("jwt")) {
            return Err(LinkRefusal::Malformed);
        }
        let kid = wire.kid.filter(|kid| !kid.is_empty()).ok_or(LinkRefusal::UnknownKey)?;
        Ok(Header { alg, kid })
    }

    fn claims(&self) -> Result<Claims, LinkRefusal> {
        serde_json::from_slice(&decode(self.payload)?).map_err(|_not_claims| LinkRefusal::Claims)
    }
}

#[derive(Serialize, Deserialize)]
struct WireHeader {
    alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

fn decode(part: &str) -> Result<Vec<u8>, LinkRefusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_not_base64url| LinkRefusal::Malformed)
}

/// One line of at most [`MAX_REASON`] characters without controls or direction marks.
fn one_line(text: &str) -> String {
    let hidden = |letter: &char| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).filter(|letter| !hidden(letter)).take(MAX_REASON).collect()
}

/// `aud` is one string or an array of strings (RFC 7519 §4.1.3).
mod audience {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        Ok(match OneOrMany::deserialize(from)? {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        })
    }

    pub(super) fn serialize<S: Serializer>(aud: &[String], to: S) -> Result<S::Ok, S::Error> {
        match aud {
            [one] => one.serialize(to),
            many => many.serialize(to),
        }
    }
}

/// A NumericDate may have a fraction (RFC 7519 §2); it is cut off.
mod numeric_date {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let number = serde_json::Number::deserialize(from)?;
        seconds(&number).ok_or_else(|| D::Error::custom("no time"))
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(time: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(*time)
    }

    pub(super) fn seconds(number: &serde_json::Number) -> Option<u64> {
        if let Some(whole) = number.as_u64() {
            return Some(whole);
        }
        let text = number.to_string();
        text.split_once('.').and_then(|(whole, _fraction)| whole.parse().ok())
    }
}

/// The same, where the claim may be absent.
mod optional_date {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::numeric_date::seconds;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let number = serde_json::Number::deserialize(from)?;
        seconds(&number).map(Some).ok_or_else(|| D::Error::custom("no time"))
    }

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(time: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        time.serialize(to)
    }
}

#[cfg(test)]
mod tests;
