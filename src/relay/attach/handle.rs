//! How the rest of the relay speaks to the tunnels' owner.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::proto::tunnel::certificate::{CertificateAnswer, CertificateRequest, Trust};
use crate::proto::tunnel::{Admission, GoAway, Identity, Open, RefusalCode, RelayCommand, SessionKey, Welcome};

use super::mailbox::{SessionEvents, mailbox};
use super::{Request, SESSION_EVENTS, TunnelState, certificates};
use crate::relay::client::Attachment;

/// A handle to the tunnels' owner.
#[derive(Clone, Debug)]
pub struct Tunnels {
    requests: mpsc::Sender<Request>,
    attached: watch::Receiver<Arc<BTreeSet<Identity>>>,
    next_session: Arc<AtomicU64>,
}

/// What became of a CHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckAnswer {
    /// The customer would be let in, to this.
    Accepted(Welcome),
    /// He would not, for this reason and with this sentence.
    Refused(RefusalCode, String),
    /// Nobody could be asked.
    Unanswered,
}

impl Tunnels {
    pub(super) fn new(requests: mpsc::Sender<Request>, attached: watch::Receiver<Arc<BTreeSet<Identity>>>) -> Self {
        Self { requests, attached, next_session: Arc::new(AtomicU64::new(1)) }
    }

    /// Opens a session; events flow whether or not the connector accepts it.
    pub async fn open(&self, identity: Identity, open: Box<Open>) -> (SessionKey, SessionEvents) {
        let session = SessionKey(self.next_session.fetch_add(1, Ordering::Relaxed));
        let (events, receiver) = mailbox(SESSION_EVENTS);
        self.request(Request::Open { session, identity, open, events }).await;
        (session, receiver)
    }

    /// Sends a session's command; waits where too much is under way.
    pub async fn command(&self, command: RelayCommand) {
        self.request(Request::Command(command)).await;
    }

    /// Asks the connector whether a customer would be let in.
    pub async fn check(&self, identity: Identity, admission: Box<Admission>, within: Duration) -> CheckAnswer {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.request(Request::Check { identity, admission, reply }).await;
            answer.await
        };
        match tokio::time::timeout(within, asked).await {
            Ok(Ok(Ok(welcome))) => CheckAnswer::Accepted(welcome),
            Ok(Ok(Err((code, text)))) => CheckAnswer::Refused(code, text),
            Ok(Err(_)) | Err(_) => CheckAnswer::Unanswered,
        }
    }

    /// Tells every connector that this relay is about to go.
    pub(in crate::relay) async fn drain(&self, goaway: GoAway) {
        self.request(Request::Drain(goaway)).await;
    }

    /// Every tunnel as its owner sees it.
    pub async fn stats(&self) -> Vec<TunnelState> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Stats(reply)).await;
        answer.await.unwrap_or_default()
    }

    /// Asks a connector for a certificate; `None` where none is attached, or the answer takes longer than `within`.
    pub(in crate::relay) async fn certificate(&self, request: CertificateRequest, within: Duration) -> Option<CertificateAnswer> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Certificates(certificates::Request::Renew(Box::new(request), reply))).await;
        tokio::time::timeout(within, answer).await.ok()?.ok()
    }

    /// Has `sender` told what connectors say of CAs and revocations.
    pub(in crate::relay) async fn hear_trust(&self, sender: mpsc::Sender<(Identity, Trust)>) {
        self.request(Request::Certificates(certificates::Request::HearTrust(sender))).await;
    }

    /// Whether a tunnel to `identity` has a carrier.
    pub fn attachment(&self, identity: &Identity) -> Attachment {
        if self.attached.borrow().contains(identity) { Attachment::Up } else { Attachment::Detached }
    }

    /// Waits until some tunnel's attachment changes.
    pub async fn attachment_changed(&mut self) {
        if self.attached.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn request(&self, request: Request) {
        // The owner outlives every handle but where the process ends.
        let _too_late = self.requests.send(request).await;
    }
}
