//! Certificates and keys that change on disk are taken up while the process runs, by content: file times and links tell nothing
//! where files are swapped by symbolic link.
//!
//! Files are looked at every [`LOOK_EVERY`]. What changed is read twice, a moment apart, and taken up only if it is the same and
//! whole: certificate and key belong together. Else what is in force stays, and the log says so once. No connection is disturbed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;
use tokio::sync::watch;

use super::revocation::{RevocationError, Taken};
use super::{LEEWAY, Live, Validity, finish_pair, lists_in, load, load_authorities};
use crate::config::{Tls, TunnelTls};
use crate::net::quic::Credentials;
use crate::net::shutdown::Stop;
use crate::net::tls::Acceptor;
use crate::net::wall_clock::unix_now;

/// How often files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Between two reads of what changed: a file that is being written looks different by then.
const SETTLE: Duration = Duration::from_secs(1);

/// How often the log repeats that a certificate's end is near.
const REPEAT: u64 = 86_400;

/// What to do about a tunnel certificate whose time is over: who shows it is let in nowhere, to no relay and not to the CA.
pub const EXPIRED_REMEDY: &str = "it can no longer renew itself. Set this host's clock if that is wrong; else enrol again with a new token \
     (`outgate ca token` at the CA, `outgate connector enroll` here; for a relay `outgate ca issue`) and put the new files in the place of the \
     old ones: they are taken up without a restart";

/// One certificate in the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CertificateStatus {
    /// What it is for.
    pub name: &'static str,
    /// Its last second, since 1970.
    pub expires_at: u64,
    /// Whole days until then; negative where it has expired.
    pub days_left: i64,
    /// Why its files are not taken up, where they are not; or that it has expired. With the remedy.
    pub fault: Option<String>,
}

/// All certificates of a role, kept up to date.
pub type Board = watch::Receiver<Vec<CertificateStatus>>;

/// Where a certificate is shown, and from which files it comes.
#[derive(Debug)]
pub enum Shown {
    /// To the tunnel's other end.
    Tunnel(Live, TunnelTls),
    /// To people's clients.
    People(&'static str, Arc<Acceptor>, Tls),
}

impl Shown {
    fn name(&self) -> &'static str {
        match self {
            Self::Tunnel(..) => "tunnel",
            Self::People(name, ..) => name,
        }
    }

    /// What is judged together. A certificate that was renewed and is held in memory alone outlives a change of the CA's files.
    fn parts(&self) -> Vec<Part> {
        match self {
            Self::Tunnel(_, files) => vec![
                Part::new(What::Pair, [&files.certificate, &files.key]),
                Part::new(What::Authorities, [&files.ca]),
                Part::new(What::Revocations, [&files.revoked]),
            ],
            Self::People(_, _, files) => vec![Part::new(What::Pair, [&files.certificate, &files.key])],
        }
    }

    /// Completes a renewal that a crash interrupted.
    fn put_in_order(&self, what: What) {
        if let (Self::Tunnel(_, files), What::Pair) = (self, what) {
            // Where the folder is not ours to write, nobody renewed there.
            drop(finish_pair(&files.certificate, &files.key));
        }
    }

    /// Takes up what the files of a part hold; a sentence where they cannot be used.
    fn take_up(&self, what: What) -> Result<(), String> {
        match self {
            Self::Tunnel(live, files) => take_up_tunnel(live, files, what),
            Self::People(_, acceptor, files) => {
                let loaded = load(&files.certificate, &files.key).map_err(|error| error.to_string())?;
                acceptor.replace(loaded.chain, loaded.key).map_err(|error| error.to_string())
            }
        }
    }

    fn validity(&self) -> Option<Validity> {
        match self {
            Self::Tunnel(live, _) => live.validity(),
            Self::People(_, acceptor, _) => Validity::of(acceptor.certificate().as_ref()?),
        }
    }
}

fn take_up_tunnel(live: &Live, files: &TunnelTls, what: What) -> Result<(), String> {
    let credentials = match what {
        What::Pair => {
            let own = load(&files.certificate, &files.key).map_err(|error| error.to_string())?;
            Credentials { chain: own.chain, key: own.key, authorities: live.credentials().authorities }
        }
        What::Authorities => {
            let authorities = load_authorities(&files.ca).map_err(|error| error.to_string())?;
            Credentials { authorities, ..live.credentials() }
        }
        What::Revocations => return take_up_revocations(live, files),
    };
    live.replace(&credentials).map_err(|error| error.to_string())
}

/// Takes the lists of `tunnel_tls.revoked`, if it is there.
///
/// # Errors
/// A sentence: the file is damaged, or holds a list that cannot be taken.
pub fn take_up_revocations(live: &Live, files: &TunnelTls) -> Result<(), String> {
    let Ok(pem) = std::fs::read(&files.revoked) else { return Ok(()) };
    let told = |error: RevocationError| format!("{}: {error}", files.revoked.display());
    for list in lists_in(&pem).map_err(told)? {
        match live.revoke(&list) {
            Ok(Taken::New) => tracing::info!(file = %files.revoked.display(), "a new revocation list is in force"),
            Ok(Taken::Known) => {}
            Err(error) => return Err(told(error)),
        }
    }
    Ok(())
}

/// One certificate that is watched.
#[derive(Debug)]
struct Watched {
    shown: Shown,
    parts: Vec<Part>,
    warned_at: u64,
}

/// Files that are judged together.
#[derive(Debug)]
struct Part {
    what: What,
    files: Vec<PathBuf>,
    /// What the files held when they were last judged.
    judged: Option<Vec<u8>>,
    fault: Option<String>,
}

/// What a part is.
#[derive(Clone, Copy, Debug)]
enum What {
    /// Certificate and key.
    Pair,
    /// The CAs.
    Authorities,
    /// Their revocation lists.
    Revocations,
}

impl Part {
    fn new<const N: usize>(what: What, files: [&PathBuf; N]) -> Self {
        Self { what, files: files.into_iter().cloned().collect(), judged: None, fault: None }
    }
}

/// Looks at the files of `shown` until `stop` says so.
pub async fn run(shown: Vec<Shown>, every: Duration, board: watch::Sender<Vec<CertificateStatus>>, mut stop: Stop) {
    let mut watched: Vec<Watched> = shown.into_iter().map(Watched::new).collect();
    loop {
        // Reading waits for the disk, which may be slow or gone.
        let look = tokio::task::spawn_blocking(move || {
            for one in &mut watched {
                one.look(every.min(SETTLE));
            }
            watched
        });
        tokio::select! {
            looked = look => match looked {
                Ok(looked) => watched = looked,
                Err(error) => return tracing::error!(%error, "certificates are not watched any more"),
            },
            () = stop.requested() => return,
        }
        board.send_replace(watched.iter_mut().map(|one| one.status(unix_now())).collect());
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.requested() => return,
        }
    }
}

impl Watched {
    fn new(shown: Shown) -> Self {
        Self { parts: shown.parts(), shown, warned_at: 0 }
    }

    fn look(&mut self, settle: Duration) {
        for part in &mut self.parts {
            part.look(&self.shown, settle);
        }
    }

    fn status(&mut self, now: u64) -> CertificateStatus {
        let name = self.shown.name();
        let fault = self.parts.iter().find_map(|part| part.fault.clone());
        let Some(validity) = self.shown.validity() else {
            return CertificateStatus { name, fault, ..CertificateStatus::default() };
        };
        let is_over = now > validity.end + LEEWAY.as_secs();
        if let Some(warning) = validity.warning(now)
            && now >= self.warned_at + REPEAT
        {
            self.warned_at = now;
            tracing::warn!(certificate = name, "the certificate {warning}: {}", self.remedy(is_over));
        }
        let over = || validity.warning(now).filter(|_| is_over).map(|warning| format!("it {warning}: {}", self.remedy(is_over)));
        let fault = fault.or_else(over);
        CertificateStatus { name, expires_at: validity.end, days_left: validity.days_left(now), fault }
    }

    fn remedy(&self, is_over: bool) -> &'static str {
        match self.shown {
            Shown::Tunnel(..) if is_over => EXPIRED_REMEDY,
            Shown::Tunnel(..) => {
                "it renews itself where `[ca]` of the connector names the issuing CA; else `outgate connector enroll` or `outgate ca issue`"
            }
            Shown::People(..) => "replace the files; they are taken up within half a minute",
        }
    }
}

impl Part {
    fn look(&mut self, shown: &Shown, settle: Duration) {
        shown.put_in_order(self.what);
        let found = contents(&self.files);
        if self.judged.as_ref() == Some(&found) {
            return;
        }
        let is_first = self.judged.is_none();
        if !is_first {
            std::thread::sleep(settle);
            if contents(&self.files) != found {
                return;
            }
        }
        self.fault = shown.take_up(self.what).err();
        // What changed since it was read is seen by the next look.
        self.judged = Some(found);
        let (name, what) = (shown.name(), self.what);
        match &self.fault {
            Some(fault) => tracing::warn!(certificate = name, fault, "changed files are not taken up; what was in force stays"),
            None if is_first => tracing::debug!(certificate = name, ?what, "files are watched"),
            None => tracing::info!(certificate = name, ?what, "changed files are in force"),
        }
    }
}

/// A hash of what the files hold, which differs too for a file that is not there.
fn contents(files: &[PathBuf]) -> Vec<u8> {
    let mut hash = Context::new(&SHA256);
    for file in files {
        match std::fs::read(file) {
            Ok(bytes) => {
                hash.update(&(bytes.len() as u64).to_be_bytes());
                hash.update(&bytes);
            }
            Err(error) => hash.update(error.kind().to_string().as_bytes()),
        }
    }
    hash.finish().as_ref().to_vec()
}
