//! `outgate link`: signed links and the keys that sign them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use zeroize::Zeroizing;

use super::clock::rfc3339;
use super::files::{self, Readers};
use super::{Failure, output, secret, unix_now};
use crate::link::token::{self, Algorithm, Claims, Header, LinkRefusal};
use crate::link::uri;
use crate::net::link_keys::{LinkKeys, SigningKey};

mod live;
mod new;

/// Clock difference allowed when a link is explained, as a relay allows it.
const LEEWAY: Duration = Duration::from_secs(30);

/// Arguments of `outgate link`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate link keys --new issuer-key.pem > issuer.jwks.json
  outgate link new --issuer https://example.com --key issuer-key.pem \\
      --audience chat.example.com --queue support --ttl 1h --once
  outgate link new --code --queue support --ttl 7d --qr
  outgate link list
  outgate link show --jwks issuer.jwks.json link.txt
  outgate link keys
  outgate link revoke --end 01980f3c-8a52-7b1e-9c1d-0242ac120002

A customer's client presents the token or the code as its password. It is a secret: whoever holds it may enter.")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Sign a new link, or have a running connector make a short code.
    New(Box<new::New>),
    /// Explain a link.
    Show(Show),
    /// Make a key, print the public JWK set of one, or show those that a running connector trusts.
    Keys(Keys),
    /// Show the short codes that stand and the links that were used, by their names.
    List(live::List),
    /// Take a link or a code back, at a running connector and all its relays.
    Revoke(live::Revoke),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// File with the token or its page's address; `-` is stdin. Never the token itself.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Check the signature with this JWK set; exit code 1 if the link would be refused.
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// The domain to check it for [default: the first that it names].
    #[arg(long, value_name = "DOMAIN", requires = "jwks")]
    audience: Option<String>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").args(["new", "key"]))]
struct Keys {
    /// Make a key in this new file (PKCS#8 PEM, 0600).
    #[arg(long, value_name = "FILE")]
    new: Option<PathBuf>,
    /// What the new key signs with.
    #[arg(long, value_enum, default_value = "eddsa", requires = "new")]
    alg: SignWith,
    /// An existing key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The connector's admin socket, where neither is named: id, algorithm and issuer of each key that it trusts.
    #[arg(long, value_name = "PATH", conflicts_with = "which")]
    socket: Option<PathBuf>,
    /// With the connector's keys: one JSON object, with the JWK sets.
    #[arg(long, conflicts_with = "which")]
    json: bool,
}

/// An algorithm that signs links.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SignWith {
    /// Ed25519.
    Eddsa,
    /// ECDSA on P-256, for JWT libraries and key stores that know no Ed25519.
    Es256,
}

/// Runs `outgate link`.
///
/// # Errors
/// A file cannot be read or written, or a shown link would be refused.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.verb {
        Verb::New(args) => new::run(*args),
        Verb::Show(args) => show(&args),
        Verb::Keys(args) => keys(&args),
        Verb::List(args) => live::list(&args),
        Verb::Revoke(args) => live::revoke(&args),
    }
}

fn show(args: &Show) -> Result<(), Failure> {
    if is_token(&args.file) {
        return Err(Failure::usage("a link is a secret, and every process here can read arguments")
            .hint("put it into a file, or write `outgate link show -` and paste it"));
    }
    let text = secret::text_of(&args.file)?;
    let token = uri::token_in(&text);
    let (header, claims) = token::dangerous_unverified(token).map_err(|refusal| {
        Failure::runtime(format!("not a link that can be read ({refusal})"))
            .hint("copy the whole token: three parts with dots between them")
    })?;
    let verdict = match &args.jwks {
        Some(jwks) => Some(judge(token, &claims, jwks, args.audience.as_deref())?),
        None => None,
    };
    if args.json {
        output::line(json!({
            "alg": header.alg.as_str(), "kid": header.kid, "claims": claims, "verdict": verdict,
        }))?;
    } else {
        explain(&header, &claims, verdict)?;
    }
    if verdict.is_none_or(|verdict| verdict == GOOD) { Ok(()) } else { Err(Failure::told()) }
}

impl From<SignWith> for Algorithm {
    fn from(alg: SignWith) -> Self {
        match alg {
            SignWith::Eddsa => Self::EdDsa,
            SignWith::Es256 => Self::Es256,
        }
    }
}

const GOOD: &str = "good";

/// What a relay with this JWK set would say now: `good` or the reason code.
fn judge(token: &str, claims: &Claims, jwks: &Path, audience: Option<&str>) -> Result<&'static str, Failure> {
    let mut keys = LinkKeys::default();
    keys.add_set(&claims.iss, &files::read_text(jwks)?).map_err(|error| Failure::runtime(format!("{}: {error}", jwks.display())))?;
    let first = claims.aud.first().map(String::as_str);
    let audience = audience.or(first).unwrap_or_default();
    Ok(match keys.verify_link(token, unix_now(), audience, LEEWAY) {
        // It may only bring its customer back.
        Ok(terms) if terms.lapsed => LinkRefusal::Expired.code(),
        Ok(_terms) => GOOD,
        Err(refusal) => refusal.code(),
    })
}

fn explain(header: &Header, claims: &Claims, verdict: Option<&str>) -> Result<(), Failure> {
    let uses = match (claims.outgate.once, claims.outgate.max_sessions) {
        (true, _) => "one session".to_owned(),
        (false, Some(most)) => format!("at most {most} sessions"),
        (false, None) => "any number of sessions".to_owned(),
    };
    let rows = [
        ("verdict", Some(verdict.unwrap_or("not checked (--jwks FILE checks it)").to_owned())),
        ("issuer", Some(claims.iss.clone())),
        ("key", Some(format!("{} ({})", header.kid, header.alg.as_str()))),
        ("for", Some(claims.aud.join(", "))),
        ("queue", Some(claims.outgate.queue.clone())),
        ("uses", Some(uses)),
        ("from", claims.nbf.map(rfc3339)),
        ("until", Some(rfc3339(claims.exp))),
        ("id", Some(claims.jti.clone())),
        ("customer", claims.sub.clone()),
        ("skills", Some(claims.outgate.skills.join(", ")).filter(|skills| !skills.is_empty())),
        ("language", claims.outgate.lang.clone()),
        ("reason", claims.outgate.reason.clone()),
    ];
    for (name, value) in rows {
        if let Some(value) = value {
            // Escaped: an unchecked link may hold terminal control sequences.
            output::line(format!("{name:<9}{}", value.escape_debug()))?;
        }
    }
    Ok(())
}

fn keys(args: &Keys) -> Result<(), Failure> {
    let key = match (&args.new, &args.key) {
        (Some(file), _) => {
            let (key, pem) = SigningKey::generate_for(args.alg.into()).map_err(Failure::runtime)?;
            files::create(file, &pem, Readers::Owner)?;
            key
        }
        (None, Some(file)) => signing_key(file)?,
        (None, None) => return live::keys(args.socket.as_deref(), args.json),
    };
    output::line(key.public_set())
}

fn signing_key(file: &Path) -> Result<SigningKey, Failure> {
    let pem = Zeroizing::new(files::read_text(file)?);
    SigningKey::from_pkcs8_pem(&pem)
        .map_err(|error| Failure::runtime(format!("{}: {error}", file.display())).hint("`outgate link keys --new FILE` makes one"))
}

/// Whether an argument is a token instead of a file's name.
fn is_token(argument: &Path) -> bool {
    let text = argument.to_string_lossy();
    let token = uri::token_in(&text);
    token.starts_with("eyJ") && token.matches('.').count() == 2
}
