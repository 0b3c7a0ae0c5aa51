//! Accepts customers' connections: allow-list and caps first, one owned task each. A relay that takes its leave accepts no more and serves
//! who is here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::attach::Tunnels;
use super::connection::{Places, Shared, Until, serve};
use crate::net::listener::Listener;

/// How long connections may take to end once the relay stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The reason's code of an address that is not allowed.
pub(super) const DENIED: &str = "address-denied";

/// Accepts until `until` says that it is over, awaits the end of every connection, and ends them when the relay stops.
pub(super) async fn listen(listener: Listener, shared: Arc<Shared>, tunnels: Tunnels, mut until: Until) {
    let mut connections = JoinSet::new();
    let until_for_connections = until.clone();
    loop {
        tokio::select! {
            (socket, peer) = listener.accept() => {
                // A proxy is no client: whether the one behind it may connect is asked when it is known.
                if !shared.access.is_proxy(peer.ip()) && !shared.access.allows(peer.ip()) {
                    shared.counters.count(DENIED);
                    shared.log.write("address", DENIED, peer);
                    continue;
                }
                let Some(places) = places(&shared, peer) else { continue };
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
fn places(shared: &Shared, peer: SocketAddr) -> Option<Places> {
    let full = |reason| {
        shared.counters.count(reason);
        shared.log.write("address", reason, peer);
    };
    let Some(connection) = shared.counters.connection(shared.limits.connections) else {
        full("too-many-connections");
        return None;
    };
    let Some(before_login) = shared.counters.before_login(shared.limits.before_login) else {
        full("too-many-before-login");
        return None;
    };
    Some(Places { connection, before_login })
}
