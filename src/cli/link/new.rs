//! `outgate link new`: signs a link, or has the connector make a short code; and shows where it leads.

use std::path::PathBuf;
use std::time::Duration;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::{Value, json};

use crate::admin::{Action, MakeCode, Request};
use crate::cli::clock::rfc3339;
use crate::cli::{Failure, output, unix_now};
use crate::config::duration;
use crate::link::token::{self, Claims, Terms};
use crate::link::uri;

use super::{live, signing_key};

/// Arguments of `outgate link new`.
#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// Who signs: `iss`, as relays and connectors know it.
    #[arg(long, value_name = "ISS", required_unless_present = "code")]
    issuer: Option<String>,
    /// The private key, PKCS#8 PEM.
    #[arg(long, value_name = "FILE", required_unless_present = "code")]
    key: Option<PathBuf>,
    /// Instead of signing: have the running connector make a short code, for one session where --max-sessions says no other.
    #[arg(long, conflicts_with_all = ["issuer", "key"])]
    code: bool,
    /// The connector's admin socket.
    #[arg(long, value_name = "PATH", default_value = live::SOCKET, requires = "code")]
    socket: PathBuf,
    /// The domain that it is good for; a code: where several have the queue.
    #[arg(long, value_name = "DOMAIN", required_unless_present = "code")]
    audience: Option<String>,
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
    /// Show a QR code as well: of the page's address, or of what Conversations takes for an account.
    #[arg(long, value_enum, value_name = "WHAT", num_args = 0..=1, default_missing_value = "page", conflicts_with = "json")]
    qr: Option<Pictured>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// What a QR code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Pictured {
    /// The page's address.
    Page,
    /// Address and password, as Conversations reads them.
    Account,
}

/// What was made: what lets a customer in, and where it leads.
struct Made {
    word: &'static str,
    secret: String,
    /// The secret as people read it to each other.
    spoken: Option<String>,
    jti: String,
    kid: Option<String>,
    domain: String,
    queue: String,
    expires: u64,
}

/// Makes it and shows it.
pub(super) fn run(args: New) -> Result<(), Failure> {
    let (json, qr) = (args.json, args.qr);
    let made = if args.code { made_by_connector(args)? } else { signed(args)? };
    if json { output::line(made.json()) } else { made.show(qr) }
}

fn signed(args: New) -> Result<Made, Failure> {
    let needed = |name: &str| Failure::usage(format!("--{name} is missing"));
    let key = signing_key(&args.key.ok_or_else(|| needed("key"))?)?;
    let domain = args.audience.ok_or_else(|| needed("audience"))?;
    let now = unix_now();
    let claims = Claims {
        iss: args.issuer.ok_or_else(|| needed("issuer"))?,
        aud: vec![domain.clone()],
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
    let secret = key.mint(&claims).map_err(Failure::runtime)?;
    if secret.len() > token::MAX_TOKEN {
        return Err(Failure::runtime(format!("the link is longer than {} bytes", token::MAX_TOKEN)).hint("shorten --reason"));
    }
    let kid = Some(key.kid().to_owned());
    Ok(Made { word: "token", secret, spoken: None, jti: claims.jti, kid, domain, queue: args.queue, expires: claims.exp })
}

fn made_by_connector(args: New) -> Result<Made, Failure> {
    let wanted = MakeCode {
        domain: args.audience,
        queue: args.queue,
        seconds: args.ttl.as_secs(),
        max_sessions: args.max_sessions.unwrap_or(1),
        skills: args.skills,
        lang: args.lang,
        reason: args.reason,
        sub: args.sub,
    };
    let told = live::ask(&args.socket, Request::Do(Action::MakeCode(wanted)))?;
    let text = |name: &str| told.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Made {
        word: "code",
        secret: text("code"),
        spoken: Some(text("grouped")),
        jti: text("jti"),
        kid: None,
        domain: text("domain"),
        queue: text("queue"),
        expires: told.get("expires").and_then(Value::as_u64).unwrap_or_default(),
    })
}

impl Made {
    fn json(&self) -> Value {
        let mut object = json!({
            "contact": uri::xmpp_contact(&self.queue, &self.domain), "page": uri::page(&self.domain, &self.secret),
            "irc": uri::irc(&self.domain, &self.queue), "jti": self.jti, "expires": self.expires,
        });
        object[self.word] = json!(self.secret);
        if let Some(kid) = &self.kid {
            object["kid"] = json!(kid);
        }
        if let Some(spoken) = &self.spoken {
            object["grouped"] = json!(spoken);
        }
        object
    }

    fn show(&self, qr: Option<Pictured>) -> Result<(), Failure> {
        let (word, secret, domain) = (self.word, &self.secret, &self.domain);
        let page = uri::page(domain, secret);
        output::line(format!("{word:<8} {secret}"))?;
        if let Some(spoken) = &self.spoken {
            output::line(format!("aloud    {spoken}"))?;
        }
        let contact = uri::xmpp_contact(&self.queue, domain);
        output::line(format!("contact  {contact} (domain {domain}, the {word} is the password)"))?;
        output::line(format!("page     {page}"))?;
        output::line(format!("irc      {} (the {word} is the server's password)", uri::irc(domain, &self.queue)))?;
        output::line(format!("id       {}", self.jti))?;
        output::line(format!("expires  {}", rfc3339(self.expires)))?;
        match qr {
            Some(Pictured::Page) => output::line(picture(&page)?),
            Some(Pictured::Account) => output::line(picture(&uri::conversations_account(&self.queue, domain, secret))?),
            None => Ok(()),
        }
    }
}

/// A QR code of half blocks, light on dark as most terminals are.
fn picture(text: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .map_err(|fault| Failure::runtime(format!("no QR code can hold it: {fault}")).hint("shorten --reason, or use --code"))?;
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

fn ttl(text: &str) -> Result<Duration, String> {
    duration(text).filter(|ttl| ttl.as_secs() > 0).ok_or_else(|| "write a number and s, m, h or d, for example 1h".to_owned())
}
