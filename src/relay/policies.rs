//! What connectors have pushed, by identity: keys for the links to their own queues, revoked links, refused software.
//!
//! It lives in memory alone and can refuse more than the relay's files do, never admit more: which queue belongs to whom, which is
//! public and every limit stands in `relay.toml`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::fingerprint::Denial;
use crate::link::{LinkRefusal, LinkTerms};
use crate::net::link_keys::LinkKeys;
use crate::proto::tunnel::Identity;
use crate::proto::tunnel::policy::{Policy, PolicyVerdict, QueueClaim};

use super::settings::ServedDomain;

/// Most keys of one connector.
const MAX_KEYS: usize = 256;

/// Most keys of one connector that bear the same id.
const MAX_KEYS_OF_ONE_NAME: usize = 8;

/// The pushed policies of all connectors.
#[derive(Debug)]
pub struct Policies {
    /// The queues that the files grant, by connector.
    granted: BTreeMap<Identity, BTreeSet<QueueClaim>>,
    leeway: Duration,
    pushed: RwLock<BTreeMap<Identity, Arc<Pushed>>>,
}

/// What one connector pushed.
#[derive(Debug, Default)]
pub struct Pushed {
    keys: LinkKeys,
    revoked: HashSet<(String, String)>,
    denied: Arc<[Denial]>,
}

/// How much one connector pushed, for status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PushedCounts {
    /// Link keys.
    pub keys: usize,
    /// Revoked links.
    pub revoked: usize,
    /// Refused kinds of software.
    pub denied: usize,
}

impl Policies {
    /// No policy yet; `domains` say which connector may serve what.
    pub fn new(domains: &[ServedDomain], leeway: Duration) -> Self {
        let mut granted: BTreeMap<Identity, BTreeSet<QueueClaim>> = BTreeMap::new();
        for domain in domains {
            for queue in &domain.queues {
                let claim = QueueClaim { domain: domain.name.clone(), queue: queue.id.clone() };
                granted.entry(queue.identity.clone()).or_default().insert(claim);
            }
        }
        Self { granted, leeway, pushed: RwLock::default() }
    }

    /// The connectors that serve any queue here.
    pub fn identities(&self) -> BTreeSet<Identity> {
        self.granted.keys().cloned().collect()
    }

    /// Lets `policy` of `identity` stand from now on, but for claims beyond its grant; or keeps the one before, where its keys
    /// cannot be used.
    pub fn apply(&self, identity: &Identity, policy: Policy) -> PolicyVerdict {
        let Some(granted) = self.granted.get(identity) else { return PolicyVerdict::Refused { why: "unknown-identity" } };
        let mut keys = LinkKeys::default();
        for issuer in &policy.issuers {
            if let Err(fault) = keys.add_set(&issuer.issuer, &issuer.jwks) {
                tracing::warn!(identity = %identity.0, issuer = issuer.issuer, %fault, "pushed keys cannot be used");
                return PolicyVerdict::Refused { why: "policy-keys" };
            }
        }
        if !is_bounded(&keys) {
            return PolicyVerdict::Refused { why: "policy-keys" };
        }
        let refused: Vec<QueueClaim> = policy.queues.into_iter().filter(|claim| !granted.contains(claim)).collect();
        let pushed = Pushed {
            keys,
            revoked: policy.revoked.into_iter().map(|link| (link.issuer, link.jti)).collect(),
            denied: policy.denied.into(),
        };
        self.pushed.write().unwrap_or_else(PoisonError::into_inner).insert(identity.clone(), Arc::new(pushed));
        PolicyVerdict::Taken { refused }
    }

    /// Judges a link with the keys of every connector: whose key vouches for it, or the refusal that says most.
    pub fn verify(&self, token: &str, domain: &str, now: u64) -> Result<(Identity, LinkTerms), LinkRefusal> {
        let pushed = self.pushed.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut refusal = LinkRefusal::UnknownKey;
        let mut foreign = None;
        for (identity, pushed) in pushed {
            match pushed.keys.verify_link(token, now, domain, self.leeway) {
                Ok(terms) if self.serves(&identity, domain, &terms.queue) => return Ok((identity, terms)),
                Ok(terms) => foreign = Some((identity, terms)),
                Err(LinkRefusal::UnknownKey) => {}
                Err(other) => refusal = other,
            }
        }
        foreign.ok_or(refusal)
    }

    /// Whether the files let `identity` serve this queue.
    pub fn serves(&self, identity: &Identity, domain: &str, queue: &str) -> bool {
        let claim = QueueClaim { domain: domain.to_owned(), queue: queue.to_owned() };
        self.granted.get(identity).is_some_and(|granted| granted.contains(&claim))
    }

    /// The connector that the files grant this queue.
    pub fn owner_of(&self, claim: &QueueClaim) -> Option<&Identity> {
        self.granted.iter().find(|(_, granted)| granted.contains(claim)).map(|(identity, _)| identity)
    }

    /// What the connector `identity` has pushed.
    pub fn of(&self, identity: &Identity) -> Option<Arc<Pushed>> {
        self.pushed.read().unwrap_or_else(PoisonError::into_inner).get(identity).cloned()
    }

    /// Whether every connector has pushed a policy.
    pub fn is_complete(&self) -> bool {
        let pushed = self.pushed.read().unwrap_or_else(PoisonError::into_inner);
        self.granted.keys().all(|identity| pushed.contains_key(identity))
    }
}

/// Few keys in all, and few of one name: a link is tried with every key that bears its `kid`.
fn is_bounded(keys: &LinkKeys) -> bool {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, kid, _) in keys.names() {
        *names.entry(kid).or_insert(0) += 1;
    }
    keys.len() <= MAX_KEYS && names.values().all(|count| *count <= MAX_KEYS_OF_ONE_NAME)
}

impl Pushed {
    /// Whether this link was taken back.
    pub fn is_revoked(&self, terms: &LinkTerms) -> bool {
        self.revoked.contains(&(terms.issuer.clone(), terms.jti.clone()))
    }

    /// Software that is not let in.
    pub fn denied(&self) -> Arc<[Denial]> {
        Arc::clone(&self.denied)
    }

    /// How much it is.
    pub fn counts(&self) -> PushedCounts {
        PushedCounts { keys: self.keys.len(), revoked: self.revoked.len(), denied: self.denied.len() }
    }
}
