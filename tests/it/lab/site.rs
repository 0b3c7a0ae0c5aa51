//! A relay in the DMZ and a connector on the LAN, set up with `outgate ca`, `link` and `agent` from the files in config/,
//! in which nothing but addresses and paths is changed.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::network::{DMZ, DOOR, LAN, Lab, Place, TUNNEL};
use crate::interop::{Login, Tls};
use crate::setup::{AGENTS, CUSTOMERS, PASSWORD, await_status, lifted_limits, outgate, prepare, substitute};

/// Both processes, and the folder with all that they need.
#[derive(Debug)]
pub(super) struct Site {
    relay: Child,
    connector: Child,
    home: TempDir,
    link: String,
}

impl Site {
    /// Starts both, the tunnel over `transport` as connector.toml names it.
    pub(super) fn start(lab: &Lab, transport: &str) -> Self {
        let home = tempfile::Builder::new().prefix("site").tempdir().unwrap();
        let link = prepare(home.path());
        configure(home.path(), transport);
        let relay = role(lab, Place::Dmz, home.path(), "relay");
        await_status(&home.path().join("relay.sock"), |_| true);
        let connector = role(lab, Place::Lan, home.path(), "connector");
        let site = Self { relay, connector, home, link };
        await_status(&site.socket("relay"), |status| status["tunnels"][0]["epoch"].as_u64().is_some());
        site
    }

    pub(super) fn ca_file(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    pub(super) fn queue(&self) -> String {
        format!("support@{CUSTOMERS}")
    }

    pub(super) fn customer(&self, tls: Tls) -> Login {
        let ca_file = self.ca_file();
        let password = Some(self.link.clone());
        Login {
            host: DMZ.to_owned(),
            port: DOOR,
            tls,
            domain: CUSTOMERS.to_owned(),
            jid: Some(format!("me@{CUSTOMERS}")),
            password,
            ca_file,
        }
    }

    pub(super) fn agent(&self, tls: Tls) -> Login {
        let ca_file = self.ca_file();
        let password = Some(PASSWORD.to_owned());
        Login { host: LAN.to_owned(), port: DOOR, tls, domain: AGENTS.to_owned(), jid: Some(format!("alice@{AGENTS}")), password, ca_file }
    }

    /// The only tunnel, as `outgate status --json` tells it at the relay and at the connector.
    pub(super) fn tunnels(&self) -> [Value; 2] {
        ["relay", "connector"].map(|role| {
            let output = outgate(&["status", "--json", "--socket", self.socket(role).to_str().unwrap()]);
            let status: Value = serde_json::from_str(&output).unwrap();
            assert_eq!(status["tunnels"].as_array().map(Vec::len), Some(1), "{status}");
            status["tunnels"][0].clone()
        })
    }

    /// Asks until `ready` likes what both ends tell of the tunnel.
    pub(super) fn await_tunnels(&self, what: &str, ready: impl Fn(&Value) -> bool) {
        for end in 0..2 {
            self.await_tunnel(end, what, &ready);
        }
    }

    /// Asks until `ready` likes what one end (0 is the relay, 1 the connector) tells of the tunnel.
    pub(super) fn await_tunnel(&self, end: usize, what: &str, ready: impl Fn(&Value) -> bool) {
        for _ in 0..300 {
            if ready(&self.tunnels()[end]) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("waited in vain for {what}: {:?}", self.tunnels());
    }

    /// The connector drops its carrier at once and dials again.
    pub(super) fn reattach(&self) {
        let mut socket = UnixStream::connect(self.socket("connector")).unwrap();
        socket.write_all(b"{\"do\":\"reattach\"}\n").unwrap();
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).unwrap();
        assert!(answer.contains("done"), "{answer}");
    }

    fn socket(&self, role: &str) -> PathBuf {
        self.home.path().join(format!("{role}.sock"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for (name, child) in [("relay", &mut self.relay), ("connector", &mut self.connector)] {
            let _ended = child.kill();
            let _status = child.wait();
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.home.path().join(format!("{name}.log"))).unwrap_or_default();
                eprintln!("The {name}'s log:\n{log}");
            }
        }
    }
}

/// The shipped files with this lab's addresses and paths.
fn configure(home: &Path, transport: &str) {
    let home_text = home.display();
    let relay = [
        ("# client = [\"[::]:5222\"]", format!("client = [\"{DMZ}:{DOOR}\"]")),
        ("# tunnel = \"[::]:7443\"", format!("tunnel = \"{DMZ}:{TUNNEL}\"")),
        ("# admin = \"/run/outgate-relay/admin.sock\"", format!("admin = \"{home_text}/relay.sock\"")),
    ];
    let connector = [
        ("# admin = \"/run/outgate-connector/admin.sock\"", format!("admin = \"{home_text}/connector.sock\"")),
        ("address = \"relay.example.com:7443\"", format!("address = \"{DMZ}:{TUNNEL}\"")),
        ("# server_name = \"relay.example.com\"", "server_name = \"relay.example.com\"".to_owned()),
        ("# transport = \"auto\"", format!("transport = \"{transport}\"")),
        ("# path = \"/var/lib/outgate/connector.sqlite\"", format!("path = \"{home_text}/connector.sqlite\"")),
        ("# listen = \"127.0.0.1:5222\"", format!("listen = \"{LAN}:{DOOR}\"")),
    ];
    let relay: Vec<_> = relay.into_iter().chain(lifted_limits()).collect();
    substitute("relay.toml", &home.join("dmz/relay.toml"), &relay);
    substitute("connector.toml", &home.join("lan/connector.toml"), &connector);
}

fn role(lab: &Lab, place: Place, home: &Path, name: &str) -> Child {
    let log = std::fs::File::create(home.join(format!("{name}.log"))).unwrap();
    let config = home.join(if place == Place::Dmz { "dmz" } else { "lan" }).join(format!("{name}.toml"));
    let mut command = lab.command(place, env!("CARGO_BIN_EXE_outgate"));
    command.arg(name).arg("--config").arg(config).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}
