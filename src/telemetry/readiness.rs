//! Readiness for systemd, told with an unconnected datagram: connect(2) is refused where a relay is packaged.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// From the end of a drain to the end of the process, at most.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// Tells `state` ("READY=1") to the socket that `NOTIFY_SOCKET` names, if any.
pub fn notify(state: &str) {
    let Ok(name) = std::env::var("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&name, state) {
        tracing::warn!(%error, "readiness could not be told");
    }
}

/// Tells that the process stops, within this time and some more for its last words: a service manager whose own limit is shorter waits so
/// long before it kills.
pub fn stopping(within: Duration) {
    notify(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", (within + LAST_WORDS).as_micros()));
}

fn send(name: &str, state: &str) -> std::io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_reaches_a_socket_named_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.to_str().unwrap(), "READY=1").unwrap();
        let mut bytes = [0; 16];
        let length = socket.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1");
    }
}
