//! `outgate check`: every fault of a configuration file, and of the files that it names; with `--reach` what is between a connector and
//! its relays.

mod reach;

use std::path::{Path, PathBuf};

use super::{Failure, faults, files, output};
use crate::config::{AgentsConfig, ConnectorConfig, Fault, Issuer, Kind, RelayConfig, Tls, TunnelTls};
use crate::net::certificates;
use crate::net::dial;
use crate::net::link_keys::LinkKeys;
use crate::relay::software_policy::SoftwarePolicy;

/// Where a connector's configuration lies as packaged.
const CONNECTOR: &str = "/etc/outgate/connector.toml";

/// Arguments of `outgate check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate check /etc/outgate/relay.toml
  outgate check --alone config/connector.toml
  outgate check --reach /etc/outgate/connector.toml

Exit code 0 if there is no fault, else 1; with --reach also if a relay cannot be reached over any transport.")]
pub struct Args {
    /// relay.toml, connector.toml, agents.toml or clients.toml; which of them is told by content, then by name.
    /// With --reach it may be left out: /etc/outgate/connector.toml.
    #[arg(value_name = "FILE", required_unless_present = "reach")]
    file: Option<PathBuf>,
    /// Try to reach the relays that a connector.toml names: name, UDP, TCP, proxy, certificates, clock, version, datagram size.
    /// A running connector is not disturbed.
    #[arg(long, conflicts_with = "alone")]
    reach: bool,
    /// Do not look at the files that it names.
    #[arg(long)]
    alone: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs `outgate check`.
///
/// # Errors
/// There is a fault, or the file cannot be read.
pub fn run(args: Args) -> Result<(), Failure> {
    let file = args.file.as_deref().unwrap_or_else(|| Path::new(CONNECTOR));
    let text = files::read_text(file)?;
    let kind = Kind::of(file, &text).ok_or_else(|| {
        Failure::runtime(format!("{}: not a relay, connector, agents or clients file", file.display()))
            .hint("name it relay.toml, connector.toml, agents.toml or clients.toml")
    })?;
    let faults = kind.faults(file, &text);
    if args.reach {
        return reach::run(file, kind, &text, args.json);
    }
    let named = if args.alone || !faults.is_empty() { Named::default() } else { named(kind, file, &text) };
    if args.json {
        output::line(as_json(kind, &faults, &named))?;
    } else {
        faults::tell(&faults, &text);
        named.tell();
    }
    if !faults.is_empty() || !named.faults.is_empty() {
        return Err(Failure::told());
    }
    if args.json { Ok(()) } else { output::line(format!("{}: no fault ({})", file.display(), kind.as_str())) }
}

/// What was found in files that the configuration names.
#[derive(Default)]
struct Named {
    faults: Vec<String>,
    warnings: Vec<String>,
}

impl Named {
    fn tell(&self) {
        for fault in &self.faults {
            output::note(format!("error: {fault}"));
        }
        for warning in &self.warnings {
            output::note(format!("warning: {warning}"));
        }
    }

    fn tls(&mut self, tls: &Tls) {
        match certificates::load(&tls.certificate, &tls.key) {
            Ok(loaded) => {
                self.warnings.extend(loaded.warnings);
                let validity = loaded.chain.first().and_then(certificates::Validity::of);
                let near = validity.and_then(|validity| validity.warning(super::unix_now()));
                self.warnings.extend(near.map(|near| format!("{}: the certificate {near}", tls.certificate.display())));
            }
            Err(error) => self.faults.push(error.to_string()),
        }
    }

    fn tunnel(&mut self, tls: &TunnelTls) {
        self.tls(&Tls { certificate: tls.certificate.clone(), key: tls.key.clone() });
        if let Err(error) = certificates::load_authorities(&tls.ca) {
            self.faults.push(error.to_string());
        }
        let identity = certificates::load_authorities(&tls.certificate).ok();
        if let Some(leaf) = identity.as_ref().and_then(|chain| chain.first())
            && let Err(error) = certificates::identity_of(leaf)
        {
            self.faults.push(format!("{}: {error}", tls.certificate.display()));
        }
    }

    fn issuers(&mut self, issuers: &[Issuer]) {
        let mut keys = LinkKeys::default();
        for issuer in issuers {
            if let Err(error) = keys.add_file(issuer) {
                self.faults.push(error.to_string());
            }
        }
    }

    /// A proxy's credentials: never repeated, not even in part.
    fn proxies(&mut self, config: &ConnectorConfig) {
        for proxy in config.relays.iter().filter_map(|relay| relay.proxy.as_ref()) {
            if let Err(error) = dial::credentials_of(proxy) {
                self.faults.push(error);
            }
        }
    }

    fn accounts(&mut self, config: &ConnectorConfig) {
        let path = &config.agents.accounts;
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.faults.push(format!("cannot read {}: {error}", path.display()));
                return;
            }
        };
        match AgentsConfig::parse(path, &text) {
            Err(faults) => self.faults.extend(faults.iter().map(Fault::to_string)),
            Ok(accounts) => self.served(config, &accounts),
        }
    }

    /// Warns of queues that an account names and nobody serves, and of queues without an agent.
    fn served(&mut self, config: &ConnectorConfig, accounts: &AgentsConfig) {
        let exists = |id: &String| config.queues.iter().any(|queue| queue.id == *id);
        for agent in &accounts.agents {
            for queue in agent.queues.iter().filter(|id| !exists(id)) {
                self.warnings.push(format!("agent {}: there is no queue `{queue}`", agent.name));
            }
        }
        for queue in &config.queues {
            if !accounts.agents.iter().any(|agent| agent.queues.contains(&queue.id)) {
                self.warnings.push(format!("queue {}: no agent serves it", queue.id));
            }
        }
    }
}

fn named(kind: Kind, file: &Path, text: &str) -> Named {
    let mut named = Named::default();
    match kind {
        Kind::Relay => {
            if let Ok(config) = RelayConfig::parse(file, text) {
                named.tls(&config.tls);
                named.tunnel(&config.tunnel_tls);
                named.issuers(&config.issuers);
                named.faults.extend(SoftwarePolicy::open(&config.clients).err());
            }
        }
        Kind::Connector => {
            if let Ok(config) = ConnectorConfig::parse(file, text) {
                named.tls(&config.agents.tls);
                named.tunnel(&config.tunnel_tls);
                named.issuers(&config.issuers);
                named.accounts(&config);
                named.proxies(&config);
            }
        }
        Kind::Agents | Kind::Clients => {}
    }
    named
}

fn as_json(kind: Kind, faults: &[Fault], named: &Named) -> serde_json::Value {
    let rows: Vec<_> = faults
        .iter()
        .map(|fault| {
            serde_json::json!({
                "file": fault.file.to_string_lossy(), "line": fault.line, "column": fault.column,
                "message": fault.message, "remedy": fault.remedy,
            })
        })
        .collect();
    serde_json::json!({
        "kind": kind.as_str(), "faults": rows,
        "named_files": { "faults": named.faults, "warnings": named.warnings },
    })
}
