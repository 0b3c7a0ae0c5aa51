//! Links that are wrong: each is refused with its condition and a sentence, and the stream stays open for two more tries.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outgate::link::token::Claims;
use outgate::net::link_keys::SigningKey;
use serde_json::json;

use super::site::Site;
use crate::relay::customer::Customer;

/// A link that must be refused: its name, the token, SASL's condition, part of the sentence, the reason counted.
pub(super) struct Bad {
    name: &'static str,
    pub(super) token: String,
    condition: &'static str,
    sentence: &'static str,
    pub(super) reason: &'static str,
}

#[tokio::test]
async fn every_bad_link_has_its_condition_its_sentence_and_its_count_and_leaves_two_more_tries() {
    let site = Site::start();
    for bad in bad_links(&site) {
        let before = site.reasons();
        let mut customer = arrive(&site).await;
        for _attempt in 0..2 {
            refused(&mut customer, &bad).await;
        }
        customer.plain(&site.good_link()).await;
        customer.until("<success").await;

        let mut stubborn = arrive(&site).await;
        for _attempt in 0..3 {
            refused(&mut stubborn, &bad).await;
        }
        let end = stubborn.end().await;
        assert!(end.contains("<policy-violation") && end.contains("Too many login attempts."), "{}: {end}", bad.name);
        site.counted(&before, bad.reason, 5).await;
        site.counted(&before, "too-many-attempts", 1).await;
    }
}

#[tokio::test]
async fn a_link_that_is_used_up_is_refused_inside_sasl() {
    let site = Site::start();
    // A link for one session is not used up while that lives: it brings its customer back.
    for sessions in [2, 3] {
        let mut claims = site.claims();
        claims.outgate.max_sessions = Some(sessions);
        let link = site.key.mint(&claims).unwrap();
        let before = site.reasons();
        let mut live = Vec::new();
        for _session in 0..sessions {
            let mut customer = site.customer().await.direct_tls().await;
            customer.log_in(&link).await;
            // OPEN, which counts the use, left before this could arrive.
            customer.say("<message to='support@chat.example.com' type='chat'><body>hello</body></message>").await;
            customer.until("</message>").await;
            live.push(customer);
        }
        let used_up = Bad { name: "used up", token: link, condition: "not-authorized", sentence: "used up", reason: "check-bad-link" };
        let mut late = arrive(&site).await;
        refused(&mut late, &used_up).await;
        refused(&mut late, &used_up).await;
        late.plain(&site.good_link()).await;
        late.until("<success").await;
        site.counted(&before, used_up.reason, 2).await;
        assert_eq!(site.status()["sessions"], u64::from(sessions), "those who came in time are not disturbed");
        drop(live);
        site.until("the sessions to end", |status| status["sessions"] == 0).await;
    }
}

pub(super) fn bad_links(site: &Site) -> Vec<Bad> {
    let (stranger, _) = SigningKey::generate().unwrap();
    let good = site.good_link();
    let changed = |change: fn(&mut Claims)| {
        let mut claims = site.claims();
        change(&mut claims);
        site.key.mint(&claims).unwrap()
    };
    let (header, rest) = good.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let middle = if signature.as_bytes()[40] == b'A' { "B" } else { "A" };
    let forged = format!("{header}.{payload}.{}{middle}{}", &signature[..40], &signature[41..]);
    let unsigned = format!("{}.{payload}.", encoded(&json!({"alg": "none", "typ": "JWT", "kid": site.key.kid()})));
    let confused = hs256_with_the_public_key(site, payload);
    const INVALID: &str = "This link is not valid. Please ask for a new one.";
    [
        ("bad signature", forged, "not-authorized", INVALID, "link-bad-signature"),
        ("unsigned", unsigned, "not-authorized", INVALID, "link-algorithm"),
        ("HS256 with the public key", confused, "not-authorized", INVALID, "link-algorithm"),
        ("unknown key", stranger.mint(&site.claims()).unwrap(), "not-authorized", INVALID, "link-unknown-key"),
        ("wrong issuer", changed(|claims| claims.iss = "https://example.org".to_owned()), "not-authorized", INVALID, "link-issuer"),
        ("expired", changed(|claims| claims.exp -= 7200), "credentials-expired", "This link has expired.", "link-expired"),
        (
            "not valid yet",
            changed(|claims| claims.nbf = Some(claims.exp - 1)),
            "not-authorized",
            "This link is not valid yet.",
            "link-not-yet-valid",
        ),
        (
            "foreign audience",
            changed(|claims| claims.aud = vec!["chat.example.org".to_owned()]),
            "not-authorized",
            "This link is for another service.",
            "link-audience",
        ),
        (
            "unknown queue",
            changed(|claims| claims.outgate.queue = "nowhere".to_owned()),
            "not-authorized",
            "a service that is not offered here",
            "link-queue",
        ),
        (
            "a queue that its connector does not have",
            changed(|claims| claims.outgate.queue = "ghost".to_owned()),
            "not-authorized",
            "There is no such queue here.",
            "check-no-queue",
        ),
        (
            "a queue of another connector, which is not there",
            changed(|claims| claims.outgate.queue = "elsewhere".to_owned()),
            "temporary-auth-failure",
            "Please try again soon.",
            "no-tunnel",
        ),
        ("truncated", good[..header.len() + 20].to_owned(), "not-authorized", "Please copy the whole link.", "link-malformed"),
        ("oversized", format!("{good}{}", "A".repeat(4096)), "not-authorized", "Please copy the whole link.", "link-malformed"),
        ("no link at all", "hunter2".to_owned(), "not-authorized", "Please copy the whole link.", "link-malformed"),
    ]
    .map(|(name, token, condition, sentence, reason)| Bad { name, token, condition, sentence, reason })
    .into()
}

/// The classic confusion: the verifier's public key taken for a shared secret.
fn hs256_with_the_public_key(site: &Site, payload: &str) -> String {
    let set = site.key.public_set();
    let public = URL_SAFE_NO_PAD.decode(set["keys"][0]["x"].as_str().unwrap()).unwrap();
    let signed = format!("{}.{payload}", encoded(&json!({"alg": "HS256", "typ": "JWT", "kid": site.key.kid()})));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

fn encoded(json: &serde_json::Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

async fn arrive(site: &Site) -> Customer {
    let mut customer = site.customer().await.direct_tls().await;
    customer.open_stream().await;
    customer
}

async fn refused(customer: &mut Customer, bad: &Bad) {
    customer.plain(&bad.token).await;
    let answer = customer.until("</failure>").await;
    assert!(answer.contains(&format!("<{}/>", bad.condition)), "{}: {answer}", bad.name);
    assert!(answer.contains(bad.sentence), "{}: {answer}", bad.name);
}
