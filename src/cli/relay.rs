//! `outgate relay`.

use std::path::PathBuf;

use crate::config::RelayConfig;
use crate::net::inherited::Inherited;
use crate::relay::Relay;
use crate::relay::setup::settings_of;

use super::{Failure, load_config, runtime};

/// Arguments of `outgate relay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/outgate/relay.toml")]
    pub config: PathBuf,
}

/// Runs the relay until it is told to stop (SIGTERM, SIGINT): it then takes its leave; told once more, it ends at once.
///
/// # Errors
/// It could not start.
pub fn run(args: Args) -> Result<(), Failure> {
    let config = load_config(&args.config, RelayConfig::parse)?;
    runtime::log(&config.log)?;
    let mut inherited = Inherited::from_env().map_err(Failure::runtime)?;
    runtime::block_on(runtime::Cores::All, async {
        let mut signals = runtime::StopSignals::listen()?;
        let mut relay = Relay::start(settings_of(&config, &mut inherited)?)?;
        tracing::info!(customers = ?relay.client_addresses(), tunnels = ?relay.tunnel_address(), "relay started");
        signals.next().await;
        tokio::select! {
            () = relay.drain() => {}
            () = signals.next() => {}
        }
        relay.stop().await;
        Ok(())
    })
}
