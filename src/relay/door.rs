//! The door: who may come in, on which terms, and the sentence for who may not.
//!
//! Order: the link (or the public queue), then the queue, then revocations, then the connector's word through CHECK. Nothing is
//! counted as a use here: the connector does that at OPEN.
//!
//! A short code is the connector's to judge: its label tells whose, and nobody is asked for a network that tried too many wrong ones.
//!
//! A link is good with a key of the relay's own files, for every queue; or with one that a connector pushed, for the queues that the
//! files grant to that connector. Without either the door is closed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::fingerprint::Denial;
use crate::link::code::CODE_ISSUER;
use crate::link::{LinkCode, LinkRefusal, LinkTerms};
use crate::net::accept_rate::Presented;
use crate::proto::tunnel::{Admission, Assertion, Identity, RefusalCode, Welcome};
use crate::proto::xmpp::negotiation::{Login, Mechanism};
use crate::proto::xmpp::sasl::{SaslCondition, SaslFailure};
use crate::proto::xmpp::server::Contact;

use super::attach::{CheckAnswer, Tunnels};
use super::client::Attachment;
use super::codes::Codes;
use super::gate::{Gate, Permit};
use super::policies::Policies;
use super::settings::{ServedDomain, ServedQueue, VerifyLink};

/// The group of the queue on a customer's roster.
const ROSTER_GROUP: &str = "Support";

/// Judges logins.
pub struct Door {
    domains: BTreeMap<String, ServedDomain>,
    codes: Codes,
    /// With the keys of the relay's own files, where it has any.
    verify_link: Option<Arc<VerifyLink>>,
    policies: Arc<Policies>,
    gate: Arc<Gate>,
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
    /// Software that his queue does not take.
    pub denied: Arc<[Denial]>,
    /// Who signed his link; empty for public entry.
    pub issuer: String,
    /// His link is for one session, which lives: he asks for that one.
    pub continues: bool,
    /// Whether his link has let somebody in before.
    pub presented: Presented,
}

/// What the relay alone can tell of a login: whom to ask, and about what.
#[derive(Debug)]
struct Asked<'a> {
    served: &'a ServedDomain,
    identity: Identity,
    admission: Admission,
    /// Who signed the link; empty for public entry.
    issuer: String,
    /// Why the link would be refused, but to bring its customer back to a session that lives.
    only_to_return: Option<LinkRefusal>,
}

/// A customer who may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason code for counters and logs.
    pub reason: &'static str,
    /// What SASL says.
    pub failure: SaslFailure,
}

impl Refusal {
    /// Whether it is no fault of the customer's.
    fn may_pass(&self) -> bool {
        self.failure.condition == SaslCondition::TemporaryAuthFailure
    }
}

/// What claims are proven by.
pub(super) struct Proofs {
    /// Short codes.
    pub(super) codes: Codes,
    /// With the keys of the relay's own files, where it has any.
    pub(super) verify_link: Option<Arc<VerifyLink>>,
    /// What connectors have pushed.
    pub(super) policies: Arc<Policies>,
}

impl Door {
    /// A door for these domains.
    pub(super) fn new(domains: Vec<ServedDomain>, proofs: Proofs, gate: Arc<Gate>, check_within: Duration) -> Self {
        let domains = domains.into_iter().map(|domain| (domain.name.clone(), domain)).collect();
        let Proofs { codes, verify_link, policies } = proofs;
        Self { domains, codes, verify_link, policies, gate, check_within }
    }

    /// Judges a login of `customer` at `unix_seconds`. One that fails is charged to where it comes from, whatever is looked at.
    pub(super) async fn judge(
        &self,
        login: Login,
        customer: IpAddr,
        tunnels: &Tunnels,
        permit: &mut Permit,
        unix_seconds: u64,
    ) -> Result<Admitted, Refusal> {
        permit.attempt().map_err(too_many_failures)?;
        let judged = self.terms(login, customer, unix_seconds);
        // A signature that holds was not guessed: what follows weighs once it is known, so that a crowd may ask at once. A code is no
        // more than asked about here, and has an account of guesses of its own.
        if judged.as_ref().err().is_none_or(Refusal::may_pass) {
            permit.forgive();
        }
        let Asked { served, identity, admission, issuer, only_to_return } = judged?;
        if tunnels.attachment(&identity) == Attachment::Detached {
            return Err(no_tunnel("no-tunnel"));
        }
        let presented = self.presented(&admission.assertion)?;
        let is_code = matches!(admission.assertion, Assertion::Code(_));
        let refusal = match tunnels.check(identity.clone(), Box::new(admission.clone()), self.check_within).await {
            CheckAnswer::Accepted(welcome) => match only_to_return {
                Some(refusal) if !welcome.continues => bad_link(refusal),
                Some(_) | None => {
                    let admitted = self.admitted(served, &identity, admission, welcome)?;
                    return Ok(Admitted { issuer, presented, ..admitted });
                }
            },
            CheckAnswer::Refused(code, text) => {
                if is_code && code == RefusalCode::BadLink {
                    self.codes.was_wrong(customer);
                }
                // Refused in any case, and here it is known why.
                only_to_return.filter(|_| code == RefusalCode::BadLink).map_or_else(|| refused_by_connector(code, &text), bad_link)
            }
            CheckAnswer::Unanswered => no_tunnel("check-unanswered"),
        };
        if !refusal.may_pass() {
            let _shut_out = permit.attempt();
        }
        Err(refusal)
    }

    /// What is offered in each domain: PLAIN for links, ANONYMOUS beside it where a queue is public.
    pub fn mechanisms(&self) -> Vec<(String, Vec<Mechanism>)> {
        let offer = |domain: &ServedDomain| match domain.public_queue {
            Some(_) => vec![Mechanism::Plain, Mechanism::Anonymous],
            None => vec![Mechanism::Plain],
        };
        self.domains.values().map(|domain| (domain.name.clone(), offer(domain))).collect()
    }

    /// What the relay can tell without asking.
    fn terms(&self, login: Login, customer: IpAddr, unix_seconds: u64) -> Result<Asked<'_>, Refusal> {
        match login {
            Login::Plain { domain, user, password } => {
                let served = self.domain(&domain)?;
                match code_of(&user, &password) {
                    Some(code) => self.terms_of_code(served, &code, customer),
                    None => self.terms_of_link(served, password, unix_seconds),
                }
            }
            Login::Anonymous { domain } => {
                let served = self.domain(&domain)?;
                let id = served.public_queue.as_deref().ok_or_else(|| not_authorized("no-public-queue", "A link is needed here."))?;
                let queue = find(served, id)?;
                if self.verify_link.is_none() && self.policies.of(connector_of(queue)).is_none() {
                    return Err(closed());
                }
                let admission = Admission { domain: served.name.clone(), queue: queue.id.clone(), assertion: Assertion::Anonymous };
                Ok(Asked { served, identity: connector_of(queue).clone(), admission, issuer: String::new(), only_to_return: None })
            }
        }
    }

    fn terms_of_link<'a>(&'a self, served: &'a ServedDomain, token: String, unix_seconds: u64) -> Result<Asked<'a>, Refusal> {
        let link = self.verified(served, &token, unix_seconds)?;
        let queue = find(served, &link.queue)?;
        let is_revoked = self.policies.of(connector_of(queue)).is_some_and(|pushed| pushed.is_revoked(&link));
        let refusal = if is_revoked { Some(LinkRefusal::Revoked) } else { link.lapsed.then_some(LinkRefusal::Expired) };
        // A link for one session brings its customer back as long as that lives, which the connector knows.
        if let Some(refusal) = refusal.filter(|_| link.max_sessions != Some(1)) {
            return Err(bad_link(refusal));
        }
        let (issuer, assertion) = (link.issuer, Assertion::Link { token, kid: link.kid });
        let admission = Admission { domain: served.name.clone(), queue: queue.id.clone(), assertion };
        Ok(Asked { served, identity: connector_of(queue).clone(), admission, issuer, only_to_return: refusal })
    }

    fn terms_of_code<'a>(&'a self, served: &'a ServedDomain, code: &LinkCode, customer: IpAddr) -> Result<Asked<'a>, Refusal> {
        let identity = self.codes.may_ask(code, customer)?.clone();
        let assertion = Assertion::Code(code.as_str().to_owned());
        let admission = Admission { domain: served.name.clone(), queue: String::new(), assertion };
        Ok(Asked { served, identity, admission, issuer: CODE_ISSUER.to_owned(), only_to_return: None })
    }

    /// The terms of a link that a key vouches for which may speak for its queue.
    fn verified(&self, served: &ServedDomain, token: &str, unix_seconds: u64) -> Result<LinkTerms, Refusal> {
        let own = self.verify_link.as_ref().map(|verify| verify(token, &served.name, unix_seconds));
        let own_refusal = match own {
            Some(Ok(link)) => return Ok(link),
            Some(Err(refusal)) => Some(refusal),
            None => None,
        };
        match self.policies.verify(token, &served.name, unix_seconds) {
            Ok((identity, link)) if self.policies.serves(&identity, &served.name, &link.queue) => Ok(link),
            Ok((identity, _)) => {
                tracing::warn!(identity = %identity.0, reason = "link-foreign-queue", "a pushed key vouches for another connector's queue");
                Err(Refusal { reason: "link-foreign-queue", ..bad_link(LinkRefusal::Queue) })
            }
            // Whoever's key it is may not have come yet: an honest customer is not turned away for good.
            Err(LinkRefusal::UnknownKey) if own_refusal.is_none() && !self.policies.is_complete() => Err(closed()),
            Err(LinkRefusal::UnknownKey) => Err(bad_link(own_refusal.unwrap_or(LinkRefusal::UnknownKey))),
            Err(refusal) => Err(bad_link(refusal)),
        }
    }

    /// Who is welcome, at the queue that his connector named for a code or that the relay read in a link.
    fn admitted(&self, domain: &ServedDomain, identity: &Identity, asked: Admission, welcome: Welcome) -> Result<Admitted, Refusal> {
        let id = if matches!(asked.assertion, Assertion::Code(_)) { welcome.queue } else { asked.queue };
        let queue = find(domain, &id)?;
        if connector_of(queue) != identity {
            tracing::warn!(identity = %identity.0, reason = "code-foreign-queue", "a code leads to another connector's queue");
            return Err(Refusal { reason: "code-foreign-queue", ..bad_link(LinkRefusal::Queue) });
        }
        let denied = self.policies.of(identity).map_or_else(|| Arc::from([]), |pushed| pushed.denied());
        Ok(Admitted {
            admission: Admission { domain: domain.name.clone(), queue: id, assertion: asked.assertion },
            identity: identity.clone(),
            contact: Contact { jid: format!("{}@{}", queue.id, domain.name), name: queue.name.clone(), group: ROSTER_GROUP.to_owned() },
            denied,
            issuer: String::new(),
            continues: welcome.continues,
            presented: Presented::First,
        })
    }

    /// Charges a login to its link, before the connector is asked.
    fn presented(&self, assertion: &Assertion) -> Result<Presented, Refusal> {
        let Assertion::Link { token, .. } = assertion else { return Ok(Presented::First) };
        // What is signed: a signature may be written in more ways than one.
        let signed = token.rsplit_once('.').map_or(token.as_str(), |(signed, _)| signed);
        let often = "This link is used too often at the moment. Please try again in a few minutes.";
        self.gate.rate().present(&signed).ok_or_else(|| temporary("link-rate", often))
    }

    fn domain(&self, name: &str) -> Result<&ServedDomain, Refusal> {
        self.domains.get(name).ok_or_else(|| not_authorized("unknown-domain", "This domain is not served here."))
    }
}

fn find<'a>(domain: &'a ServedDomain, id: &str) -> Result<&'a ServedQueue, Refusal> {
    let found = domain.queues.iter().find(|queue| queue.id == id);
    found.ok_or_else(|| bad_link(LinkRefusal::Queue))
}

/// The connector that a session of this queue goes to: the one it is granted to. Where connectors share a queue, the choice of the
/// least loaded belongs here.
fn connector_of(queue: &ServedQueue) -> &Identity {
    &queue.identity
}

/// The code that is presented, as a password or as the name before the at sign. A token is no code, and goes before the name.
fn code_of(user: &str, password: &str) -> Option<LinkCode> {
    LinkCode::parse(password).or_else(|| LinkCode::parse(user).filter(|_| !password.contains('.')))
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
        | LinkRefusal::Queue
        | LinkRefusal::Revoked => SaslCondition::NotAuthorized,
    };
    Refusal { reason: refusal.code(), failure: SaslFailure { condition, text: refusal.sentence().to_owned() } }
}

pub(super) fn not_authorized(reason: &'static str, text: &str) -> Refusal {
    Refusal { reason, failure: SaslFailure { condition: SaslCondition::NotAuthorized, text: text.to_owned() } }
}

fn no_tunnel(reason: &'static str) -> Refusal {
    temporary(reason, "The company cannot be reached at the moment. Please try again soon.")
}

/// Neither keys of its own nor a connector's policy: nobody's claim can be judged.
fn closed() -> Refusal {
    no_tunnel("door-closed")
}

fn too_many_failures(wait: Duration) -> Refusal {
    let text = format!("Too many logins from your network have failed. Please try again in {} seconds.", wait.as_secs() + 1);
    temporary("too-many-failures", &text)
}

/// A refusal that may pass.
pub(super) fn temporary(reason: &'static str, text: &str) -> Refusal {
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
