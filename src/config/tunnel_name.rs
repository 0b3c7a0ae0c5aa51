//! Names of relays and connectors, as their tunnel certificates carry them.

use std::fmt;
use std::str::FromStr;

/// An identity, written `outgate://ORG/relay/NAME` or `outgate://ORG/connector/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelName {
    /// The organisation that owns the tunnel CA.
    pub org: String,
    /// What it is.
    pub role: Role,
    /// Its name.
    pub name: String,
}

/// The two ends of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Outside.
    Relay,
    /// Inside.
    Connector,
}

impl Role {
    /// The role's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Connector => "connector",
        }
    }
}

impl fmt::Display for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outgate://{}/{}/{}", self.org, self.role.as_str(), self.name)
    }
}

/// The text is not an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `outgate://ORG/relay/NAME` or `outgate://ORG/connector/NAME`")]
pub struct NotATunnelName;

impl FromStr for TunnelName {
    type Err = NotATunnelName;

    fn from_str(text: &str) -> Result<Self, NotATunnelName> {
        let rest = text.strip_prefix("outgate://").ok_or(NotATunnelName)?;
        let mut parts = rest.split('/');
        let (Some(org), Some(role), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(NotATunnelName);
        };
        let role = match role {
            "relay" => Role::Relay,
            "connector" => Role::Connector,
            _ => return Err(NotATunnelName),
        };
        if !is_name(org) || !is_name(name) {
            return Err(NotATunnelName);
        }
        Ok(Self { org: org.to_owned(), role, name: name.to_owned() })
    }
}

/// Whether `text` may stand in an identity: 1 to 63 letters, digits, `-`, `_` or `.` (ASCII).
pub fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_writing_and_reading() {
        for text in ["outgate://example/connector/lan1", "outgate://a.b/relay/dmz-1"] {
            assert_eq!(text.parse::<TunnelName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for text in [
            "",
            "outgate://",
            "outgate://a/relay",
            "outgate://a/relay/",
            "outgate://a/relay/b/c",
            "outgate://a/agent/b",
            "https://a/relay/b",
            "outgate://a b/relay/c",
            "outgate://a/relay/\u{e9}",
        ] {
            assert_eq!(text.parse::<TunnelName>(), Err(NotATunnelName), "{text}");
        }
    }
}
