//! Enrolment as an admin does it, with the built program, against `outgate ca serve`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::site::mode;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_connector_enrols_with_a_token_once_and_nothing_secret_is_told_to_anybody() {
    let place = Place::new();
    let ca = place.serve();
    let token = place.ok(&["ca", "token", "ca", "--name", "lan1", "--ttl", "1h"]).trim().to_owned();
    assert!(token.starts_with("outgate-token-") && token.len() == 57, "256 bits");

    // From stdin; the fingerprint with openssl's colons.
    let colons: Vec<String> = ca.fingerprint.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
    let enrol = ["connector", "enroll", "--ca", &ca.url, "--ca-sha256", &colons.join(":"), "--token-file", "-", "--out", "tunnel"];
    let enrolled = place.outgate(&enrol, &format!("{token}\n"));
    assert_eq!(enrolled.code, 0, "{enrolled:?}");
    assert!(enrolled.stdout.starts_with("outgate://example/connector/lan1\n"), "{enrolled:?}");
    assert_eq!(mode(&place.path("tunnel/connector-key.pem")), 0o600);
    assert_eq!(place.read("tunnel/ca.pem"), place.read("ca/ca.pem"));
    let loaded = outgate::net::certificates::load(&place.path("tunnel/connector.pem"), &place.path("tunnel/connector-key.pem"));
    assert!(loaded.is_ok());

    // The same once more: nothing is overwritten; elsewhere, the token is used up, and what to do about it is told.
    let again = place.outgate(&enrol, &token);
    assert!(again.code == 1 && again.stderr.contains("exists already"), "{again:?}");
    let mut elsewhere = enrol;
    elsewhere[9] = "elsewhere";
    let used = place.outgate(&elsewhere, &token);
    assert!(used.code == 1 && used.stderr.contains("used already"), "{used:?}");
    assert!(used.stderr.contains("hint:") && used.stderr.contains("outgate ca token"), "{used:?}");
    assert!(!place.path("elsewhere/connector-key.pem").exists());

    let list: Value = serde_json::from_str(&place.ok(&["ca", "list", "ca", "--json"])).unwrap();
    assert_eq!(list["certificates"][0]["name"], "outgate://example/connector/lan1");
    assert_eq!((list["certificates"][0]["state"].as_str(), list["tokens"].as_array().map(Vec::len)), (Some("valid"), Some(0)));

    // Nothing secret in any log, answer or argument.
    let log = ca.stop();
    assert!(
        log.contains("\"audit\":\"enroll\"") && log.contains("\"audit\":\"enroll\"") && log.contains("outgate://example/connector/lan1"),
        "{log}"
    );
    let said = [log.as_str(), &enrolled.stdout, &enrolled.stderr, &again.stderr, &used.stderr].concat();
    let mut secrets = vec![token.clone(), token["outgate-token-".len()..].to_owned()];
    for key in ["tunnel/connector-key.pem", "ca/ca-key.pem"] {
        secrets.extend(place.read(key).lines().filter(|line| line.len() > 30).map(str::to_owned));
    }
    for secret in secrets {
        assert!(!said.contains(&secret), "a secret was told");
        assert!(!place.read("ca/tokens.jsonl").contains(&secret), "a secret was kept");
    }
}

#[test]
fn a_wrong_fingerprint_ends_it_before_the_token_is_shown() {
    let place = Place::new();
    let ca = place.serve();
    let token = place.ok(&["ca", "token", "ca", "--name", "lan1"]);
    let wrong = "0".repeat(64);
    let enrol = |fingerprint: &str, out: &str| {
        place.outgate(&["connector", "enroll", "--ca", &ca.url, "--ca-sha256", fingerprint, "--token-file", "-", "--out", out], &token)
    };
    let refused = enrol(&wrong, "a");
    assert!(refused.code == 1 && refused.stderr.contains("fingerprint"), "{refused:?}");
    assert!(!place.path("a/connector-key.pem").exists());
    // The token is as good as before.
    assert_eq!(enrol(&ca.fingerprint, "b").code, 0);
}

#[test]
fn wrong_tokens_are_refused_and_soon_not_even_looked_at() {
    let place = Place::new();
    let ca = place.serve();
    let enrol = |token: &str| {
        let args = ["connector", "enroll", "--ca", &ca.url, "--ca-sha256", &ca.fingerprint, "--token-file", "-", "--out", "out"];
        place.outgate(&args, token)
    };
    for _ in 0..5 {
        let wrong = enrol("outgate-token-guess");
        assert!(wrong.code == 1 && wrong.stderr.contains("not one of this CA"), "{wrong:?}");
        assert!(!wrong.stderr.contains("guess"), "{wrong:?}");
    }
    let wrong = enrol("outgate-token-guess");
    assert!(wrong.stderr.contains("too many wrong tokens"), "{wrong:?}");
    assert!(ca.stop().contains("too-many-wrong-tokens"));
}

#[test]
fn a_ca_that_is_not_there_is_told_with_a_remedy_and_a_token_is_never_an_argument() {
    let place = Place::new();
    let fingerprint = "0".repeat(64);
    let nobody = place.outgate(
        &["connector", "enroll", "--ca", "https://127.0.0.1:9", "--ca-sha256", &fingerprint, "--token-file", "-", "--out", "out"],
        "outgate-token-x",
    );
    assert!(nobody.code == 1 && nobody.stderr.contains("cannot reach the CA") && nobody.stderr.contains("outgate ca serve"), "{nobody:?}");
    let none = place.outgate(
        &["connector", "enroll", "--ca", "https://127.0.0.1:9", "--ca-sha256", &fingerprint, "--token-file", "-", "--out", "out"],
        "",
    );
    assert!(none.code == 1 && none.stderr.contains("there is no token"), "{none:?}");
    for wrong in [
        &["connector", "enroll", "--ca", "http://127.0.0.1:9", "--ca-sha256", fingerprint.as_str(), "--token-file", "-", "--out", "o"][..],
        &["connector", "enroll", "--ca", "https://127.0.0.1:9", "--ca-sha256", "abc", "--token-file", "-", "--out", "o"],
        &["connector", "enroll", "--ca", "https://127.0.0.1:9", "--ca-sha256", fingerprint.as_str(), "--token", "x", "--out", "o"],
    ] {
        assert_eq!(place.outgate(wrong, "").code, 2, "{wrong:?}");
    }
}

#[test]
fn a_ca_revokes_by_name_and_rolls_and_lists_both() {
    let place = Place::new();
    place.ok(&["ca", "issue", "ca", "--connector", "lan1", "--out", "lan1"]);
    let revoked = place.ok(&["ca", "revoke", "ca", "lan1", "--why", "stolen"]);
    assert!(revoked.contains("outgate://example/connector/lan1") && revoked.contains("list number 1"), "{revoked}");
    assert!(place.ok(&["ca", "list", "ca"]).contains("revoked "));
    let nothing = place.outgate(&["ca", "revoke", "ca", "lan1"], "");
    assert!(nothing.code == 1 && nothing.stderr.contains("hint: `outgate ca list`"), "{nothing:?}");

    let rolled = place.ok(&["ca", "init", "ca", "--roll", "--settle", "30d"]);
    assert_eq!(rolled.matches("BEGIN CERTIFICATE").count(), 2, "{rolled}");
    let again = place.outgate(&["ca", "init", "ca", "--roll"], "");
    assert!(again.code == 1 && again.stderr.contains("successor was made already"), "{again:?}");
    // What is issued now knows both.
    place.ok(&["ca", "issue", "ca", "--connector", "lan2", "--out", "lan2"]);
    assert_eq!(place.read("lan2/ca.pem").matches("BEGIN CERTIFICATE").count(), 2);
}

#[tokio::test]
async fn strangers_who_say_nothing_or_too_much_cost_the_service_little() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let place = Place::new();
    let ca = place.serve();
    let address = ca.url.trim_start_matches("https://").to_owned();
    // Silent, and speaking no TLS.
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        silent.push(socket);
        silent.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let token = place.ok(&["ca", "token", "ca", "--name", "lan1"]);
    let large = format!("{}{}", token.trim(), "x".repeat(15_000));
    let enrol = ["connector", "enroll", "--ca", &ca.url, "--ca-sha256", &ca.fingerprint, "--token-file", "-", "--out", "out"];
    let refused = place.outgate(&enrol, &large);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(place.outgate(&enrol, &token).code, 0);
    let mut last = silent.pop().unwrap();
    drop(silent);
    drop(last.write_all(b"x").await);
    assert!(tokio::time::timeout(PATIENCE, last.read(&mut [0; 8])).await.is_ok(), "it is let go");
}

#[tokio::test]
async fn one_address_has_a_share_of_the_service_and_its_longest_waiter_gives_way() {
    let place = Place::new();
    let ca = place.serve();
    let address = ca.url.trim_start_matches("https://").parse().unwrap();
    let connect = async |from: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        socket.connect(address).await.unwrap()
    };
    let neighbour = connect("127.0.0.2").await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(connect("127.0.0.1").await);
    }
    // Long before the deadline of a connection, and all but sixteen.
    let closed = async |socket: &tokio::net::TcpStream| {
        let closed = tokio::time::timeout(Duration::from_secs(10), socket.readable()).await;
        assert!(closed.is_ok(), "it did not give way");
    };
    for socket in &crowd[..84] {
        closed(socket).await;
    }
    let stands =
        |socket: &tokio::net::TcpStream| socket.try_read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(stands(&neighbour), "another address does not pay for it");
    assert!(crowd[84..].iter().all(stands));
    let token = place.ok(&["ca", "token", "ca", "--name", "lan1"]);
    let enrol = ["connector", "enroll", "--ca", &ca.url, "--ca-sha256", &ca.fingerprint, "--token-file", "-", "--out", "out"];
    assert_eq!(place.outgate(&enrol, &token).code, 0);
    closed(&crowd[84]).await;
    assert!(stands(&neighbour));
}

#[derive(Debug)]
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

/// A folder with a CA.
struct Place {
    folder: TempDir,
}

/// `outgate ca serve`. Dropping it kills it.
struct Serving {
    url: String,
    fingerprint: String,
    child: Child,
    log: Arc<Mutex<String>>,
    ended: Receiver<()>,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.ok(&["ca", "init", "ca", "--org", "example"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn serve(&self) -> Serving {
        let mut child = self.command(&["ca", "serve", "ca", "--listen", "127.0.0.1:0", "--json"]).stdin(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let first: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        let (log, (sender, ended)) = (Arc::new(Mutex::new(String::new())), sync_channel(1));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            lines.for_each(|line| kept.lock().unwrap().push_str(&(line + "\n")));
            let _unheard = sender.send(());
        });
        let text = |key: &str| first[key].as_str().unwrap().to_owned();
        Serving { url: format!("https://{}", text("address")), fingerprint: text("sha256"), child, log, ended }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_outgate")));
        command.args(args).current_dir(self.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn outgate(&self, args: &[&str], input: &str) -> Answer {
        let mut child = self.command(args).spawn().unwrap();
        // A program that does not read its input may be gone already.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Answer { code: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let answer = self.outgate(args, "");
        assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
        answer.stdout
    }
}

impl Serving {
    /// Ends it, and answers with all that it logged.
    fn stop(mut self) -> String {
        drop(self.child.kill());
        drop(self.child.wait());
        let _ended = self.ended.recv_timeout(PATIENCE);
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
