//! `outgate relay`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::RelayConfig;
use crate::net::confinement::Dialing;
use crate::net::inherited::Inherited;
use crate::relay::Relay;
use crate::relay::reload::Reloaded;
use crate::relay::settings::ConfigFile;
use crate::relay::setup::settings_of;
use crate::telemetry::audit::Audit;

use super::{Failure, load_config, runtime};

/// Arguments of `outgate relay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/outgate/relay.toml")]
    pub config: PathBuf,
}

/// Runs the relay until it is told to stop (SIGTERM, SIGINT): it then takes its leave; told once more, it ends at once. SIGHUP makes it
/// read its configuration again.
///
/// # Errors
/// It could not start.
pub fn run(args: Args) -> Result<(), Failure> {
    let config = load_config(&args.config, RelayConfig::parse)?;
    runtime::log(&config.log)?;
    let mut inherited = Inherited::from_env().map_err(Failure::runtime)?;
    runtime::block_on(runtime::Cores::AllUnprivileged, async {
        let mut signals = runtime::StopSignals::listen()?;
        let mut settings = settings_of(&config, &mut inherited)?;
        // Its sockets stand, and nobody was let in.
        runtime::confine(config.confinement, Dialing::Never)?;
        settings.confinement = config.confinement;
        // Made with no more rights than it is written with later.
        settings.audit = Audit::from_config(&config.audit).context("the audit log (`audit.file`)")?;
        settings.file = Some(ConfigFile { running: config, read: Box::new(move || read_again(&args.config)) });
        let mut relay = Relay::start(settings)?;
        tracing::info!(customers = ?relay.client_addresses(), tunnels = ?relay.tunnel_address(), "relay started");
        tokio::select! {
            () = signals.next() => {}
            failure = reload_when_told(&relay) => return Err(failure),
        }
        tokio::select! {
            () = relay.drain() => {}
            () = signals.next() => {}
        }
        relay.stop().await;
        Ok(())
    })
}

fn read_again(file: &Path) -> Result<RelayConfig, String> {
    let text = std::fs::read_to_string(file).map_err(|fault| format!("{}: {fault}", file.display()))?;
    RelayConfig::parse(file, &text).map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// Reads the configuration again at each SIGHUP; ends only where signals cannot be had.
async fn reload_when_told(relay: &Relay) -> Failure {
    let mut told = match signal(SignalKind::hangup()) {
        Ok(told) => told,
        Err(error) => return Failure::runtime(format!("cannot listen for signals: {error}")),
    };
    loop {
        told.recv().await;
        reload(relay).await;
    }
}

async fn reload(relay: &Relay) {
    match relay.reload().await {
        Ok(Reloaded { changed, needs_restart }) => tracing::info!(?changed, ?needs_restart, "the configuration was read again"),
        Err(fault) => tracing::error!(fault, "the configuration is not taken up; the one before stands"),
    }
}
