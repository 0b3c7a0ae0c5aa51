//! The relay's accept loop: handshakes run beside it, bounded in number and time, so that no silent peer holds up another.

use std::collections::HashMap;
use std::net::IpAddr;

use quinn::{Endpoint, Incoming};
use tokio::task::{Id, JoinSet};
use tokio::time::timeout;

use super::{CarrierInput, HANDSHAKE, Owner, pump, serve, told};

/// Handshakes under way at once; beyond them newcomers are refused.
const PENDING: usize = 256;

/// Handshakes under way at once from one address.
const PENDING_PER_ADDRESS: usize = 64;

/// Handshakes under way above which a newcomer must first prove its address (Retry, RFC 9000 §8.1.2).
const PENDING_UNPROVEN: usize = 32;

/// Accepts carriers until the endpoint is closed.
pub(super) async fn accept(endpoint: Endpoint, owner: Owner) {
    let mut pending = Pending::default();
    let mut standing = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => pending.admit(incoming, &owner),
                None => break,
            },
            Some(lanes) = pending.next() => {
                if let Some(lanes) = lanes {
                    standing.spawn(serve(lanes, owner.next(), owner.clone()));
                }
            }
            Some(_) = standing.join_next() => {}
        }
    }
    standing.shutdown().await;
}

/// The handshakes under way.
#[derive(Debug, Default)]
struct Pending {
    tasks: JoinSet<Option<pump::Lanes>>,
    from: HashMap<Id, IpAddr>,
}

impl Pending {
    fn admit(&mut self, incoming: Incoming, owner: &Owner) {
        let address = incoming.remote_address().ip().to_canonical();
        if self.tasks.len() >= PENDING || self.from.values().filter(|other| **other == address).count() >= PENDING_PER_ADDRESS {
            return incoming.refuse();
        }
        if self.tasks.len() >= PENDING_UNPROVEN && incoming.may_retry() {
            // It may retry, so this cannot fail.
            return drop(incoming.retry());
        }
        let task = self.tasks.spawn(handshake(incoming, owner.clone()));
        self.from.insert(task.id(), address);
    }

    /// The next handshake that ended; `None` within when it failed, without when none is under way.
    async fn next(&mut self) -> Option<Option<pump::Lanes>> {
        let (id, lanes) = match self.tasks.join_next_with_id().await? {
            Ok((id, lanes)) => (id, lanes),
            Err(fault) => (fault.id(), None),
        };
        self.from.remove(&id);
        Some(lanes)
    }
}

async fn handshake(incoming: Incoming, owner: Owner) -> Option<pump::Lanes> {
    let address = incoming.remote_address();
    let taking = async {
        let connection = incoming.await.map_err(|fault| told(&fault))?;
        pump::take(connection).await
    };
    let why = match timeout(HANDSHAKE, taking).await {
        Ok(Ok(lanes)) => return Some(lanes),
        Ok(Err(why)) => why,
        Err(_) => "the handshake took too long".to_owned(),
    };
    // An owner that is gone needs no word.
    drop(owner.inputs.send(CarrierInput::Refused { address, why }).await);
    None
}
