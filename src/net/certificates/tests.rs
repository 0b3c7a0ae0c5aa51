use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{ServerName, UnixTime};

use super::*;

const NOW: u64 = 1_800_000_000;

#[test]
fn a_connector_is_known_by_its_certificate_and_is_no_server() {
    let (ca, root) = TunnelCa::create("example", NOW).unwrap();
    let (_, issued) = ca.issue(Role::Connector, "lan1", &[], NOW).unwrap();
    let leaf = der(&issued.certificate);
    assert_eq!(identity_of(&leaf).unwrap().0, "outgate://example/connector/lan1");
    assert!(is_client(&root, &leaf, NOW));
    assert!(!is_server(&root, &leaf, "lan1", NOW));
}

#[test]
fn a_relay_is_a_server_under_its_hosts_only_and_no_client() {
    let (ca, root) = TunnelCa::create("example", NOW).unwrap();
    let hosts = ["relay.example.com".to_owned(), "192.0.2.1".to_owned()];
    let (_, issued) = ca.issue(Role::Relay, "dmz1", &hosts, NOW).unwrap();
    let leaf = der(&issued.certificate);
    assert_eq!(identity_of(&leaf).unwrap().0, "outgate://example/relay/dmz1");
    assert!(is_server(&root, &leaf, "relay.example.com", NOW));
    assert!(is_server(&root, &leaf, "192.0.2.1", NOW));
    assert!(!is_server(&root, &leaf, "other.example.com", NOW));
    assert!(!is_client(&root, &leaf, NOW));
}

#[test]
fn a_certificate_lasts_from_five_minutes_before_to_thirty_days() {
    let (ca, root) = TunnelCa::create("example", NOW).unwrap();
    let (_, issued) = ca.issue(Role::Connector, "lan1", &[], NOW).unwrap();
    let leaf = der(&issued.certificate);
    let month = 30 * 86_400;
    for (time, good) in [(NOW - 301, false), (NOW - 300, true), (NOW + month - 301, true), (NOW + month, false)] {
        assert_eq!(is_client(&root, &leaf, time), good, "{time}");
    }
}

#[test]
fn another_ca_of_the_same_name_is_not_trusted() {
    let (_, root) = TunnelCa::create("example", NOW).unwrap();
    let (other, _) = TunnelCa::create("example", NOW).unwrap();
    let (_, issued) = other.issue(Role::Connector, "lan1", &[], NOW).unwrap();
    assert!(!is_client(&root, &der(&issued.certificate), NOW));
}

#[test]
fn a_ca_read_from_its_files_issues_like_the_one_that_wrote_them() {
    let (_, root) = TunnelCa::create("example", NOW).unwrap();
    let again = TunnelCa::from_pem(&root.certificate, &root.key).unwrap();
    assert_eq!(again.org(), "example");
    let (_, issued) = again.issue(Role::Connector, "lan1", &[], NOW).unwrap();
    assert!(is_client(&root, &der(&issued.certificate), NOW));
    let (_, foreign) = TunnelCa::create("example", NOW).unwrap();
    for (certificate, key) in [
        (root.certificate.as_str(), foreign.key.as_str()),
        (issued.certificate.as_str(), issued.key.as_str()),
        ("", root.key.as_str()),
        (root.certificate.as_str(), ""),
    ] {
        let error = TunnelCa::from_pem(certificate, key).unwrap_err();
        assert!(matches!(error, CertificateError::NotACa(_)), "{error}");
    }
}

#[test]
fn names_that_could_break_out_of_a_certificate_are_refused() {
    assert!(TunnelCa::create("a/b", NOW).is_err());
    let (ca, _) = TunnelCa::create("example", NOW).unwrap();
    assert!(ca.issue(Role::Connector, "lan1/../x", &[], NOW).is_err());
    for host in ["", "a b", "*.*", "caf\u{e9}.example"] {
        assert!(ca.issue(Role::Relay, "dmz1", &[host.to_owned()], NOW).is_err(), "{host}");
    }
}

#[test]
fn a_certificate_without_exactly_one_tunnel_name_has_no_identity() {
    let (_, issued) = self_signed("chat.example.com", NOW).unwrap();
    let error = identity_of(&der(&issued.certificate)).unwrap_err();
    assert!(matches!(error, CertificateError::Names(0)), "{error}");
    assert!(identity_of(&CertificateDer::from(vec![0x30, 0])).is_err());

    let mut params = CertificateParams::default();
    for name in ["outgate://example/connector/a", "outgate://example/connector/b"] {
        params.subject_alt_names.push(SanType::URI(name.try_into().unwrap()));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let two = params.self_signed(&key).unwrap();
    assert!(matches!(identity_of(two.der()), Err(CertificateError::Names(2))));
}

#[test]
fn a_demo_listener_is_trusted_by_its_own_ca() {
    let (ca, issued) = self_signed("chat.example.com", NOW).unwrap();
    let root = Issued { certificate: ca, key: Zeroizing::default() };
    assert!(is_server(&root, &der(&issued.certificate), "chat.example.com", NOW));
}

#[test]
fn files_are_loaded_and_their_faults_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str, mode: u32| {
        std::fs::write(path(name), text).unwrap();
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let (_, one) = self_signed("one.example", NOW).unwrap();
    let (_, two) = self_signed("two.example", NOW).unwrap();
    write("one.pem", &one.certificate, 0o644);
    write("one-key.pem", &one.key, 0o600);
    write("open-key.pem", &one.key, 0o644);
    write("two-key.pem", &two.key, 0o600);
    write("empty.pem", "", 0o600);

    let loaded = load(&path("one.pem"), &path("one-key.pem")).unwrap();
    assert_eq!((loaded.chain.len(), loaded.warnings.len()), (1, 0));
    let open = load(&path("one.pem"), &path("open-key.pem")).unwrap();
    assert!(open.warnings[0].contains("chmod 600"), "{open:?}");
    for (certificate, key, message) in [
        ("none.pem", "one-key.pem", "cannot read"),
        ("one.pem", "none.pem", "cannot read"),
        ("empty.pem", "one-key.pem", "holds no certificate"),
        ("one.pem", "one.pem", "holds no private key"),
        ("one.pem", "two-key.pem", "does not belong to the certificate"),
    ] {
        let error = load(&path(certificate), &path(key)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn roots(root: &Issued) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    store.add(der(&root.certificate)).unwrap();
    Arc::new(store)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn is_client(root: &Issued, leaf: &CertificateDer<'_>, now: u64) -> bool {
    WebPkiClientVerifier::builder_with_provider(roots(root), provider())
        .build()
        .unwrap()
        .verify_client_cert(leaf, &[], UnixTime::since_unix_epoch(Duration::from_secs(now)))
        .is_ok()
}

fn is_server(root: &Issued, leaf: &CertificateDer<'_>, host: &str, now: u64) -> bool {
    let host = ServerName::try_from(host).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    WebPkiServerVerifier::builder_with_provider(roots(root), provider())
        .build()
        .unwrap()
        .verify_server_cert(leaf, &[], &host, &[], now)
        .is_ok()
}
