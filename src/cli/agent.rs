//! `outgate agent`: edits `agents.toml` and keeps its comments.

use std::path::{Path, PathBuf};

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, Value, value};

use super::{Failure, faults, files, output, secret};
use crate::config::agents::DEFAULT_CAPACITY;
use crate::config::{Agent, AgentsConfig};
use crate::proto::xmpp::sasl::ScramKeys;

/// Rounds of PBKDF2. Each login pays them, at the agent's client and, with PLAIN, at the listener.
const ITERATIONS: u32 = 10_000;

/// Arguments of `outgate agent`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate agent add alice --queue support --queue hello
  outgate agent passwd alice --password-file /root/alice.txt
  outgate agent list --json

The password is asked on the terminal, or read as the first line of stdin or of --password-file.")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// The accounts' file.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/outgate/agents.toml")]
    file: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Add an account.
    Add(Add),
    /// Change a password.
    Passwd {
        /// The account.
        name: String,
        /// File whose first line is the new password.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// List the accounts.
    List {
        /// One JSON array.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Localpart of the agent's address.
    name: String,
    /// A queue that the agent serves; may be given more than once.
    #[arg(long = "queue", value_name = "QUEUE")]
    queues: Vec<String>,
    /// Sessions served at once.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CAPACITY)]
    capacity: u32,
    /// The name that customers see.
    #[arg(long, value_name = "NAME")]
    display: Option<String>,
    /// File whose first line is the password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Runs `outgate agent`.
///
/// # Errors
/// The file has faults or cannot be written, the account is or is not there, or the password is not
/// acceptable.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.verb {
        Verb::Add(add) => self::add(&args.file, add),
        Verb::Passwd { name, password_file } => passwd(&args.file, &name, password_file.as_deref()),
        Verb::List { json } => list(&args.file, json),
    }
}

fn add(file: &Path, args: Add) -> Result<(), Failure> {
    let (text, accounts) = read_or_new(file)?;
    if accounts.agents.iter().any(|agent| agent.name == args.name) {
        return Err(Failure::runtime(format!("{} is there already", args.name))
            .hint(format!("`outgate agent passwd {}` changes the password", args.name)));
    }
    let mut table = Table::new();
    table.insert("name", value(&args.name));
    if let Some(display) = &args.display {
        table.insert("display", value(display));
    }
    table.insert("password", value(scram_text(args.password_file.as_deref())?));
    table.insert("queues", value(args.queues.iter().collect::<Array>()));
    table.insert("capacity", value(i64::from(args.capacity)));
    let mut document = document(&text)?;
    append(&mut document, table)?;
    write(file, &document.to_string())?;
    output::line(format!("{} added to {}", args.name, file.display()))
}

fn passwd(file: &Path, name: &str, password_file: Option<&Path>) -> Result<(), Failure> {
    let (text, accounts) = read(file)?;
    let Some(index) = accounts.agents.iter().position(|agent| agent.name == name) else {
        return Err(
            Failure::runtime(format!("no account {name} in {}", file.display())).hint(format!("`outgate agent add {name}` makes it"))
        );
    };
    let mut document = document(&text)?;
    let account = document
        .get_mut("agent")
        .and_then(Item::as_array_of_tables_mut)
        .and_then(|agents| agents.get_mut(index))
        .ok_or_else(|| inline_tables(file))?;
    let mut keys = Value::from(scram_text(password_file)?);
    if let Some(old) = account.get("password").and_then(Item::as_value) {
        *keys.decor_mut() = old.decor().clone();
    }
    account.insert("password", Item::Value(keys));
    write(file, &document.to_string())?;
    output::line(format!("password of {name} changed in {}", file.display()))
}

fn list(file: &Path, json: bool) -> Result<(), Failure> {
    let (_text, accounts) = read(file)?;
    if json {
        let rows: Vec<_> = accounts.agents.iter().map(as_json).collect();
        return output::line(serde_json::Value::from(rows));
    }
    for agent in &accounts.agents {
        let Agent { name, display, queues, capacity, .. } = agent;
        output::line(format!("{name:<16} {display:<20} {capacity:>3}  {}", queues.join(", ")))?;
    }
    Ok(())
}

fn as_json(agent: &Agent) -> serde_json::Value {
    serde_json::json!({
        "name": agent.name, "display": agent.display,
        "queues": agent.queues, "capacity": agent.capacity,
    })
}

fn scram_text(password_file: Option<&Path>) -> Result<String, Failure> {
    let password = secret::new_password(password_file)?;
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_unspecified| Failure::runtime("the system gives no randomness"))?;
    Ok(ScramKeys::derive(&password, &salt, ITERATIONS).to_text())
}

fn read(file: &Path) -> Result<(String, AgentsConfig), Failure> {
    let text = files::read_text(file)?;
    let accounts = parse(file, &text)?;
    Ok((text, accounts))
}

fn read_or_new(file: &Path) -> Result<(String, AgentsConfig), Failure> {
    if file.exists() { read(file) } else { Ok((String::new(), AgentsConfig::default())) }
}

fn parse(file: &Path, text: &str) -> Result<AgentsConfig, Failure> {
    AgentsConfig::parse(file, text).map_err(|faults| {
        faults::tell(&faults, text);
        Failure::told()
    })
}

fn document(text: &str) -> Result<DocumentMut, Failure> {
    text.parse().map_err(|_reported_before| Failure::runtime("the accounts' file is not TOML"))
}

/// Appends `table` below all else, comments at the file's end included.
fn append(document: &mut DocumentMut, mut table: Table) -> Result<(), Failure> {
    let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
    let space = if document.is_empty() && trailing.is_empty() { "" } else { "\n" };
    table.decor_mut().set_prefix(format!("{trailing}{space}"));
    document.set_trailing("");
    let agents = document.entry("agent").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let agents = agents.as_array_of_tables_mut().ok_or_else(|| inline_tables(Path::new("the file")))?;
    agents.push(table);
    Ok(())
}

fn inline_tables(file: &Path) -> Failure {
    Failure::runtime(format!("{}: `agent` is an array of inline tables", file.display()))
        .hint("write each account as a section `[[agent]]`")
}

/// Writes `text` only if it would be read without fault.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    parse(file, text)?;
    files::replace(file, text)
}
