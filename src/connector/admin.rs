//! What the connector answers on its admin socket.

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::admin::socket::Answer;
use crate::admin::{Action, Request, RevokeLink, Subject};

use crate::net::certificates::reload::Board;

use super::desk::{Input, LiveSessions, Revocation};
use super::desk_task::DeskHandle;
use super::dial_relay::{Links, TunnelStatus};
use super::effects::Asks;
use super::policy::PolicySource;
use crate::telemetry::audit::{Audit, Event};

/// What the answers are made of.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) desk: DeskHandle,
    pub(super) tunnels: watch::Receiver<Vec<TunnelStatus>>,
    pub(super) links: Links,
    pub(super) certificates: Board,
    pub(super) policy: PolicySource,
    pub(super) asks: Asks,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) audit: Audit,
}

impl Source {
    /// What `outgate status` shows; `None` when the desk has stopped.
    pub(super) async fn status(&self) -> Option<Value> {
        let mut status = self.desk.status().await?;
        status["role"] = json!("connector");
        status["version"] = json!(env!("CARGO_PKG_VERSION"));
        status["tunnels"] = json!(*self.tunnels.borrow());
        status["audit"] = json!(self.audit.counts());
        status["certificates"] = json!(*self.certificates.borrow());
        Some(status)
    }
}

impl Source {
    /// Takes a link back; answers once that is committed.
    async fn revoke(&self, asked: RevokeLink) -> Result<Value, String> {
        let stopping = || "the connector is stopping".to_owned();
        let revocation = Revocation {
            issuer: asked.issuer,
            jti: asked.jti,
            expires: asked.expires,
            live: if asked.end { LiveSessions::End } else { LiveSessions::Stay },
        };
        let (issuer, jti) = (revocation.issuer.clone(), revocation.jti.clone());
        let (ask, answer) = self.asks.begin();
        self.inputs.send(Input::Revoke { ask, revocation }).await.map_err(|_| stopping())?;
        let done = answer.await.map_err(|_| stopping())??;
        self.audit.record(Event::LinkRevoked { issuer, jti, ended: done.ended });
        Ok(json!({"done": "revoke", "revoked_links": done.revoked, "ended_sessions": done.ended}))
    }
}

impl Answer for Source {
    async fn answer(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::Get(Subject::Status) => self.status().await.ok_or_else(|| "the connector is stopping".to_owned()),
            Request::Get(Subject::LinkKeys) => Ok(self.policy.shown()),
            Request::Do(Action::Revoke(asked)) => self.revoke(asked).await,
            Request::Do(Action::Reload) => {
                Err("a connector takes up changed files by itself; a changed connector.toml needs a restart".to_owned())
            }
            Request::Do(Action::Reattach) => {
                self.links.reattach().await;
                Ok(json!({"done": "reattach"}))
            }
        }
    }
}
