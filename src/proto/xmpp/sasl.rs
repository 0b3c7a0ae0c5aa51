//! SASL, the server's side: PLAIN (RFC 4616), ANONYMOUS (RFC 4505), SCRAM-SHA-256 (RFC 5802, RFC 7677).
//!
//! Names and passwords are taken as they come: printable text passes unchanged, text with control characters is refused.
//! SASLprep's other mappings leave ASCII alone, and links, codes and generated passwords are ASCII; a password that is typed
//! in two Unicode normal forms counts as two passwords.

pub mod plain;
pub mod scram;

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Most rounds of PBKDF2 that are accepted in stored keys or from a server: each costs the one who verifies.
const MAX_ITERATIONS: u32 = 1_000_000;

/// Keys of one account, as `agents.toml` keeps them (RFC 5803): the password is not in them.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// Salt.
    pub salt: Vec<u8>,
    /// StoredKey.
    pub stored_key: [u8; 32],
    /// ServerKey.
    pub server_key: [u8; 32],
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScramKeys {{ iterations: {}, .. MASKED }}", self.iterations)
    }
}

impl ScramKeys {
    /// Derives the keys of `password` (normalised by the caller).
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password, salt, iterations);
        let client_key = sign(&salted, b"Client Key");
        Self {
            iterations: iterations.max(1),
            salt: salt.to_vec(),
            stored_key: sha256(&client_key),
            server_key: sign(&salted, b"Server Key"),
        }
    }

    /// Reads `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY` (RFC 5803 §2).
    pub fn parse(text: &str) -> Option<Self> {
        let (cost, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = cost.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|rounds| (1..=MAX_ITERATIONS).contains(rounds))?;
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        Some(Self { iterations, salt: STANDARD.decode(salt).ok()?, stored_key: key(stored)?, server_key: key(server)? })
    }

    /// Writes the form that `parse` reads.
    pub fn to_text(&self) -> String {
        let [salt, stored, server] = [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| STANDARD.encode(bytes));
        format!("SCRAM-SHA-256${}:{salt}${stored}:{server}", self.iterations)
    }

    /// Whether `password` belongs to these keys; constant time in the comparison.
    pub fn verify(&self, password: &str) -> bool {
        let derived = Self::derive(password, &self.salt, self.iterations);
        same(&derived.stored_key, &self.stored_key)
    }

    /// The salt that an unknown user appears to have: the same each time he is asked for, and not to be told from a real one.
    pub(super) fn invented_salt(secret: &[u8; 32], domain: &str, user: &str) -> Vec<u8> {
        sign(secret, format!("{domain}\0{user}").as_bytes())[..16].to_vec()
    }
}

fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut salted = [0; 32];
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted);
    salted
}

fn sign(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref());
    out
}

fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

fn same(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

/// Whether `text` can be a user name or a password.
fn is_acceptable(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// Why a login failed (RFC 6120 §6.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslFailure {
    /// The condition.
    pub condition: SaslCondition,
    /// A sentence for the person.
    pub text: String,
}

/// SASL error conditions in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslCondition {
    /// Aborted by the client.
    Aborted,
    /// The account or link may not enter.
    AccountDisabled,
    /// The link is expired.
    CredentialsExpired,
    /// TLS is needed first.
    EncryptionRequired,
    /// Bad base64.
    IncorrectEncoding,
    /// authzid differs from the user.
    InvalidAuthzid,
    /// Not offered.
    InvalidMechanism,
    /// Bad SASL message.
    MalformedRequest,
    /// Wrong.
    NotAuthorized,
    /// The connector cannot be asked now.
    TemporaryAuthFailure,
}

impl SaslCondition {
    /// The condition's element name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::AccountDisabled => "account-disabled",
            Self::CredentialsExpired => "credentials-expired",
            Self::EncryptionRequired => "encryption-required",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::MalformedRequest => "malformed-request",
            Self::NotAuthorized => "not-authorized",
            Self::TemporaryAuthFailure => "temporary-auth-failure",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_text_form() {
        let keys = ScramKeys::derive("pencil", b"salt", 4096);
        assert_eq!(ScramKeys::parse(&keys.to_text()), Some(keys.clone()));
        assert!(keys.verify("pencil"));
        assert!(!keys.verify("pencil "));
        assert!(!format!("{keys:?}").contains(&STANDARD.encode(keys.stored_key)));
    }

    #[test]
    fn keys_in_other_shapes_are_refused() {
        let good = ScramKeys::derive("p", b"s", 1).to_text();
        for bad in [
            String::new(),
            good.replace("256", "1"),
            good.replace("$1:", "$0:"),
            good.replace("$1:", "$1000001:"),
            good.replace("$1:", "$x:"),
            good[..good.len() - 4].to_owned(),
            format!("{good}AAAA"),
            good.replace(':', ";"),
        ] {
            assert_eq!(ScramKeys::parse(&bad), None, "{bad}");
        }
    }
}
