//! The systems under measurement, each started from nothing in a folder of its own and ended with the program.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::client::Credentials;
use crate::measure::Load;
use crate::process::{Ended, Group, await_port, free_port};
use crate::rathole::{self, Ports};

/// A running system.
pub(crate) struct Peer {
    pub(crate) group: Group,
    pub(crate) ca_pem: String,
    pub(crate) customer_port: u16,
    pub(crate) customer_domain: String,
    pub(crate) agent_port: u16,
    pub(crate) agent_domain: String,
    pub(crate) customers: Vec<Credentials>,
    pub(crate) agents: Vec<Credentials>,
    addresses: Vec<String>,
    _processes: Vec<Ended>,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// Whom customer `number` writes to.
    pub(crate) fn address_of(&self, number: usize) -> String {
        self.addresses[number % self.addresses.len()].clone()
    }
}

/// Starts the system `name`; the error says what this machine lacks.
pub(crate) fn start(name: &str, load: &Load) -> Result<Peer, String> {
    match name {
        "outgate" => outgate(env!("CARGO_BIN_EXE_outgate"), load),
        "ejabberd" => ejabberd(load, Edge::Own),
        "stack" => ejabberd(load, Edge::Tunnelled),
        other => match other.strip_prefix("outgate=") {
            Some(program) => outgate(program, load),
            None => Err(format!("no such system: {other}")),
        },
    }
}

fn outgate(program: &str, load: &Load) -> Result<Peer, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let capacity = load.customers.div_ceil(load.agents);
    let mut command = Command::new(program);
    command
        .args(["demo", "--json", "--auto-accept", "--listen", "127.0.0.1:0"])
        .args(["--links", &load.customers.to_string(), "--agents", &load.agents.to_string(), "--capacity", &capacity.to_string()])
        .stdout(Stdio::piped())
        .stderr(fs::File::create(folder.path().join("outgate.log")).map_err(|e| e.to_string())?);
    let mut child = Ended::spawn(&mut command)?;
    let mut line = String::new();
    let stdout = child.0.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).map_err(|e| e.to_string())?;
    let said: serde_json::Value = serde_json::from_str(&line).map_err(|e| format!("the demo said {line:?}: {e}"))?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let port = |value: &serde_json::Value| value.as_u64().unwrap_or_default() as u16;
    let linked =
        said["queues"].as_array().and_then(|queues| queues.iter().find(|queue| queue["public"] == false)).ok_or("no queue with links")?;
    Ok(Peer {
        group: Group::new(vec![child.0.id()]),
        ca_pem: fs::read_to_string(text(&said["ca_file"])).map_err(|e| e.to_string())?,
        customer_port: port(&said["xmpp"]["port"]),
        customer_domain: text(&said["domain"]),
        agent_port: port(&said["agents_xmpp"]["port"]),
        agent_domain: text(&said["agents_xmpp"]["domain"]),
        customers: said["links"].as_array().into_iter().flatten().map(|link| plain("customer", &text(link))).collect(),
        agents: said["agents"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|agent| plain(local(&text(&agent["jid"])), &text(&agent["password"])))
            .collect(),
        addresses: vec![text(&linked["jid"])],
        _processes: vec![child],
        _folder: folder,
    })
}

fn plain(user: &str, password: &str) -> Credentials {
    Credentials::Plain { user: user.to_owned(), password: password.to_owned() }
}

fn local(jid: &str) -> &str {
    jid.split('@').next().unwrap_or(jid)
}

/// Who faces the customers.
#[derive(Clone, Copy, PartialEq)]
enum Edge {
    /// ejabberd's own TLS listener.
    Own,
    /// HAProxy takes the TLS off, rathole carries the rest to ejabberd.
    Tunnelled,
}

fn ejabberd(load: &Load, edge: Edge) -> Result<Peer, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let place = folder.path();
    let program = if edge == Edge::Tunnelled { Some(rathole::program()?) } else { None };
    if edge == Edge::Tunnelled && !Path::new("/usr/sbin/haproxy").exists() {
        return Err("no haproxy (Debian: apt-get install haproxy)".to_owned());
    }
    let ca_pem = certificates(place);
    let tls_port = free_port();
    let plain_port = free_port();
    let mut processes = vec![start_ejabberd(place, tls_port, plain_port)?];
    await_port(plain_port)?;
    for number in 1..=load.agents {
        ctl(place, &["register", &format!("agent{number}"), "localhost", "secret"])?;
    }
    let (mut customer_port, mut agent_port) = (tls_port, tls_port);
    if let Some(program) = program {
        let (bridge, service) = (free_port(), free_port());
        (customer_port, agent_port) = (free_port(), free_port());
        let ports = Ports { bridge, dialled: bridge, front: service, target: plain_port };
        processes.extend(rathole::start(place, &program, &rathole::noise(&program)?, ports)?);
        await_port(service)?;
        processes.push(start_haproxy(place, customer_port, service, agent_port, plain_port)?);
        await_port(customer_port)?;
    }
    Ok(Peer {
        group: Group::new(processes.iter().map(|process| process.0.id()).collect()),
        ca_pem,
        customer_port,
        customer_domain: "anon.localhost".to_owned(),
        agent_port,
        agent_domain: "localhost".to_owned(),
        customers: Vec::new(),
        agents: (1..=load.agents).map(|number| plain(&format!("agent{number}"), "secret")).collect(),
        addresses: (1..=load.agents).map(|number| format!("agent{number}@localhost")).collect(),
        _processes: processes,
        _folder: folder,
    })
}

fn certificates(place: &Path) -> String {
    let names = vec!["localhost".to_owned(), "anon.localhost".to_owned()];
    let key = rcgen::KeyPair::generate().expect("a key is made");
    let mut params = rcgen::CertificateParams::new(names).expect("the names are DNS names");
    params.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
    // A wide but believable validity: some servers refuse the library's default, which reaches to the year 4096.
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    let (certificate, key) = (params.self_signed(&key).expect("a certificate is made").pem(), key.serialize_pem());
    fs::write(place.join("both.pem"), format!("{certificate}{key}")).expect("the folder is writable");
    certificate
}

/// A copy of Debian's control script that runs as whoever runs the measurement.
fn start_ejabberd(place: &Path, tls_port: u16, plain_port: u16) -> Result<Ended, String> {
    let script = fs::read_to_string("/usr/sbin/ejabberdctl").map_err(|_| "no ejabberd (Debian: apt-get install ejabberd)".to_owned())?;
    let user = String::from_utf8_lossy(&Command::new("id").arg("-un").output().map_err(|e| e.to_string())?.stdout).trim().to_owned();
    fs::write(place.join("ctl"), script.replace("INSTALLUSER=ejabberd", &format!("INSTALLUSER={user}"))).map_err(|e| e.to_string())?;
    let config = include_str!("ejabberd.yml")
        .replace("CERTIFICATE", &place.join("both.pem").to_string_lossy())
        .replace("TLS_PORT", &tls_port.to_string())
        .replace("PLAIN_PORT", &plain_port.to_string());
    fs::write(place.join("ejabberd.yml"), config).map_err(|e| e.to_string())?;
    fs::copy("/etc/ejabberd/inetrc", place.join("inetrc")).map_err(|e| e.to_string())?;
    fs::write(place.join("ejabberdctl.cfg"), "").map_err(|e| e.to_string())?;
    Ended::spawn(ctl_command(place).arg("foreground").stdin(Stdio::null()))
}

fn ctl_command(place: &Path) -> Command {
    let mut command = Command::new("bash");
    let node = format!("bench{}@localhost", std::process::id());
    command.arg(place.join("ctl")).args(["--node", &node, "--config-dir"]).arg(place);
    command.arg("--spool").arg(place.join("spool")).arg("--logs").arg(place.join("logs"));
    command.current_dir(place).env("HOME", place).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn ctl(place: &Path, arguments: &[&str]) -> Result<(), String> {
    let status = ctl_command(place).args(arguments).status().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("ejabberdctl {arguments:?} failed")) }
}

fn start_haproxy(place: &Path, customer_port: u16, service: u16, agent_port: u16, plain_port: u16) -> Result<Ended, String> {
    let both = place.join("both.pem");
    let both = both.display();
    let config = format!(
        "global\n maxconn 9000\n nbthread 2\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
         frontend edge\n bind 127.0.0.1:{customer_port} ssl crt {both} alpn xmpp-client\n default_backend tunnel\n\
         backend tunnel\n server r 127.0.0.1:{service}\n\
         frontend agents\n bind 127.0.0.1:{agent_port} ssl crt {both} alpn xmpp-client\n default_backend ejabberd\n\
         backend ejabberd\n server e 127.0.0.1:{plain_port}\n"
    );
    let path = place.join("haproxy.cfg");
    fs::File::create(&path).and_then(|mut file| file.write_all(config.as_bytes())).map_err(|e| e.to_string())?;
    let mut command = Command::new("/usr/sbin/haproxy");
    Ended::spawn(command.arg("-db").arg("-f").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()))
}
