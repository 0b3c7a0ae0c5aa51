//! What passes between a tunnel's end and the keeper of certificates.

use std::time::Instant;

use crate::proto::tunnel::ConnectorEnd;

use crate::connector::certificates::Exchange;
use crate::connector::desk::RelayIndex;

/// One tunnel's side of the exchange.
#[derive(Debug)]
pub(super) struct CertificateLink {
    index: RelayIndex,
    exchange: Exchange,
    /// Whether this relay was told whom to trust, since it attached and since that changed.
    is_told: bool,
}

impl CertificateLink {
    pub(super) fn new(index: RelayIndex, exchange: Exchange) -> Self {
        Self { index, exchange, is_told: false }
    }

    /// The relay may have forgotten everything.
    pub(super) fn attached(&mut self) {
        self.is_told = false;
    }

    /// Hands the relay's request on, and tells the relay whom to trust.
    pub(super) fn pass(&mut self, end: &mut ConnectorEnd, now: Instant) {
        if let Some(request) = end.poll_certificate() {
            // A keeper with so many requests before it is asked again later.
            drop(self.exchange.requests.try_send((self.index, request)));
        }
        if !self.is_told {
            let trust = self.exchange.trust.borrow_and_update().clone();
            self.is_told = end.tell_trust(&trust, now);
        }
    }

    /// Waits until it changes whom to trust.
    pub(super) async fn changed(&mut self) {
        if self.exchange.trust.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.is_told = false;
    }
}
