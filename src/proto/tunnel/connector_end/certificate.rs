//! A relay's requests for certificates, and what the relay is told of CAs and revocations.

use std::time::Instant;

use crate::proto::tunnel::certificate::{CertificateAnswer, CertificateRequest, Trust, answer_frame, read_request};
use crate::proto::tunnel::frame::Frame;
use crate::proto::tunnel::handshake::Refusal;
use crate::proto::tunnel::{CarrierId, carrier::Carrier};

use super::ConnectorEnd;

impl ConnectorEnd {
    /// The relay's request, once.
    pub fn poll_certificate(&mut self) -> Option<CertificateRequest> {
        self.certificate_request.take()
    }

    /// Answers the request that is pending; an answer to any other is dropped.
    pub fn answer_certificate(&mut self, id: u64, answer: &CertificateAnswer, now: Instant) {
        if self.certificate_pending.take_if(|pending| *pending == id).is_some() {
            self.say(answer_frame(id, answer), now);
        }
    }

    /// Tells the relay CAs and revocation lists; false where it is not attached, or the CAs are too many for the tunnel. Lists
    /// that are longer than [`MAX_LIST_BYTES`](crate::proto::tunnel::certificate::MAX_LIST_BYTES) are left out.
    pub fn tell_trust(&mut self, trust: &Trust, now: Instant) -> bool {
        let frame = if self.is_attached() { self.long_lists.tell(trust) } else { None };
        frame.map(|frame| self.say(frame, now)).is_some()
    }

    pub(super) fn on_certificate_request(&mut self, carrier: CarrierId, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        if !self.carriers.get(&carrier).is_some_and(Carrier::is_attached) {
            return Err(Refusal("not_attached"));
        }
        let request = read_request(frame)?;
        match self.certificate_pending {
            Some(pending) if pending == request.id => {}
            Some(_) => self.say(answer_frame(request.id, &CertificateAnswer::Refused("another request is pending".to_owned())), now),
            None => {
                self.certificate_pending = Some(request.id);
                self.certificate_request = Some(request);
            }
        }
        Ok(())
    }

    /// A relay asks again on its next carrier.
    pub(super) fn forget_certificate(&mut self) {
        self.certificate_pending = None;
        self.certificate_request = None;
    }
}
