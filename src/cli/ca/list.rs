//! `outgate ca list`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::failed;
use crate::authority::{Authority, State};
use crate::cli::clock::rfc3339;
use crate::cli::{Failure, output, unix_now};

/// Arguments of `outgate ca list`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The CA's folder.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Expired ones too.
    #[arg(long)]
    all: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let now = unix_now();
    let authority = Authority::open(&args.dir).map_err(failed)?;
    let fingerprint = authority.fingerprint(now).map_err(failed)?;
    let tokens = authority.open_tokens(now).map_err(failed)?;
    let mut certificates = authority.list(now).map_err(failed)?;
    certificates.retain(|(entry, state)| args.all || *state == State::Valid || (*state == State::Revoked && entry.end >= now));
    if args.json {
        let certificates: Vec<Value> = certificates
            .iter()
            .map(|(entry, state)| {
                json!({"serial": entry.serial, "name": entry.name, "hosts": entry.hosts, "begin": entry.begin, "end": entry.end,
                       "state": state, "by": entry.by, "generation": entry.generation})
            })
            .collect();
        let tokens: Vec<Value> = tokens.iter().map(|token| json!({"id": token.id, "name": token.name, "end": token.end})).collect();
        return output::line(json!({"sha256": fingerprint, "certificates": certificates, "tokens": tokens}));
    }
    output::line(format!("ca       {fingerprint}"))?;
    for token in &tokens {
        output::line(format!("token    {}  until {}  {}", token.id, rfc3339(token.end), token.name))?;
    }
    for (entry, state) in &certificates {
        let state = match state {
            State::Valid => "valid",
            State::Expired => "expired",
            State::Revoked => "revoked",
        };
        let (end, by) = (rfc3339(entry.end), entry.by.escape_debug());
        output::line(format!("{state:<8} {}  until {end}  {}  ({by})", entry.serial, entry.name))?;
    }
    Ok(())
}
