//! Reads issuers' files again by content, so that a rotated key needs no restart.

use std::sync::Arc;
use std::time::Duration;

use crate::net::shutdown::Stop;

use super::LinkKeyFiles;

/// How often the files are looked at: their content, not their times, so that a swapped symbolic link counts too.
pub const EVERY: Duration = Duration::from_secs(30);

/// Looks at `files` every so often until `stop`; calls `changed` after their keys have changed. A file that cannot be used is told once, and the
/// keys before it stand.
pub async fn watch(files: Arc<LinkKeyFiles>, every: Duration, mut stop: Stop, mut changed: impl FnMut() + Send) {
    let mut told = String::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.requested() => return,
        }
        match files.reload() {
            Ok(true) => {
                tracing::info!(keys = files.keys().len(), "link keys read again");
                changed();
            }
            Ok(false) => told.clear(),
            Err(fault) => {
                let fault = fault.to_string();
                if fault != told {
                    tracing::warn!(fault, "link keys are not read again; those before stand");
                    told = fault;
                }
            }
        }
    }
}
