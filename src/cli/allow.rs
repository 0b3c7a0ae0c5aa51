//! `outgate allow`: what the relay's allow-lists say.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::json;

use super::{Failure, load_config, output};
use crate::admission::allow_list::{Access, Verdict};
use crate::config::RelayConfig;
use crate::config::relay::access::AccessRules;
use crate::net::allow_files::AllowFiles;

/// Arguments of `outgate allow`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Tell whether an address may connect, and which line decides.
    Test(Test),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate allow test 192.0.2.7
  outgate allow test --listener tunnel 2001:db8::7 --json

It reads relay.toml and the files that it names as they are now, not what a running relay has in force: `outgate reload` makes them one.
Exit code 0 if the address may connect, 1 if not.")]
struct Test {
    /// The address.
    #[arg(value_name = "ADDR")]
    address: IpAddr,
    /// Where it connects to.
    #[arg(long, value_enum, default_value = "client")]
    listener: Listener,
    /// The relay's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/outgate/relay.toml")]
    config: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Where somebody connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Listener {
    /// Customers' clients.
    Client,
    /// Connectors' tunnels.
    Tunnel,
}

/// Runs `outgate allow`.
///
/// # Errors
/// The address may not connect, or a file cannot be used.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.verb {
        Verb::Test(test) => run_test(&test),
    }
}

fn run_test(args: &Test) -> Result<(), Failure> {
    let config = load_config(&args.config, RelayConfig::parse)?;
    let (name, rules) = match args.listener {
        Listener::Client => ("client", config.access.client),
        Listener::Tunnel => ("tunnel", config.access.tunnel),
    };
    let otherwise = otherwise(name, &rules);
    let list = AllowFiles::open(rules).map_err(Failure::runtime)?.list();
    let verdict = list.judge(args.address);
    if args.json {
        output::line(as_json(args.address, name, &verdict))?;
    } else {
        let decider = match verdict.entry {
            Some(entry) => format!("{}:{}: {} {}", entry.file, entry.line, entry.access.as_str(), entry.prefix),
            None => otherwise,
        };
        output::line(format!("{}: {} ({decider})", args.address, verdict.access.as_str()))?;
    }
    if verdict.access == Access::Allow { Ok(()) } else { Err(Failure::told()) }
}

fn otherwise(listener: &str, rules: &AccessRules) -> String {
    if rules.is_closed {
        format!("in no prefix, and [access.{listener}] allows none but those it names")
    } else {
        format!("in no prefix, and [access.{listener}] names nobody who alone may connect")
    }
}

fn as_json(address: IpAddr, listener: &str, verdict: &Verdict<'_>) -> serde_json::Value {
    let entry = verdict.entry;
    json!({
        "address": address,
        "listener": listener,
        "access": verdict.access.as_str(),
        "prefix": entry.map(|entry| entry.prefix.to_string()),
        "file": entry.map(|entry| entry.file.as_ref()),
        "line": entry.map(|entry| entry.line),
    })
}
