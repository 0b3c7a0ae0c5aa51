//! A name that is being looked up, beside all else that goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

/// How long a name may take to resolve.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// Who is asked for the addresses of `HOST:PORT`.
#[derive(Clone, Default)]
pub enum Resolver {
    /// The system.
    #[default]
    System,
    /// Somebody else, who answers at once.
    Other(Arc<Answer>),
}

/// Gives the addresses of `HOST:PORT`.
type Answer = dyn Fn(&str) -> Vec<SocketAddr> + Send + Sync;

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Other(_) => "Other",
        })
    }
}

/// One lookup at a time.
#[derive(Default)]
pub(super) struct Lookup(JoinSet<Result<Vec<SocketAddr>, String>>);

impl Lookup {
    /// Begins, unless one is under way.
    pub(super) fn begin(&mut self, address: String, resolver: &Resolver) {
        if self.0.is_empty() {
            let resolver = resolver.clone();
            self.0.spawn(async move {
                match resolver {
                    Resolver::System => resolve(&address).await,
                    Resolver::Other(answer) => Ok(answer(&address)),
                }
            });
        }
    }

    /// What was found; for ever where nothing is looked up.
    pub(super) async fn done(&mut self) -> Result<Vec<SocketAddr>, String> {
        match self.0.join_next().await {
            Some(found) => found.unwrap_or_else(|_| Err("its name was not looked up".to_owned())),
            None => std::future::pending().await,
        }
    }
}

pub(super) async fn resolve(address: &str) -> Result<Vec<SocketAddr>, String> {
    match tokio::time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host(address)).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(format!("its name does not resolve: {error}")),
        Err(_) => Err("its name took over 5 s to resolve".to_owned()),
    }
}
