//! The relay's own tunnel certificate: renewed through the tunnel, since a relay reaches no CA; and what connectors tell it of CAs
//! and revocations.
//!
//! Nothing that comes is believed by itself: a certificate must be for the key just made, for the same name and hosts, and from a CA
//! that is trusted; a CA must be vouched for by one that is; a revocation list must be signed by one, and newer than the one held.
//! What is new is written beside the old where the folder is ours to write; else it is kept in memory, and the log says so.

use std::time::Duration;

use bytes::Bytes;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;

use crate::config::TunnelTls;
use crate::net::certificates::{
    CertificateError, Live, NewKey, Readers, RevocationError, Subject, Taken, certificate_to_pem, lists_to_pem, private_key, replace_pair,
    sign_with, write_atomically,
};
use crate::net::entropy;
use crate::net::quic::Credentials;
use crate::net::shutdown::Stop;
use crate::net::wall_clock::unix_now;
use crate::proto::tunnel::Identity;
use crate::proto::tunnel::certificate::{CertificateAnswer, CertificateRequest, Trust, signed_text};

use super::attach::Tunnels;

/// How long a connector and the CA behind it may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What connectors told that may wait.
const TOLD: usize = 16;

/// Longest sleep: clocks are set, and certificates replaced by hand.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Keeps the relay's certificate good.
#[derive(Debug)]
pub struct Keeper {
    /// What is shown and trusted.
    pub live: Live,
    /// Where it comes from.
    pub files: TunnelTls,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error("no connector is attached, or it did not answer")]
    NobodyAnswers,
    #[error("{0}")]
    Refused(String),
    #[error("the certificate that came is not the one asked for")]
    Foreign,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("it cannot be used: {0}")]
    Unusable(String),
}

/// Runs until `stop` says so.
pub(super) async fn run(keeper: Keeper, tunnels: Tunnels, mut stop: Stop) {
    let (sender, trust) = mpsc::channel(TOLD);
    tunnels.hear_trust(sender).await;
    // A revocation does not wait for a renewal that is under way.
    tokio::select! {
        () = keeper.renew_in_time(&tunnels) => {}
        () = keeper.follow(trust) => {}
        () = stop.requested() => {}
    }
}

impl Keeper {
    async fn renew_in_time(&self, tunnels: &Tunnels) {
        let mut try_at = 0;
        loop {
            tokio::time::sleep(self.wait(try_at, unix_now())).await;
            let (Some(validity), now) = (self.live.validity(), unix_now()) else { continue };
            if now < validity.renew_at().max(try_at) {
                continue;
            }
            try_at = now + validity.retry_after(now).as_secs();
            if let Err(error) = self.renew(tunnels).await {
                let days_left = validity.days_left(now);
                tracing::warn!(%error, days_left, "the tunnel certificate could not be renewed; it is tried again");
            }
        }
    }

    async fn follow(&self, mut trust: mpsc::Receiver<(Identity, Trust)>) {
        while let Some((identity, told)) = trust.recv().await {
            self.take_trust(&identity, &told);
        }
        std::future::pending::<()>().await;
    }

    /// How long to sleep.
    fn wait(&self, try_at: u64, now: u64) -> Duration {
        let due = self.live.validity().map_or(u64::MAX, |validity| validity.renew_at()).max(try_at);
        Duration::from_secs(due.saturating_sub(now)).clamp(Duration::from_millis(200), LOOK_AGAIN)
    }

    async fn renew(&self, tunnels: &Tunnels) -> Result<(), RenewalError> {
        let present = self.live.credentials();
        let leaf = present.chain.first().ok_or(RenewalError::Foreign)?;
        let subject = Subject::of(leaf)?;
        let new = NewKey::make()?;
        let [a, b, c, d, e, f, g, h, ..] = entropy::sixteen();
        let request = CertificateRequest {
            id: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            csr: Bytes::copy_from_slice(&new.csr),
            certificate: Bytes::copy_from_slice(leaf),
            signature: sign_with(&present.key, &signed_text(&new.csr))?.into(),
        };
        let chain = match tunnels.certificate(request, ANSWER_WITHIN).await {
            None => return Err(RenewalError::NobodyAnswers),
            Some(CertificateAnswer::Refused(text)) => return Err(RenewalError::Refused(text)),
            Some(CertificateAnswer::Issued(chain)) => chain,
        };
        let chain: Vec<CertificateDer<'static>> = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        self.check(&subject, &new, &chain)?;
        let key: PrivateKeyDer<'static> = private_key(&new.key).ok_or(RenewalError::Foreign)?;
        let credentials = Credentials { chain, key, authorities: present.authorities };
        self.live.replace(&credentials).map_err(|error| RenewalError::Unusable(error.to_string()))?;
        self.keep(&credentials.chain, &new);
        Ok(())
    }

    fn check(&self, subject: &Subject, new: &NewKey, chain: &[CertificateDer<'static>]) -> Result<(), RenewalError> {
        let leaf = chain.first().ok_or(RenewalError::Foreign)?;
        let given = Subject::of(leaf)?;
        let mut hosts = [given.hosts, subject.hosts.clone()];
        hosts.iter_mut().for_each(|hosts| hosts.sort());
        let [given_hosts, own_hosts] = hosts;
        let is_ours = new.is_of(leaf) && given.name == subject.name && given_hosts == own_hosts && self.live.vouches_for(leaf);
        if is_ours { Ok(()) } else { Err(RenewalError::Foreign) }
    }

    fn keep(&self, chain: &[CertificateDer<'static>], new: &NewKey) {
        let pem: String = chain.iter().map(|certificate| certificate_to_pem(certificate)).collect();
        let (certificate, key) = (&self.files.certificate, &self.files.key);
        match replace_pair((certificate, &pem), (key, &new.key)) {
            Ok(()) => tracing::info!(file = %certificate.display(), "the tunnel certificate was renewed"),
            Err(error) => tracing::warn!(
                file = %certificate.display(), %error,
                "the tunnel certificate was renewed and is kept in memory: after a restart the one on disk is shown again"
            ),
        }
    }

    fn take_trust(&self, identity: &Identity, told: &Trust) {
        let authorities: Vec<_> = told.authorities.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let admitted = self.live.admit(&authorities, &told.links, unix_now());
        if !admitted.is_empty() {
            tracing::info!(identity = %identity.0, count = admitted.len(), "a CA that the present one vouches for is trusted too");
            let bundle: String = self.live.authorities().iter().map(|certificate| certificate_to_pem(certificate)).collect();
            self.write(&self.files.ca, &bundle);
        }
        let mut is_new = false;
        for list in &told.revocations {
            match self.live.revoke(list) {
                Ok(Taken::New) => is_new = true,
                Ok(Taken::Known) => {}
                Err(
                    error @ (RevocationError::Older { .. }
                    | RevocationError::Foreign
                    | RevocationError::NoNumber
                    | RevocationError::Unreadable),
                ) => {
                    tracing::warn!(identity = %identity.0, %error, "a revocation list is refused");
                }
            }
        }
        if is_new {
            tracing::info!(identity = %identity.0, "a new revocation list is in force");
            let lists = self.live.revocations();
            self.write(&self.files.revoked, &lists_to_pem(lists.iter().map(|list| list.der().as_ref())));
        }
    }

    fn write(&self, file: &std::path::Path, pem: &str) {
        if let Err(error) = write_atomically(file, pem.as_bytes(), Readers::Everybody) {
            tracing::warn!(file = %file.display(), %error, "cannot be written: it is kept in memory until a restart");
        }
    }
}
