//! How to join the demo: ready to copy for people, one line of JSON for scripts.

use serde_json::json;

use super::hops::Show;
use super::site::{AGENTS_DOMAIN, Addresses, DOMAIN, Site};

/// The line for scripts.
pub(super) fn json(site: &Site, addresses: &Addresses) -> String {
    let agents: Vec<_> =
        site.agents.iter().map(|agent| json!({"jid": format!("{}@{AGENTS_DOMAIN}", agent.name), "password": agent.password})).collect();
    json!({
        "pid": std::process::id(),
        "domain": DOMAIN,
        "ca_file": site.ca_file,
        "xmpp": {"addr": addresses.customers.ip(), "port": addresses.customers.port()},
        "agents_xmpp": {"addr": addresses.agents.ip(), "port": addresses.agents.port(), "domain": AGENTS_DOMAIN},
        "queues": [
            {"id": "hello", "jid": format!("hello@{DOMAIN}"), "public": true},
            {"id": "support", "jid": format!("support@{DOMAIN}"), "public": false},
        ],
        "links": site.links,
        "agents": agents,
    })
    .to_string()
}

/// The text for people.
pub(super) fn show(site: &Site, addresses: &Addresses, show: Show) {
    let customers = addresses.customers;
    let agents = addresses.agents;
    show.line(format!(
        "\nJoin as a customer, without a link (Profanity):\n  \
         /connect {DOMAIN} server {} port {} tls direct\n  \
         /msg hello@{DOMAIN} Hello!\n",
        customers.ip(),
        customers.port()
    ));
    if let Some(link) = site.links.first() {
        show.line(format!(
            "Join as a customer with a link: any user name at {DOMAIN}, and this as the password; then write to support@{DOMAIN}:\n  {link}\n"
        ));
    }
    if let Some(agent) = site.agents.first() {
        show.line(format!(
            "Join as an agent (Profanity), password {}:\n  /connect {}@{AGENTS_DOMAIN} server {} port {} tls direct\n  \
             An offer comes as a message: answer it with `take CODE`; `!help` lists the commands.\n",
            agent.password,
            agent.name,
            agents.ip(),
            agents.port()
        ));
    }
    show.line(format!("Certificates are the demo's own; its authority, for clients that ask: {}", site.ca_file.display()));
    show.line("Ctrl-C ends it. Sessions as they come and go:");
}
