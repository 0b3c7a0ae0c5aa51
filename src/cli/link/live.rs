//! What `outgate link` asks of a running connector: to take a link back, which codes and links it knows, and which keys it trusts.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::admin::{Action, Request, Response, RevokeLink, Subject};
use crate::cli::clock::rfc3339;
use crate::cli::{Failure, output, secret, status};
use crate::link::token;
use crate::link::uri;

/// The connector's admin socket where none is named.
pub(super) const SOCKET: &str = "/run/outgate-connector/admin.sock";

/// Arguments of `outgate link revoke`.
#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The link's `jti`, or a file with the token; `-` is stdin. Never the token itself.
    #[arg(value_name = "JTI|FILE")]
    link: String,
    /// Who signed it, where the connector trusts several issuers.
    #[arg(long, value_name = "ISS")]
    issuer: Option<String>,
    /// End its live sessions too.
    #[arg(long)]
    end: bool,
    /// The connector's admin socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Arguments of `outgate link list`.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// The connector's admin socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Shows codes and used links: names and numbers, never what lets anyone in.
pub(super) fn list(args: &List) -> Result<(), Failure> {
    let told = ask(&args.socket, Request::Get(Subject::Links))?;
    if args.json {
        return output::line(Value::Object(told));
    }
    let links = told.get("links").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if !links.is_empty() {
        output::line(row("STATE", "USES", "LIVE", "UNTIL", "QUEUE", "ISSUER", "ID"))?;
    }
    for link in links {
        let text = |name: &str| link.get(name).and_then(Value::as_str).unwrap_or_default().escape_debug().to_string();
        let number = |name: &str| link.get(name).and_then(Value::as_u64);
        let uses = number("uses").unwrap_or_default();
        let uses = number("max_sessions").map_or_else(|| uses.to_string(), |most| format!("{uses} of {most}"));
        let live = if link.get("live").and_then(Value::as_bool) == Some(true) { "yes" } else { "no" };
        let until = rfc3339(number("expires").unwrap_or_default());
        output::line(row(&text("state"), &uses, live, &until, &text("queue"), &text("issuer"), &text("jti")))?;
    }
    match told.get("left_out").and_then(Value::as_u64) {
        None | Some(0) => Ok(()),
        Some(more) => output::line(format!("and {more} that end later")),
    }
}

fn row(state: &str, uses: &str, live: &str, until: &str, queue: &str, issuer: &str, id: &str) -> String {
    format!("{state:<8} {uses:<10} {live:<4} {until:<20} {queue:<12} {issuer:<24} {id}")
}

/// Takes a link back.
pub(super) fn revoke(args: &Revoke) -> Result<(), Failure> {
    let asked = asked(args)?;
    let jti = asked.jti.clone();
    let done = ask(&args.socket, Request::Do(Action::Revoke(asked)))?;
    if args.json {
        return output::line(Value::Object(done));
    }
    let ended = done.get("ended_sessions").and_then(Value::as_u64).unwrap_or(0);
    let sessions = match (args.end, ended) {
        (false, _) => "its live sessions go on (--end ends them)".to_owned(),
        (true, 1) => "1 session ended".to_owned(),
        (true, ended) => format!("{ended} sessions ended"),
    };
    output::line(format!("revoked  {}: {sessions}", jti.escape_debug()))
}

/// The link as the connector is told: from a token all of it, from a name the name alone.
fn asked(args: &Revoke) -> Result<RevokeLink, Failure> {
    let file = Path::new(&args.link);
    if super::is_token(file) {
        return Err(Failure::usage("a link is a secret, and every process here can read arguments")
            .hint("put it into a file, or write `outgate link revoke -` and paste it"));
    }
    if args.link != "-" && !file.exists() {
        return Ok(RevokeLink { issuer: args.issuer.clone(), jti: args.link.clone(), expires: None, end: args.end });
    }
    let text = secret::text_of(file)?;
    let (_, claims) = token::dangerous_unverified(uri::token_in(&text)).map_err(|refusal| {
        Failure::runtime(format!("{}: not a link that can be read ({refusal})", args.link))
            .hint("copy the whole token, or name its `jti`, which `outgate link show` tells")
    })?;
    let issuer = args.issuer.clone().unwrap_or(claims.iss);
    Ok(RevokeLink { issuer: Some(issuer), jti: claims.jti, expires: Some(claims.exp), end: args.end })
}

/// Shows the keys that a running connector trusts.
pub(super) fn keys(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let told = ask(socket.unwrap_or_else(|| Path::new(SOCKET)), Request::Get(Subject::LinkKeys))?;
    if json {
        return output::line(Value::Object(told));
    }
    let text = |key: &Value, name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default().escape_debug().to_string();
    for key in told.get("keys").and_then(Value::as_array).into_iter().flatten() {
        output::line(format!("{:<44} {:<6} {}", text(key, "kid"), text(key, "alg"), text(key, "issuer")))?;
    }
    Ok(())
}

pub(super) fn ask(socket: &Path, request: Request) -> Result<Map<String, Value>, Failure> {
    match status::ask(socket, request)? {
        Response::Status(told) => Ok(told),
        Response::Error(refusal) => Err(Failure::runtime(refusal.error)),
    }
}
