//! What takes effect without a restart when the configuration is read again: the allow-lists, and the list of client software.
//!
//! All or nothing: what is wrong in any of it leaves everything as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::config::RelayConfig;
use crate::config::relay::access::AccessRules;
use crate::net::allow_files::{AllowFiles, Prepared};
use crate::telemetry::audit::{Audit, By, Event};

use super::settings::{AllowLists, ConfigFile};
use super::software_policy::{self, SoftwarePolicy};

/// Characters of a fault that the audit log tells; the ordinary log tells all.
const MAX_FAULT: usize = 1000;

/// Takes up a changed configuration.
#[derive(Debug)]
pub(super) struct Reload {
    lists: AllowLists,
    software: Arc<SoftwarePolicy>,
    file: Option<ConfigFile>,
    audit: Audit,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// What is in force now and was not before.
    pub changed: Vec<&'static str>,
    /// Sections that differ from the running ones, and are taken up by a restart alone.
    pub needs_restart: Vec<&'static str>,
}

impl Reload {
    pub(super) fn new(lists: AllowLists, software: Arc<SoftwarePolicy>, file: Option<ConfigFile>, audit: Audit) -> Self {
        Self { lists, software, file, audit }
    }

    /// Prefixes in each list.
    pub(super) fn sizes(&self) -> BTreeMap<&'static str, usize> {
        self.named().into_iter().map(|(name, files)| (name, files.list().len())).collect()
    }

    /// Reads and takes up. It waits for the disk beside the runtime's threads.
    pub(super) async fn run(self: &Arc<Self>, by: By) -> Result<Reloaded, String> {
        let own = Arc::clone(self);
        let outcome = tokio::task::spawn_blocking(move || own.take_up()).await.map_err(|panic| panic.to_string())?;
        self.audit.record(match &outcome {
            Ok(Reloaded { changed, needs_restart }) => {
                Event::Reloaded { by, changed: changed.clone(), needs_restart: needs_restart.clone() }
            }
            Err(fault) => Event::ReloadRefused { by, fault: fault.chars().take(MAX_FAULT).collect() },
        });
        outcome
    }

    fn take_up(&self) -> Result<Reloaded, String> {
        let ConfigFile { running, read } = self.file.as_ref().ok_or("this relay has no configuration file")?;
        let read = read()?;
        let [client, tunnel] = [(&self.lists.client, &read.access.client), (&self.lists.tunnel, &read.access.tunnel)]
            .map(|(files, rules)| prepare(files, rules.clone()));
        let software = software_policy::read(&read.clients)?;
        let mut changed = Vec::new();
        for ((name, files), prepared) in self.named().into_iter().zip([client?, tunnel?]) {
            if files.put(prepared) {
                changed.push(name);
            }
        }
        if self.software.put(software) {
            changed.push("clients");
        }
        Ok(Reloaded { changed, needs_restart: differing(running, &read) })
    }

    fn named(&self) -> [(&'static str, &AllowFiles); 2] {
        [("access.client", &self.lists.client), ("access.tunnel", &self.lists.tunnel)]
    }
}

fn prepare(files: &AllowFiles, rules: AccessRules) -> Result<Prepared, String> {
    files.prepare(rules).map_err(|fault| fault.to_string())
}

/// The sections in which both differ, but for those that are taken up.
fn differing(running: &RelayConfig, read: &RelayConfig) -> Vec<&'static str> {
    let sections = [
        ("confinement", running.confinement != read.confinement),
        ("listen", running.listen != read.listen),
        ("tls", running.tls != read.tls),
        ("tunnel_tls", running.tunnel_tls != read.tunnel_tls),
        ("tunnel", running.tunnel != read.tunnel || running.alternates != read.alternates),
        ("domain", running.domains != read.domains),
        ("issuer", running.issuers != read.issuers),
        ("link", running.link != read.link),
        ("limits", running.limits != read.limits),
        ("log", running.log != read.log),
        ("audit", running.audit != read.audit),
    ];
    sections.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}
