//! `[access.client]` and `[access.tunnel]`: which addresses may connect to a listener.

use std::path::PathBuf;
use std::sync::Arc;

use crate::admission::allow_list::{self, Entry};
use crate::config::reader::Table;

/// Who may connect, by address, listener by listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// To the customers' listeners.
    pub client: AccessRules,
    /// To the connectors'.
    pub tunnel: AccessRules,
}

/// What is said of one listener. The longest prefix that holds an address decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRules {
    /// What relay.toml itself says.
    pub entries: Vec<Entry>,
    /// Files with one prefix a line, or folders of `*.cidr` files, and what is said of the prefixes in them.
    pub files: Vec<(allow_list::Access, PathBuf)>,
    /// Proxies that tell, by the PROXY protocol, whose connection they pass on.
    pub proxies: Vec<Entry>,
    /// Whether prefixes are allowed at all: then an address in none of them is denied, even where their files are empty.
    pub is_closed: bool,
}

impl Access {
    pub(super) fn read(root: &Table<'_>) -> Self {
        let Some(table) = root.table("access") else { return Self::default() };
        let rules = |listener, proxied| table.table(listener).map(|table| AccessRules::read(&table, proxied)).unwrap_or_default();
        let access = Self { client: rules("client", Proxied::Perhaps), tunnel: rules("tunnel", Proxied::Never) };
        table.finish();
        access
    }
}

/// Whether a listener may stand behind proxies that speak the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proxied {
    Perhaps,
    Never,
}

impl AccessRules {
    fn read(table: &Table<'_>, proxied: Proxied) -> Self {
        let mut rules = Self { is_closed: table.has("allow") || table.has("allow_files"), ..Self::default() };
        let file: Arc<str> = table.file().display().to_string().into();
        for (access, prefixes, files) in
            [(allow_list::Access::Allow, "allow", "allow_files"), (allow_list::Access::Deny, "deny", "deny_files")]
        {
            rules.entries.extend(entries(table, prefixes, access, &file));
            let named: Vec<PathBuf> = table.list(files, &format!("\"{prefixes}.d\"")).unwrap_or_default();
            rules.files.extend(named.into_iter().map(|path| (access, path)));
        }
        if proxied == Proxied::Perhaps {
            rules.proxies = entries(table, "trusted_proxies", allow_list::Access::Allow, &file).collect();
        }
        table.finish();
        rules
    }

    /// What becomes of an address in no prefix.
    pub fn otherwise(&self) -> allow_list::Access {
        if self.is_closed { allow_list::Access::Deny } else { allow_list::Access::Allow }
    }
}

pub(super) fn entries(table: &Table<'_>, key: &'static str, access: allow_list::Access, file: &Arc<str>) -> impl Iterator<Item = Entry> {
    let prefixes = table.list_with_lines(key, "\"192.0.2.0/24\", \"2001:db8::/32\"").unwrap_or_default();
    prefixes.into_iter().map(move |(line, prefix)| Entry { prefix, access, file: Arc::clone(file), line })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::RelayConfig;

    fn parse(section: &str) -> Result<Access, Vec<String>> {
        let text = format!("{}\n{section}", include_str!("../../../config/relay.toml"));
        let faults = |faults: Vec<crate::config::Fault>| faults.iter().map(ToString::to_string).collect();
        RelayConfig::parse(Path::new("/etc/outgate/relay.toml"), &text).map(|config| config.access).map_err(faults)
    }

    #[test]
    fn as_shipped_everybody_may_connect() {
        let access = parse("").unwrap();
        assert_eq!(access, Access::default());
        assert_eq!(access.client.otherwise(), allow_list::Access::Allow);
    }

    #[test]
    fn an_entry_knows_its_line_and_a_list_of_allowed_ones_closes_the_door_for_all_others() {
        let access =
            parse("[access.client]\nallow = [\n  \"192.0.2.0/24\",\n  \"2001:db8::/32\",\n]\ndeny_files = [\"deny.d\"]\n").unwrap();
        let first = include_str!("../../../config/relay.toml").lines().count() + 4;
        let lines: Vec<_> = access.client.entries.iter().map(|entry| (entry.prefix.to_string(), entry.line as usize)).collect();
        assert_eq!(lines, [("192.0.2.0/24".to_owned(), first), ("2001:db8::/32".to_owned(), first + 1)]);
        assert_eq!(access.client.files, [(allow_list::Access::Deny, PathBuf::from("/etc/outgate/deny.d"))]);
        assert_eq!(access.client.otherwise(), allow_list::Access::Deny);
        assert_eq!(access.tunnel.otherwise(), allow_list::Access::Allow);
        assert!(parse("[access.tunnel]\nallow = []\n").unwrap().tunnel.is_closed, "an empty list allows nobody");
    }

    #[test]
    fn what_is_no_prefix_is_told_with_the_one_that_may_be_meant() {
        let faults =
            parse("[access.client]\ndeny = [\"192.0.2.1/24\", 7]\nalow = []\n[access.tunnel]\ntrusted_proxies = []\n[access.web]\n")
                .unwrap_err();
        assert_eq!(faults.len(), 5, "{faults:#?}");
        let said =
            ["write 192.0.2.0/24", "an integer", "did you mean `allow`", "unknown key `access.tunnel.trusted_proxies`", "access.web"];
        for (fault, said) in faults.iter().zip(said) {
            assert!(fault.contains(said), "{fault}");
        }
    }
}
