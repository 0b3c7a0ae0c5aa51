//! `[[connector]]`: which queues each connector may serve. A queue belongs to one connector.

use super::super::TunnelName;
use super::super::reader::Table;
use super::{Domain, QueueGrant};
use crate::link::Label;

/// What one connector is granted.
#[derive(Debug)]
struct Connector {
    identity: String,
    queues: Vec<String>,
    label: Option<Label>,
}

/// `label`: the first character of a connector's short codes.
pub(in crate::config) fn read_label(table: &Table<'_>) -> Option<Label> {
    let text: String = table.optional("label", "\"k\"")?;
    let label = Label::parse(&text);
    if label.is_none() {
        table.fault(
            "label",
            format!("`label = \"{text}\"` is no label"),
            "write one lower-case letter or digit, but none of i, l, o and u",
        );
    }
    label
}

/// Gives each queue its connector; reports queues without one, with two, and grants of what no domain has.
pub(super) fn grant(root: &Table<'_>, domains: &mut [Domain]) -> Vec<(Label, String)> {
    let tables = root.tables("connector");
    root.distinct(&tables, "identity");
    root.distinct(&tables, "label");
    let domain_tables = root.tables("domain");
    let is_whole = domains.len() == domain_tables.len()
        && domains.iter().zip(&domain_tables).all(|(domain, table)| domain.queues.len() == table.tables("queue").len());
    let connectors: Vec<_> = tables.iter().map(Connector::read).collect();
    for (table, connector) in tables.iter().zip(&connectors) {
        let Some(connector) = connector else { continue };
        for claim in &connector.queues {
            let granted = grant_one(table, domains, claim, &connector.identity);
            if granted == 0 && is_whole {
                table.fault(
                    "queues",
                    format!("`queues` names \"{claim}\", which no domain has"),
                    "write the `id` of a `[[domain.queue]]`, or `id@domain`",
                );
            }
        }
    }
    // One that is faulty may have been meant to grant it.
    if is_whole && connectors.iter().all(Option::is_some) {
        report_ungranted(&domain_tables, domains);
    }
    connectors.into_iter().flatten().filter_map(|connector| Some((connector.label?, connector.identity))).collect()
}

/// Grants the queues that `claim` names, "support" or "support@chat.example.com"; tells how many it names.
fn grant_one(table: &Table<'_>, domains: &mut [Domain], claim: &str, identity: &str) -> usize {
    let (id, domain) = claim.split_once('@').map_or((claim, None), |(id, domain)| (id, Some(domain)));
    let named = domains.iter_mut().filter(|served| domain.is_none_or(|domain| domain == served.name));
    let queues: Vec<&mut QueueGrant> = named.flat_map(|served| &mut served.queues).filter(|queue| queue.id == id).collect();
    let count = queues.len();
    for queue in queues {
        if queue.connector.is_empty() {
            identity.clone_into(&mut queue.connector);
        } else if queue.connector != identity {
            table.fault(
                "queues",
                format!("queue \"{claim}\" is granted to two connectors: {} and {identity}", queue.connector),
                "a queue belongs to one connector: take it from one of the two",
            );
        }
    }
    count
}

fn report_ungranted(tables: &[Table<'_>], domains: &[Domain]) {
    for (table, domain) in tables.iter().zip(domains) {
        for (table, queue) in table.tables("queue").iter().zip(&domain.queues) {
            if queue.connector.is_empty() {
                table.fault(
                    "id",
                    format!("no connector serves queue \"{}\"", queue.id),
                    "name it in `queues` of a section `[[connector]]`",
                );
            }
        }
    }
}

impl Connector {
    fn read(table: &Table<'_>) -> Option<Self> {
        let identity: Option<TunnelName> = table.required("identity", "\"outgate://example/connector/lan1\"");
        let has_queues = table.has("queues");
        let queues: Option<Vec<String>> = table.list("queues", "\"support\"");
        let label = read_label(table);
        table.finish();
        if !has_queues || queues.as_ref().is_some_and(Vec::is_empty) {
            table.fault("queues", "this connector is granted no queue".into(), "write `queues = [\"support\"]`");
        }
        Some(Self { identity: identity?.to_string(), queues: queues?, label })
    }
}
