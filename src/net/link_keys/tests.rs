use super::signing::pem_of;
use super::*;
use crate::link::token::{Claims, Terms};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://example.com";

#[test]
fn a_minted_link_is_verified_with_the_published_set() {
    for key in [SigningKey::generate().unwrap().0, p256()] {
        let keys = keys_of(ISSUER, &key);
        let token = key.mint(&claims(ISSUER)).unwrap();
        let terms = verify(&keys, &token).unwrap();
        assert_eq!((terms.queue.as_str(), terms.kid.as_str()), ("support", key.kid()));
    }
}

#[test]
fn an_old_and_a_new_key_are_good_beside_each_other_and_the_old_one_only_while_the_set_has_it() {
    let (old, new) = (SigningKey::generate().unwrap().0, p256());
    let (early, late) = (old.mint(&claims(ISSUER)).unwrap(), new.mint(&claims(ISSUER)).unwrap());
    let mut overlap = LinkKeys::default();
    overlap.add_set(ISSUER, &both(&old, &new)).unwrap();
    assert_eq!(verify(&overlap, &early).unwrap().kid, old.kid());
    assert_eq!(verify(&overlap, &late).unwrap().kid, new.kid());
    let after = keys_of(ISSUER, &new);
    assert_eq!(verify(&after, &early), Err(LinkRefusal::UnknownKey));
    assert!(verify(&after, &late).is_ok());
}

#[test]
fn a_header_does_not_choose_how_a_key_is_used() {
    let (ed, ec) = (SigningKey::generate().unwrap().0, p256());
    let mut keys = LinkKeys::default();
    keys.add_set(ISSUER, &both(&ed, &ec)).unwrap();
    let token = ed.mint(&claims(ISSUER)).unwrap();
    let signed_by = |key: &SigningKey, signed: &[u8]| {
        // What a signer makes of these very bytes, whatever their header says.
        URL_SAFE_NO_PAD.decode(key.sign(signed).unwrap()).unwrap()
    };
    // The other key's name, with either algorithm in the header and either key's signature.
    for alg in ["EdDSA", "ES256"] {
        for (named, signer) in [(&ed, &ec), (&ec, &ed)] {
            let forged = reheaded(&token, alg, named.kid(), |signed| signed_by(signer, signed));
            assert_eq!(verify(&keys, &forged), Err(LinkRefusal::BadSignature), "{alg}");
        }
    }
    // The right key with the other's algorithm in the header.
    for (alg, key) in [("ES256", &ed), ("EdDSA", &ec)] {
        let confused = reheaded(&token, alg, key.kid(), |signed| signed_by(key, signed));
        assert_eq!(verify(&keys, &confused), Err(LinkRefusal::BadSignature), "{alg}");
    }
    for (alg, key) in [("EdDSA", &ed), ("ES256", &ec)] {
        assert!(verify(&keys, &reheaded(&token, alg, key.kid(), |signed| signed_by(key, signed))).is_ok(), "{alg}");
    }
    // A MAC made with the public key, and no signature at all.
    let public = ed.public_set()["keys"][0]["x"].as_str().unwrap().to_owned();
    let mac = |signed: &[u8]| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_bytes());
        aws_lc_rs::hmac::sign(&key, signed).as_ref().to_vec()
    };
    assert_eq!(verify(&keys, &reheaded(&token, "HS256", ed.kid(), mac)), Err(LinkRefusal::Algorithm));
    assert_eq!(verify(&keys, &reheaded(&token, "none", ed.kid(), |_| Vec::new())), Err(LinkRefusal::Algorithm));
}

#[test]
fn odd_es256_signatures_are_refused() {
    let ec = p256();
    let keys = keys_of(ISSUER, &ec);
    let token = ec.mint(&claims(ISSUER)).unwrap();
    let fixed = |signed: &[u8]| URL_SAFE_NO_PAD.decode(ec.sign(signed).unwrap()).unwrap();
    // r = s = 0 (CVE-2022-21449), a signature cut short, one too long, and one in ASN.1 as TLS has it.
    let asn1 = |signed: &[u8]| {
        let integer = |number: &[u8]| [&[2, u8::try_from(number.len()).unwrap() + 1, 0], number].concat();
        let raw = fixed(signed);
        let (r, s) = raw.split_at(32);
        let both = [integer(r), integer(s)].concat();
        [&[0x30, u8::try_from(both.len()).unwrap()], both.as_slice()].concat()
    };
    let zero = |_: &[u8]| vec![0; 64];
    let cut = |signed: &[u8]| fixed(signed)[..63].to_vec();
    let long = |signed: &[u8]| [fixed(signed), vec![0]].concat();
    let refused = |token: String| assert_eq!(verify(&keys, &token), Err(LinkRefusal::BadSignature));
    refused(reheaded(&token, "ES256", ec.kid(), zero));
    refused(reheaded(&token, "ES256", ec.kid(), cut));
    refused(reheaded(&token, "ES256", ec.kid(), long));
    refused(reheaded(&token, "ES256", ec.kid(), asn1));
    assert!(verify(&keys, &reheaded(&token, "ES256", ec.kid(), fixed)).is_ok());
}

#[test]
fn a_changed_payload_or_signature_is_refused() {
    let (key, _) = SigningKey::generate().unwrap();
    let keys = keys_of(ISSUER, &key);
    let token = key.mint(&claims(ISSUER)).unwrap();
    let other = key.mint(&Claims { jti: "other".into(), ..claims(ISSUER) }).unwrap();
    let (head, _) = token.rsplit_once('.').unwrap();
    let (_, foreign) = other.rsplit_once('.').unwrap();
    assert_eq!(verify(&keys, &format!("{head}.{foreign}")), Err(LinkRefusal::BadSignature));
    assert_eq!(verify(&keys, &format!("{head}.")), Err(LinkRefusal::BadSignature));
}

#[test]
fn a_key_nobody_knows_is_refused() {
    let keys = keys_of(ISSUER, &SigningKey::generate().unwrap().0);
    let token = SigningKey::generate().unwrap().0.mint(&claims(ISSUER)).unwrap();
    assert_eq!(verify(&keys, &token), Err(LinkRefusal::UnknownKey));
}

#[test]
fn an_issuer_cannot_sign_for_another() {
    let (mine, _) = SigningKey::generate().unwrap();
    let (theirs, _) = SigningKey::generate().unwrap();
    let mut keys = keys_of(ISSUER, &mine);
    keys.add_set("https://other.example", &theirs.public_set().to_string()).unwrap();
    let forged = theirs.mint(&claims(ISSUER)).unwrap();
    assert_eq!(verify(&keys, &forged), Err(LinkRefusal::Issuer));
    assert!(verify(&keys, &theirs.mint(&claims("https://other.example")).unwrap()).is_ok());
}

#[test]
fn one_key_name_in_two_sets_does_not_mix_issuers() {
    let (mine, _) = SigningKey::generate().unwrap();
    let (theirs, _) = SigningKey::generate().unwrap();
    let same_name = theirs.public_set().to_string().replace(theirs.kid(), mine.kid());
    let mut keys = LinkKeys::default();
    keys.add_set("https://other.example", &same_name).unwrap();
    keys.add_set(ISSUER, &mine.public_set().to_string()).unwrap();
    assert!(verify(&keys, &mine.mint(&claims(ISSUER)).unwrap()).is_ok());
    let forged = mine.mint(&claims("https://other.example")).unwrap();
    assert_eq!(verify(&keys, &forged), Err(LinkRefusal::Issuer));
}

#[test]
fn secrets_in_a_set_are_refused() {
    let mut keys = LinkKeys::default();
    for set in [
        r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a","alg":"HS256"}]}"#,
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA","kid":"a"}]}"#,
    ] {
        assert!(matches!(keys.add_set(ISSUER, set), Err(LinkKeyError::Private(1))));
    }
    assert!(matches!(keys.add_set(ISSUER, r#"{"keys":[]}"#), Err(LinkKeyError::NoneUsable)));
    assert!(matches!(keys.add_set(ISSUER, "[]"), Err(LinkKeyError::NotASet(_))));
    assert!(keys.is_empty());
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer { iss: ISSUER.into(), jwks: folder.path().join("set.json") };
    let mut keys = LinkKeys::default();
    let missing = keys.add_file(&issuer).unwrap_err().to_string();
    assert!(missing.contains("set.json") && missing.starts_with("cannot read"), "{missing}");
    fs::write(&issuer.jwks, "{}").unwrap();
    let wrong = keys.add_file(&issuer).unwrap_err().to_string();
    assert!(wrong.contains("set.json: not a JWK set"), "{wrong}");
    let set = SigningKey::generate().unwrap().0.public_set().to_string();
    fs::write(&issuer.jwks, set).unwrap();
    keys.add_file(&issuer).unwrap();
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_rotated_key_is_read_by_content_and_a_broken_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer { iss: ISSUER.into(), jwks: folder.path().join("set.json") };
    let (old, new) = (SigningKey::generate().unwrap().0, SigningKey::generate().unwrap().0);
    fs::write(&issuer.jwks, old.public_set().to_string()).unwrap();
    let files = LinkKeyFiles::open(std::slice::from_ref(&issuer)).unwrap();
    assert!(!files.reload().unwrap());
    fs::write(&issuer.jwks, "{\"keys\":").unwrap();
    assert!(files.reload().is_err());
    assert!(verify(&files.keys(), &old.mint(&claims(ISSUER)).unwrap()).is_ok());
    fs::write(&issuer.jwks, new.public_set().to_string()).unwrap();
    assert!(files.reload().unwrap());
    assert!(verify(&files.keys(), &new.mint(&claims(ISSUER)).unwrap()).is_ok());
    assert_eq!(verify(&files.keys(), &old.mint(&claims(ISSUER)).unwrap()), Err(LinkRefusal::UnknownKey));
    assert_eq!(files.sets(), vec![(ISSUER.to_owned(), new.public_set().to_string())]);
}

#[test]
fn the_thumbprint_is_that_of_rfc_8037() {
    let pem = pem_of("PRIVATE KEY", &rfc8037_key());
    let key = SigningKey::from_pkcs8_pem(&pem).unwrap();
    assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    assert!(!key.public_set().to_string().contains("\"d\""));
    assert!(!format!("{key:?}").contains("nWGxne"));
}

#[test]
fn what_is_no_signing_key_is_refused() {
    for pem in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        assert!(matches!(SigningKey::from_pkcs8_pem(pem), Err(LinkKeyError::NotASigningKey)));
    }
}

fn verify(keys: &LinkKeys, token: &str) -> Result<LinkTerms, LinkRefusal> {
    keys.verify_link(token, NOW, "chat.example.com", Duration::ZERO)
}

#[test]
fn a_set_without_alg_is_taken_and_one_with_another_alg_is_not() {
    let (key, _) = SigningKey::generate().unwrap();
    let set = key.public_set().to_string();
    let mut keys = LinkKeys::default();
    keys.add_set(ISSUER, &set.replace(r#""alg":"EdDSA","#, "")).unwrap();
    assert!(verify(&keys, &key.mint(&claims(ISSUER)).unwrap()).is_ok());
    let other = set.replace("EdDSA", "RS256");
    assert_ne!(other, set);
    assert!(matches!(keys.add_set(ISSUER, &other), Err(LinkKeyError::NoneUsable)));
}

fn keys_of(issuer: &str, key: &SigningKey) -> LinkKeys {
    let mut keys = LinkKeys::default();
    keys.add_set(issuer, &key.public_set().to_string()).unwrap();
    keys
}

fn claims(issuer: &str) -> Claims {
    Claims {
        iss: issuer.into(),
        aud: vec!["chat.example.com".into()],
        exp: NOW + 100,
        nbf: None,
        jti: "j1".into(),
        sub: None,
        outgate: Terms { queue: "support".into(), ..Terms::default() },
    }
}

fn p256() -> SigningKey {
    SigningKey::generate_for(Algorithm::Es256).unwrap().0
}

/// One set with the keys of both.
fn both(one: &SigningKey, other: &SigningKey) -> String {
    let key = |of: &SigningKey| of.public_set()["keys"][0].clone();
    serde_json::json!({ "keys": [key(one), key(other)] }).to_string()
}

/// `token` with the header `{"alg":ALG,"kid":KID}` in place of its own, signed anew by `sign`.
fn reheaded(token: &str, alg: &str, kid: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let payload = token.split('.').nth(1).unwrap();
    let signed = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(serde_json::json!({ "alg": alg, "kid": kid }).to_string()));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// The private key of RFC 8037, appendix A.1, in PKCS#8 version 1.
fn rfc8037_key() -> Vec<u8> {
    let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let header = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    [&header[..], &seed].concat()
}
