//! What the long-running verbs share: the log, the asynchronous runtime, the signals that stop them.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::Log;
use crate::telemetry::log;

use super::Failure;

/// Sets up the log as configured.
pub(super) fn log(config: &Log) -> Result<(), Failure> {
    log::init(config.format, config.level.as_str()).map_err(Failure::runtime)
}

/// Runs `work` on all cores.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
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
