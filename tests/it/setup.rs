//! What every relay and connector under test needs before it starts: a tunnel CA, certificates, a signer of links, an account, made
//! with `outgate ca`, `link` and `agent`; and the files in config/, in which nothing but what a test names is changed.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use outgate::admission::allow_list::{Access, AllowList, Entry};
use outgate::admission::quota::{Allowance, Rate};
use outgate::relay::settings::{RelaySettings, Strangers};
use serde_json::Value;

use crate::interop::prosody::certificates;

pub(crate) const CUSTOMERS: &str = "chat.example.com";
pub(crate) const AGENTS: &str = "agents.example.com";
pub(crate) const PASSWORD: &str = "a pass phrase for alice";

/// Keys, certificates, link and account; returns the link.
pub(crate) fn prepare(home: &Path) -> String {
    let path = |name: &str| home.join(name).to_str().unwrap().to_owned();
    for folder in ["dmz/tls", "lan/tls"] {
        std::fs::create_dir_all(home.join(folder)).unwrap();
    }
    outgate(&["ca", "init", &path("ca"), "--org", "example"]);
    outgate(&["ca", "issue", &path("ca"), "--relay", "dmz1", "--dns", "relay.example.com", "--out", &path("dmz/tunnel")]);
    outgate(&["ca", "issue", &path("ca"), "--connector", "lan1", "--out", &path("lan/tunnel")]);
    certificates(home, &[CUSTOMERS, AGENTS]);
    for (from, to) in [("cert.pem", ".pem"), ("key.pem", "-key.pem")] {
        std::fs::copy(home.join(from), home.join(format!("dmz/tls/{CUSTOMERS}{to}"))).unwrap();
        std::fs::copy(home.join(from), home.join(format!("lan/tls/{AGENTS}{to}"))).unwrap();
    }
    let keys = outgate(&["link", "keys", "--new", &path("issuer-key.pem")]);
    for side in ["dmz", "lan"] {
        std::fs::write(home.join(side).join("issuer.jwks.json"), &keys).unwrap();
    }
    std::fs::copy(shipped("agents.toml"), home.join("lan/agents.toml")).unwrap();
    std::fs::write(home.join("password"), format!("{PASSWORD}\n")).unwrap();
    let (accounts, password) = (path("lan/agents.toml"), path("password"));
    outgate(&["agent", "--file", &accounts, "add", "alice", "--queue", "support", "--password-file", &password]);
    let key = path("issuer-key.pem");
    let link = outgate(&["link", "new", "--issuer", "https://example.com", "--key", &key, "--audience", CUSTOMERS, "--queue", "support"]);
    let token = link.lines().find_map(|line| line.strip_prefix("token "));
    token.unwrap_or_else(|| panic!("no token in what link new printed")).trim().to_owned()
}

/// Loopback is not counted: all customers of a test come from there.
pub(crate) fn exempt_strangers() -> Strangers {
    let loopback = |prefix: &str| Entry { prefix: prefix.parse().unwrap(), access: Access::Allow, file: "test".into(), line: 1 };
    let exempt = AllowList::new(vec![loopback("127.0.0.0/8"), loopback("::1/128")], Access::Deny);
    Strangers { exempt, ..Strangers::default() }
}

/// No limit by address, and none on what a session sends.
pub(crate) fn lift_limits(settings: &mut RelaySettings) {
    settings.strangers = exempt_strangers();
    settings.limits.session = any_amount();
}

/// A session may send what it likes.
pub(crate) fn any_amount() -> Allowance {
    let any = Rate { per_second: 1_000_000, at_once: 1_000_000 };
    Allowance { bytes: any, messages: any, ..Allowance::default() }
}

/// The same in a relay's own file.
pub(crate) const LIFTED_LIMITS: &str = "[limits]\nexempt = [\"127.0.0.0/8\", \"::1\"]\n\
    [limits.session]\nbytes_per_second = 1000000\nbytes_at_once = 1000000\nmessages_per_second = 1000000\nmessages_at_once = 1000000\n";

/// The same in the shipped one.
pub(crate) fn lifted_limits() -> [(&'static str, String); 5] {
    [
        ("# exempt = []", "exempt = [\"127.0.0.0/8\", \"::1\"]".to_owned()),
        ("# bytes_per_second = 10000", "bytes_per_second = 1000000".to_owned()),
        ("# bytes_at_once = 65536", "bytes_at_once = 1000000".to_owned()),
        ("# messages_per_second = 5", "messages_per_second = 1000000".to_owned()),
        ("# messages_at_once = 10", "messages_at_once = 1000000".to_owned()),
    ]
}

pub(crate) fn substitute(name: &str, to: &Path, changes: &[(&str, String)]) {
    let mut file = std::fs::read_to_string(shipped(name)).unwrap();
    for (from, new) in changes {
        assert_eq!(file.matches(from).count(), 1, "config/{name} has {from:?} once");
        file = file.replace(from, new);
    }
    std::fs::write(to, file).unwrap();
}

pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// Asks until the role answers and `ready` likes the answer.
pub(crate) fn await_status(socket: &Path, ready: impl Fn(&Value) -> bool) {
    let mut last = String::new();
    for _ in 0..300 {
        if let Ok(mut stream) = UnixStream::connect(socket) {
            stream.write_all(b"{\"get\":\"status\"}\n").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            last.clear();
            stream.read_to_string(&mut last).unwrap();
            let answer: Value = serde_json::from_str(&last).unwrap_or_default();
            let status = answer.get("status").unwrap_or(&answer);
            if ready(status) {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{} was not ready in 15 s; its last answer: {last}", socket.display());
}

/// Runs `outgate` and returns what it printed.
pub(crate) fn outgate(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_outgate")).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "outgate {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
