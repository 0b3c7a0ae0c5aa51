use super::*;

const NOW: u64 = 1_800_000_000;

#[test]
fn a_good_link_grants_its_terms() {
    let (header, claims) = verified(&token(HEADER, PAYLOAD), signed_with_seven).unwrap();
    let terms = check(header, claims, NOW, Duration::ZERO, "chat.example.com").unwrap();
    assert_eq!(terms.queue, "support");
    assert_eq!(terms.max_sessions, Some(1));
    assert_eq!(terms.reason.as_deref(), Some("order 7 "));
    assert_eq!((terms.issuer.as_str(), terms.kid.as_str()), ("https://example.com", "k1"));
}

#[test]
fn the_payload_is_not_read_before_the_signature_holds() {
    let refused = |_: &Header, _: &[u8], _: &[u8]| Err(LinkRefusal::BadSignature);
    let garbage = token(HEADER, "not json at all");
    assert_eq!(verified(&garbage, refused), Err(LinkRefusal::BadSignature));
    assert_eq!(verified(&garbage, signed_with_seven), Err(LinkRefusal::Claims));
}

#[test]
fn unsigned_and_symmetric_tokens_are_refused_before_any_key_is_asked() {
    for alg in ["none", "None", "HS256", "RS256", "eddsa", ""] {
        let header = format!(r#"{{"alg":"{alg}","kid":"k1"}}"#);
        let answer = verified(&token(&header, PAYLOAD), |_, _, _| panic!("asked"));
        assert_eq!(answer, Err(LinkRefusal::Algorithm), "{alg}");
    }
}

#[test]
fn odd_headers_are_refused() {
    for (header, refusal) in [
        (r#"{"alg":"EdDSA"}"#, LinkRefusal::UnknownKey),
        (r#"{"alg":"EdDSA","kid":""}"#, LinkRefusal::UnknownKey),
        (r#"{"alg":"EdDSA","kid":"k1","crit":["b64"],"b64":false}"#, LinkRefusal::Malformed),
        (r#"{"alg":"EdDSA","kid":"k1","kid":"k2"}"#, LinkRefusal::Malformed),
        (r#"{"alg":"EdDSA","kid":"k1","typ":"secevent+jwt"}"#, LinkRefusal::Malformed),
        ("[]", LinkRefusal::Malformed),
    ] {
        let answer = verified(&token(header, PAYLOAD), |_, _, _| panic!("asked"));
        assert_eq!(answer, Err(refusal), "{header}");
    }
}

#[test]
fn every_cut_of_a_token_is_refused() {
    let whole = token(HEADER, PAYLOAD);
    for cut in 0..whole.len() {
        assert!(verified(&whole[..cut], signed_with_seven).is_err(), "{cut}");
    }
    let long = format!("{}.{}", "a".repeat(MAX_TOKEN), whole);
    assert_eq!(verified(&long, signed_with_seven), Err(LinkRefusal::Malformed));
    assert_eq!(verified(&format!("{whole}.x"), signed_with_seven), Err(LinkRefusal::Malformed));
}

#[test]
fn time_is_held_to_the_second_and_leeway_widens_it_both_ways() {
    let at = |now: u64, leeway: u64| {
        let (header, claims) = verified(&token(HEADER, PAYLOAD), signed_with_seven).unwrap();
        let terms = check(header, claims, now, Duration::from_secs(leeway), "chat.example.com")?;
        if terms.lapsed { Err(LinkRefusal::Expired) } else { Ok(()) }
    };
    assert_eq!(at(NOW + 99, 0), Ok(()));
    assert_eq!(at(NOW + 100, 0), Err(LinkRefusal::Expired));
    assert_eq!(at(NOW + 129, 30), Ok(()));
    assert_eq!(at(NOW + 130, 30), Err(LinkRefusal::Expired));
    assert_eq!(at(NOW - 10, 0), Ok(()));
    assert_eq!(at(NOW - 11, 0), Err(LinkRefusal::NotYetValid));
    assert_eq!(at(NOW - 40, 30), Ok(()));
    assert_eq!(at(NOW - 41, 30), Err(LinkRefusal::NotYetValid));
}

#[test]
fn only_a_link_for_one_session_is_anything_after_its_end() {
    let after = |terms: &str| {
        let payload = PAYLOAD.replace(r#""once":true"#, terms);
        let (header, claims) = verified(&token(HEADER, &payload), signed_with_seven).unwrap();
        check(header, claims, NOW + 100, Duration::ZERO, "chat.example.com").map(|terms| terms.lapsed)
    };
    assert_eq!(after(r#""once":true"#), Ok(true));
    assert_eq!(after(r#""max_sessions":1"#), Ok(true));
    assert_eq!(after(r#""max_sessions":2"#), Err(LinkRefusal::Expired));
    assert_eq!(after(r#""once":false"#), Err(LinkRefusal::Expired));
}

#[test]
fn audience_is_one_string_or_many() {
    let with = |aud: &str| {
        let payload = PAYLOAD.replace(r#""chat.example.com""#, aud);
        let (header, claims) = verified(&token(HEADER, &payload), signed_with_seven)?;
        check(header, claims, NOW, Duration::ZERO, "chat.example.com").map(|_| ())
    };
    assert_eq!(with(r#"["a", "chat.example.com"]"#), Ok(()));
    assert_eq!(with(r#"["a"]"#), Err(LinkRefusal::Audience));
    assert_eq!(with("[]"), Err(LinkRefusal::Audience));
    assert_eq!(with("7"), Err(LinkRefusal::Claims));
}

#[test]
fn odd_claims_are_refused() {
    for (old, new) in [
        (r#""exp":1800000100,"#, ""),
        (r#""exp":1800000100,"#, r#""exp":"soon","#),
        (r#""exp":1800000100,"#, r#""exp":-5,"#),
        (r#""jti":"j1","#, ""),
        (r#""jti":"j1","#, r#""jti":"","#),
        (r#""queue":"support","#, ""),
        (r#""queue":"support","#, r#""queue":"","#),
        (r#""once":true"#, r#""max_sessions":0"#),
    ] {
        let payload = PAYLOAD.replace(old, new);
        assert_ne!(payload, PAYLOAD);
        let answer =
            verified(&token(HEADER, &payload), signed_with_seven).and_then(|(h, c)| check(h, c, NOW, Duration::ZERO, "chat.example.com"));
        assert_eq!(answer, Err(LinkRefusal::Claims), "{new}");
    }
}

#[test]
fn a_time_with_a_fraction_is_a_time() {
    let payload = PAYLOAD.replace("1800000100", "1800000100.75");
    let (_, claims) = verified(&token(HEADER, &payload), signed_with_seven).unwrap();
    assert_eq!(claims.exp, 1_800_000_100);
}

#[test]
fn written_claims_are_read_back() {
    let (header, claims) = verified(&token(HEADER, PAYLOAD), signed_with_seven).unwrap();
    let signed = signing_input(&header, &claims).unwrap();
    assert_eq!(dangerous_unverified(&format!("{signed}.Bw")), Ok((header, claims)));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}", at in 0usize..300, byte in 0u8..128) {
        let mut bytes = token(HEADER, PAYLOAD).into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        for text in [text, String::from_utf8(bytes).unwrap()] {
            let terms = dangerous_unverified(&text)
                .and_then(|(h, c)| check(h, c, NOW, Duration::MAX, "chat.example.com"));
            if let Ok(terms) = terms {
                assert!(!terms.queue.is_empty());
            }
        }
    }
}

const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT","kid":"k1"}"#;
const PAYLOAD: &str = r#"{"iss":"https://example.com","aud":"chat.example.com","exp":1800000100,"nbf":1799999990,"jti":"j1","outgate":{"queue":"support","reason":"order 7\n\u202e","once":true}}"#;

fn token(header: &str, payload: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode(header), encode(payload), URL_SAFE_NO_PAD.encode([7; 8]))
}

fn signed_with_seven(_: &Header, _: &[u8], signature: &[u8]) -> Result<(), LinkRefusal> {
    if signature == [7; 8] { Ok(()) } else { Err(LinkRefusal::BadSignature) }
}
