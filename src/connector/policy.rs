//! What this connector tells its relays: its queues, the keys of links, revoked links, refused software.
//!
//! Any of these may change while it runs: keys when a file's content does, revocations when an admin says so. Each change makes a
//! new policy, which every tunnel's task then pushes.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fingerprint::Denial;
use crate::link::RevokedLink;
use crate::net::link_keys::LinkKeyFiles;
use crate::proto::tunnel::policy::{EncodedPolicy, IssuerKeys, Policy, QueueClaim};

/// The latest policy, for the tunnels' tasks.
pub(super) type Latest = watch::Receiver<Option<Arc<EncodedPolicy>>>;

/// What a policy is made of.
#[derive(Clone, Debug)]
pub(super) struct PolicySource(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Arc<LinkKeyFiles>,
    queues: Vec<QueueClaim>,
    denied: Vec<Denial>,
    revoked: Mutex<Vec<RevokedLink>>,
    latest: watch::Sender<Option<Arc<EncodedPolicy>>>,
}

impl PolicySource {
    /// Makes the first policy.
    pub(super) fn new(keys: Arc<LinkKeyFiles>, queues: Vec<QueueClaim>, denied: Vec<Denial>) -> Self {
        let (latest, _) = watch::channel(None);
        let source = Self(Arc::new(Inner { keys, queues, denied, revoked: Mutex::default(), latest }));
        source.publish();
        source
    }

    /// Hears of every policy.
    pub(super) fn latest(&self) -> Latest {
        let mut latest = self.0.latest.subscribe();
        latest.mark_changed();
        latest
    }

    /// These links, and no others, are revoked.
    pub(super) fn set_revoked(&self, links: Vec<RevokedLink>) {
        *self.0.revoked.lock().unwrap_or_else(PoisonError::into_inner) = links;
        self.publish();
    }

    /// Makes a policy of what holds now. One that no relay would take changes nothing: the connector itself judges by what holds.
    pub(super) fn publish(&self) {
        let issuers = self.0.keys.sets().into_iter().map(|(issuer, jwks)| IssuerKeys { issuer, jwks });
        let policy = Policy {
            queues: self.0.queues.clone(),
            issuers: issuers.collect(),
            revoked: self.0.revoked.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            denied: self.0.denied.clone(),
        };
        match EncodedPolicy::new(&policy) {
            Ok(encoded) => drop(self.0.latest.send_replace(Some(Arc::new(encoded)))),
            Err(fault) => tracing::error!(%fault, "the relays keep the policy before"),
        }
    }

    /// The trusted issuers and their keys, as `outgate link keys` shows them.
    pub(super) fn shown(&self) -> Value {
        let keys = self.0.keys.keys();
        let names: Vec<Value> = keys.names().map(|(issuer, kid, alg)| json!({ "issuer": issuer, "kid": kid, "alg": alg })).collect();
        let sets: Vec<Value> = self
            .0
            .keys
            .sets()
            .into_iter()
            .map(|(issuer, text)| json!({ "issuer": issuer, "jwks": serde_json::from_str::<Value>(&text).unwrap_or_default() }))
            .collect();
        json!({ "keys": names, "issuers": sets })
    }
}

/// Waits for the next policy; for ever once there will be none.
pub(super) async fn next(latest: &mut Latest) -> Option<Arc<EncodedPolicy>> {
    if latest.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    latest.borrow_and_update().clone()
}
