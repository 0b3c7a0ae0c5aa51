//! The command line: arguments in, output and an exit code out.
//!
//! One file per verb. A verb answers `Result<(), Failure>`; a failure is printed here, once: cause,
//! hint, exit code (1 for what failed, 2 for wrong usage). Results go to stdout, all else to stderr.
//! Secrets are never taken from arguments.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod agent;
pub mod allow;
pub mod ca;
pub mod check;
pub mod connector;
pub mod demo;
pub mod link;
pub mod relay;
pub mod reload;
pub mod status;

mod clock;
mod failure;
mod faults;
mod files;
mod output;
mod runtime;
mod secret;

pub use clock::unix_now;
pub use failure::Failure;
pub use faults::load_config;

/// Firewall-traversing edge relay for instant messaging.
#[derive(Debug, Parser)]
#[command(name = "outgate", version, about, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the relay, in the DMZ.
    Relay(relay::Args),
    /// Run the connector, on the LAN.
    Connector(connector::Args),
    /// Run both in one process and show a conversation.
    Demo(demo::Args),
    /// Make and explain signed links.
    Link(link::Args),
    /// Make the tunnel's certificates.
    Ca(ca::Args),
    /// Edit the agents' accounts.
    Agent(agent::Args),
    /// Find every fault of a configuration file.
    Check(check::Args),
    /// Explain the relay's allow-lists.
    Allow(allow::Args),
    /// Tell a running relay to read its configuration again.
    Reload(reload::Args),
    /// Ask a running relay or connector how it is.
    Status(status::Args),
}

/// Runs the program with `args`, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => return failure::report_usage(&usage),
    };
    let result = match cli.verb {
        Verb::Relay(args) => relay::run(args),
        Verb::Connector(args) => connector::run(args),
        Verb::Demo(args) => demo::run(args),
        Verb::Link(args) => link::run(args),
        Verb::Ca(args) => ca::run(args),
        Verb::Agent(args) => agent::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Allow(args) => allow::run(args),
        Verb::Reload(args) => reload::run(args),
        Verb::Status(args) => status::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }
}
