//! One client behind its driver: commands go in, events come out, every wait is bounded and ends with the transcript.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::needs::drivers_home;

/// Long enough for a loaded machine; a pass never waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The clients that have a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Slixmpp,
    Profanity,
    Finch,
    XmppJs,
}

impl Kind {
    /// What an agent is told about a customer's software.
    pub(crate) fn software(self) -> &'static str {
        match self {
            Self::Slixmpp => "Slixmpp 1.17.0",
            Self::Profanity => "Profanity 0.13.1",
            Self::Finch => "Finch 2.14.12",
            // It answers no question about itself, but says hello as nobody else does.
            Self::XmppJs => "Node.js",
        }
    }
}

/// How the client is to secure its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    Starttls,
    Direct,
}

/// Where and as whom a client connects. Without a JID it is SASL ANONYMOUS.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Tls,
    pub(crate) domain: String,
    pub(crate) jid: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) ca_file: PathBuf,
}

/// What a client shows its user, as its driver reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    Ready { client: String },
    Connected { jid: String },
    Message { from: String, body: String },
    Presence { from: Option<String>, show: String },
    Error { text: String },
    AuthFailed { condition: Option<String>, text: Option<String> },
    A { h: i64 },
    Resumed { h: i64 },
    Screen { text: String },
    Closed,
}

/// A running client. Dropping it ends its driver, and with the driver everything that the driver started.
#[derive(Debug)]
pub(crate) struct Driver {
    name: String,
    child: Child,
    commands: Option<ChildStdin>,
    seen: Arc<Seen>,
    reader: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl Driver {
    /// Starts the driver of `kind`; `name` is what failures call it. xmpp.js takes its CA from the environment.
    pub(crate) fn start(kind: Kind, name: &str, ca_file: &Path) -> Self {
        Self::start_under(&[], kind, name, ca_file)
    }

    /// The same, under a program that runs what follows its own arguments.
    pub(crate) fn start_under(prefix: &[String], kind: Kind, name: &str, ca_file: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("im").tempdir().unwrap();
        let mut child = under(prefix, &invocation(kind, folder.path()))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NODE_EXTRA_CA_CERTS", ca_file)
            .env("XMPPJS_HOME", drivers_home().join("npm"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let seen = Arc::new(Seen::default());
        let output = BufReader::new(child.stdout.take().unwrap());
        let reader = Some(std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || seen.fill(output)
        }));
        let commands = child.stdin.take();
        Self { name: format!("{name} ({kind:?})"), child, commands, seen, reader, _folder: folder }
    }

    /// Logs in and returns the full JID that the server bound.
    pub(crate) fn connect(&mut self, login: &Login) -> String {
        self.try_connect(login);
        self.expect("to be connected", |events| events.iter().rev().find_map(connected))
    }

    /// Asks for the login without waiting for what becomes of it.
    pub(crate) fn try_connect(&mut self, login: &Login) {
        let tls = match login.tls {
            Tls::Starttls => "starttls",
            Tls::Direct => "direct",
        };
        self.command(&json!({
            "do": "connect", "host": login.host, "port": login.port, "tls": tls, "domain": login.domain,
            "jid": login.jid, "password": login.password, "ca_file": login.ca_file,
        }));
    }

    pub(crate) fn send(&mut self, to: &str, body: &str) {
        self.command(&json!({ "do": "send", "to": to, "body": body }));
    }

    /// Waits for a message that `is` accepts; `is` sees the sender's bare JID and the text.
    pub(crate) fn expect_message(&self, what: &str, is: impl Fn(&str, &str) -> bool) -> (String, String) {
        self.expect(what, |events| events.iter().filter_map(message).find(|(from, body)| is(from, body)))
    }

    /// Waits until `count` texts that start with `prefix` have come, and returns all of them in the order shown.
    pub(crate) fn expect_texts(&self, prefix: &str, count: usize) -> Vec<String> {
        self.expect_within(&format!("{count} texts that start with {prefix:?}"), PATIENCE * 2, |events| {
            let texts = texts(events, prefix);
            (texts.len() >= count).then_some(texts)
        })
    }

    /// What a person sees in the window of the conversation with `of`.
    pub(crate) fn screen(&mut self, of: Option<&str>) -> String {
        let screens = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Screen { .. })).count();
        let before = screens(&self.events());
        self.command(&json!({ "do": "screen", "of": of }));
        self.expect("its screen", |events| {
            let after = events.iter().rev().find_map(|event| if let Event::Screen { text } = event { Some(text.clone()) } else { None });
            after.filter(|_| screens(events) > before)
        })
    }

    /// Waits until `find` finds what it looks for in all that has been seen so far.
    pub(crate) fn expect<T>(&self, what: &str, find: impl Fn(&[Event]) -> Option<T>) -> T {
        self.expect_within(what, PATIENCE, find)
    }

    /// The same with a patience of the caller's.
    pub(crate) fn expect_within<T>(&self, what: &str, patience: Duration, find: impl Fn(&[Event]) -> Option<T>) -> T {
        let found = self.seen.wait(patience, &find);
        found.unwrap_or_else(|| panic!("{} waited (at most {patience:?}) for {what}, in vain. {}", self.name, self.transcript()))
    }

    /// Leaves as a person would, and returns all that was seen. A client that shows its user an error fails the test.
    pub(crate) fn quit_without_errors(mut self) -> Vec<Event> {
        self.command(&json!({ "do": "quit" }));
        self.expect("its own end", |events| events.contains(&Event::Closed).then_some(()));
        self.commands = None;
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let wrong = |event: &Event| matches!(event, Event::Error { .. } | Event::AuthFailed { .. });
        assert!(status.success() && !self.events().iter().any(wrong), "{} ended with {status}. {}", self.name, self.transcript());
        self.events()
    }

    /// All that was seen so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.seen.log.lock().unwrap().events.clone()
    }

    fn command(&mut self, command: &Value) {
        let pipe = self.commands.as_mut().unwrap();
        if let Err(fault) = writeln!(pipe, "{command}").and_then(|()| pipe.flush()) {
            panic!("{} took no command: {fault}. {}", self.name, self.transcript());
        }
    }

    fn transcript(&self) -> String {
        let mut text = "It showed:\n".to_owned();
        for event in self.events() {
            writeln!(text, "  {event:?}").unwrap();
        }
        if self.seen.log.lock().unwrap().ended {
            text += "Then its driver ended; what it said of that is on stderr.\n";
        }
        text
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The end of its input is the driver's word to end its client; a driver that is stuck is killed, and its
        // tmux server then gets the parent-death signal.
        drop(self.commands.take());
        if self.reader.is_some() && self.seen.wait_for_end(Duration::from_secs(10)) {
            let _status = self.child.wait();
        } else {
            let _ended = self.child.kill();
            let _status = self.child.wait();
        }
    }
}

/// The events of one driver, filled by the thread that reads its output.
#[derive(Debug, Default)]
struct Seen {
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<Event>,
    ended: bool,
}

impl Seen {
    fn fill(&self, output: impl BufRead) {
        for line in output.lines().map_while(Result::ok) {
            let event =
                serde_json::from_str(&line).unwrap_or_else(|fault| Event::Error { text: format!("not an event ({fault}): {line}") });
            self.log.lock().unwrap().events.push(event);
            self.changed.notify_all();
        }
        self.log.lock().unwrap().ended = true;
        self.changed.notify_all();
    }

    /// Waits for `find` to find something, not longer than the driver lives.
    fn wait<T>(&self, patience: Duration, find: &impl Fn(&[Event]) -> Option<T>) -> Option<T> {
        let log = self.log.lock().unwrap();
        let waiting = |log: &mut Log| !log.ended && find(&log.events).is_none();
        let (log, _) = self.changed.wait_timeout_while(log, patience, waiting).unwrap();
        find(&log.events)
    }

    fn wait_for_end(&self, patience: Duration) -> bool {
        let log = self.log.lock().unwrap();
        self.changed.wait_timeout_while(log, patience, |log| !log.ended).unwrap().0.ended
    }
}

/// A JID without its resource.
pub(crate) fn bare(jid: &str) -> &str {
    jid.split_once('/').map_or(jid, |(bare, _)| bare)
}

/// The texts that start with `prefix`, in the order shown.
pub(crate) fn texts(events: &[Event], prefix: &str) -> Vec<String> {
    events.iter().filter_map(message).filter(|(_, body)| body.starts_with(prefix)).map(|(_, body)| body).collect()
}

fn message(event: &Event) -> Option<(String, String)> {
    if let Event::Message { from, body } = event { Some((bare(from).to_owned(), body.clone())) } else { None }
}

fn connected(event: &Event) -> Option<String> {
    if let Event::Connected { jid } = event { Some(jid.clone()) } else { None }
}

fn invocation(kind: Kind, folder: &Path) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers");
    let script = match kind {
        Kind::Slixmpp => "slixmpp_client.py",
        Kind::Profanity => "profanity.py",
        Kind::Finch => "finch.py",
        Kind::XmppJs => "xmppjs.mjs",
    };
    let mut command = match kind {
        Kind::XmppJs => Command::new("node"),
        Kind::Slixmpp | Kind::Profanity | Kind::Finch => Command::new(drivers_home().join("venv/bin/python")),
    };
    command.arg(scripts.join(script)).arg(folder);
    command
}

fn under(prefix: &[String], command: &Command) -> Command {
    let words = prefix.iter().map(AsRef::as_ref).chain([command.get_program()]).chain(command.get_args());
    let words: Vec<&OsStr> = words.collect();
    let mut whole = Command::new(words[0]);
    whole.args(&words[1..]);
    whole
}
