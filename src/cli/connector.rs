//! `outgate connector`.

use std::path::PathBuf;

use crate::config::{AgentsConfig, ConnectorConfig};
use crate::connector::{Connector, ConnectorSettings};
use crate::net::inherited::Inherited;

use super::{Failure, load_config, runtime};

/// Arguments of `outgate connector`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/outgate/connector.toml")]
    pub config: PathBuf,
}

/// Runs the connector until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// It could not start, or had to stop.
pub fn run(args: Args) -> Result<(), Failure> {
    let config = load_config(&args.config, ConnectorConfig::parse)?;
    let accounts = load_config(&config.agents.accounts, AgentsConfig::parse)?;
    runtime::log(&config.log)?;
    let mut inherited = Inherited::from_env().map_err(Failure::runtime)?;
    runtime::block_on(async {
        let settings = ConnectorSettings::from_config(&config, &accounts, &mut inherited).map_err(Failure::runtime)?;
        let mut connector = Connector::start(settings).await.map_err(Failure::runtime)?;
        tracing::info!(agents = %connector.agents_addr(), "connector started");
        let stopped = tokio::select! {
            signal = runtime::stop_signal() => signal,
            () = connector.failed() => Err(Failure::runtime("a part of the connector failed; the log says which")),
        };
        connector.shutdown().await;
        stopped
    })
}
