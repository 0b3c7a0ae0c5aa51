//! `outgate ca`: the CA of the tunnel and the certificates that it issues.

use std::path::{Path, PathBuf};

use super::files::{self, Readers};
use super::{Failure, output, unix_now};
use crate::config::Role;
use crate::net::certificates::{CertificateError, Issued, TunnelCa};

/// Arguments of `outgate ca`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate ca init /root/tunnel-ca --org example
  outgate ca issue /root/tunnel-ca --relay dmz1 --dns relay.example.com --out dmz1
  outgate ca issue /root/tunnel-ca --connector lan1 --out lan1

The CA's key stays on the LAN. Copy each --out folder to its own host.")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a CA in a new folder: ca.pem and ca-key.pem (0600).
    Init {
        /// Where to put it.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// The organisation, first part of every tunnel name.
        #[arg(long)]
        org: String,
    },
    /// Issue the certificate of a relay or a connector, good for 30 days.
    Issue(Issue),
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("subject").required(true).args(["relay", "connector"]))]
struct Issue {
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
    /// Where to put ROLE.pem, ROLE-key.pem (0600) and ca.pem.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs `outgate ca`.
///
/// # Errors
/// A file exists already or cannot be written, or a name cannot stand in a certificate.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.verb {
        Verb::Init { dir, org } => init(&dir, &org),
        Verb::Issue(args) => issue(&args),
    }
}

fn init(dir: &Path, org: &str) -> Result<(), Failure> {
    let (_ca, issued) = TunnelCa::create(org, unix_now()).map_err(failed)?;
    files::create_private_folder(dir)?;
    write(dir, "ca", &issued)?;
    output::line(format!("{}  certificate of the CA of {org}", dir.join("ca.pem").display()))?;
    output::line(format!("{}  its key: keep it here", dir.join("ca-key.pem").display()))
}

fn issue(args: &Issue) -> Result<(), Failure> {
    let (role, name) = match (&args.relay, &args.connector) {
        (Some(name), _) => (Role::Relay, name),
        (None, Some(name)) => (Role::Connector, name),
        (None, None) => return Err(Failure::usage("name one of --relay and --connector")),
    };
    let hosts = match role {
        Role::Relay if args.dns.is_empty() => vec![name.clone()],
        Role::Relay | Role::Connector => args.dns.clone(),
    };
    let certificate = files::read_text(&args.dir.join("ca.pem")).map_err(hint_init)?;
    let key = zeroize::Zeroizing::new(files::read_text(&args.dir.join("ca-key.pem")).map_err(hint_init)?);
    let ca = TunnelCa::from_pem(&certificate, &key).map_err(failed)?;
    let (identity, issued) = ca.issue(role, name, &hosts, unix_now()).map_err(failed)?;
    files::create_private_folder(&args.out)?;
    write(&args.out, role.as_str(), &issued)?;
    let ca_copy = args.out.join("ca.pem");
    if files::read_text(&ca_copy).ok().as_deref() != Some(certificate.as_str()) {
        files::create(&ca_copy, &certificate, Readers::Everybody)?;
    }
    output::line(format!("{identity}"))?;
    for file in [format!("{}.pem", role.as_str()), format!("{}-key.pem", role.as_str()), "ca.pem".into()] {
        output::line(args.out.join(file).display())?;
    }
    Ok(())
}

/// Writes both or, where one of them is there already, none.
fn write(dir: &Path, name: &str, issued: &Issued) -> Result<(), Failure> {
    let certificate = dir.join(format!("{name}.pem"));
    if certificate.exists() {
        return Err(files::exists_already(&certificate));
    }
    files::create(&dir.join(format!("{name}-key.pem")), &issued.key, Readers::Owner)?;
    files::create(&certificate, &issued.certificate, Readers::Everybody)
}

fn failed(error: CertificateError) -> Failure {
    Failure::runtime(error)
}

fn hint_init(failure: Failure) -> Failure {
    failure.hint("`outgate ca init DIR --org ORG` makes a CA")
}
