//! Accepts customers' connections: allow-list and caps first, one owned task each.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::net::listener::Listener;
use crate::net::shutdown::Stop;

use super::attach::Tunnels;
use super::connection::{Places, Shared, serve};

/// How long connections may take to end once the relay stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The reason's code of an address that is not allowed.
pub(super) const DENIED: &str = "address-denied";

/// Accepts until `stop` says so, then ends and awaits every connection.
pub(super) async fn listen(listener: Listener, shared: Arc<Shared>, tunnels: Tunnels, mut stop: Stop) {
    let mut connections = JoinSet::new();
    let stop_for_connections = stop.clone();
    loop {
        tokio::select! {
            (socket, peer) = listener.accept() => {
                // A proxy is no client: whether the one behind it may connect is asked when it is known.
                if !shared.access.is_proxy(peer.ip()) && !shared.access.allows(peer.ip()) {
                    shared.counters.count(DENIED);
                    shared.log.write("address", DENIED, peer);
                    continue;
                }
                let Some(places) = places(&shared) else { continue };
                let serving = serve(Arc::clone(&shared), tunnels.clone(), socket, peer, places, stop_for_connections.clone());
                connections.spawn(serving);
            }
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    shared.counters.count("fault");
                    tracing::error!(%error, "a connection's task failed");
                }
            }
            () = stop.requested() => break,
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Takes a place in total and one before login; without both the socket is closed at once.
fn places(shared: &Shared) -> Option<Places> {
    let Some(connection) = shared.counters.connection(shared.limits.connections) else {
        shared.counters.count("too-many-connections");
        return None;
    };
    let Some(before_login) = shared.counters.before_login(shared.limits.before_login) else {
        shared.counters.count("too-many-before-login");
        return None;
    };
    Some(Places { connection, before_login })
}
