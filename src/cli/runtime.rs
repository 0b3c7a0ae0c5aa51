//! What the long-running verbs share: the log, the asynchronous runtime, the signals that stop them.

use std::future::Future;
use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Confinement, Log};
use crate::net::confinement::{self, Dialing};
use crate::telemetry::log;

use super::Failure;

/// How long threads that block outside this program may hold up its end.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

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
    /// One for each core, without capabilities: what needs one is done by the thread that calls.
    AllUnprivileged,
}

/// Runs `work`.
pub(super) fn block_on<T>(cores: Cores, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if cores == Cores::BesideStore {
        let all = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        builder.worker_threads(all.saturating_sub(1).max(1));
    }
    if cores == Cores::AllUnprivileged {
        // Whether it could is asked of all threads when the process is confined.
        builder.on_thread_start(|| {
            let _asked_later = confinement::drop_capabilities();
        });
    }
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::runtime(format!("cannot start: {error}")))?;
    let done = runtime.block_on(work);
    // A name that the system is still looking up would hold the process for as long as its resolver likes.
    runtime.shutdown_timeout(LEFT_BEHIND);
    done
}

/// Gives up for good what the role does not need, as configured.
pub(super) fn confine(wanted: Confinement, dialing: Dialing) -> Result<(), Failure> {
    match wanted {
        Confinement::On => {
            confinement::confine(dialing).map_err(|fault| {
                let hint = "it takes Linux 4.8 with seccomp filters; where the service manager confines the process by itself, write `confinement = \"off\"`";
                Failure::runtime(format!("the process cannot be confined: {fault}")).hint(hint)
            })?;
            tracing::info!("confined: what is not needed is given up");
        }
        Confinement::Off => tracing::warn!("not confined: `confinement` is \"off\""),
    }
    Ok(())
}

/// SIGINT and SIGTERM, from the moment when they are listened for: the first asks to take leave, the second to end at once.
#[derive(Debug)]
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Listens from now on. Needs a runtime.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::runtime(format!("cannot listen for signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for SIGINT or SIGTERM.
pub(super) async fn stop_signal() -> Result<(), Failure> {
    StopSignals::listen()?.next().await;
    Ok(())
}
