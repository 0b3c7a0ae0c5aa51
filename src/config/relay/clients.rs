//! `[clients]`: which client software may come in.

use std::path::PathBuf;

use crate::config::reader::Table;
use crate::fingerprint::Ja4;

/// How the file beside relay.toml is called.
const FILE: &str = "clients.toml";

/// Which client software may come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// Where the rows stand that are asked before those that are built in; it must be there.
    pub file: Option<PathBuf>,
    /// Where they stand if it is not told; it need not be there.
    pub beside: PathBuf,
    /// Fingerprints of TLS hellos that are not let in.
    pub deny_ja4: Vec<Ja4>,
}

impl Clients {
    pub(super) fn read(root: &Table<'_>) -> Self {
        let beside = root.file().parent().map_or_else(|| PathBuf::from(FILE), |folder| folder.join(FILE));
        let Some(table) = root.table("clients") else { return Self { beside, ..Self::default() } };
        let file = table.optional("file", "\"clients.toml\"");
        let deny_ja4 = table.list("deny_ja4", "\"t13d310900_e8f1e7e78f70_c9e58cc61e36\"").unwrap_or_default();
        table.finish();
        Self { file, beside, deny_ja4 }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::RelayConfig;

    fn parse(section: &str) -> Result<Clients, Vec<String>> {
        let text = format!("{}\n{section}", include_str!("../../../config/relay.toml"));
        let faults = |faults: Vec<crate::config::Fault>| faults.iter().map(ToString::to_string).collect();
        RelayConfig::parse(Path::new("/etc/outgate/relay.toml"), &text).map(|config| config.clients).map_err(faults)
    }

    #[test]
    fn as_shipped_nobody_is_denied_and_the_list_may_lie_beside() {
        let clients = parse("").unwrap();
        assert_eq!((clients.file, clients.beside, clients.deny_ja4), (None, PathBuf::from("/etc/outgate/clients.toml"), Vec::new()));
    }

    #[test]
    fn a_hello_is_named_as_its_fingerprint_is_written() {
        let section = |ja4: &str| format!("[clients]\nfile = \"own.toml\"\ndeny_ja4 = [\"{ja4}\"]\n");
        let clients = parse(&section("t13d310900_e8f1e7e78f70_c9e58cc61e36")).unwrap();
        assert_eq!((clients.file, clients.deny_ja4.len()), (Some(PathBuf::from("/etc/outgate/own.toml")), 1));
        assert!(parse(&section("t13d310900")).unwrap_err()[0].contains("is no JA4"));
    }
}
