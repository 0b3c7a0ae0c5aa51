//! Debian's Prosody on loopback as the neutral judge of the drivers: STARTTLS and direct TLS under a CA of the test's own.

use std::io::{BufRead, BufReader, Read as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use super::{Login, Tls};

const ACCOUNTS: &str = "desk.example";
const GUESTS: &str = "guest.example";

/// A running server with the accounts `alice` and `bob` at one domain and anonymous guests at another.
#[derive(Debug)]
pub(crate) struct Prosody {
    child: Child,
    home: TempDir,
    starttls: u16,
    direct: u16,
}

impl Prosody {
    pub(crate) fn start() -> Self {
        let home = tempfile::Builder::new().prefix("prosody").tempdir().unwrap();
        certificates(home.path(), &[ACCOUNTS, GUESTS]);
        // Prosody's own escape of a dot in a folder's name.
        let accounts = home.path().join("desk%2eexample/accounts");
        std::fs::create_dir_all(&accounts).unwrap();
        for name in ["alice", "bob"] {
            std::fs::write(accounts.join(format!("{name}.dat")), format!("return {{ [\"password\"] = \"pw-{name}\" }};\n")).unwrap();
        }
        let [starttls, direct] = free_ports();
        let mut child = Command::new("prosody")
            .arg("-F")
            .arg("--config")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/prosody.cfg.lua"))
            .env("PROSODY_HOME", home.path())
            .env("PROSODY_STARTTLS", starttls.to_string())
            .env("PROSODY_DIRECT", direct.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        await_listeners(&mut child);
        Self { child, home, starttls, direct }
    }

    /// The CA that signed the server's certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    /// The terms on which `name` logs in; nobody is a guest.
    pub(crate) fn login(&self, name: Option<&str>, tls: Tls) -> Login {
        Login {
            host: "127.0.0.1".to_owned(),
            port: match tls {
                Tls::Starttls => self.starttls,
                Tls::Direct => self.direct,
            },
            tls,
            domain: if name.is_some() { ACCOUNTS } else { GUESTS }.to_owned(),
            jid: name.map(|name| format!("{name}@{ACCOUNTS}")),
            password: name.map(|name| format!("pw-{name}")),
            ca_file: self.ca_file(),
        }
    }
}

impl Drop for Prosody {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Writes ca.pem, cert.pem and key.pem for `names` into `folder`.
pub(crate) fn certificates(folder: &Path, names: &[&str]) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "A test's own CA");
    let ca_key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut server = CertificateParams::new(names).unwrap();
    server.distinguished_name.push(DnType::CommonName, "A test's server");
    let key = KeyPair::generate().unwrap();
    let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

/// Prosody cannot say which port the system gave it, so it gets two that were free a moment ago.
fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// Reads the server's log until both listeners are told, and leaves a thread behind to drain the rest.
fn await_listeners(child: &mut Child) {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut log = String::new();
    while !(log.contains("Activated service 'c2s'") && log.contains("Activated service 'c2s_direct_tls'")) {
        assert!(output.read_line(&mut log).unwrap() > 0, "prosody ended before it listened:\n{log}");
    }
    std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
}
