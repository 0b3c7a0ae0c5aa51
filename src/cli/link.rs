//! `outgate link`: signed links and the keys that sign them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use zeroize::Zeroizing;

use super::clock::rfc3339;
use super::files::{self, Readers};
use super::{Failure, output, secret, unix_now};
use crate::config::duration;
use crate::link::token::{self, Algorithm, Claims, Header, Terms};
use crate::link::uri;
use crate::net::link_keys::{LinkKeys, SigningKey};

mod live;

/// Clock difference allowed when a link is explained, as a relay allows it.
const LEEWAY: Duration = Duration::from_secs(30);

/// Arguments of `outgate link`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate link keys --new issuer-key.pem > issuer.jwks.json
  outgate link new --issuer https://example.com --key issuer-key.pem \\
      --audience chat.example.com --queue support --ttl 1h --once
  outgate link show --jwks issuer.jwks.json link.txt
  outgate link keys
  outgate link revoke --end 01980f3c-8a52-7b1e-9c1d-0242ac120002

A customer's client presents the token as its password. It is a secret: whoever holds it may enter.")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Sign a new link.
    New(New),
    /// Explain a link.
    Show(Show),
    /// Make a key, print the public JWK set of one, or show those that a running connector trusts.
    Keys(Keys),
    /// Take a link back, at a running connector and all its relays.
    Revoke(live::Revoke),
}

#[derive(Debug, clap::Args)]
struct New {
    /// Who signs: `iss`, as relays and connectors know it.
    #[arg(long, value_name = "ISS")]
    issuer: String,
    /// The private key, PKCS#8 PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The domain that it is good for.
    #[arg(long, value_name = "DOMAIN")]
    audience: String,
    /// The queue that it leads to.
    #[arg(long)]
    queue: String,
    /// How long it is good: 90s, 15m, 1h, 30d.
    #[arg(long, default_value = "1h", value_parser = ttl)]
    ttl: Duration,
    /// For one session.
    #[arg(long, conflicts_with = "max_sessions")]
    once: bool,
    /// For so many sessions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_sessions: Option<u32>,
    /// A skill that the agent should have; may be given more than once.
    #[arg(long = "skill", value_name = "SKILL")]
    skills: Vec<String>,
    /// The customer's language.
    #[arg(long)]
    lang: Option<String>,
    /// Why the customer comes, for the agent.
    #[arg(long)]
    reason: Option<String>,
    /// Whom you know the customer as.
    #[arg(long)]
    sub: Option<String>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
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
        Verb::New(args) => new(args),
        Verb::Show(args) => show(&args),
        Verb::Keys(args) => keys(&args),
        Verb::Revoke(args) => live::revoke(&args),
    }
}

fn new(args: New) -> Result<(), Failure> {
    let key = signing_key(&args.key)?;
    let now = unix_now();
    let claims = Claims {
        iss: args.issuer,
        aud: vec![args.audience.clone()],
        exp: now.saturating_add(args.ttl.as_secs()),
        nbf: Some(now),
        jti: uuid::Uuid::now_v7().to_string(),
        sub: args.sub,
        outgate: Terms {
            queue: args.queue.clone(),
            skills: args.skills,
            lang: args.lang,
            reason: args.reason,
            once: args.once,
            max_sessions: args.max_sessions,
        },
    };
    let token = key.mint(&claims).map_err(Failure::runtime)?;
    if token.len() > token::MAX_TOKEN {
        return Err(Failure::runtime(format!("the link is longer than {} bytes", token::MAX_TOKEN)).hint("shorten --reason"));
    }
    let contact = uri::xmpp_contact(&args.queue, &args.audience);
    if args.json {
        return output::line(json!({
            "token": token, "contact": contact,
            "jti": claims.jti, "kid": key.kid(), "expires": claims.exp,
        }));
    }
    output::line(format!("token    {token}"))?;
    output::line(format!("contact  {contact} (domain {}, the token is the password)", args.audience))?;
    output::line(format!("expires  {}", rfc3339(claims.exp)))
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
    Ok(keys.verify_link(token, unix_now(), audience, LEEWAY).map_or_else(|refusal| refusal.code(), |_terms| GOOD))
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

fn ttl(text: &str) -> Result<Duration, String> {
    duration(text).filter(|ttl| ttl.as_secs() > 0).ok_or_else(|| "write a number and s, m, h or d, for example 1h".to_owned())
}
