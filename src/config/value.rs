//! TOML values as the types of the configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::tunnel_name::{Role, TunnelName};
use super::{LogFormat, LogLevel};
use crate::admission::allow_list::prefix;
use crate::fingerprint::Ja4;
use crate::fingerprint::version::VersionRange;

/// A type that a TOML value may stand for.
pub(super) trait FromValue: Sized {
    /// What an admin is told to write.
    const EXPECTED: &'static str;

    /// Converts; `file` is where the value stands.
    fn from_value(value: &DeValue<'_>, file: &Path) -> Result<Self, Wrong>;
}

/// Why a value does not fit.
#[derive(Debug)]
pub(super) enum Wrong {
    /// A value of another kind.
    Kind,
    /// The right kind, a wrong value.
    Value(String),
}

impl FromValue for String {
    const EXPECTED: &'static str = "a string that is not empty";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        if text.trim().is_empty() {
            return Err(Wrong::Value("empty".into()));
        }
        Ok(text.to_owned())
    }
}

impl FromValue for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        value.as_bool().ok_or(Wrong::Kind)
    }
}

impl FromValue for u32 {
    const EXPECTED: &'static str = "a whole number from 1 to 1000000";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        let integer = value.as_integer().ok_or(Wrong::Kind)?;
        match Self::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number @ 1..=1_000_000) => Ok(number),
            Ok(_) | Err(_) => Err(Wrong::Value(format!("{integer} is out of range"))),
        }
    }
}

impl FromValue for PathBuf {
    const EXPECTED: &'static str = "a path (relative ones start at this file's folder)";

    fn from_value(value: &DeValue<'_>, file: &Path) -> Result<Self, Wrong> {
        let text = String::from_value(value, file)?;
        Ok(file.parent().map_or_else(|| Self::from(&text), |folder| folder.join(&text)))
    }
}

impl FromValue for SocketAddr {
    const EXPECTED: &'static str = "an IP address and port";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        text.parse().map_err(|_invalid| Wrong::Value(format!("\"{text}\" is not an address")))
    }
}

impl FromValue for IpNet {
    const EXPECTED: &'static str = "an IP prefix or address";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        prefix(value.as_str().ok_or(Wrong::Kind)?).map_err(|fault| Wrong::Value(fault.to_string()))
    }
}

impl FromValue for Ja4 {
    const EXPECTED: &'static str = "a JA4 fingerprint, three parts with `_` between";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        Self::parse(text).ok_or_else(|| Wrong::Value(format!("\"{text}\" is no JA4")))
    }
}

impl FromValue for VersionRange {
    const EXPECTED: &'static str = "a version or bounds of versions";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        Self::parse(text).ok_or_else(|| Wrong::Value(format!("\"{text}\" names no versions")))
    }
}

impl FromValue for Duration {
    const EXPECTED: &'static str = "a duration such as \"500ms\", \"20s\", \"5m\" or \"1h\"";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        duration(text).ok_or_else(|| Wrong::Value(format!("\"{text}\" is not a duration")))
    }
}

impl FromValue for TunnelName {
    const EXPECTED: &'static str = "a connector's identity, `outgate://ORG/connector/NAME`";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        match text.parse::<Self>() {
            Ok(identity) if identity.role == Role::Connector => Ok(identity),
            Ok(_) | Err(_) => Err(Wrong::Value(format!("\"{text}\" is not a connector's identity"))),
        }
    }
}

impl FromValue for LogLevel {
    const EXPECTED: &'static str = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| Wrong::Value(format!("\"{text}\" is no log level")))
    }
}

impl FromValue for LogFormat {
    const EXPECTED: &'static str = "\"text\" or \"json\"";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        match value.as_str().ok_or(Wrong::Kind)? {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(Wrong::Value(format!("\"{other}\" is no log format"))),
        }
    }
}

/// Reads `500ms`, `20s`, `5m`, `1h` or `30d`.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

/// A DNS name or an address or a localpart: what may stand in a JID without escaping.
pub(super) fn is_plain_word(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("20s"), Some(Duration::from_secs(20)));
        assert_eq!(duration("30d"), Some(Duration::from_secs(30 * 86_400)));
        for wrong in ["", "20", "s", "-1s", "1.5s", "20 s", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
