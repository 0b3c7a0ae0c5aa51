//! The door: who may come in, on which terms, and the sentence for who may not.
//!
//! Order: the link (or the public queue), then the queue, then the connector's word through CHECK. Nothing is counted as a use here:
//! the connector does that at OPEN.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::link::LinkRefusal;
use crate::proto::tunnel::{Admission, Assertion, Identity, RefusalCode};
use crate::proto::xmpp::negotiation::{Login, Mechanism};
use crate::proto::xmpp::sasl::{SaslCondition, SaslFailure};
use crate::proto::xmpp::server::Contact;

use super::attach::{CheckAnswer, Tunnels};
use super::client::Attachment;
use super::settings::{ServedDomain, ServedQueue, VerifyLink};

/// The group of the queue on a customer's roster.
const ROSTER_GROUP: &str = "Support";

/// Judges logins.
pub struct Door {
    domains: BTreeMap<String, ServedDomain>,
    verify_link: Arc<VerifyLink>,
    check_within: Duration,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("domains", &self.domains).finish_non_exhaustive()
    }
}

/// A customer who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The terms, for OPEN.
    pub admission: Admission,
    /// The connector that serves his queue.
    pub identity: Identity,
    /// The queue as his roster shows it.
    pub contact: Contact,
}

/// A customer who may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason code for counters and logs.
    pub reason: &'static str,
    /// What SASL says.
    pub failure: SaslFailure,
}

impl Door {
    /// A door for these domains.
    pub fn new(domains: Vec<ServedDomain>, verify_link: Arc<VerifyLink>, check_within: Duration) -> Self {
        let domains = domains.into_iter().map(|domain| (domain.name.clone(), domain)).collect();
        Self { domains, verify_link, check_within }
    }

    /// Judges a login at `unix_seconds`.
    pub async fn judge(&self, login: Login, tunnels: &Tunnels, unix_seconds: u64) -> Result<Admitted, Refusal> {
        let admitted = self.terms(login, unix_seconds)?;
        if tunnels.attachment(&admitted.identity) == Attachment::Detached {
            return Err(no_tunnel("no-tunnel"));
        }
        match tunnels.check(admitted.identity.clone(), Box::new(admitted.admission.clone()), self.check_within).await {
            CheckAnswer::Accepted => Ok(admitted),
            CheckAnswer::Refused(code, text) => Err(refused_by_connector(code, &text)),
            CheckAnswer::Unanswered => Err(no_tunnel("check-unanswered")),
        }
    }

    /// What is offered in each domain: PLAIN for links, ANONYMOUS beside it where a queue is public.
    pub fn mechanisms(&self) -> Vec<(String, Vec<Mechanism>)> {
        let offer = |domain: &ServedDomain| match domain.public_queue {
            Some(_) => vec![Mechanism::Plain, Mechanism::Anonymous],
            None => vec![Mechanism::Plain],
        };
        self.domains.values().map(|domain| (domain.name.clone(), offer(domain))).collect()
    }

    /// The connectors that serve any queue here.
    pub fn identities(&self) -> BTreeSet<Identity> {
        self.domains.values().flat_map(|domain| domain.queues.iter().map(|queue| queue.identity.clone())).collect()
    }

    /// What the relay can tell without asking.
    fn terms(&self, login: Login, unix_seconds: u64) -> Result<Admitted, Refusal> {
        match login {
            Login::Plain { domain, user: _, password } => {
                let served = self.domain(&domain)?;
                let link = (self.verify_link)(&password, &domain, unix_seconds).map_err(bad_link)?;
                let queue = find(served, &link.queue)?;
                Ok(admitted(served, queue, Assertion::Link { token: password, kid: link.kid }))
            }
            Login::Anonymous { domain } => {
                let served = self.domain(&domain)?;
                let id = served.public_queue.as_deref().ok_or_else(|| not_authorized("no-public-queue", "A link is needed here."))?;
                let queue = find(served, id)?;
                Ok(admitted(served, queue, Assertion::Anonymous))
            }
        }
    }

    fn domain(&self, name: &str) -> Result<&ServedDomain, Refusal> {
        self.domains.get(name).ok_or_else(|| not_authorized("unknown-domain", "This domain is not served here."))
    }
}

fn find<'a>(domain: &'a ServedDomain, id: &str) -> Result<&'a ServedQueue, Refusal> {
    let found = domain.queues.iter().find(|queue| queue.id == id);
    found.ok_or_else(|| bad_link(LinkRefusal::Queue))
}

fn admitted(domain: &ServedDomain, queue: &ServedQueue, assertion: Assertion) -> Admitted {
    Admitted {
        admission: Admission { domain: domain.name.clone(), queue: queue.id.clone(), assertion },
        identity: queue.identity.clone(),
        contact: Contact { jid: format!("{}@{}", queue.id, domain.name), name: queue.name.clone(), group: ROSTER_GROUP.to_owned() },
    }
}

fn bad_link(refusal: LinkRefusal) -> Refusal {
    let condition = match refusal {
        LinkRefusal::Expired => SaslCondition::CredentialsExpired,
        LinkRefusal::Malformed
        | LinkRefusal::Algorithm
        | LinkRefusal::UnknownKey
        | LinkRefusal::BadSignature
        | LinkRefusal::Claims
        | LinkRefusal::Issuer
        | LinkRefusal::Audience
        | LinkRefusal::NotYetValid
        | LinkRefusal::Queue => SaslCondition::NotAuthorized,
    };
    Refusal { reason: refusal.code(), failure: SaslFailure { condition, text: refusal.sentence().to_owned() } }
}

fn not_authorized(reason: &'static str, text: &str) -> Refusal {
    Refusal { reason, failure: SaslFailure { condition: SaslCondition::NotAuthorized, text: text.to_owned() } }
}

fn no_tunnel(reason: &'static str) -> Refusal {
    temporary(reason, "The company cannot be reached at the moment. Please try again soon.")
}

fn temporary(reason: &'static str, text: &str) -> Refusal {
    Refusal { reason, failure: SaslFailure { condition: SaslCondition::TemporaryAuthFailure, text: text.to_owned() } }
}

fn refused_by_connector(code: RefusalCode, text: &str) -> Refusal {
    let or = |default: &'static str| if text.is_empty() { default } else { text };
    match code {
        RefusalCode::Busy => temporary("check-busy", or("Too many people are waiting at the moment. Please try again soon.")),
        RefusalCode::Drain => temporary("check-drain", or("The company cannot be reached at the moment. Please try again soon.")),
        RefusalCode::StoreRegressed => temporary("check-store-regressed", or("Please try again soon.")),
        RefusalCode::NoQueue => not_authorized("check-no-queue", or("The queue does not exist.")),
        RefusalCode::BadLink => not_authorized("check-bad-link", or("This link is not accepted.")),
        RefusalCode::Policy => not_authorized("check-policy", or("You cannot come in here.")),
        RefusalCode::UnknownSession => not_authorized("check-unknown-session", or("This conversation is over.")),
    }
}
