//! `agents.toml`: the agents' accounts. `outgate agent` edits it.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Fault;
use super::reader::{Document, Table};
use super::relay::check_word;
use crate::proto::xmpp::sasl::ScramKeys;

/// Sessions that an agent serves at once, unless the file says otherwise.
pub const DEFAULT_CAPACITY: u32 = 4;

/// The agents' accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentsConfig {
    /// The accounts.
    pub agents: Vec<Agent>,
}

/// One agent's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Localpart of the agent's JID.
    pub name: String,
    /// Keys to check the password with.
    pub password: ScramText,
    /// Queues that the agent serves.
    pub queues: Vec<String>,
    /// Sessions served at once.
    pub capacity: u32,
    /// The name that customers see; the localpart where absent.
    pub display: String,
}

/// SCRAM-SHA-256 keys as text, `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY` (RFC 5803 §2).
#[derive(Clone, PartialEq, Eq)]
pub struct ScramText(String);

impl ScramText {
    /// Takes `text` if it has the form of RFC 5803.
    pub fn new(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (left, right) = rest.split_once('$')?;
        let (iterations, salt) = left.split_once(':')?;
        let (stored, server) = right.split_once(':')?;
        let bytes = |part: &str| STANDARD.decode(part).ok().map_or(0, |bytes| bytes.len());
        // RFC 7677 §4: at least 4096 rounds. The upper bound keeps a mistyped file from stalling logins.
        let rounds = iterations.parse::<u32>().is_ok_and(|count| (4096..=1_000_000).contains(&count));
        let salt = (8..=64).contains(&bytes(salt));
        (rounds && salt && bytes(stored) == 32 && bytes(server) == 32).then(|| Self(text.to_owned()))
    }

    /// The keys.
    pub fn keys(&self) -> Option<ScramKeys> {
        ScramKeys::parse(&self.0)
    }

    /// The text, to be written to `agents.toml` and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ScramText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MASKED")
    }
}

impl AgentsConfig {
    /// Reads `text`, the content of `file`.
    ///
    /// # Errors
    /// All faults of the text, in its order; none of them quotes a line.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<Fault>> {
        Document::with_secrets(file, text).read(|root| {
            let tables = root.tables("agent");
            root.distinct(&tables, "name");
            root.finish();
            Some(Self { agents: tables.iter().filter_map(Agent::read).collect() })
        })
    }
}

impl Agent {
    fn read(table: &Table<'_>) -> Option<Self> {
        let name: Option<String> = table.required("name", "\"alice\"");
        let password: Option<String> = table.required("password", "\"…\"` with `outgate agent passwd");
        let queues = table.list("queues", "\"support\"").unwrap_or_default();
        let capacity = table.or("capacity", DEFAULT_CAPACITY, "4");
        let display: Option<String> = table.optional("display", "\"Alice\"");
        table.finish();
        if let Some(name) = &name {
            check_word(table, "name", name);
        }
        let scram = password.as_deref().and_then(ScramText::new);
        if password.is_some() && scram.is_none() {
            let of = name.as_deref().unwrap_or("NAME");
            table.fault(
                "password",
                "`password` is not SCRAM-SHA-256 keys; expected \
                 SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY, never the password itself"
                    .into(),
                format!("run `outgate agent passwd {of}`"),
            );
        }
        let name = name?;
        let display = display.unwrap_or_else(|| name.clone());
        Some(Self { name, password: scram?, queues, capacity, display })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677 §3: salt and rounds of its example, with keys of the right length.
    const KEYS: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
                        $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn keys_of_rfc_5803_are_taken_and_never_printed() {
        let text = ScramText::new(KEYS).unwrap();
        assert_eq!(text.expose(), KEYS);
        assert_eq!(format!("{text:?}"), "MASKED");
    }

    #[test]
    fn weak_broken_or_endless_keys_are_not_taken() {
        for (old, new) in [
            ("SCRAM-SHA-256$", "SCRAM-SHA-1$"),
            ("$4096:", "$1000:"),
            ("$4096:", "$4000000000:"),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
            ("WG5d8oPm", ""),
            (":wfPL", ""),
        ] {
            let changed = KEYS.replace(old, new);
            assert_ne!(changed, KEYS);
            assert_eq!(ScramText::new(&changed), None, "{new}");
        }
    }

    #[test]
    fn an_account_has_four_sessions_and_its_own_name_unless_told() {
        let text = format!("[[agent]]\nname = \"alice\"\npassword = \"{KEYS}\"\n");
        let accounts = AgentsConfig::parse(Path::new("agents.toml"), &text).unwrap();
        assert_eq!((accounts.agents[0].capacity, accounts.agents[0].display.as_str()), (4, "alice"));
        assert!(!format!("{accounts:?}").contains("WG5d8oPm"));
    }
}
