//! What the connector answers on its admin socket.

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::admin::socket::Answer;
use crate::admin::{Action, Request, Subject};

use super::desk_task::DeskHandle;
use super::dial_relay::{Links, TunnelStatus};

/// What the answers are made of.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) desk: DeskHandle,
    pub(super) tunnels: watch::Receiver<Vec<TunnelStatus>>,
    pub(super) links: Links,
}

impl Source {
    /// What `outgate status` shows; `None` when the desk has stopped.
    pub(super) async fn status(&self) -> Option<Value> {
        let mut status = self.desk.status().await?;
        status["role"] = json!("connector");
        status["version"] = json!(env!("CARGO_PKG_VERSION"));
        status["tunnels"] = json!(*self.tunnels.borrow());
        Some(status)
    }
}

impl Answer for Source {
    async fn answer(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::Get(Subject::Status) => self.status().await.ok_or_else(|| "the connector is stopping".to_owned()),
            Request::Do(Action::Reattach) => {
                self.links.reattach().await;
                Ok(json!({"done": "reattach"}))
            }
        }
    }
}
