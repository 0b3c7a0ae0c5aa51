//! A captured connector against a real relay, which serves another, honest one too.

use bytes::{BufMut as _, BytesMut};
use outgate::link::RevokedLink;
use outgate::net::link_keys::SigningKey;
use outgate::proto::tunnel::frame::Frame;
use outgate::proto::tunnel::policy::{IssuerKeys, Policy, QueueClaim};
use outgate::relay::Relay;

use super::company::{Company, DOMAIN, ISSUER};
use super::fake::FakeConnector;

/// POLICY's type, and the flags of one that goes on.
const POLICY: u8 = 23;
const MORE: u8 = 0x81;

#[tokio::test]
async fn it_claims_queues_of_others_and_gets_its_own_alone() {
    let (company, relay) = start();
    let mut captured = attach(&company, &relay).await;
    let policy = Policy { queues: vec![claim("sales"), claim("support"), claim("boardroom")], ..keys(&company.key) };
    let answer = captured.push(&policy).await;
    assert!(answer.is_current);
    assert_eq!(answer.refused_claims, ["support@localhost", "boardroom@localhost"]);
    assert_eq!(relay.status().await.counts.reasons.get("queue-not-granted"), Some(&2));
    let tunnel = relay.status().await.tunnels.into_iter().find(|tunnel| tunnel.identity.ends_with("lan2")).unwrap();
    assert_eq!((tunnel.policy_version, tunnel.policy.keys), (1, 1));
}

#[tokio::test]
async fn its_keys_vouch_for_its_own_queues_alone_and_never_for_those_of_others() {
    let (company, relay) = start();
    let mut honest = FakeConnector::attach(&company, "lan1", relay.tunnel_address().unwrap()).await;
    honest.push(&Policy::default()).await;
    let mut captured = attach(&company, &relay).await;
    captured.push(&keys(&company.key)).await;
    let foreign = company.link("support");
    let refused = captured.beside(login(&company, &relay, &foreign)).await;
    assert!(refused.contains("not-authorized"), "{refused}");
    assert_eq!(relay.status().await.counts.reasons.get("link-foreign-queue"), Some(&1));
    let own = company.link("sales");
    let let_in = captured.beside(login(&company, &relay, &own)).await;
    assert!(let_in.contains("<success"), "{let_in}");
    assert_eq!(captured.asked, ["sales"]);
    // The name of another's key does not make it that key.
    let (stolen, _) = SigningKey::generate().unwrap();
    honest.push(&keys(&stolen)).await;
    let renamed = keys_text(&company.key).replace(company.key.kid(), stolen.kid());
    captured.push(&Policy { issuers: vec![IssuerKeys { issuer: ISSUER.to_owned(), jwks: renamed }], ..Policy::default() }).await;
    let link = stolen.mint(&company.claims("support")).unwrap();
    let let_in = honest.beside(login(&company, &relay, &link)).await;
    assert!(let_in.contains("<success"), "{let_in}");
    assert_eq!(honest.asked, ["support"]);
}

#[tokio::test]
async fn without_a_policy_the_door_is_closed_and_no_policy_opens_what_the_files_do_not() {
    let (company, relay) = start();
    let mut captured = attach(&company, &relay).await;
    let closed = captured.beside(login(&company, &relay, &company.link("sales"))).await;
    assert!(closed.contains("temporary-auth-failure"), "{closed}");
    let closed = captured.beside(anonymous(&company, &relay)).await;
    assert!(closed.contains("temporary-auth-failure"), "the public queue is lan1's, which has not come: {closed}");
    assert_eq!(relay.status().await.counts.reasons.get("door-closed"), Some(&2));
    // Whatever it pushes, the public queue of the relay's files stays what it is, and another's.
    captured.push(&Policy { queues: vec![claim("sales"), claim("hello")], ..keys(&company.key) }).await;
    let closed = captured.beside(anonymous(&company, &relay)).await;
    assert!(closed.contains("temporary-auth-failure"), "{closed}");
    assert!(captured.asked.is_empty());
    let let_in = captured.beside(login(&company, &relay, &company.link("sales"))).await;
    assert!(let_in.contains("<success"), "{let_in}");
}

#[tokio::test]
async fn its_policies_can_refuse_more_and_a_broken_one_changes_nothing() {
    let (company, relay) = start();
    let mut captured = attach(&company, &relay).await;
    let claims = company.claims("sales");
    let link = company.key.mint(&claims).unwrap();
    let revoked = vec![RevokedLink { issuer: ISSUER.to_owned(), jti: claims.jti.clone(), expires: claims.exp }];
    captured.push(&Policy { revoked, ..keys(&company.key) }).await;
    let refused = captured.beside(login(&company, &relay, &link)).await;
    assert!(refused.contains("not-authorized") && refused.contains("withdrawn"), "{refused}");
    assert!(captured.asked.is_empty(), "refused without being asked about");
    let secret = "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\",\"kid\":\"a\",\"alg\":\"HS256\"}]}";
    let poison = Policy { issuers: vec![IssuerKeys { issuer: ISSUER.to_owned(), jwks: secret.to_owned() }], ..Policy::default() };
    let answer = captured.push(&poison).await;
    assert_eq!((answer.is_current, answer.version, answer.refused.as_str()), (false, 1, "policy-keys"));
    // So many keys of one name that each login would cost the relay dearly.
    let many: Vec<_> = (0..60).map(|_| SigningKey::generate().unwrap().0).collect();
    let sets = many.iter().map(|key| keys_text(key).replace(key.kid(), company.key.kid()));
    let issuers = sets.enumerate().map(|(n, jwks)| IssuerKeys { issuer: format!("i{n}"), jwks }).collect();
    let answer = captured.push(&Policy { issuers, ..Policy::default() }).await;
    assert_eq!((answer.version, answer.refused.as_str()), (1, "policy-keys"));
    let let_in = captured.beside(login(&company, &relay, &company.link("sales"))).await;
    assert!(let_in.contains("<success"), "the policy before stands: {let_in}");
}

#[tokio::test]
async fn versions_that_go_back_are_refused() {
    let (company, relay) = start();
    let mut captured = attach(&company, &relay).await;
    captured.push(&keys(&company.key)).await;
    captured.push(&Policy::default()).await;
    for version in [1, 2] {
        captured.forge(&[part(version, 4, 0, b"\x0a\x02\x0a\x00", 0x80)]).await;
        let answer = captured.answer().await;
        assert_eq!((answer.version, answer.refused.as_str()), (2, "policy-old-version"));
    }
    assert_eq!(relay.status().await.counts.reasons.get("policy-old-version"), Some(&2));
}

#[tokio::test]
async fn a_flood_of_parts_costs_its_own_carrier_and_nobody_elses() {
    let (company, relay) = start();
    let mut honest = FakeConnector::attach(&company, "lan1", relay.tunnel_address().unwrap()).await;
    honest.push(&keys(&company.key)).await;
    let floods: [Vec<Frame>; 4] = [
        // One beginning after the other.
        (0..100).map(|version| part(version + 1, 1000, 0, &[0; 100], MORE)).collect(),
        // Without end.
        (0..5000).map(|n| part(1, 500_000, n, b"x", MORE)).collect(),
        // More than is allowed.
        vec![part(1, 600_000, 0, b"x", MORE)],
        // No beginning.
        vec![part(1, 1000, 500, b"x", MORE)],
    ];
    for (index, flood) in floods.into_iter().enumerate() {
        let mut captured = attach(&company, &relay).await;
        captured.forge(&flood).await;
        captured.until_lost().await;
        let status = relay.status().await;
        let own = status.tunnels.iter().find(|tunnel| tunnel.identity.ends_with("lan2")).unwrap();
        assert_eq!(own.policy_version, 0, "flood {index}");
        assert!(status.tunnels.iter().any(|tunnel| tunnel.identity.ends_with("lan1") && tunnel.is_attached && tunnel.epoch == 1));
    }
    let let_in = honest.beside(login(&company, &relay, &company.link("support"))).await;
    assert!(let_in.contains("<success"), "{let_in}");
}

/// A relay that grants "hello" and "support" to lan1, and "sales" to lan2.
fn start() -> (Company, Relay) {
    let company = Company::new();
    let relay = company.relay("dmz1", &[("lan1", &["hello", "support"]), ("lan2", &["sales"])]);
    (company, relay)
}

async fn attach(company: &Company, relay: &Relay) -> FakeConnector {
    FakeConnector::attach(company, "lan2", relay.tunnel_address().unwrap()).await
}

fn claim(queue: &str) -> QueueClaim {
    QueueClaim { domain: DOMAIN.to_owned(), queue: queue.to_owned() }
}

fn keys(key: &SigningKey) -> Policy {
    Policy { issuers: vec![IssuerKeys { issuer: ISSUER.to_owned(), jwks: keys_text(key) }], ..Policy::default() }
}

fn keys_text(key: &SigningKey) -> String {
    key.public_set().to_string()
}

/// What SASL says to a link.
async fn login(company: &Company, relay: &Relay, link: &str) -> String {
    let mut customer = company.customer(relay).await;
    customer.open_stream().await;
    customer.plain(link).await;
    customer.until_any(&["</failure>", "<success"]).await
}

async fn anonymous(company: &Company, relay: &Relay) -> String {
    let mut customer = company.customer(relay).await;
    customer.open_stream().await;
    customer.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>").await;
    customer.until_any(&["</failure>", "<success"]).await
}

/// A part by hand: version=1, digest=2, length=3, offset=4, part=5. The digest is a wrong one.
fn part(version: u64, length: u32, offset: u32, bytes: &[u8], flags: u8) -> Frame {
    let mut body = BytesMut::new();
    body.put_u8(1 << 3);
    varint(&mut body, version);
    body.put_slice(&[2 << 3 | 2, 32]);
    body.put_slice(&[0; 32]);
    body.put_u8(3 << 3);
    varint(&mut body, length.into());
    body.put_u8(4 << 3);
    varint(&mut body, offset.into());
    body.put_u8(5 << 3 | 2);
    varint(&mut body, bytes.len() as u64);
    body.put_slice(bytes);
    Frame { kind: POLICY, flags, channel: 0, body: body.freeze() }
}

fn varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
