//! A rathole server and client, joined by an encrypted tunnel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::Ended;

/// How both encrypt: the tables `[server.transport]` and `[client.transport]`.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    pub(crate) server: String,
    pub(crate) client: String,
}

/// Its ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// Where the server listens for the client.
    pub(crate) bridge: u16,
    /// Where the client finds the server: the same, or a path to it.
    pub(crate) dialled: u16,
    /// Where the server listens for customers.
    pub(crate) front: u16,
    /// What the client connects customers to.
    pub(crate) target: u16,
}

/// `cargo install rathole --version 0.5.0 --root target/peers` puts it where this looks, beside the PATH.
pub(crate) fn program() -> Result<PathBuf, String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin/rathole");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("rathole"));
    std::iter::once(own)
        .chain(on_path)
        .find(|path| path.exists())
        .ok_or_else(|| "no rathole (cargo install rathole --version 0.5.0 --root target/peers)".to_owned())
}

/// Its own encryption, as it comes: `Noise_NK_25519_ChaChaPoly_BLAKE2s`.
pub(crate) fn noise(program: &Path) -> Result<Transport, String> {
    let keys = Command::new(program).arg("--genkey").output().map_err(|e| e.to_string())?;
    let keys = String::from_utf8_lossy(&keys.stdout).into_owned();
    let mut lines = keys.lines().map(str::trim).filter(|line| !line.is_empty() && !line.ends_with(':'));
    let (private, public) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    Ok(Transport {
        server: format!("[server.transport]\ntype = \"noise\"\n[server.transport.noise]\nlocal_private_key = \"{private}\"\n"),
        client: format!("[client.transport]\ntype = \"noise\"\n[client.transport.noise]\nremote_public_key = \"{public}\"\n"),
    })
}

/// Starts both; their files go to `place`.
pub(crate) fn start(place: &Path, program: &Path, transport: &Transport, ports: Ports) -> Result<Vec<Ended>, String> {
    let Ports { bridge, dialled, front, target } = ports;
    let server = format!(
        "[server]\nbind_addr = \"127.0.0.1:{bridge}\"\ndefault_token = \"t\"\n{}[server.services.x]\nbind_addr = \"127.0.0.1:{front}\"\n",
        transport.server
    );
    let client = format!(
        "[client]\nremote_addr = \"127.0.0.1:{dialled}\"\ndefault_token = \"t\"\n{}[client.services.x]\nlocal_addr = \"127.0.0.1:{target}\"\n",
        transport.client
    );
    let mut processes = Vec::new();
    for (role, config) in [("--server", server), ("--client", client)] {
        let path = place.join(format!("rathole{role}.toml"));
        fs::write(&path, config).map_err(|e| e.to_string())?;
        let mut command = Command::new(program);
        processes.push(Ended::spawn(command.arg(role).arg(&path).env("RUST_LOG", "error").stdout(Stdio::null()).stderr(Stdio::null()))?);
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(processes)
}
