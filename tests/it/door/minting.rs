//! docs/links.md says how a web site mints links with ordinary JWT libraries: its own lines are run, and what they print is let in.

use std::path::Path;
use std::process::Command;

use outgate::link::token::Algorithm;
use outgate::net::link_keys::SigningKey;

use crate::interop::Needs;
use crate::trust::company::{Company, DOMAIN, all_pushed};

#[tokio::test]
async fn python_mints_links_that_a_relay_lets_in() {
    if !Needs::jwt_libraries().met("docs/links.md in Python") {
        return;
    }
    let python = crate::interop::drivers_home().join("venv/bin/python");
    minted_links_are_let_in("python", "mint.py", &python).await;
}

#[tokio::test]
async fn javascript_mints_links_that_a_relay_lets_in() {
    if !Needs::jwt_libraries().program("node").met("docs/links.md in JavaScript") {
        return;
    }
    minted_links_are_let_in("js", "mint.mjs", Path::new("node")).await;
}

/// With either kind of key.
async fn minted_links_are_let_in(language: &str, file: &str, program: &Path) {
    for alg in [Algorithm::EdDsa, Algorithm::Es256] {
        let company = Company::new();
        let (key, pem) = SigningKey::generate_for(alg).unwrap();
        company.trust(&key);
        company.write("link-key.pem", &pem);
        company.write(file, &lines_of(language));
        let modules = crate::interop::drivers_home().join("npm/node_modules");
        std::os::unix::fs::symlink(modules, company.path("node_modules")).unwrap();
        let minted = Command::new(program).arg(file).current_dir(company.path("")).output().unwrap();
        let problem = String::from_utf8_lossy(&minted.stderr);
        assert!(minted.status.success(), "{language} {alg:?}: {problem}");
        let link = String::from_utf8(minted.stdout).unwrap();

        let relay = company.relay("dmz1", &[("lan1", &["support"])]);
        let _connector = company.connector("lan1", &[relay.tunnel_address().unwrap()], &["support"]).await;
        company.until("lan1", "the policy to be held", all_pushed).await;
        let mut customer = company.customer(&relay).await;
        customer.log_in(link.trim()).await;
        customer.say("<presence/>").await;
        customer.until("This is lan1.").await;
        let list = company.ask("lan1", "{\"get\":\"links\"}").await;
        assert_eq!((list["links"][0]["uses"].as_u64(), list["links"][0]["state"].as_str()), (Some(1), Some("used-up")), "{list}");
        relay.stop().await;
    }
}

/// The page's lines in this language, for the domain of the test.
fn lines_of(language: &str) -> String {
    let page = include_str!("../../../docs/links.md");
    let fence = format!("```{language}\n");
    let (_, rest) = page.split_once(&fence).unwrap_or_else(|| panic!("docs/links.md shows no {language}"));
    let (lines, _) = rest.split_once("\n```").unwrap();
    assert!(lines.contains("chat.example.com"));
    format!("{}\n", lines.replace("chat.example.com", DOMAIN))
}
