//! Several relays, several connectors: one tunnel for each pair, each queue with its one connector; and what an admin changes while
//! they run.

use std::time::Duration;

use outgate::connector::{Connector, Every};
use outgate::net::link_keys::SigningKey;
use outgate::relay::Relay;
use serde_json::json;

use super::company::{Company, all_pushed};

#[tokio::test]
async fn one_relay_brings_each_session_to_the_connector_of_its_queue_and_one_that_is_down_closes_its_own_queues_alone() {
    let company = Company::new();
    let relay = company.relay("dmz1", &[("lan1", &["hello", "support"]), ("lan2", &["sales"])]);
    let tunnel = relay.tunnel_address().unwrap();
    let first = company.connector("lan1", &[tunnel], &["hello", "support"]).await;
    let second = company.connector("lan2", &[tunnel], &["sales"]).await;
    for name in ["lan1", "lan2"] {
        company.until(name, "the policy to be held", all_pushed).await;
    }
    assert_eq!(greeted(&company, &relay, &company.link("support")).await, "This is lan1.");
    assert_eq!(greeted(&company, &relay, &company.link("sales")).await, "This is lan2.");
    second.shutdown().await;
    company
        .until("dmz1", "lan2 to be gone", |status| {
            status["tunnels"].as_array().unwrap().iter().any(|tunnel| tunnel["is_attached"] == false)
        })
        .await;
    let mut customer = company.customer(&relay).await;
    customer.open_stream().await;
    customer.plain(&company.link("sales")).await;
    assert!(customer.until("</failure>").await.contains("temporary-auth-failure"));
    assert_eq!(greeted(&company, &relay, &company.link("support")).await, "This is lan1.");
    first.shutdown().await;
    relay.stop().await;
}

#[tokio::test]
async fn one_connector_serves_two_relays_and_goes_on_when_one_is_gone() {
    let company = Company::new();
    let grants: [(&str, &[&str]); 1] = [("lan1", &["hello", "support"])];
    let relays = [company.relay("dmz1", &grants), company.relay("dmz2", &grants)];
    let tunnels: Vec<_> = relays.iter().map(|relay| relay.tunnel_address().unwrap()).collect();
    let connector = company.connector("lan1", &tunnels, &["hello", "support"]).await;
    let status = company.until("lan1", "both policies to be held", all_pushed).await;
    assert_eq!(status["tunnels"].as_array().unwrap().len(), 2);
    let link = company.link("support");
    for relay in &relays {
        assert_eq!(greeted(&company, relay, &link).await, "This is lan1.");
    }
    let [first, second] = relays;
    first.stop().await;
    assert_eq!(greeted(&company, &second, &link).await, "This is lan1.");
    connector.shutdown().await;
    second.stop().await;
}

#[tokio::test]
async fn a_queue_that_a_relay_does_not_grant_is_told_to_the_connectors_admin() {
    let company = Company::new();
    let relay = company.relay("dmz1", &[("lan1", &["support"]), ("lan2", &["sales"])]);
    let _connector = company.connector("lan1", &[relay.tunnel_address().unwrap()], &["support", "sales"]).await;
    let status = company.until("lan1", "the policy to be held", all_pushed).await;
    assert_eq!(status["tunnels"][0]["refused_queues"], json!(["sales@localhost"]));
}

#[tokio::test]
async fn a_rotated_key_and_a_revocation_reach_every_relay_without_a_restart() {
    let company = Company::new();
    let grants: [(&str, &[&str]); 1] = [("lan1", &["hello", "support"])];
    let relays = [company.relay("dmz1", &grants), company.relay("dmz2", &grants)];
    let tunnels: Vec<_> = relays.iter().map(|relay| relay.tunnel_address().unwrap()).collect();
    let mut settings = company.connector_settings("lan1", &tunnels, &["hello", "support"]);
    settings.every = Every { keys: Duration::from_millis(50), ..Every::default() };
    let _connector = Connector::start(settings).await.unwrap();
    company.until("lan1", "both policies to be held", all_pushed).await;
    let old = company.link("support");
    assert_eq!(greeted(&company, &relays[0], &old).await, "This is lan1.");

    let (key, _) = SigningKey::generate().unwrap();
    company.trust(&key);
    let claims = company.claims("support");
    let new = key.mint(&claims).unwrap();
    for name in ["dmz1", "dmz2"] {
        company.until(name, "the new key", |status| status["tunnels"][0]["policy_version"] == 2).await;
    }
    for relay in &relays {
        assert_eq!(greeted(&company, relay, &new).await, "This is lan1.");
        assert_eq!(refused(&company, relay, &old).await, "link-unknown-key");
    }
    let shown = company.ask("lan1", "{\"get\":\"link-keys\"}").await;
    assert_eq!(shown["keys"][0]["kid"], key.kid());

    let done = company.ask("lan1", &json!({"do": {"revoke": {"jti": claims.jti}}}).to_string()).await;
    assert_eq!(done["revoked_links"], 1, "{done}");
    for (name, relay) in ["dmz1", "dmz2"].iter().zip(&relays) {
        company.until(name, "the revocation", |status| status["tunnels"][0]["policy"]["revoked"] == 1).await;
        assert_eq!(refused(&company, relay, &new).await, "link-revoked");
    }
}

#[tokio::test]
async fn an_admin_takes_links_back_by_file_and_by_name_and_sees_the_trusted_keys() {
    let company = Company::new();
    let relay = company.relay("dmz1", &[("lan1", &["hello", "support"])]);
    let _connector = company.connector("lan1", &[relay.tunnel_address().unwrap()], &["hello", "support"]).await;
    company.until("lan1", "the policy to be held", all_pushed).await;
    let link = company.link("support");
    let file = company.path("link.txt");
    std::fs::write(&file, format!("{link}\n")).unwrap();
    let mut customer = company.customer(&relay).await;
    customer.log_in(&link).await;
    customer.say("<presence/>").await;
    customer.until("</body>").await;

    let told = cli(&company, &["revoke", file.to_str().unwrap(), "--end"]).await;
    assert!(told.contains(": 1 session ended"), "{told}");
    assert!(customer.until("</body>").await.contains("This link has been withdrawn"));
    assert_eq!(refused(&company, &relay, &link).await, "link-revoked");
    let told = cli(&company, &["revoke", "some-link", "--json"]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&told).unwrap()["revoked_links"], 2);
    let told = cli(&company, &["keys"]).await;
    assert!(told.starts_with(company.key.kid()) && told.contains("EdDSA  https://example.com"), "{told}");
    let told = cli(&company, &["keys", "--json"]).await;
    assert!(told.contains(&format!("\"kid\":\"{}\"", company.key.kid())) && told.contains("\"jwks\""), "{told}");
}

/// Runs `outgate link` beside the roles; what it printed.
async fn cli(company: &Company, arguments: &[&str]) -> String {
    let socket = company.path("lan1.sock");
    let arguments: Vec<String> = ["link"].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
    let run = move || {
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        all.extend(["--socket", socket.to_str().unwrap()]);
        crate::setup::outgate(&all)
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Logs in and waits for the bot's greeting.
async fn greeted(company: &Company, relay: &Relay, link: &str) -> String {
    let mut customer = company.customer(relay).await;
    customer.log_in(link).await;
    customer.say("<presence/>").await;
    customer.until("<body>").await;
    let body = customer.until("</body>").await;
    body.trim_end_matches("</body>").to_owned()
}

/// Logs in in vain; the one reason that was counted for it.
async fn refused(company: &Company, relay: &Relay, link: &str) -> &'static str {
    let before = relay.status().await.counts.reasons;
    let mut customer = company.customer(relay).await;
    customer.open_stream().await;
    customer.plain(link).await;
    customer.until("</failure>").await;
    let after = relay.status().await.counts.reasons;
    let new: Vec<&str> =
        after.iter().filter(|(reason, count)| before.get(*reason) != Some(count) && reason.starts_with("link-")).map(|(r, _)| *r).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    new[0]
}
