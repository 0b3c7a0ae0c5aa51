//! `outgate ca issue`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::failed;
use crate::authority::Authority;
use crate::cli::files::{self, Readers};
use crate::cli::{Failure, output, unix_now};
use crate::config::Role;
use crate::net::certificates::Issued;

/// Arguments of `outgate ca issue`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("subject").required(true).args(["relay", "connector"]))]
pub(super) struct Args {
    /// The CA's folder.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The relay's name.
    #[arg(long, value_name = "NAME")]
    relay: Option<String>,
    /// A DNS name or address that connectors dial; may be given more than once [default: NAME].
    #[arg(long, value_name = "HOST", requires = "relay")]
    dns: Vec<String>,
    /// The connector's name.
    #[arg(long, value_name = "NAME")]
    connector: Option<String>,
    /// How long it is good [default: 30d].
    #[arg(long, value_name = "TIME", value_parser = super::some_span)]
    life: Option<Duration>,
    /// Where to put ROLE.pem, ROLE-key.pem (0600) and ca.pem.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (role, name) = match (&args.relay, &args.connector) {
        (Some(name), _) => (Role::Relay, name),
        (None, Some(name)) => (Role::Connector, name),
        (None, None) => return Err(Failure::usage("name one of --relay and --connector")),
    };
    let hosts = match role {
        Role::Relay if args.dns.is_empty() => vec![name.clone()],
        Role::Relay | Role::Connector => args.dns.clone(),
    };
    let authority = Authority::open(&args.dir).map_err(failed)?.with_life(args.life);
    files::create_private_folder(&args.out)?;
    for file in [format!("{}.pem", role.as_str()), format!("{}-key.pem", role.as_str())] {
        let file = args.out.join(file);
        if file.exists() {
            return Err(files::exists_already(&file));
        }
    }
    let now = unix_now();
    let bundle = authority.bundle(now).map_err(failed)?;
    let ca_copy = args.out.join("ca.pem");
    let has_bundle = files::read_text(&ca_copy).is_ok_and(|there| there == bundle);
    if !has_bundle && ca_copy.exists() {
        return Err(files::exists_already(&ca_copy));
    }
    let (identity, issued) = authority.issue(role, name, &hosts, now).map_err(failed)?;
    write(&args.out, role.as_str(), &issued)?;
    if !has_bundle {
        files::create(&ca_copy, &bundle, Readers::Everybody)?;
    }
    output::line(format!("{identity}"))?;
    for file in [format!("{}.pem", role.as_str()), format!("{}-key.pem", role.as_str()), "ca.pem".into()] {
        output::line(args.out.join(file).display())?;
    }
    Ok(())
}

fn write(dir: &Path, name: &str, issued: &Issued) -> Result<(), Failure> {
    files::create(&dir.join(format!("{name}-key.pem")), &issued.key, Readers::Owner)?;
    files::create(&dir.join(format!("{name}.pem")), &issued.certificate, Readers::Everybody)
}
