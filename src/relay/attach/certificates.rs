//! What passes between the tunnels and the keeper of the relay's certificate.

use std::collections::BTreeSet;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::proto::tunnel::certificate::{CertificateAnswer, CertificateNews, CertificateRequest, Trust};
use crate::proto::tunnel::{Identity, RelayEnd};

/// What the keeper asks of the tunnels' owner.
#[derive(Debug)]
pub(super) enum Request {
    /// Ask any connector for a certificate. No answer where none is attached.
    Renew(Box<CertificateRequest>, oneshot::Sender<CertificateAnswer>),
    /// Tell what connectors say of CAs and revocations.
    HearTrust(mpsc::Sender<(Identity, Trust)>),
}

/// The tunnels' side.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    reply: Option<oneshot::Sender<CertificateAnswer>>,
    trust: Option<mpsc::Sender<(Identity, Trust)>>,
    /// Whom to ask next: each attached connector in its turn.
    turn: usize,
}

impl Certificates {
    pub(super) fn handle(&mut self, request: Request, end: &mut RelayEnd, granted: &BTreeSet<Identity>, now: Instant) {
        match request {
            Request::HearTrust(sender) => self.trust = Some(sender),
            Request::Renew(request, reply) => {
                let attached: Vec<&Identity> = granted.iter().filter(|identity| end.is_attached(identity)).collect();
                let Some(identity) = attached.get(self.turn % attached.len().max(1)) else { return };
                self.turn += 1;
                if end.request_certificate(identity, &request, now) {
                    self.reply = Some(reply);
                }
            }
        }
    }

    pub(super) fn pass(&mut self, end: &mut RelayEnd) {
        while let Some((identity, news)) = end.poll_certificate() {
            match news {
                CertificateNews::Answer(answer) => {
                    if let Some(reply) = self.reply.take() {
                        // The keeper may have given up.
                        drop(reply.send(answer));
                    }
                }
                // A keeper that is busy with one is told the next when somebody attaches or something changes.
                CertificateNews::Trust(trust) => {
                    if let Some(sender) = &self.trust {
                        drop(sender.try_send((identity, trust)));
                    }
                }
            }
        }
    }
}
