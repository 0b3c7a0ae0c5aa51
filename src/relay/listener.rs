//! Accepts customers' connections: allow-list and caps first, one owned task each. A relay that takes its leave accepts no more and serves
//! who is here.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::attach::Tunnels;
use super::connection::{Places, Shared, Until, serve};
use super::gate::Knocker;
use crate::net::listener::Listener;

/// How long connections may take to end once the relay stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How often is looked whether those who give way have gone.
const BREATH: Duration = Duration::from_millis(1);

/// The reason's code of an address that is not allowed.
pub(super) const DENIED: &str = "address-denied";

/// Accepts until `until` says that it is over, awaits the end of every connection, and ends them when the relay stops.
pub(super) async fn listen(listener: Listener, shared: Arc<Shared>, tunnels: Tunnels, mut until: Until) {
    let mut connections = JoinSet::new();
    let until_for_connections = until.clone();
    loop {
        let has_room = shared.gate.has_room();
        tokio::select! {
            () = tokio::time::sleep(BREATH), if !has_room => {}
            (socket, peer) = listener.accept(), if has_room => {
                // A proxy is no client: whether the one behind it may connect is asked when it is known.
                let knocker = if shared.access.is_proxy(peer.ip()) { Knocker::Proxy } else { Knocker::Client(peer.ip()) };
                if knocker != Knocker::Proxy && !shared.access.allows(peer.ip()) {
                    shared.refuse("address", DENIED, peer);
                    continue;
                }
                let places = match places(&shared, knocker) {
                    Ok(places) => places,
                    Err(reason) => {
                        shared.refuse("address", reason, peer);
                        continue;
                    }
                };
                let serving = serve(Arc::clone(&shared), tunnels.clone(), socket, peer, places, until_for_connections.clone());
                connections.spawn(serving);
            }
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    shared.counters.count("fault");
                    tracing::error!(%error, "a connection's task failed");
                }
            }
            () = until.closed.requested() => break,
        }
    }
    // A socket that was handed over stays open with whoever handed it over: newcomers wait there for the next process.
    drop(listener);
    loop {
        tokio::select! {
            ended = connections.join_next() => if ended.is_none() { return },
            () = until.stopped.requested() => break,
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Takes a place in total and one before login; without both the socket is closed at once.
fn places(shared: &Shared, knocker: Knocker) -> Result<Places, &'static str> {
    let connection = shared.counters.connection(shared.limits.connections).ok_or("too-many-connections")?;
    let permit = shared.gate.knock(knocker)?;
    Ok(Places { connection, before_login: shared.counters.before_login(), permit })
}
