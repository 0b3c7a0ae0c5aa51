//! `outgate ca`: the CA of the tunnel, what it issues and revokes, and its service.

mod issue;
mod list;
mod revoke;
mod serve;
mod token;

use std::path::PathBuf;
use std::time::Duration;

use super::clock::rfc3339;
use super::{Failure, output, unix_now};
use crate::authority::{Authority, AuthorityError};
use crate::config::duration;

/// Arguments of `outgate ca`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate ca init /root/tunnel-ca --org example
  outgate ca issue /root/tunnel-ca --relay dmz1 --dns relay.example.com --out dmz1
  outgate ca serve /root/tunnel-ca --listen 192.168.1.5:7444
  outgate ca token /root/tunnel-ca --name lan1 --ttl 1h > token
  outgate ca revoke /root/tunnel-ca lan1 --why 'host stolen'

The CA's key stays on the LAN. Copy a relay's --out folder to its own host; a connector enrols by itself:
`outgate connector enroll`.")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a CA in a new folder: ca.pem and ca-key.pem (0600); or, with --roll, its successor.
    Init(Init),
    /// Make a token with which a connector enrols once.
    Token(token::Args),
    /// Issue the certificate of a relay or a connector with a key made here.
    Issue(issue::Args),
    /// Revoke certificates, by name or serial.
    Revoke(revoke::Args),
    /// Show what was issued and how it stands.
    List(list::Args),
    /// Serve connectors that enrol and renew, on the LAN.
    Serve(serve::Args),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// The CA's folder.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The organisation, first part of every tunnel name.
    #[arg(long, required_unless_present = "roll", conflicts_with = "roll")]
    org: Option<String>,
    /// Make the successor of the CA that is there: trusted at once, issuing after --settle.
    #[arg(long)]
    roll: bool,
    /// How long everybody has to hear of the successor before it issues.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = span, requires = "roll")]
    settle: Duration,
}

/// Runs `outgate ca`.
///
/// # Errors
/// The folder cannot be used, or what is asked for cannot be done.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.verb {
        Verb::Init(args) => init(&args),
        Verb::Token(args) => token::run(&args),
        Verb::Issue(args) => issue::run(&args),
        Verb::Revoke(args) => revoke::run(&args),
        Verb::List(args) => list::run(&args),
        Verb::Serve(args) => serve::run(&args),
    }
}

fn init(args: &Init) -> Result<(), Failure> {
    let now = unix_now();
    let Some(org) = &args.org else { return roll(args, now) };
    let authority = Authority::init(&args.dir, org, now).map_err(failed)?;
    output::line(format!("{}  certificate of the CA of {org}", args.dir.join("ca.pem").display()))?;
    output::line(format!("{}  its key: keep it here", args.dir.join("ca-key.pem").display()))?;
    output::line(format!("sha256 {}", authority.fingerprint(now).map_err(failed)?))
}

fn roll(args: &Init, now: u64) -> Result<(), Failure> {
    let authority = Authority::open(&args.dir).map_err(failed)?;
    let issues_from = authority.roll(args.settle, now).map_err(failed)?;
    let bundle = authority.bundle(now).map_err(failed)?;
    output::line(format!("the successor is trusted from now on and issues from {}", rfc3339(issues_from)))?;
    output::line("connectors with `[ca]` and their relays learn of it by themselves; for others this is their new `tunnel_tls.ca`:")?;
    output::line(bundle.trim_end())
}

fn failed(error: AuthorityError) -> Failure {
    let remedy = error.remedy();
    Failure::runtime(error).hint(remedy)
}

fn span(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "write, for example, 90s, 15m, 1h or 30d".to_owned())
}

/// A span of time that is not none.
fn some_span(text: &str) -> Result<Duration, String> {
    span(text).and_then(|span| if span.is_zero() { Err("longer than nothing".to_owned()) } else { Ok(span) })
}
