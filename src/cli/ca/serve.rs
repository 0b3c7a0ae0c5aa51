//! `outgate ca serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::failed;
use crate::authority::Authority;
use crate::authority::service::Service;
use crate::cli::{Failure, runtime, unix_now};
use crate::config::{Log, LogFormat, LogLevel};

/// Arguments of `outgate ca serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Put it on a host of the LAN that connectors reach, never in the DMZ. Relays need no way to it: their renewals come through the tunnel
and a connector.

Example:
  outgate ca serve /root/tunnel-ca --listen 192.168.1.5:7444")]
pub(super) struct Args {
    /// The CA's folder.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Where to listen. Name the LAN's address: the default serves this machine only.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7444")]
    listen: SocketAddr,
    /// How long certificates are good [default: 30d].
    #[arg(long, value_name = "TIME", value_parser = super::some_span)]
    life: Option<Duration>,
    /// Log lines of JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let format = if args.json { LogFormat::Json } else { LogFormat::Text };
    runtime::log(&Log { level: LogLevel::Info, format })?;
    let authority = Authority::open(&args.dir).map_err(failed)?.with_life(args.life);
    let fingerprint = authority.fingerprint(unix_now()).map_err(failed)?;
    runtime::block_on(runtime::Cores::All, async {
        let service = Service::start(authority, args.listen).map_err(Failure::runtime)?;
        tracing::info!(address = %service.address(), sha256 = fingerprint, "the CA serves");
        let stopped = runtime::stop_signal().await;
        service.stop().await;
        stopped
    })
}
