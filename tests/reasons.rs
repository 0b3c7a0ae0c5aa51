//! Holds that each word for a refusal or an end stands in docs/reasons.md: a reason that an admin finds in a counter must be found there.
//!
//! Reasons are plain text in the code, so the test looks for what has their form: words joined by hyphens anywhere, single words where
//! a reason stands. Whatever has the form and is none is listed here.

#![expect(clippy::unwrap_used, reason = "a test reads its own sources")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where strangers, connectors and relays are refused.
const PLACES: [&str; 12] = [
    "src/admission",
    "src/connector/desk",
    "src/link",
    "src/net",
    "src/proto/irc",
    "src/proto/tunnel/policy",
    "src/proto/tunnel/relay_end",
    "src/proto/xmpp/negotiation",
    "src/proto/xmpp/reader",
    "src/relay",
    "src/session",
    "src/fingerprint",
];

/// What stands before a reason of one word.
const BEFORE: [&str; 5] = ["count(", "Err(", "reason: ", "reason = ", "full("];

/// Conditions of stanza errors and stream errors, names of sockets and elements, the standing of an agent and of a link.
const NO_REASONS: [&str; 19] = [
    "bad-request",
    "client-quic",
    "connection-timeout",
    "item-not-found",
    "no-store",
    "not-acceptable",
    "not-allowed",
    "origin-id",
    "remote-connection-failed",
    "resource-constraint",
    "service-unavailable",
    "stanza-id",
    "system-shutdown",
    "tunnel-quic",
    "undefined-condition",
    "unexpected-request",
    "used-up",
    "xmpp-client",
    "kebab-case",
];

#[test]
fn every_reason_stands_in_the_docs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_to_string(root.join("docs/reasons.md")).unwrap();
    let mut found = BTreeSet::new();
    let mut missing = Vec::new();
    for file in sources(&root.join("src")) {
        let path = file.strip_prefix(root).unwrap().to_str().unwrap();
        let is_place = PLACES.iter().any(|place| path.strip_prefix(place).is_some_and(|rest| rest.starts_with(['/', '.'])));
        let is_test = path.ends_with("tests.rs") || path.contains("/tests/");
        if !is_place || is_test {
            continue;
        }
        for reason in reasons(&fs::read_to_string(&file).unwrap()) {
            if !docs.contains(&format!("`{reason}`")) && !NO_REASONS.contains(&reason.as_str()) {
                missing.push(format!("{path}: {reason}"));
            }
            found.insert(reason);
        }
    }
    for known in ["address-denied", "http", "link-expired", "opens-too-fast", "shutdown", "too-many-attempts", "idle"] {
        assert!(found.contains(known), "the test does not find {known} any more");
    }
    assert!(missing.is_empty(), "not in docs/reasons.md (or, if they are no reasons, in this test's list):\n{}", missing.join("\n"));
}

/// What has a reason's form in production code.
fn reasons(text: &str) -> BTreeSet<String> {
    let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut found = BTreeSet::new();
    for line in production.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('"') {
            let Some((word, after)) = after.split_once('"') else { break };
            let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            let is_compound = word.contains('-') && word.split('-').all(is_word);
            // The third argument of what ends a stream, and what a session's end is called.
            let is_named = BEFORE.iter().any(|name| before.ends_with(name))
                || line.contains("end_with_error(")
                || before.ends_with("Self::Shutdown => ");
            if is_compound || (is_word(word) && is_named) {
                found.insert(word.to_owned());
            }
            rest = after;
        }
    }
    found
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
