//! What the long-running verbs share: the log, the asynchronous runtime, the signals that stop them.

use std::future::Future;
use std::num::NonZeroUsize;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::Log;
use crate::telemetry::log;

use super::Failure;

/// Sets up the log as configured.
pub(super) fn log(config: &Log) -> Result<(), Failure> {
    log::init(config.format, config.level.as_str()).map_err(Failure::runtime)
}

/// Which threads a verb's tasks get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cores {
    /// One for each core.
    All,
    /// One fewer: a core is left to the store's thread, and handing tasks from core to core costs more than it brings.
    BesideStore,
}

/// Runs `work`.
pub(super) fn block_on<T>(cores: Cores, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if cores == Cores::BesideStore {
        let all = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        builder.worker_threads(all.saturating_sub(1).max(1));
    }
    let runtime = builder.enable_all().build();
    runtime.map_err(|error| Failure::runtime(format!("cannot start: {error}")))?.block_on(work)
}

/// Waits for SIGINT or SIGTERM.
pub(super) async fn stop_signal() -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::runtime(format!("cannot listen for signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
