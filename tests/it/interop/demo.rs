//! The stack under test: `outgate demo --json`, one process with a relay and a connector joined by a real tunnel.

use std::io::{BufRead, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use super::{Login, Tls};

/// A running demo. Its log is printed when the test fails.
#[derive(Debug)]
pub(crate) struct Demo {
    child: Child,
    log: Arc<Mutex<String>>,
    pub(crate) terms: Terms,
}

/// The line that the demo prints.
#[derive(Debug, Deserialize)]
pub(crate) struct Terms {
    pub(crate) domain: String,
    pub(crate) ca_file: PathBuf,
    pub(crate) xmpp: Address,
    pub(crate) agents_xmpp: AgentsAddress,
    pub(crate) queues: Vec<Queue>,
    pub(crate) links: Vec<String>,
    pub(crate) agents: Vec<Agent>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Address {
    pub(crate) addr: String,
    pub(crate) port: u16,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AgentsAddress {
    pub(crate) addr: String,
    pub(crate) port: u16,
    pub(crate) domain: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Queue {
    pub(crate) jid: String,
    pub(crate) public: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Agent {
    pub(crate) jid: String,
    pub(crate) password: String,
}

impl Demo {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outgate"))
            .args(["demo", "--json", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                let mut line = String::new();
                while errors.read_line(&mut line).is_ok_and(|length| length > 0) {
                    log.lock().unwrap().push_str(&std::mem::take(&mut line));
                }
            }
        });
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        let terms = serde_json::from_str(&line).unwrap_or_else(|fault| panic!("{fault} in {line:?}; its log:\n{}", log.lock().unwrap()));
        Self { child, log, terms }
    }

    /// The terms of a customer: with a link, or ANONYMOUS.
    pub(crate) fn customer(&self, tls: Tls, link: Option<&str>) -> Login {
        Login {
            host: self.terms.xmpp.addr.clone(),
            port: self.terms.xmpp.port,
            tls,
            domain: self.terms.domain.clone(),
            jid: link.map(|_| format!("me@{}", self.terms.domain)),
            password: link.map(ToOwned::to_owned),
            ca_file: self.terms.ca_file.clone(),
        }
    }

    /// The terms of the first agent.
    pub(crate) fn agent(&self, tls: Tls) -> Login {
        let agent = &self.terms.agents[0];
        Login {
            host: self.terms.agents_xmpp.addr.clone(),
            port: self.terms.agents_xmpp.port,
            tls,
            domain: self.terms.agents_xmpp.domain.clone(),
            jid: Some(agent.jid.clone()),
            password: Some(agent.password.clone()),
            ca_file: self.terms.ca_file.clone(),
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("The demo's log:\n{}", self.log.lock().unwrap());
        }
    }
}
