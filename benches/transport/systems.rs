//! The systems under measurement, each two processes and a service, started from nothing and ended with the program.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path as FilePath;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use outgate::config::tunnel_name::Role;
use outgate::net::certificates::{Issued, TunnelCa, self_signed};

use crate::path::Path;
use crate::process::{Ended, Group, await_port, free_port};
use crate::rathole::{self, Ports, Transport};

/// Silence after which a carrier is dead where the path is cut.
const DEAD_AFTER_MS: u64 = 1000;

/// Whether the inner end finds the outer one through a [`Path`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    Direct,
    Path,
}

/// A running system.
pub(crate) struct System {
    pub(crate) group: Group,
    /// Where customers connect.
    pub(crate) front: u16,
    pub(crate) path: Option<Path>,
    questions: Option<(ChildStdin, BufReader<ChildStdout>)>,
    _processes: Vec<Ended>,
    _folder: tempfile::TempDir,
}

impl System {
    /// Starts the system `name`; the error says what there is not.
    pub(crate) async fn start(name: &str, way: Way) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let (mut service, target) = service()?;
        let (bridge, front) = (free_port(), free_port());
        let path = if way == Way::Path { Some(Path::to(bridge).await) } else { None };
        let dialled = path.as_ref().map_or(bridge, |path| path.port);
        let ports = Ports { bridge, dialled, front, target };
        let (mut processes, questions) = match name {
            "rathole-noise" => {
                let program = rathole::program()?;
                (rathole::start(folder.path(), &program, &rathole::noise(&program)?, ports)?, None)
            }
            "rathole-tls" => (rathole::start(folder.path(), &rathole::program()?, &rathole_tls(folder.path())?, ports)?, None),
            _ => outgate(name, folder.path(), ports, way)?,
        };
        // A service that ended at once would be found out by nobody.
        if let Ok(Some(status)) = service.0.try_wait() {
            return Err(format!("the service ended: {status}"));
        }
        let group = Group::new(processes.iter().map(|process| process.0.id()).collect());
        processes.push(service);
        await_port(front)?;
        Ok(Self { group, front, path, questions, _processes: processes, _folder: folder })
    }

    /// Events that the inner end sent again so far; `None` where nothing ever is.
    pub(crate) fn replayed(&mut self) -> Option<u64> {
        let (ask, answers) = self.questions.as_mut()?;
        writeln!(ask).unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        Some(line.trim().parse().unwrap())
    }
}

fn myself() -> Result<Command, String> {
    std::env::current_exe().map(Command::new).map_err(|e| e.to_string())
}

fn service() -> Result<(Ended, u16), String> {
    let mut service = Ended::spawn(myself()?.args(["--role", "service"]).stdout(Stdio::piped()))?;
    let mut line = String::new();
    let stdout = service.0.stdout.take().ok_or("stdout is piped")?;
    BufReader::new(stdout).read_line(&mut line).map_err(|e| e.to_string())?;
    Ok((service, line.trim().parse().map_err(|_| format!("the service said {line:?}"))?))
}

type Questions = Option<(ChildStdin, BufReader<ChildStdout>)>;

fn outgate(name: &str, folder: &FilePath, ports: Ports, way: Way) -> Result<(Vec<Ended>, Questions), String> {
    let (transport, has_store) = match name {
        "outgate-tls" => ("tls", false),
        "outgate-quic" => ("quic", false),
        "outgate-tls+store" => ("tls", true),
        "outgate-quic+store" => ("quic", true),
        other => return Err(format!("no such system: {other}")),
    };
    certificates(folder).map_err(|e| e.to_string())?;
    let folder_name = folder.to_string_lossy().into_owned();
    let mut common = vec!["--dir".to_owned(), folder_name];
    if way == Way::Path && transport == "quic" {
        common.extend(["--dead-after-ms".to_owned(), DEAD_AFTER_MS.to_string()]);
    }
    let mut relay = myself()?;
    relay.args(["--role", "relay", "--tunnel", &ports.bridge.to_string(), "--front", &ports.front.to_string()]).args(&common);
    let mut connector = myself()?;
    connector.args(["--role", "connector", "--tunnel", &ports.dialled.to_string(), "--service", &ports.target.to_string()]).args(&common);
    connector.args(["--transport", transport]);
    if has_store {
        connector.arg("--store").arg(folder.join("store.sqlite"));
    }
    let relay = Ended::spawn(&mut relay)?;
    await_port(ports.bridge)?;
    let mut connector = Ended::spawn(connector.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let questions = connector.0.stdin.take().zip(connector.0.stdout.take().map(BufReader::new));
    Ok((vec![relay, connector], questions))
}

fn certificates(folder: &FilePath) -> Result<(), Box<dyn std::error::Error>> {
    let now = now();
    let (ca, issued) = TunnelCa::create("bench", now)?;
    fs::write(folder.join("ca.pem"), &issued.certificate)?;
    for (file, role, name, hosts) in
        [("relay", Role::Relay, "r1", vec!["relay.test".to_owned()]), ("connector", Role::Connector, "lan1", vec![])]
    {
        write_pair(folder, file, &ca.issue(role, name, &hosts, now)?.1)?;
    }
    Ok(())
}

fn write_pair(folder: &FilePath, name: &str, issued: &Issued) -> std::io::Result<()> {
    fs::write(folder.join(format!("{name}.pem")), &issued.certificate)?;
    fs::write(folder.join(format!("{name}-key.pem")), issued.key.as_bytes())
}

/// rathole's server reads PKCS#12, which the program `openssl` makes.
fn rathole_tls(folder: &FilePath) -> Result<Transport, String> {
    let (ca, issued) = self_signed("localhost", now()).map_err(|e| e.to_string())?;
    write_pair(folder, "server", &issued).and_then(|()| fs::write(folder.join("server-ca.pem"), ca)).map_err(|e| e.to_string())?;
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (pfx, ca) = (file("server.pfx"), file("server-ca.pem"));
    let made = Command::new("openssl")
        .args(["pkcs12", "-export", "-passout", "pass:p", "-out", &pfx, "-in", &file("server.pem"), "-inkey", &file("server-key.pem")])
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return Err("no openssl (Debian: apt-get install openssl)".to_owned());
    }
    Ok(Transport {
        server: format!("[server.transport]\ntype = \"tls\"\n[server.transport.tls]\npkcs12 = \"{pfx}\"\npkcs12_password = \"p\"\n"),
        client: format!("[client.transport]\ntype = \"tls\"\n[client.transport.tls]\ntrusted_root = \"{ca}\"\nhostname = \"localhost\"\n"),
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
