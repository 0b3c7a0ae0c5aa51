//! `outgate status`: asks a running relay or connector over its admin socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Failure, output};
use crate::admin::{MAX_RESPONSE, Request, Response, Subject};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The admin socket of a relay, as packaged.
pub(super) const RELAY_SOCKET: &str = "/run/outgate-relay/admin.sock";

/// Sockets that are tried where none is named.
const SOCKETS: [&str; 2] = [RELAY_SOCKET, "/run/outgate-connector/admin.sock"];

/// Arguments of `outgate status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate status
  outgate status --socket /run/outgate-relay/admin.sock --json")]
pub struct Args {
    /// The admin socket [default: that of the relay or connector on this host].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs `outgate status`.
///
/// # Errors
/// Nobody answers, or the answer is an error.
pub fn run(args: Args) -> Result<(), Failure> {
    let socket = match args.socket {
        Some(socket) => socket,
        None => found()?,
    };
    let status = match ask(&socket, Request::Get(Subject::Status))? {
        Response::Status(status) => Value::Object(status),
        Response::Error(refusal) => return Err(Failure::runtime(refusal.error)),
    };
    if args.json { output::line(status) } else { rows("", &status) }
}

fn found() -> Result<PathBuf, Failure> {
    let socket = SOCKETS.iter().map(Path::new).find(|socket| socket.exists());
    socket.map(Path::to_owned).ok_or_else(|| {
        Failure::runtime("no relay or connector runs here").hint("--socket PATH names the `admin` socket of its configuration")
    })
}

/// Asks a running role one thing.
pub(super) fn ask(socket: &Path, request: Request) -> Result<Response, Failure> {
    let failed = |error: std::io::Error| {
        Failure::runtime(format!("{}: {error}", socket.display())).hint("is it running, and may you open its admin socket?")
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = serde_json::to_string(&request).map_err(Failure::runtime)?;
    writeln!(stream, "{request}").map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_RESPONSE)).read_line(&mut answer).map_err(failed)?;
    serde_json::from_str(&answer).map_err(|_other| Failure::runtime(format!("{} gave no answer that this version reads", socket.display())))
}

/// One line for each value: its path and the value.
fn rows(path: &str, value: &Value) -> Result<(), Failure> {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(map) => map.iter().try_for_each(|(name, value)| rows(&below(name), value)),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(at, value)| rows(&below(&at.to_string()), value)),
        Value::String(text) => output::line(format!("{path:<40} {}", text.escape_debug())),
        Value::Null | Value::Bool(_) | Value::Number(_) => output::line(format!("{path:<40} {value}")),
    }
}
