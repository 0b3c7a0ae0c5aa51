//! The demo's conversation with itself: a customer asks the bot, asks for a human, and an agent takes over.

use crate::proto::xmpp::client::Credentials;

use super::hops::{Hops, Show};
use super::person::{Person, Server};
use super::site::{AGENTS_DOMAIN, Addresses, DOMAIN, GUIDE, Site};

const QUESTION: &str = "What are your opening hours?";
const CALL: &str = "I would like to talk with a human, please.";
const HARD_QUESTION: &str = "Do you ship to Tromsø?";
const ANSWER: &str = "Yes, within three days.";

/// Holds the conversation. Every message is waited for at the other end.
pub(super) async fn hold(site: &Site, addresses: &Addresses, hops: &Hops, show: Show) -> Result<(), String> {
    let queue = format!("tour@{DOMAIN}");
    hops.act("The agent's client logs in.").await;
    let mut agent = Person::arrive("the agent", server(site, addresses.agents, AGENTS_DOMAIN), guide(site)).await?;
    let link = Credentials::Plain { user: "customer".to_owned(), password: site.tour_link.clone() };
    hops.act("The customer's client logs in: TLS 1.3, the password is a signed link.").await;
    let mut customer = Person::arrive("the customer", server(site, addresses.customers, DOMAIN), link).await?;
    let greeting = customer.hear("Robin, a bot").await?;
    hops.hop(&format!("customer's client shows: {}", greeting.body));

    hops.say("customer", QUESTION).await;
    customer.say(&queue, QUESTION).await?;
    let said = customer.hear("Monday to Friday").await?;
    hops.hop(&format!("customer's client shows the bot's answer: {}", said.body));

    hops.say("customer", CALL).await;
    customer.say(&queue, CALL).await?;
    let placed = customer.hear("in line").await?;
    hops.hop(&format!("customer's client shows: {}", placed.body));
    let offer = agent.hear("Reply: take ").await?;
    hops.hop(&format!("agent's client shows the offer: {}", offer.body));
    let take = offer.body.split("Reply: ").nth(1).and_then(|rest| rest.split(" |").next()).ok_or("the offer names no code")?.to_owned();
    hops.say("agent", &take).await;
    agent.say(&offer.from, &take).await?;
    let joined = customer.hear("joined").await?;
    hops.hop(&format!("customer's client shows: {}", joined.body));

    hops.say("customer", HARD_QUESTION).await;
    customer.say(&queue, HARD_QUESTION).await?;
    let asked = agent.hear(HARD_QUESTION).await?;
    hops.hop(&format!("agent's client shows it, from {}", asked.from));
    hops.say("agent", ANSWER).await;
    agent.say(&asked.from, ANSWER).await?;
    customer.hear(ANSWER).await?;
    hops.hop("customer's client shows it");

    hops.say("agent", "!done").await;
    agent.say(&asked.from, "!done").await?;
    let closed = customer.hear("closed").await?;
    hops.hop(&format!("customer's client shows: {}", closed.body));
    show.line("\nEvery message arrived, once.");
    customer.leave().await?;
    agent.leave().await
}

fn server<'a>(site: &'a Site, address: std::net::SocketAddr, domain: &'a str) -> Server<'a> {
    Server { address, domain, ca_pem: &site.ca_pem }
}

fn guide(site: &Site) -> Credentials {
    Credentials::Scram { user: GUIDE.to_owned(), password: site.guide.password.clone() }
}
