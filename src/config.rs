//! Configuration: text in, typed values or all of its faults out.
//!
//! Pure: whoever reads the file hands its name and text in. The text is parsed with recovery, the
//! spanned table is walked by hand, and every fault found on the way is kept, so that an admin
//! sees all of them at once, each with file, line, column and remedy. Unknown keys are faults.
//! Relative paths become relative to the file's folder. Whether a named file exists is not asked
//! here: that is known only where files are opened.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub mod agents;
pub mod clients;
pub mod connector;

pub mod prefix_file;
pub mod process;
pub mod profile;
pub mod proxy;
mod reader;
pub mod relay;
pub mod tunnel;
pub mod tunnel_name;
mod value;

pub use agents::{Agent, AgentsConfig, ScramText};
pub use connector::ConnectorConfig;
pub use process::Confinement;
pub use relay::RelayConfig;
pub use tunnel_name::{Role, TunnelName};
pub use value::duration;

use reader::Table;

/// One fault of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, as it was named to the parser.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The bytes of the text at fault.
    pub span: Range<usize>,
    /// Whether the text at fault may be shown.
    pub source: SourceLines,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {} ({})", self.file.display(), self.line, self.column, self.message, self.remedy)
    }
}

/// Whether lines of a file may be quoted in an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceLines {
    /// The lines may be shown.
    Shown,
    /// The lines may hold secrets.
    Hidden,
}

/// The files that Outgate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `relay.toml`.
    Relay,
    /// `connector.toml`.
    Connector,
    /// `agents.toml`.
    Agents,
    /// `clients.toml`.
    Clients,
}

impl Kind {
    /// Tells which file this is: by what only one of them holds, else by its name.
    pub fn of(file: &Path, text: &str) -> Option<Self> {
        let (table, _faults) = toml::de::DeTable::parse_recoverable(text);
        let has = |key: &str| table.get_ref().contains_key(key);
        if has("relay") || has("agents") || has("store") || has("deny") {
            return Some(Self::Connector);
        }
        if has("listen") || has("access") || has("limits") {
            return Some(Self::Relay);
        }
        if has("agent") {
            return Some(Self::Agents);
        }
        if has("client") || has("software") {
            return Some(Self::Clients);
        }
        let name = file.file_name()?.to_string_lossy();
        [("relay", Self::Relay), ("connector", Self::Connector), ("agents", Self::Agents), ("clients", Self::Clients)]
            .into_iter()
            .find_map(|(word, kind)| name.contains(word).then_some(kind))
    }

    /// The faults of `text` read as this kind.
    pub fn faults(self, file: &Path, text: &str) -> Vec<Fault> {
        match self {
            Self::Relay => RelayConfig::parse(file, text).err(),
            Self::Connector => ConnectorConfig::parse(file, text).err(),
            Self::Agents => AgentsConfig::parse(file, text).err(),
            Self::Clients => clients::parse(file, text).err(),
        }
        .unwrap_or_default()
    }

    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Connector => "connector",
            Self::Agents => "agents",
            Self::Clients => "clients",
        }
    }
}

/// Certificate and key of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

impl Tls {
    fn read(table: &Table<'_>) -> Option<Self> {
        let certificate = table.required("certificate", "\"certificate.pem\"");
        let key = table.required("key", "\"key.pem\"");
        table.finish();
        Some(Self { certificate: certificate?, key: key? })
    }
}

/// Certificate, key and authority of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelTls {
    /// PEM file with this side's certificate.
    pub certificate: PathBuf,
    /// PEM file with this side's private key.
    pub key: PathBuf,
    /// PEM file with the certificates of the tunnel CA: two while it changes.
    pub ca: PathBuf,
    /// PEM file with the CA's revocation lists; it need not be there.
    pub revoked: PathBuf,
}

impl TunnelTls {
    fn read(table: &Table<'_>) -> Option<Self> {
        let certificate = table.required("certificate", "\"tunnel.pem\"");
        let key = table.required("key", "\"tunnel-key.pem\"");
        let ca = table.required("ca", "\"tunnel-ca.pem\"");
        let revoked: Option<PathBuf> = table.optional("revoked", "\"revoked.pem\"");
        table.finish();
        let ca: PathBuf = ca?;
        let revoked = revoked.unwrap_or_else(|| ca.with_file_name("revoked.pem"));
        Some(Self { certificate: certificate?, key: key?, ca, revoked })
    }
}

/// Who may sign links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The `iss` of its links.
    pub iss: String,
    /// File with its public keys, a JWK set.
    pub jwks: PathBuf,
}

impl Issuer {
    fn read_all(root: &Table<'_>) -> Vec<Self> {
        let tables = root.tables("issuer");
        root.distinct(&tables, "iss");
        tables.iter().filter_map(Self::read).collect()
    }

    fn read(table: &Table<'_>) -> Option<Self> {
        let iss = table.required("iss", "\"https://example.com\"");
        let jwks = table.required("jwks", "\"issuer.jwks.json\"");
        table.finish();
        Some(Self { iss: iss?, jwks: jwks? })
    }
}

/// Whether a file names anyone who may sign links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signers {
    /// It does, rightly or with faults that are reported where they stand.
    Named,
    /// A queue that is not public could not be entered.
    Nobody,
}

impl Signers {
    fn of(root: &Table<'_>) -> Self {
        if root.has("issuer") { Self::Named } else { Self::Nobody }
    }
}

/// What is logged and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The least serious level that is written.
    pub level: LogLevel,
    /// One line of text or one of JSON.
    pub format: LogFormat,
}

impl Log {
    fn read(root: &Table<'_>) -> Self {
        let Some(table) = root.table("log") else { return Self::default() };
        let log = Self {
            level: table.or("level", LogLevel::default(), "\"info\""),
            format: table.or("format", LogFormat::default(), "\"text\""),
        };
        table.finish();
        log
    }
}

/// Log levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what fails.
    Error,
    /// What is worth waking someone.
    Warn,
    /// Beginnings and ends.
    #[default]
    Info,
    /// Odd paths.
    Debug,
    /// Each stanza.
    Trace,
}

impl LogLevel {
    /// The level's name, as a filter takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Log formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod shipped_files {
    use super::*;

    const RELAY: &str = include_str!("../config/relay.toml");
    const CONNECTOR: &str = include_str!("../config/connector.toml");
    const AGENTS: &str = include_str!("../config/agents.toml");

    #[test]
    fn shipped_files_have_no_fault_and_are_told_apart() {
        for (name, text, kind) in
            [("relay.toml", RELAY, Kind::Relay), ("connector.toml", CONNECTOR, Kind::Connector), ("agents.toml", AGENTS, Kind::Agents)]
        {
            assert_eq!(Kind::of(Path::new(name), text), Some(kind));
            assert_eq!(kind.faults(Path::new(name), text), vec![]);
        }
    }

    #[test]
    fn commented_lines_show_the_defaults() {
        let relay = |text: &str| RelayConfig::parse(Path::new("relay.toml"), text).unwrap();
        assert_eq!(relay(&with_defaults(RELAY)), relay(RELAY));
        let connector = |text: &str| ConnectorConfig::parse(Path::new("c.toml"), text).unwrap();
        assert_eq!(connector(&with_defaults(CONNECTOR)), connector(CONNECTOR));
    }

    #[test]
    fn the_commented_account_is_one_but_for_its_keys() {
        let text = with_defaults(&AGENTS.replace("# [[", "[["));
        let faults = AgentsConfig::parse(Path::new("agents.toml"), &text).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].remedy, "run `outgate agent passwd alice`");
    }

    #[test]
    fn paths_start_at_the_folder_of_the_file() {
        let config = RelayConfig::parse(Path::new("/etc/outgate/relay.toml"), RELAY).unwrap();
        assert_eq!(config.tunnel_tls.ca, Path::new("/etc/outgate/tunnel/ca.pem"));
        assert_eq!(config.listen.admin, Path::new("/run/outgate-relay/admin.sock"));
    }

    /// Takes the mark away from each commented `key = value`.
    fn with_defaults(text: &str) -> String {
        let is_key =
            |line: &str| line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        let bare = |line: &str| match line.strip_prefix("# ") {
            Some(rest) if is_key(rest) => format!("{rest}\n"),
            Some(_) | None => format!("{line}\n"),
        };
        text.lines().map(bare).collect()
    }
}

#[cfg(test)]
mod wrong_files;
