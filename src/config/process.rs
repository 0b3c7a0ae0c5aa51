//! What the files of both roles say of the running process: what it gives up, and where its audit log goes.

use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::reader::Table;
use super::value::{FromValue, Wrong};

/// Whether a running role gives up what it does not need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confinement {
    /// It does, or does not start.
    #[default]
    On,
    /// The service manager sees to it, or nobody.
    Off,
}

impl Confinement {
    pub(super) fn read(root: &Table<'_>) -> Self {
        root.or("confinement", Self::default(), "\"on\"")
    }
}

impl FromValue for Confinement {
    const EXPECTED: &'static str = "\"on\" or \"off\"";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        match value.as_str().ok_or(Wrong::Kind)? {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            other => Err(Wrong::Value(format!("\"{other}\" is neither"))),
        }
    }
}

/// The audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLog {
    /// Its file; without one the ordinary log is all there is.
    pub file: Option<PathBuf>,
    /// What it tells of addresses.
    pub addresses: AuditAddresses,
    /// The size in MiB at which the file makes room for a new one.
    pub rotate_mib: u32,
}

/// What the audit log tells of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditAddresses {
    /// All of it.
    Full,
    /// The network: /24, or /48 for IPv6.
    #[default]
    Prefix,
    /// Nothing.
    None,
}

impl Default for AuditLog {
    fn default() -> Self {
        Self { file: None, addresses: AuditAddresses::default(), rotate_mib: 100 }
    }
}

impl AuditLog {
    pub(super) fn read(root: &Table<'_>) -> Self {
        let default = Self::default();
        let Some(table) = root.table("audit") else { return default };
        let log = Self {
            file: table.optional("file", "\"/var/log/outgate/audit.jsonl\""),
            addresses: table.or("addresses", default.addresses, "\"prefix\""),
            rotate_mib: table.or("rotate_mib", default.rotate_mib, "100"),
        };
        table.finish();
        log
    }
}

impl FromValue for AuditAddresses {
    const EXPECTED: &'static str = "\"full\", \"prefix\" or \"none\"";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        match value.as_str().ok_or(Wrong::Kind)? {
            "full" => Ok(Self::Full),
            "prefix" => Ok(Self::Prefix),
            "none" => Ok(Self::None),
            other => Err(Wrong::Value(format!("\"{other}\" is none of them"))),
        }
    }
}
