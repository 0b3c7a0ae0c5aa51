//! `outgate reload`: tells a running relay to read its configuration again, and tells what became of it.

use std::path::PathBuf;

use serde_json::Value;

use super::status::{self, RELAY_SOCKET};
use super::{Failure, output};
use crate::admin::{Action, Request, Response};

/// Arguments of `outgate reload`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  outgate check /etc/outgate/relay.toml && outgate reload

What is wrong in any part of it changes nothing: the exit code is 1, and what was in force stays. SIGHUP does the same and tells it
in the log. Certificates, keys of links and the files of allow-lists are taken up by themselves within half a minute.")]
pub struct Args {
    /// The relay's admin socket.
    #[arg(long, value_name = "PATH", default_value = RELAY_SOCKET)]
    socket: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs `outgate reload`.
///
/// # Errors
/// Nobody answers, or the configuration cannot be taken up.
pub fn run(args: Args) -> Result<(), Failure> {
    let told = match status::ask(&args.socket, Request::Do(Action::Reload))? {
        Response::Status(told) => told,
        Response::Error(refusal) => return Err(Failure::runtime(refusal.error).hint("what was in force stays")),
    };
    if args.json {
        return output::line(Value::Object(told));
    }
    let names =
        |key: &str| -> Vec<&str> { told.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect() };
    let (changed, needs_restart) = (names("changed"), names("needs_restart"));
    output::line(if changed.is_empty() { "nothing has changed".to_owned() } else { format!("in force: {}", changed.join(", ")) })?;
    if !needs_restart.is_empty() {
        output::line(format!("changed too, and taken up by a restart alone: {}", needs_restart.join(", ")))?;
    }
    Ok(())
}
