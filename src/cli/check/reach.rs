//! `outgate check --reach`: prints what was found about each relay.

use std::path::Path;

use crate::cli::{Failure, clock, faults, output, runtime};
use crate::config::{ConnectorConfig, Kind};
use crate::connector::dial_relay::reach::{self, Line, Reach, Status};

/// Looks and prints.
pub(super) fn run(file: &Path, kind: Kind, text: &str, json: bool) -> Result<(), Failure> {
    if kind != Kind::Connector {
        return Err(Failure::usage(format!("{}: only a connector reaches out", file.display())).hint("name a connector.toml"));
    }
    let config = match ConnectorConfig::parse(file, text) {
        Ok(config) => config,
        Err(found) => {
            faults::tell(&found, text);
            return Err(Failure::told());
        }
    };
    let all = runtime::block_on(runtime::Cores::All, async { Ok(reach::reach(&config, clock::unix_now()).await) })?;
    if json {
        output::line(serde_json::json!({ "relays": all }))?;
    } else {
        all.iter().try_for_each(tell)?;
    }
    if all.iter().all(|relay| relay.works) { Ok(()) } else { Err(Failure::told()) }
}

fn tell(relay: &Reach) -> Result<(), Failure> {
    let of = relay.alternate_of.as_ref().map_or_else(String::new, |of| format!(" (alternate of {of})"));
    output::line(format!("{}{of}: {}", relay.relay, if relay.works { "can be reached" } else { "CANNOT BE REACHED" }))?;
    relay.lines.iter().try_for_each(|line| output::line(as_text(line)))
}

fn as_text(line: &Line) -> String {
    let status = match line.status {
        Status::Ok => "ok",
        Status::Warning => "warning",
        Status::Failed => "FAILED",
        Status::Skipped => "-",
    };
    let remedy = line.remedy.as_ref().map_or_else(String::new, |remedy| format!(" => {remedy}"));
    format!("  {:<11}  {status:<7}  {}{remedy}", line.check, line.found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_one_line_with_its_remedy() {
        let line = Line { check: "udp", status: Status::Failed, found: "no answer".into(), remedy: Some("open the port".into()) };
        assert_eq!(as_text(&line), "  udp          FAILED   no answer => open the port");
        let line = Line { check: "dns", status: Status::Ok, found: "192.0.2.1".into(), remedy: None };
        assert_eq!(as_text(&line), "  dns          ok       192.0.2.1");
    }
}
