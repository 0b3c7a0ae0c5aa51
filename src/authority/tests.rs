use rustls_pki_types::pem::PemObject as _;

use super::*;
use crate::net::certificates::{LEEWAY, NewKey, RevocationError, Revocations, is_vouched_for, lists_in, sign_with};

const NOW: u64 = 1_800_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: u64 = 86_400;

struct Rig {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::init(&folder.path().join("ca"), "example", NOW).unwrap();
        Self { folder, authority }
    }

    fn enrolled(&self, name: &str, now: u64) -> CertificateDer<'static> {
        let (token, _) = self.authority.token(name, HOUR, now).unwrap();
        let granted = self.authority.enroll(&token, &NewKey::make().unwrap().csr, now).unwrap();
        certificate(&granted.certificate)
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("ca").join(file)).unwrap_or_default()
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

fn csr() -> Vec<u8> {
    NewKey::make().unwrap().csr
}

#[test]
fn a_token_is_good_once_in_its_time_and_only_its_hash_is_kept() {
    let rig = Rig::new();
    let (token, made) = rig.authority.token("lan1", HOUR, NOW).unwrap();
    assert!(token.len() > 50, "256 bits");
    assert!(!rig.text("tokens.jsonl").contains(token.as_str()));
    let new = NewKey::make().unwrap();
    let granted = rig.authority.enroll(&token, &new.csr, NOW + 3600).unwrap();
    assert_eq!(granted.name, "outgate://example/connector/lan1");
    assert!(new.is_of(&certificate(&granted.certificate)));
    // The answer was lost, and the same host asks again: told what to do.
    let again = rig.authority.enroll(&token, &new.csr, NOW + 3601).unwrap_err();
    assert!(matches!(again, AuthorityError::TokenUsed { at } if at == NOW + 3600), "{again}");
    assert!(again.to_string().contains("used already") && again.remedy().contains("outgate ca token"), "{again}");
    assert!(rig.authority.open_tokens(NOW).unwrap().is_empty());

    let (late, _) = rig.authority.token("lan1", HOUR, NOW).unwrap();
    assert!(matches!(rig.authority.enroll(&late, &csr(), NOW + 3601), Err(AuthorityError::TokenExpired { .. })));
    for wrong in ["", "outgate-token-", &made.id, &format!("{}x", token.as_str())] {
        assert!(matches!(rig.authority.enroll(wrong, &csr(), NOW), Err(AuthorityError::WrongToken)), "{wrong}");
    }
    // What is no request costs no token.
    assert!(rig.authority.enroll(&late, b"junk", NOW).is_err());
    assert!(rig.authority.enroll(&late, &csr(), NOW).is_ok());
}

#[test]
fn two_who_use_one_token_at_once_get_one_certificate() {
    let rig = Rig::new();
    let (token, _) = rig.authority.token("lan1", HOUR, NOW).unwrap();
    let granted = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let counts = usize::from(rig.authority.enroll(&token, &csr(), NOW).is_ok());
                granted.fetch_add(counts, std::sync::atomic::Ordering::Relaxed)
            });
        }
    });
    assert_eq!(granted.into_inner(), 1);
}

#[test]
fn a_line_that_a_crash_cut_short_spoils_neither_itself_nor_the_next() {
    let rig = Rig::new();
    let first = rig.enrolled("lan1", NOW);
    let path = rig.folder.path().join("ca/issued.jsonl");
    let mut text = rig.text("issued.jsonl");
    text.push_str("{\"serial\":\"00");
    std::fs::write(&path, text).unwrap();
    rig.enrolled("lan2", NOW);
    let names: Vec<String> = rig.authority.list(NOW).unwrap().into_iter().map(|(entry, _)| entry.name).collect();
    assert_eq!(names, ["outgate://example/connector/lan1", "outgate://example/connector/lan2"]);
    assert!(rig.authority.renew(&first, &csr(), NOW).is_ok());
}

#[test]
fn a_renewal_is_for_the_same_name_and_hosts_whatever_the_request_says() {
    let rig = Rig::new();
    let hosts = ["relay.example.com".to_owned(), "192.0.2.1".to_owned(), "2001:db8::1".to_owned()];
    let (_, issued) = rig.authority.issue(Role::Relay, "dmz1", &hosts, NOW).unwrap();
    let granted = rig.authority.renew(&certificate(&issued.certificate), &csr(), NOW + 20 * DAY).unwrap();
    let subject = Subject::of(&certificate(&granted.certificate)).unwrap();
    assert_eq!((subject.name.to_string().as_str(), subject.hosts.as_slice()), ("outgate://example/relay/dmz1", hosts.as_slice()));
    let listed = rig.authority.list(NOW + 20 * DAY).unwrap();
    assert_eq!(listed.iter().map(|(entry, _)| entry.by.as_str()).collect::<Vec<_>>(), ["offline", "renewal"]);
}

#[test]
fn fault_29_an_expired_certificate_is_not_renewed_but_a_clock_may_differ_by_ten_minutes() {
    let rig = Rig::new();
    let present = rig.enrolled("lan1", NOW);
    let end = Entry::of(&present, 1, "", NOW).unwrap().end;
    assert!(rig.authority.renew(&present, &csr(), end + LEEWAY.as_secs()).is_ok());
    let error = rig.authority.renew(&present, &csr(), end + LEEWAY.as_secs() + 1).unwrap_err();
    assert!(error.to_string().contains("not valid now") && error.remedy().contains("enroll"), "{error}");
    assert!(rig.authority.renew(&present, &csr(), NOW - 300 - LEEWAY.as_secs()).is_ok());
    assert!(rig.authority.renew(&present, &csr(), NOW - 301 - LEEWAY.as_secs()).is_err());
}

#[test]
fn a_stranger_s_certificate_is_not_renewed() {
    let (rig, other) = (Rig::new(), Rig::new());
    let theirs = other.enrolled("lan1", NOW);
    assert!(matches!(rig.authority.renew(&theirs, &csr(), NOW), Err(AuthorityError::NotOurs)));
}

#[test]
fn a_connector_cannot_order_a_relay_s_certificate() {
    let rig = Rig::new();
    let (_, relay) = rig.authority.issue(Role::Relay, "dmz1", &["relay.example.com".to_owned()], NOW).unwrap();
    let (_, connector) = rig.authority.issue(Role::Connector, "lan1", &[], NOW).unwrap();
    let through = "outgate://example/connector/lan1";
    let sign = |issued: &Issued, text: &[u8]| {
        sign_with(&rustls_pki_types::PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(), text).unwrap()
    };
    let (request, relays) = (csr(), certificate(&relay.certificate));
    // By its own key, by the relay's over another request, over the bare request, and not at all.
    for forged in [sign(&connector, &signed_text(&request)), sign(&relay, &signed_text(&csr())), sign(&relay, &request), Vec::new()] {
        assert!(matches!(rig.authority.renew_relay(through, &relays, &request, &forged, NOW), Err(AuthorityError::BadProof)));
    }
    let own = sign(&connector, &signed_text(&request));
    let refused = rig.authority.renew_relay(through, &certificate(&connector.certificate), &request, &own, NOW);
    assert!(matches!(refused, Err(AuthorityError::NotARelay)), "{refused:?}");
    let granted = rig.authority.renew_relay(through, &relays, &request, &sign(&relay, &signed_text(&request)), NOW).unwrap();
    assert_eq!(granted.name, "outgate://example/relay/dmz1");
    assert!(rig.authority.list(NOW).unwrap().iter().any(|(entry, _)| entry.by.ends_with(through)));
}

#[test]
fn a_revocation_ends_every_valid_certificate_of_a_name_and_its_lists_only_rise() {
    let rig = Rig::new();
    let (first, second) = (rig.enrolled("lan1", NOW), rig.enrolled("lan1", NOW));
    let other = rig.enrolled("lan2", NOW);
    let authorities = certificates(&rig.authority.bundle(NOW).unwrap());
    let lists = |now: u64| {
        let trust = rig.authority.trust(now).unwrap();
        lists_in(trust.revocations.as_bytes())
            .unwrap()
            .iter()
            .map(|list| Revocations::read(list, &authorities).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(lists(NOW)[0].number(), 0);
    assert_eq!(rig.authority.revoke("lan1", "stolen", NOW + 5).unwrap().entries.len(), 2);
    let list = lists(NOW + 6).remove(0);
    assert_eq!(list.number(), 2);
    assert!(list.revokes(&first) && list.revokes(&second) && !list.revokes(&other));
    let error = rig.authority.renew(&first, &csr(), NOW + 6).unwrap_err();
    assert!(matches!(error, AuthorityError::Revoked { .. }), "{error}");
    assert!(rig.text("revoked.pem").contains("X509 CRL"));
    assert!(matches!(rig.authority.revoke("lan1", "", NOW + 7), Err(AuthorityError::NothingToRevoke(_))));
    // By serial; and what has expired leaves the list, while its number stays.
    let serial = Entry::of(&other, 1, "", NOW).unwrap().serial;
    rig.authority.revoke(&serial.to_uppercase(), "", NOW + 8).unwrap();
    let late = lists(NOW + 40 * DAY).remove(0);
    assert!(late.number() == 3 && !late.revokes(&first));
    // The name may come back with a new token.
    assert!(!late.revokes(&rig.enrolled("lan1", NOW + 9)));
}

#[test]
fn a_list_of_another_ca_or_without_a_signature_is_refused() {
    let (rig, other) = (Rig::new(), Rig::new());
    other.enrolled("lan1", NOW);
    other.authority.revoke("lan1", "", NOW).unwrap();
    let authorities = certificates(&rig.authority.bundle(NOW).unwrap());
    let list = lists_in(other.text("revoked.pem").as_bytes()).unwrap().remove(0).to_vec();
    assert_eq!(Revocations::read(&list, &authorities).unwrap_err(), RevocationError::Foreign);
    let mut damaged = list.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(Revocations::read(&damaged, &certificates(&other.authority.bundle(NOW).unwrap())).is_err());
    for cut in 0..list.len() {
        assert!(Revocations::read(&list[..cut], &authorities).is_err());
    }
}

#[test]
fn fault_29_the_ca_rolls_trusted_first_then_issuing_then_alone() {
    let rig = Rig::new();
    let old = certificates(&rig.authority.bundle(NOW).unwrap());
    let early = rig.enrolled("lan1", NOW);
    let issues_from = rig.authority.roll(SETTLE, NOW + DAY).unwrap();
    assert_eq!(issues_from, NOW + 31 * DAY);
    assert!(matches!(rig.authority.roll(SETTLE, NOW + DAY), Err(AuthorityError::RollUnderWay { .. })));

    // Both are trusted, the old one issues.
    let trust = rig.authority.trust(NOW + DAY).unwrap();
    let both = certificates(&trust.authorities);
    assert_eq!((both.len(), &both[0]), (2, &old[0]));
    let renewed = certificate(&rig.authority.renew(&early, &csr(), NOW + 20 * DAY).unwrap().certificate);
    assert_eq!(Entry::of(&renewed, 1, "", NOW).unwrap().name, "outgate://example/connector/lan1");

    // Who trusts the old one may trust the new one by its word, and by nobody else's.
    let links = certificates(&trust.links);
    assert!(is_vouched_for(&both[1], &links, &old, NOW + DAY));
    assert!(!is_vouched_for(&both[1], &[] as &[&[u8]], &old, NOW + DAY));
    let stranger = certificates(&Rig::new().authority.bundle(NOW).unwrap());
    assert!(!is_vouched_for(&stranger[0], &links, &old, NOW + DAY) && !is_vouched_for(&both[1], &links, &stranger, NOW + DAY));

    // Its turn: it issues, also to holders of the old one's certificates, whose lists go on.
    let turn = NOW + 31 * DAY;
    let next = certificate(&rig.authority.renew(&renewed, &csr(), turn).unwrap().certificate);
    assert_eq!(certificates(&rig.authority.bundle(turn).unwrap()), [both[1].clone(), both[0].clone()]);
    rig.authority.revoke(&Entry::of(&renewed, 1, "", NOW).unwrap().serial, "", turn).unwrap();
    let lists = lists_in(rig.text("revoked.pem").as_bytes()).unwrap();
    let lists: Vec<_> = lists.iter().map(|list| Revocations::read(list, &both).unwrap()).collect();
    assert_eq!(lists.len(), 2);
    assert!(lists.iter().any(|list| list.revokes(&renewed)) && !lists.iter().any(|list| list.revokes(&next)));

    // Nothing of the old one is valid any more: it goes by itself.
    assert_eq!(certificates(&rig.authority.bundle(turn + 31 * DAY).unwrap()), [both[1].clone()]);
}

#[test]
fn no_relay_gets_the_service_s_name() {
    let rig = Rig::new();
    for host in [crate::net::certificates::SERVICE_HOST, "CA.outgate.internal."] {
        assert!(rig.authority.issue(Role::Relay, "dmz1", &[host.to_owned()], NOW).is_err(), "{host}");
    }
}

#[test]
fn keys_are_for_their_owner_alone_and_nothing_is_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::new();
    rig.authority.roll(SETTLE, NOW).unwrap();
    let dir = rig.folder.path().join("ca");
    rig.enrolled("lan1", NOW);
    for file in ["ca-key.pem", "ca-2-key.pem", "tokens.jsonl", "issued.jsonl"] {
        let mode = std::fs::metadata(dir.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
    assert!(matches!(Authority::init(&dir, "example", NOW), Err(AuthorityError::Exists(_))));
    assert!(matches!(Authority::open(rig.folder.path()), Err(AuthorityError::None(_))));
}
