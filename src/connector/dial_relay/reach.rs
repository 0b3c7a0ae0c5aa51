//! Whether a relay can be reached from here, and what is in the way: `outgate check --reach`.
//!
//! Each way is tried as the connector would, up to HELLO and no further: a tunnel that stands is not touched. What is found is a line for
//! each of: name, UDP, TCP, proxy, certificates, clock, version, datagram size; a line that is not well says what to do. A relay's
//! alternates are looked at like itself, by its own terms: whether they can be dialled should not be learnt when they must.
//!
//! `look` tries, `judge` says what it means.

mod judge;
mod look;

use serde::Serialize;

use crate::config::{ConnectorConfig, connector};

use self::look::Look;

/// How a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Well.
    Ok,
    /// It works, but not as it could.
    Warning,
    /// It does not work.
    Failed,
    /// Not tried, or nothing could be seen.
    Skipped,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was looked at: dns, udp, tcp, proxy, certificate, clock, version, mtu.
    pub check: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// What was found about one relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Its address as configured.
    pub relay: String,
    /// The relay that it stands in for, where it is an alternate.
    pub alternate_of: Option<String>,
    /// Whether a tunnel could stand, over a transport that the configuration allows.
    pub works: bool,
    /// The lines.
    pub lines: Vec<Line>,
}

/// How a line stands, what was found and what to do.
type Finding = (Status, String, Option<String>);

/// Looks at every relay of a connector, each followed by its alternates; `now` is in seconds since 1970.
pub async fn reach(config: &ConnectorConfig, now: u64) -> Vec<Reach> {
    let mut all = Vec::new();
    for relay in &config.relays {
        all.push(Look::new(config, relay, now).all(None).await);
        for address in &relay.alternates {
            let alternate = connector::Relay { address: address.clone(), alternates: Vec::new(), ..relay.clone() };
            all.push(Look::new(config, &alternate, now).all(Some(relay.address.clone())).await);
        }
    }
    all
}
