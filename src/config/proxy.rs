//! The proxy through which a relay is reached, and over what the tunnel goes.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::de::DeValue;

use super::reader::Table;
use super::value::{FromValue, Wrong};

/// Over what a tunnel goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportChoice {
    /// QUIC where it gets through, else TLS over TCP.
    #[default]
    Auto,
    /// QUIC alone.
    Quic,
    /// TLS over TCP alone.
    Tls,
}

impl FromValue for TransportChoice {
    const EXPECTED: &'static str = "\"auto\", \"quic\" or \"tls\"";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        match value.as_str().ok_or(Wrong::Kind)? {
            "auto" => Ok(Self::Auto),
            "quic" => Ok(Self::Quic),
            "tls" => Ok(Self::Tls),
            other => Err(Wrong::Value(format!("\"{other}\" is no transport"))),
        }
    }
}

/// A transport that a relay accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// QUIC, on UDP.
    Quic,
    /// TLS, on TCP.
    Tls,
}

impl FromValue for Accepted {
    const EXPECTED: &'static str = "\"quic\" or \"tls\"";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        match value.as_str().ok_or(Wrong::Kind)? {
            "quic" => Ok(Self::Quic),
            "tls" => Ok(Self::Tls),
            other => Err(Wrong::Value(format!("\"{other}\" is no transport"))),
        }
    }
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP CONNECT.
    Http,
    /// SOCKS 5.
    Socks5,
}

impl ProxyKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Socks5 => "socks5",
        }
    }
}

/// Where a proxy is and what it speaks: `http://HOST:PORT` or `socks5://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl {
    /// What it speaks.
    pub kind: ProxyKind,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl FromStr for ProxyUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it names no scheme")?;
        let kind = match scheme {
            "http" => ProxyKind::Http,
            "socks5" | "socks5h" => ProxyKind::Socks5,
            "https" => return Err("a proxy that is itself reached over TLS is not supported"),
            _ => return Err("its scheme is unknown"),
        };
        if rest.contains('@') {
            return Err("credentials do not belong here: write them into a file and name it as `credentials_file`");
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let host = super::connector::host_of(rest).ok_or("it is not HOST:PORT behind the scheme")?;
        let port = rest.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).ok_or("its port is no number")?;
        Ok(Self { kind, host: host.to_owned(), port })
    }
}

impl FromValue for ProxyUrl {
    const EXPECTED: &'static str = "`http://HOST:PORT` or `socks5://HOST:PORT`";

    fn from_value(value: &DeValue<'_>, _file: &Path) -> Result<Self, Wrong> {
        // The text is not repeated: it may hold credentials in spite of all.
        value.as_str().ok_or(Wrong::Kind)?.parse().map_err(|why: &str| Wrong::Value(why.to_owned()))
    }
}

/// A proxy and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is.
    pub url: ProxyUrl,
    /// A file with one line `USER:PASSWORD`.
    pub credentials_file: Option<PathBuf>,
}

impl Proxy {
    pub(super) fn read(table: &Table<'_>) -> Option<Self> {
        let url = table.required("url", "\"http://proxy.example.com:3128\"");
        let credentials_file = table.optional("credentials_file", "\"proxy-credentials\"");
        table.finish();
        Some(Self { url: url?, credentials_file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_scheme_a_host_and_a_port() {
        let url: ProxyUrl = "http://proxy.example.com:3128/".parse().unwrap();
        assert_eq!((url.kind, url.host.as_str(), url.port), (ProxyKind::Http, "proxy.example.com", 3128));
        let url: ProxyUrl = "socks5://[2001:db8::1]:1080".parse().unwrap();
        assert_eq!((url.kind, url.host.as_str(), url.port), (ProxyKind::Socks5, "2001:db8::1", 1080));
        for wrong in ["proxy:3128", "https://proxy:3128", "ftp://p:1", "http://proxy", "http://u:p@proxy:3128", "http://:1", "http://p:0"] {
            assert!(wrong.parse::<ProxyUrl>().is_err(), "{wrong}");
        }
    }
}
