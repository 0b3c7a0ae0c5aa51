//! `[limits]`: bounds on what strangers and customers may take.

use std::sync::Arc;
use std::time::Duration;

use crate::admission::allow_list::{Access, Entry};
use crate::config::reader::Table;

use super::access::entries;

/// Longest time over which anything is counted, or after a start not counted.
const LONGEST: Duration = Duration::from_secs(3600);

/// Bounds on what strangers and customers may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections in all.
    pub connections: u32,
    /// Client connections that have not logged in.
    pub pre_auth_connections: u32,
    /// TLS handshakes under way.
    pub pending_handshakes: u32,
    /// New connections of everybody together, each second.
    pub new_connections_per_second: u32,
    /// Time for the TLS handshake.
    pub tls_handshake: Duration,
    /// Time from the first byte to the end of login and bind.
    pub negotiation: Duration,
    /// Silence after which a client is pinged, and after as much again closed.
    pub idle: Duration,
    /// How long what is new and what has failed is counted.
    pub window: Duration,
    /// Logins with one link, within the window.
    pub logins_per_link: u32,
    /// How long after a start addresses and networks are not counted: those who were cut come back.
    pub returning: Duration,
    /// Prefixes that are not counted.
    pub exempt: Vec<Entry>,
    /// Of one IPv4 address or IPv6 /64.
    pub address: PerPrefix,
    /// Of one IPv4 /24 or IPv6 /48.
    pub network: PerPrefix,
    /// Of one session.
    pub session: PerSession,
}

/// What one prefix may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerPrefix {
    /// Connections that have not logged in.
    pub pre_auth_connections: u32,
    /// Connections that have.
    pub connections: u32,
    /// New connections, within the window.
    pub new_connections: u32,
    /// Logins that fail, within the window.
    pub failed_logins: u32,
}

/// What one session may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerSession {
    /// Bytes, in the long run.
    pub bytes_per_second: u32,
    /// Bytes at once.
    pub bytes_at_once: u32,
    /// Messages, in the long run.
    pub messages_per_second: u32,
    /// Messages at once.
    pub messages_at_once: u32,
    /// How long a client may press against these before it is cut.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            pre_auth_connections: 2_000,
            pending_handshakes: 1_000,
            new_connections_per_second: 2_000,
            tls_handshake: Duration::from_secs(5),
            negotiation: Duration::from_secs(15),
            // Mobile carriers forget a silent TCP flow after 15 to 30 minutes.
            idle: Duration::from_secs(600),
            window: Duration::from_secs(600),
            // A link in a newsletter is used once a second at its peak.
            logins_per_link: 600,
            returning: Duration::from_secs(120),
            exempt: Vec::new(),
            address: PerPrefix { pre_auth_connections: 16, connections: 64, new_connections: 32, failed_logins: 20 },
            // No single address fills its network's share: four of them wait, eight of them stand and fail, sixteen of them come.
            network: PerPrefix { pre_auth_connections: 64, connections: 512, new_connections: 512, failed_logins: 160 },
            session: PerSession {
                bytes_per_second: 10_000,
                bytes_at_once: 65_536,
                messages_per_second: 5,
                messages_at_once: 10,
                patience: Duration::from_secs(300),
            },
        }
    }
}

impl Limits {
    pub(super) fn read(root: &Table<'_>) -> Self {
        let default = Self::default();
        let Some(table) = root.table("limits") else { return default };
        let file: Arc<str> = table.file().display().to_string().into();
        let limits = Self {
            connections: table.or("connections", default.connections, "10000"),
            pre_auth_connections: table.or("pre_auth_connections", default.pre_auth_connections, "2000"),
            pending_handshakes: table.or("pending_handshakes", default.pending_handshakes, "1000"),
            new_connections_per_second: table.or("new_connections_per_second", default.new_connections_per_second, "2000"),
            tls_handshake: table.or("tls_handshake", default.tls_handshake, "\"5s\""),
            negotiation: table.or("negotiation", default.negotiation, "\"15s\""),
            idle: table.or("idle", default.idle, "\"10m\""),
            window: table.or("window", default.window, "\"10m\""),
            logins_per_link: table.or("logins_per_link", default.logins_per_link, "600"),
            returning: table.or("returning", default.returning, "\"2m\""),
            exempt: entries(&table, "exempt", Access::Allow, &file).collect(),
            address: PerPrefix::read(&table, "address", default.address),
            network: PerPrefix::read(&table, "network", default.network),
            session: PerSession::read(&table, default.session),
        };
        table.finish();
        if limits.window < Duration::from_secs(1) || limits.window > LONGEST {
            table.fault("window", "`limits.window` is not between a second and an hour".into(), "write \"10m\"");
        }
        if limits.returning > LONGEST {
            table.fault("returning", "`limits.returning` is over an hour: a flood would come back too".into(), "write \"2m\"");
        }
        limits
    }
}

impl PerPrefix {
    fn read(limits: &Table<'_>, key: &'static str, default: Self) -> Self {
        let Some(table) = limits.table(key) else { return default };
        let read = Self {
            pre_auth_connections: table.or("pre_auth_connections", default.pre_auth_connections, "16"),
            connections: table.or("connections", default.connections, "64"),
            new_connections: table.or("new_connections", default.new_connections, "32"),
            failed_logins: table.or("failed_logins", default.failed_logins, "20"),
        };
        table.finish();
        read
    }
}

impl PerSession {
    fn read(limits: &Table<'_>, default: Self) -> Self {
        let Some(table) = limits.table("session") else { return default };
        let read = Self {
            bytes_per_second: table.or("bytes_per_second", default.bytes_per_second, "10000"),
            bytes_at_once: table.or("bytes_at_once", default.bytes_at_once, "65536"),
            messages_per_second: table.or("messages_per_second", default.messages_per_second, "5"),
            messages_at_once: table.or("messages_at_once", default.messages_at_once, "10"),
            patience: table.or("patience", default.patience, "\"5m\""),
        };
        table.finish();
        read
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::RelayConfig;

    const SHIPPED: &str = include_str!("../../../config/relay.toml");

    /// The shipped file with its section `[limits]` and those below it taken by their word.
    fn uncommented() -> String {
        let (before, limits) = SHIPPED.split_once("[limits]").unwrap();
        let (limits, after) = limits.split_once("\n[log]").unwrap();
        let is_key =
            |line: &str| line.strip_prefix("# ").is_some_and(|rest| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')));
        let line = |line: &str| if is_key(line) { line.replacen("# ", "", 1) } else { line.to_owned() };
        let limits: Vec<_> = limits.lines().map(line).collect();
        format!("{before}[limits]{}\n[log]{after}", limits.join("\n"))
    }

    #[test]
    fn the_shipped_file_names_every_limit_with_its_default() {
        let text = uncommented();
        let default = Limits::default();
        assert_eq!(RelayConfig::parse(Path::new("relay.toml"), &text).unwrap().limits, default);
        assert_eq!(RelayConfig::parse(Path::new("relay.toml"), SHIPPED).unwrap().limits, default);
        let said = text.split_once("[limits]").unwrap().1.split_once("\n[log]").unwrap().0;
        let keys = said.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
        assert_eq!(keys, 11 + 4 + 4 + 5);
    }

    #[test]
    fn absurd_limits_are_faults_where_they_stand() {
        let text = uncommented()
            .replace("window = \"10m\"", "window = \"2h\"")
            .replace("returning = \"2m\"", "returning = \"1d\"")
            .replace("exempt = []", "exempt = [\"10.0.0.1/8\"]")
            .replace("messages_per_second = 5", "messages_per_second = 0");
        let faults = RelayConfig::parse(Path::new("relay.toml"), &text).unwrap_err();
        let said: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 4, "{said:#?}");
        for (fault, words) in said.iter().zip(["between a second and an hour", "limits.returning", "write 10.0.0.0/8", "out of range"]) {
            assert!(fault.contains(words), "{fault}");
        }
    }
}
