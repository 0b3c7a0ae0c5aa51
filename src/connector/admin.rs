//! What the connector answers on its admin socket.

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::admin::socket::Answer;
use crate::admin::{Action, MakeCode, Request, RevokeLink, Subject};

use crate::net::certificates::reload::Board;

use super::desk::{Input, LiveSessions, NewCode, Revocation, Told};
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
        let revocation = Revocation {
            issuer: asked.issuer,
            jti: asked.jti,
            expires: asked.expires,
            live: if asked.end { LiveSessions::End } else { LiveSessions::Stay },
        };
        let (issuer, jti) = (revocation.issuer.clone(), revocation.jti.clone());
        let done = self.ask(|ask| Input::Revoke { ask, revocation }).await?;
        let ended = done.get("ended_sessions").and_then(Value::as_u64).and_then(|ended| usize::try_from(ended).ok()).unwrap_or_default();
        self.audit.record(Event::LinkRevoked { issuer, jti, ended });
        Ok(done)
    }

    /// Makes a short code; answers once it is committed.
    async fn make_code(&self, asked: MakeCode) -> Result<Value, String> {
        let wanted = NewCode {
            domain: asked.domain,
            queue: asked.queue,
            seconds: asked.seconds,
            max_sessions: Some(asked.max_sessions).filter(|most| *most > 0),
            skills: asked.skills,
            lang: asked.lang,
            reason: asked.reason,
            subject: asked.sub,
        };
        let made = self.ask(|ask| Input::MakeCode { ask, wanted }).await?;
        let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let expires = made.get("expires").and_then(Value::as_u64).unwrap_or_default();
        self.audit.record(Event::CodeMade { jti: text("jti"), queue: text("queue"), expires });
        Ok(made)
    }

    /// Asks the desk; answers once what that led to is committed.
    async fn ask(&self, input: impl FnOnce(u64) -> Input) -> Result<Value, String> {
        let stopping = || "the connector is stopping".to_owned();
        let (ask, answer) = self.asks.begin();
        self.inputs.send(input(ask)).await.map_err(|_| stopping())?;
        Ok(match answer.await.map_err(|_| stopping())?? {
            Told::Revoked(done) => json!({"done": "revoke", "revoked_links": done.revoked, "ended_sessions": done.ended}),
            Told::Code(made) => json!({
                "done": "make-code", "code": made.code.as_str(), "grouped": made.code.grouped(), "jti": made.jti,
                "domain": made.domain, "queue": made.queue, "expires": made.expires,
            }),
            Told::Links(list) => json!(list),
        })
    }
}

impl Answer for Source {
    async fn answer(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::Get(Subject::Status) => self.status().await.ok_or_else(|| "the connector is stopping".to_owned()),
            Request::Get(Subject::LinkKeys) => Ok(self.policy.shown()),
            Request::Get(Subject::Links) => self.ask(|ask| Input::ListLinks { ask }).await,
            Request::Do(Action::Revoke(asked)) => self.revoke(asked).await,
            Request::Do(Action::MakeCode(asked)) => self.make_code(asked).await,
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
