//! The admin socket's words: one JSON line asks, one JSON line answers.
//!
//! The socket is a Unix stream socket of the role's own, mode 0660: who may connect may ask.

pub mod socket;

use serde::{Deserialize, Serialize};

/// Longest request line; a longer one is answered with an error.
pub const MAX_REQUEST: usize = 4096;

/// Longest answer line that `outgate status` reads.
pub const MAX_RESPONSE: u64 = 4 << 20;

/// What may be asked, as `{"get":"status"}`, `{"do":"reattach"}` or `{"do":{"revoke":{"jti":"…"}}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Tell something.
    Get(Subject),
    /// Do something.
    Do(Action),
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Counters, tunnels and sessions.
    Status,
    /// The keys that links are verified with; the connector knows.
    LinkKeys,
    /// Short codes that stand and links that were used; the connector knows.
    Links,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The connector cuts its carriers abruptly and dials anew; a relay refuses it.
    Reattach,
    /// The relay reads its configuration again; a connector refuses it.
    Reload,
    /// The connector takes a link back; a relay refuses it.
    Revoke(RevokeLink),
    /// The connector makes a short code; a relay refuses it.
    MakeCode(MakeCode),
}

/// What a short code is to stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeCode {
    /// The domain that it is good for; absent: the only one with this queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The queue that it leads to.
    pub queue: String,
    /// How long it is good, in seconds.
    pub seconds: u64,
    /// How many sessions it is for; 0: any number.
    pub max_sessions: u32,
    /// Skills that the agent should have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
    /// The customer's language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lang: Option<String>,
    /// Why the customer comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whom the company knows the customer as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
}

/// The link that is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeLink {
    /// Who signed it; absent: whoever of the trusted issuers did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Its `jti`.
    pub jti: String,
    /// Its `exp`, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Whether its live sessions end.
    #[serde(default)]
    pub end: bool,
}

/// The answer: an object whose keys the role chooses, or `{"error":"…"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Response {
    /// Why there is no answer.
    Error(Refusal),
    /// What was asked for; counters are numbers.
    Status(serde_json::Map<String, serde_json::Value>),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// A sentence.
    pub error: String,
}

impl Request {
    /// Reads one line.
    ///
    /// # Errors
    /// The sentence for [`Refusal`].
    pub fn parse(line: &str) -> Result<Self, String> {
        if line.len() > MAX_REQUEST {
            return Err("the request is too long".to_owned());
        }
        serde_json::from_str(line).map_err(|_unknown| "expected {\"get\":\"status\"} or {\"do\":\"reattach\"}".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_on_the_socket() {
        let revoke = RevokeLink { issuer: None, jti: "j1".into(), expires: Some(7), end: true };
        for (request, line) in [
            (Request::Get(Subject::Status), r#"{"get":"status"}"#),
            (Request::Get(Subject::LinkKeys), r#"{"get":"link-keys"}"#),
            (Request::Get(Subject::Links), r#"{"get":"links"}"#),
            (Request::Do(Action::Reattach), r#"{"do":"reattach"}"#),
            (Request::Do(Action::Reload), r#"{"do":"reload"}"#),
            (Request::Do(Action::Revoke(revoke)), r#"{"do":{"revoke":{"jti":"j1","expires":7,"end":true}}}"#),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
            assert_eq!(Request::parse(line), Ok(request));
        }
        let line = r#"{"role":"relay","error":"no"}"#;
        assert!(matches!(serde_json::from_str(line), Ok(Response::Status(_))));
        let refusal = Response::Error(Refusal { error: "no".into() });
        assert_eq!(serde_json::to_string(&refusal).unwrap(), r#"{"error":"no"}"#);
        assert_eq!(serde_json::from_str::<Response>(r#"{"error":"no"}"#).unwrap(), refusal);
    }

    #[test]
    fn what_is_no_request_gets_a_sentence() {
        for line in [
            "",
            "status",
            r#"{"get":"keys"}"#,
            r#"{"get":"status","do":"reattach"}"#,
            r#"{"do":"stop"}"#,
            r#"{"get":"status"#,
            &"x".repeat(9999),
        ] {
            assert!(Request::parse(line).is_err(), "{line}");
        }
    }
}
