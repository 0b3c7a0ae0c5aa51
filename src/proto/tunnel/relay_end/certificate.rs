//! The relay's own requests for certificates, and what connectors tell of CAs and revocations.

use std::time::Instant;

use crate::proto::tunnel::certificate::{CertificateNews, CertificateRequest, MAX_NEWS, read_answer, read_trust, request_frame};
use crate::proto::tunnel::frame::Frame;
use crate::proto::tunnel::handshake::Refusal;
use crate::proto::tunnel::wire::kind;
use crate::proto::tunnel::{CarrierId, Identity};

use super::RelayEnd;

impl RelayEnd {
    /// Asks for a certificate through the tunnel of `identity`; false where it is not attached, or the request is too large.
    /// A request replaces the one before it. The answer comes by [`Self::poll_certificate`], or never.
    pub fn request_certificate(&mut self, identity: &Identity, request: &CertificateRequest, now: Instant) -> bool {
        if !self.is_attached(identity) {
            return false;
        }
        let Some(frame) = request_frame(request) else { return false };
        let peer = self.peer(identity);
        self.certificate_pending = Some((peer, request.id));
        self.say(peer, frame, now);
        true
    }

    /// What a connector told, and which.
    pub fn poll_certificate(&mut self) -> Option<(Identity, CertificateNews)> {
        self.certificate_news.pop_front()
    }

    pub(super) fn on_certificate(&mut self, carrier: CarrierId, frame: &Frame) -> Result<(), Refusal> {
        let peer = self.on_any_attached(carrier)?;
        let news = if frame.kind == kind::CERT {
            let (id, answer) = read_answer(frame)?;
            if self.certificate_pending.take_if(|pending| *pending == (peer, id)).is_none() {
                return Ok(());
            }
            CertificateNews::Answer(answer)
        } else {
            match read_trust(frame, &mut self.peers[peer].list)? {
                Some(trust) => CertificateNews::Trust(trust),
                None => return Ok(()),
            }
        };
        // A shell that is so far behind hears the next.
        if self.certificate_news.len() < MAX_NEWS {
            self.certificate_news.push_back((self.peers[peer].identity.clone(), news));
        }
        Ok(())
    }
}
