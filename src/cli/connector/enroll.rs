//! `outgate connector enroll`.

use std::path::PathBuf;

use crate::cli::{Failure, files, output, runtime, secret};
use crate::connector::enrolment::enroll;
use crate::net::https::ServiceUrl;

/// Arguments of `outgate connector enroll`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the token and the fingerprint that `outgate ca token` printed:
  outgate connector enroll --ca https://192.168.1.5:7444 --ca-sha256 3f0a… --token-file token --out /etc/outgate/tunnel

The key is made here and never leaves this host. Afterwards write into connector.toml:
  [tunnel_tls]
  certificate = \"tunnel/connector.pem\"
  key = \"tunnel/connector-key.pem\"
  ca = \"tunnel/ca.pem\"
  [ca]
  url = \"https://192.168.1.5:7444\"")]
pub(super) struct Args {
    /// Where `outgate ca serve` listens.
    #[arg(long, value_name = "https://HOST:PORT", value_parser = url)]
    ca: ServiceUrl,
    /// The SHA-256 fingerprint of the CA.
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    ca_sha256: String,
    /// The file that holds the token; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Where to put connector.pem, connector-key.pem (0600) and ca.pem.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let text = secret::text_of(&args.token_file)?;
    let token = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if token.is_empty() {
        return Err(Failure::runtime("there is no token").hint("`outgate ca token` makes one"));
    }
    files::create_private_folder(&args.out)?;
    let enrolled = runtime::block_on(runtime::Cores::All, async {
        enroll(&args.ca, &args.ca_sha256, token, &args.out).await.map_err(|error| {
            let remedy = error.remedy();
            Failure::runtime(error).hint(remedy)
        })
    })?;
    output::line(enrolled.name)?;
    enrolled.files.iter().try_for_each(|file| output::line(file.display()))
}

fn url(text: &str) -> Result<ServiceUrl, String> {
    text.parse().map_err(|error: crate::net::https::NotAServiceUrl| error.to_string())
}

/// 64 hexadecimal digits, with or without the colons of `openssl`.
fn fingerprint(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|letter| *letter != ':').map(|letter| letter.to_ascii_lowercase()).collect();
    let is_one = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_one { Ok(digits) } else { Err("expected 64 hexadecimal digits, as `outgate ca token` prints them".to_owned()) }
}
