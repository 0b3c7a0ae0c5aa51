//! `outgate ca revoke`.

use std::path::PathBuf;

use super::failed;
use crate::authority::Authority;
use crate::cli::{Failure, output, unix_now};

/// Arguments of `outgate ca revoke`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Where `outgate ca serve` runs, connectors fetch the list within a minute and bring it to their relays: tunnels of who is revoked are
closed, and no new ones made. Elsewhere copy DIR/revoked.pem beside `tunnel_tls.ca` of each relay and connector.")]
pub(super) struct Args {
    /// The CA's folder.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// A name, `lan1` or `outgate://ORG/ROLE/NAME`, for all of its valid certificates; or one serial.
    #[arg(value_name = "WHAT")]
    what: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let authority = Authority::open(&args.dir).map_err(failed)?;
    let revoked = authority.revoke(&args.what, &args.why, unix_now()).map_err(failed)?;
    for entry in &revoked.entries {
        output::line(format!("{}  {}", entry.serial, entry.name))?;
    }
    output::line(format!("{}  list number {}", args.dir.join("revoked.pem").display(), revoked.number))
}
