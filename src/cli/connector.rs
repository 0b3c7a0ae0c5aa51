//! `outgate connector`.

mod enroll;

use std::path::PathBuf;

use crate::config::{AgentsConfig, ConnectorConfig};
use crate::connector::{Connector, ConnectorSettings};
use crate::net::confinement::Dialing;
use crate::net::inherited::Inherited;

use super::{Failure, load_config, runtime};

/// Arguments of `outgate connector`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/outgate/connector.toml")]
    pub config: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Get this connector's tunnel certificate from the issuing CA, with a token.
    Enroll(enroll::Args),
}

/// Runs the connector until it is told to stop (SIGTERM, SIGINT): it then takes its leave; told once more, it ends at once.
///
/// # Errors
/// It could not start, or had to stop.
pub fn run(args: Args) -> Result<(), Failure> {
    if let Some(Verb::Enroll(args)) = &args.verb {
        return enroll::run(args);
    }
    let config = load_config(&args.config, ConnectorConfig::parse)?;
    let accounts = load_config(&config.agents.accounts, AgentsConfig::parse)?;
    runtime::log(&config.log)?;
    runtime::confine(config.confinement, Dialing::Allowed)?;
    let mut inherited = Inherited::from_env().map_err(Failure::runtime)?;
    runtime::block_on(runtime::Cores::BesideStore, async {
        let mut signals = runtime::StopSignals::listen()?;
        let settings = ConnectorSettings::from_config(&config, &accounts, &mut inherited).map_err(Failure::runtime)?;
        let mut connector = Connector::start(settings).await.map_err(Failure::runtime)?;
        tracing::info!(agents = %connector.agents_addr(), "connector started");
        let stopped = tokio::select! {
            () = signals.next() => Ok(()),
            () = connector.failed() => Err(Failure::runtime("a part of the connector failed; the log says which")),
        };
        if stopped.is_ok() {
            tokio::select! {
                () = connector.drain() => {}
                () = signals.next() => {}
            }
        }
        connector.shutdown().await;
        stopped
    })
}
