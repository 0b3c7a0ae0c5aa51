//! Links under any bytes: as they come, and with any claims behind a good header. No panic, nothing is believed unsigned, and terms that
//! hold are within their limits, at whatever time and leeway. What a link says is written and read again the same.
#![no_main]

use std::cell::Cell;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use outgate::link::token::{check, dangerous_unverified, signing_input, verified};
use outgate::link::{Claims, Header, LinkRefusal, LinkTerms};

const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT","kid":"k1"}"#;
const AUDIENCE: &str = "chat.example.com";
const MAX_REASON: usize = 200;

fuzz_target!(|input: &[u8]| {
    let Some((time, text)) = input.split_first_chunk::<10>() else { return };
    let (now, leeway) = time.split_at(8);
    let now = now.try_into().map_or(0, u64::from_be_bytes);
    // Beyond what may be configured, up to where sums overflow.
    let leeway = leeway.try_into().map_or(0, u16::from_be_bytes);
    let leeway = if leeway == u16::MAX { Duration::MAX } else { Duration::from_secs(leeway.into()) };
    let Ok(text) = std::str::from_utf8(text) else { return };

    look(outgate::link::uri::token_in(text), now, leeway);
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    look(&format!("{}.{}.c2ln", encode(HEADER), encode(text)), now, leeway);
    if let Some((header, claims)) = text.split_once('\n') {
        look(&format!("{}.{}.c2ln", encode(header), encode(claims)), now, leeway);
    }
});

fn look(token: &str, now: u64, leeway: Duration) {
    let was_asked = Cell::new(false);
    let refused = verified(token, |_header, signed, _signature| {
        was_asked.set(true);
        assert!(token.as_bytes().starts_with(signed), "what is signed is what came");
        Err(LinkRefusal::BadSignature)
    });
    match refused {
        Err(LinkRefusal::BadSignature) => assert!(was_asked.get()),
        Err(LinkRefusal::Malformed | LinkRefusal::Algorithm | LinkRefusal::UnknownKey) => assert!(!was_asked.get()),
        other => panic!("claims were read before the signature was judged: {other:?}"),
    }
    let Ok((header, claims)) = dangerous_unverified(token) else { return };
    again(&header, &claims);
    if let Ok(terms) = check(header, claims.clone(), now, leeway, AUDIENCE) {
        hold(&terms, &claims, now, leeway);
    }
}

fn hold(terms: &LinkTerms, claims: &Claims, now: u64, leeway: Duration) {
    assert!(claims.aud.iter().any(|audience| audience == AUDIENCE));
    let has_expired = now >= terms.expires.saturating_add(leeway.as_secs());
    assert_eq!(terms.lapsed, has_expired, "the door is told");
    assert!(!terms.lapsed || terms.max_sessions == Some(1), "only a link for one session brings its customer back");
    assert!(!terms.queue.is_empty() && !terms.jti.is_empty() && terms.max_sessions != Some(0));
    assert!(!claims.outgate.once || terms.max_sessions == Some(1), "once is once, whatever else it says");
    if let Some(reason) = &terms.reason {
        assert!(reason.chars().count() <= MAX_REASON && !reason.chars().any(char::is_control), "{reason:?}");
    }
}

fn again(header: &Header, claims: &Claims) {
    let Ok(signed) = signing_input(header, claims) else { panic!("{claims:?} cannot be written") };
    match dangerous_unverified(&format!("{signed}.c2ln")) {
        Ok(read) => assert_eq!((&read.0, &read.1), (header, claims)),
        // Written without the escapes and white space of others it is shorter; only numbers and Unicode may make it longer.
        Err(refusal) => assert_eq!(refusal, LinkRefusal::Malformed, "{claims:?}"),
    }
}
