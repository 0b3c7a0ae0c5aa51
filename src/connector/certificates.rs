//! The connector's own tunnel certificate, its relays' requests for theirs, and whom to trust: all at the issuing CA, where there is
//! one in the configuration.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::{mpsc, watch};

use crate::config::TunnelTls;
use crate::net::certificates::{
    Live, Readers, Taken, certificate_to_pem, csr_to_pem, identity_of, lists_in, lists_to_pem, private_key, replace_pair, write_atomically,
};
use crate::net::https::ServiceUrl;
use crate::net::quic::Credentials;
use crate::net::shutdown::Stop;
use crate::net::wall_clock::unix_now;
use crate::proto::enrolment::{RenewRelay, TrustStore};
use crate::proto::tunnel::certificate::{CertificateAnswer, CertificateRequest, Trust};

use super::desk::RelayIndex;
use super::dial_relay::Links;
use super::enrolment::{self, EnrolmentError};

/// Requests of relays that may wait.
const REQUESTS: usize = 16;

/// Longest sleep: clocks are set, and certificates replaced by hand.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The issuing CA.
#[derive(Clone, Debug)]
pub struct IssuingCa {
    /// Where it is.
    pub url: ServiceUrl,
    /// How often it is asked whom to trust.
    pub poll: Duration,
}

/// What the tunnels' tasks and the keeper exchange.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) trust: watch::Receiver<Arc<Trust>>,
    pub(super) requests: mpsc::Sender<(RelayIndex, CertificateRequest)>,
}

/// Keeps certificates good.
#[derive(Debug)]
pub(super) struct Keeper {
    live: Live,
    files: TunnelTls,
    ca: Option<IssuingCa>,
    trust: watch::Sender<Arc<Trust>>,
    requests: mpsc::Receiver<(RelayIndex, CertificateRequest)>,
    /// Each new CA's key, certified by the one before it.
    links: Vec<CertificateDer<'static>>,
}

impl Keeper {
    pub(super) fn new(live: Live, files: TunnelTls, ca: Option<IssuingCa>) -> (Self, Exchange) {
        let (trust, told) = watch::channel(Arc::default());
        let (asked, requests) = mpsc::channel(REQUESTS);
        (Self { live, files, ca, trust, requests, links: Vec::new() }, Exchange { trust: told, requests: asked })
    }

    /// Runs until `stop` says so.
    pub(super) async fn run(mut self, tunnels: Links, mut stop: Stop) {
        let mut changes = self.live.changes();
        let (mut try_at, mut poll_at) = (0, tokio::time::Instant::now());
        loop {
            self.tell();
            let wait = self.wait(try_at);
            let work = async {
                // Asked in each turn: what else is due must not put it off.
                try_at = self.renew_if_due(try_at).await;
                tokio::select! {
                    Ok(()) = changes.changed() => {}
                    () = tokio::time::sleep_until(poll_at), if self.ca.is_some() => {
                        poll_at = tokio::time::Instant::now() + self.poll().await;
                    }
                    () = tokio::time::sleep(wait) => {}
                    Some((relay, request)) = self.requests.recv() => {
                        let id = request.id;
                        let answer = self.renew_relay(request).await;
                        tunnels.certificate(relay, id, answer).await;
                    }
                }
            };
            tokio::select! {
                () = work => {}
                () = stop.requested() => return,
            }
        }
    }

    fn wait(&self, try_at: u64) -> Duration {
        let due = self.live.validity().map_or(u64::MAX, |validity| validity.renew_at()).max(try_at);
        Duration::from_secs(due.saturating_sub(unix_now())).clamp(Duration::from_millis(200), LOOK_AGAIN)
    }

    /// Has the tunnels' tasks tell their relays what is trusted here.
    fn tell(&self) {
        let der = |certificate: &CertificateDer<'_>| Bytes::copy_from_slice(certificate);
        let trust = Trust {
            authorities: self.live.authorities().iter().map(der).collect(),
            links: self.links.iter().map(der).collect(),
            revocations: self.live.revocations().iter().map(|list| Bytes::copy_from_slice(list.der())).collect(),
        };
        self.trust.send_if_modified(|told| {
            let is_new = **told != trust;
            *told = Arc::new(trust);
            is_new
        });
    }

    /// Asks whom to trust; answers when to ask again.
    async fn poll(&mut self) -> Duration {
        let Some(ca) = self.ca.clone() else { return LOOK_AGAIN };
        match enrolment::trust(&ca.url, &self.live).await {
            Ok(store) => self.take(&store),
            Err(error) => tracing::warn!(%error, remedy = error.remedy(), "the issuing CA could not be asked whom to trust"),
        }
        ca.poll
    }

    fn take(&mut self, store: &TrustStore) {
        let read = |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let (Ok(authorities), Ok(links)) = (read(&store.authorities), read(&store.links)) else {
            return tracing::warn!("the issuing CA's answer cannot be read");
        };
        self.live.admit(&authorities, &links, unix_now());
        self.links = links;
        let known = self.live.authorities();
        if authorities.is_empty() || !authorities.iter().all(|authority| known.contains(authority)) {
            return tracing::warn!("the issuing CA names a CA for which none vouches that is trusted here: it is not trusted");
        }
        let on_disk = std::fs::read(&self.files.ca).ok().and_then(|pem| read(&String::from_utf8_lossy(&pem)).ok());
        if on_disk.as_ref() != Some(&authorities) {
            let bundle: String = authorities.iter().map(|certificate| certificate_to_pem(certificate)).collect();
            self.write(&self.files.ca, &bundle);
        }
        self.take_lists(store);
    }

    fn take_lists(&self, store: &TrustStore) {
        let mut is_new = false;
        for list in lists_in(store.revocations.as_bytes()).unwrap_or_default() {
            match self.live.revoke(&list) {
                Ok(taken) => is_new |= taken == Taken::New,
                Err(error) => tracing::warn!(%error, "a revocation list of the issuing CA is refused"),
            }
        }
        if is_new {
            tracing::info!("a new revocation list is in force");
            let lists = self.live.revocations();
            self.write(&self.files.revoked, &lists_to_pem(lists.iter().map(|list| list.der().as_ref())));
        }
    }

    /// Renews where it is time to; answers before when it is not tried again.
    async fn renew_if_due(&self, try_at: u64) -> u64 {
        let (Some(validity), now) = (self.live.validity(), unix_now()) else { return try_at };
        let Some(ca) = self.ca.as_ref().filter(|_| now >= validity.renew_at().max(try_at)) else { return try_at };
        if let Err(error) = self.renew(ca).await {
            let days_left = validity.days_left(now);
            tracing::warn!(%error, days_left, remedy = error.remedy(), "the tunnel certificate could not be renewed; it is tried again");
        }
        now + validity.retry_after(now).as_secs()
    }

    async fn renew(&self, ca: &IssuingCa) -> Result<(), EnrolmentError> {
        let present = self.live.credentials();
        let name = identity_of(present.chain.first().ok_or(EnrolmentError::Foreign)?)?;
        let (new, granted) = enrolment::renew(&ca.url, &self.live, &name.0).await?;
        let chain = CertificateDer::pem_slice_iter(granted.certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_damaged| EnrolmentError::Unreadable)?;
        if !chain.first().is_some_and(|leaf| self.live.vouches_for(leaf)) {
            return Err(EnrolmentError::Foreign);
        }
        let key = private_key(&new.key).ok_or(EnrolmentError::Foreign)?;
        self.live.replace(&Credentials { chain, key, authorities: present.authorities }).map_err(|_unusable| EnrolmentError::Foreign)?;
        let (certificate, key) = (&self.files.certificate, &self.files.key);
        match replace_pair((certificate, &granted.certificate), (key, &new.key)) {
            Ok(()) => tracing::info!(file = %certificate.display(), "the tunnel certificate was renewed"),
            Err(error) => tracing::warn!(
                file = %certificate.display(), %error,
                "the tunnel certificate was renewed and is kept in memory: after a restart the one on disk is shown again"
            ),
        }
        Ok(())
    }

    /// Asks for a relay. The CA judges the request: this connector could not make one up.
    async fn renew_relay(&self, request: CertificateRequest) -> CertificateAnswer {
        let Some(ca) = &self.ca else {
            return CertificateAnswer::Refused("this connector's configuration names no issuing CA (`[ca]`)".to_owned());
        };
        let request = RenewRelay {
            csr: csr_to_pem(&request.csr),
            certificate: certificate_to_pem(&CertificateDer::from(request.certificate.to_vec())),
            signature: request.signature.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        match enrolment::renew_relay(&ca.url, &self.live, &request).await {
            Ok(granted) => {
                let chain = CertificateDer::pem_slice_iter(granted.certificate.as_bytes()).filter_map(Result::ok);
                tracing::info!(name = granted.name, "a relay's certificate was renewed");
                CertificateAnswer::Issued(chain.map(|der| Bytes::copy_from_slice(&der)).collect())
            }
            Err(error) => {
                tracing::warn!(%error, remedy = error.remedy(), "a relay's certificate could not be renewed");
                CertificateAnswer::Refused(error.to_string())
            }
        }
    }

    fn write(&self, file: &std::path::Path, pem: &str) {
        if let Err(error) = write_atomically(file, pem.as_bytes(), Readers::Everybody) {
            tracing::warn!(file = %file.display(), %error, "cannot be written: it is kept in memory until a restart");
        }
    }
}
