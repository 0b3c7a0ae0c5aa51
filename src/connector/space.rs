//! Asks how much room the store's disk has, and tells the desk.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::net::shutdown::Stop;

use super::desk::{Input, Space};

/// How often it is asked. At 50 new sessions a second with a little talk each, this is a few megabytes.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// Asks for the room on the store's disk; `None` where that cannot be known.
pub type Probe = Box<dyn Fn() -> Option<Space> + Send>;

/// The room on the disk that holds `store`.
pub(super) fn probe(store: &Path) -> Probe {
    let folder = store.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned();
    Box::new(move || {
        let disk = rustix::fs::statvfs(&folder).ok()?;
        Some(Space { free: disk.f_bavail.saturating_mul(disk.f_frsize), total: disk.f_blocks.saturating_mul(disk.f_frsize) })
    })
}

/// Tells the desk until `stop`.
pub(super) async fn watch(probe: Probe, every: Duration, desk: mpsc::Sender<Input>, mut stop: Stop) {
    loop {
        if let Some(space) = probe()
            && desk.send(Input::Space(space)).await.is_err()
        {
            return stop.requested().await;
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.requested() => return,
        }
    }
}
