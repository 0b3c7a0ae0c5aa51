//! `outgate ca token`.

use std::path::PathBuf;
use std::time::Duration;

use super::failed;
use crate::authority::Authority;
use crate::cli::clock::rfc3339;
use crate::cli::{Failure, output, unix_now};

/// Arguments of `outgate ca token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The token goes to stdout and is kept nowhere: carry it to the connector's host as a file, and delete the file.

Example:
  outgate ca token /root/tunnel-ca --name lan1 --ttl 1h > token")]
pub(super) struct Args {
    /// The CA's folder.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The connector's name.
    #[arg(long)]
    name: String,
    /// How long the token may wait to be used.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = super::some_span)]
    ttl: Duration,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let now = unix_now();
    let authority = Authority::open(&args.dir).map_err(failed)?;
    let (token, made) = authority.token(&args.name, args.ttl, now).map_err(failed)?;
    output::note(format!("token {} for {}, for one use until {}", made.id, made.name, rfc3339(made.end)));
    let fingerprint = authority.fingerprint(now).map_err(failed)?;
    output::note(format!("outgate connector enroll --ca https://CA-HOST:7444 --ca-sha256 {fingerprint} --token-file FILE --out DIR"));
    output::line(token.as_str())
}
