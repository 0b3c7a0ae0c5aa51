//! An XMPP client with XEP-0198 as the XEP has it: it counts, answers, keeps what is not acknowledged, resumes and re-sends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outgate::net::client::{ClientStream, connect};
use outgate::proto::xmpp::ns;
use outgate::proto::xmpp::reader::{AFTER_LOGIN, ReadEvent, Reader};
use outgate::proto::xmpp::stanza::Element;
use outgate::proto::xmpp::stream_management::{Nonza, Unacknowledged, answer, counts, nonza_of, request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(10);
/// Stanzas after which a client asks what was handled.
const ASK_EVERY: usize = 8;
/// What a test may ask at once.
const COMMANDS: usize = 4096;
const DELAY: &str = "urn:xmpp:delay";

/// Whom a client talks to and who it is.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) address: SocketAddr,
    pub(crate) domain: &'static str,
    pub(crate) ca_pem: String,
    /// Name and password; `None` comes anonymously.
    pub(crate) login: Option<(&'static str, &'static str)>,
    pub(crate) management: Management,
}

/// How much of XEP-0198 a client can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Management {
    /// Nothing; it binds again when its connection is lost.
    Nothing,
    /// It counts; a lost stream is the end.
    Acknowledgements,
    /// All of it.
    Resumption,
}

/// A message as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) from: String,
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) is_delayed: bool,
}

/// What a client went through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) shown: Vec<Said>,
    /// Stanza errors and broken promises of the server.
    pub(crate) faults: Vec<String>,
    pub(crate) bound: usize,
    pub(crate) resumed: usize,
    pub(crate) is_over: bool,
    pub(crate) unacknowledged: usize,
    last_h: u32,
}

impl Log {
    /// Bodies that begin with `prefix`, in the order in which they came.
    pub(crate) fn texts(&self, prefix: &str) -> Vec<String> {
        self.shown.iter().map(|said| said.body.clone()).filter(|body| body.starts_with(prefix)).collect()
    }
}

/// A client at work.
#[derive(Debug)]
pub(crate) struct Client {
    name: &'static str,
    commands: mpsc::Sender<Command>,
    log: Arc<Mutex<Log>>,
    _task: JoinSet<()>,
}

#[derive(Debug)]
enum Command {
    Say {
        to: String,
        body: String,
    },
    Close,
    /// Stops to read, or breaks the connection off, until `Back`.
    Away(Absence),
    Back,
}

/// How a client is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    Frozen,
    Disconnected,
}

impl Client {
    pub(crate) fn start(name: &'static str, account: Account) -> Self {
        let (commands, received) = mpsc::channel(COMMANDS);
        let log = Arc::new(Mutex::new(Log::default()));
        let session = Session {
            account,
            commands: received,
            log: Arc::clone(&log),
            previd: None,
            received: 0,
            sent: None,
            is_asking: false,
            since_asked: 0,
            next_id: 0,
            is_closing: false,
            absence: None,
        };
        let mut task = JoinSet::new();
        task.spawn(session.run());
        Self { name, commands, log, _task: task }
    }

    pub(crate) fn say(&self, to: &str, body: String) {
        self.commands.try_send(Command::Say { to: to.to_owned(), body }).unwrap();
    }

    /// Says all that was asked before, then ends the stream.
    pub(crate) fn close(&self) {
        self.commands.try_send(Command::Close).unwrap();
    }

    pub(crate) fn leave(&self, absence: Absence) {
        self.commands.try_send(Command::Away(absence)).unwrap();
    }

    pub(crate) fn come_back(&self) {
        self.commands.try_send(Command::Back).unwrap();
    }

    pub(crate) fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    /// Looks at the log where it lies.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.log.lock().unwrap())
    }

    /// Waits until the log is as wanted.
    pub(crate) async fn until<T>(&self, what: &str, find: impl Fn(&Log) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = find(&self.log.lock().unwrap()) {
                return found;
            }
            if tokio::time::Instant::now() > deadline {
                let log = self.log();
                let tail: Vec<&Said> = log.shown.iter().rev().take(4).collect();
                panic!(
                    "{} waited for {what} in vain: shown {}, the last {tail:?}, unacknowledged {}, bound {}, resumed {}, over {}, faults {:?}",
                    self.name,
                    log.shown.len(),
                    log.unacknowledged,
                    log.bound,
                    log.resumed,
                    log.is_over,
                    log.faults
                );
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// The client's own side: it lives on while connections come and go.
struct Session {
    account: Account,
    commands: mpsc::Receiver<Command>,
    log: Arc<Mutex<Log>>,
    previd: Option<String>,
    received: u32,
    sent: Option<Unacknowledged<Element>>,
    is_asking: bool,
    since_asked: usize,
    next_id: u64,
    is_closing: bool,
    absence: Option<Absence>,
}

impl Session {
    async fn run(mut self) {
        loop {
            let Ok(mut stream) = self.arrive().await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            self.converse(&mut stream).await;
            if let Some(absence) = self.absence.take() {
                let held = (absence == Absence::Frozen).then_some(stream);
                while !matches!(self.commands.recv().await, Some(Command::Back) | None) {}
                drop(held);
                continue;
            }
            if self.is_closing || self.account.management == Management::Acknowledgements {
                break;
            }
        }
        self.with(|log| log.is_over = true);
    }

    async fn arrive(&mut self) -> std::io::Result<Stream> {
        let mut stream = Stream::log_in(&self.account).await?;
        self.is_asking = false;
        if let Some(previd) = self.previd.clone() {
            let resume = nonza("resume").with_attribute("previd", previd).with_attribute("h", self.received.to_string());
            stream.send(&resume);
            let resumed = stream.next().await?;
            if resumed.is("error", ns::STREAM) {
                // Nobody can say at this moment: it asks again.
                return Err(broken());
            }
            if !resumed.is("resumed", ns::STREAM_MANAGEMENT) {
                self.fault(format!("not resumed: {}", resumed.to_xml()));
                return Err(broken());
            }
            self.told(&resumed);
            self.with(|log| log.resumed += 1);
            for again in self.sent.iter().flat_map(Unacknowledged::iter) {
                stream.send(again);
            }
            self.ask(&mut stream);
            return Ok(stream);
        }
        stream.bind().await?;
        self.with(|log| log.bound += 1);
        if self.account.management != Management::Nothing {
            let enable = nonza("enable");
            let resumes = self.account.management == Management::Resumption;
            stream.send(&if resumes { enable.with_attribute("resume", "true") } else { enable });
            let enabled = loop {
                let element = stream.next().await?;
                if element.is("enabled", ns::STREAM_MANAGEMENT) {
                    break element;
                }
            };
            self.previd = enabled.attribute("id").map(str::to_owned);
            self.sent = Some(Unacknowledged::new());
        }
        self.send(&mut stream, Element::new("presence", ns::CLIENT));
        Ok(stream)
    }

    async fn converse(&mut self, stream: &mut Stream) {
        let mut is_broken = false;
        loop {
            loop {
                match stream.reader.poll() {
                    Ok(Some(ReadEvent::Stanza(element))) => {
                        is_broken |= element.is("error", ns::STREAM);
                        self.take_in(stream, &element);
                    }
                    Ok(Some(ReadEvent::StreamOpen(_))) => {}
                    Ok(Some(ReadEvent::StreamClose)) => {
                        // A stream that is ended without an error is over for good.
                        self.is_closing |= !is_broken;
                        stream.out.extend_from_slice(b"</stream:stream>");
                        while stream.turn().await.unwrap_or(false) {}
                        return;
                    }
                    Ok(None) => break,
                    Err(fault) => return self.fault(format!("the server's XML: {}", fault.condition())),
                }
            }
            tokio::select! {
                biased;
                turned = stream.turn() => if !turned.unwrap_or(false) { return },
                command = self.commands.recv(), if !self.is_closing => match command {
                    Some(Command::Say { to, body }) => self.say(stream, &to, &body),
                    Some(Command::Close) => {
                        self.is_closing = true;
                        stream.out.extend_from_slice(b"</stream:stream>");
                    }
                    Some(Command::Away(absence)) => {
                        self.absence = Some(absence);
                        return;
                    }
                    Some(Command::Back) => {}
                    None => return,
                },
            }
        }
    }

    fn say(&mut self, stream: &mut Stream, to: &str, body: &str) {
        self.next_id += 1;
        let message = Element::new("message", ns::CLIENT)
            .with_attribute("type", "chat")
            .with_attribute("to", to)
            .with_attribute("id", format!("m{}", self.next_id))
            .with_child(Element::new("body", ns::CLIENT).with_text(body));
        self.send(stream, message);
    }

    fn send(&mut self, stream: &mut Stream, stanza: Element) {
        stream.send(&stanza);
        if let Some(sent) = &mut self.sent {
            sent.sent(stanza);
            self.since_asked += 1;
            let unacknowledged = sent.len();
            self.with(|log| log.unacknowledged = unacknowledged);
            if self.since_asked >= ASK_EVERY || !self.is_asking {
                self.ask(stream);
            }
        }
    }

    fn ask(&mut self, stream: &mut Stream) {
        self.is_asking = true;
        self.since_asked = 0;
        stream.send(&request());
    }

    fn take_in(&mut self, stream: &mut Stream, element: &Element) {
        match nonza_of(element) {
            Some(Nonza::Request) => return stream.send(&answer(self.received)),
            Some(Nonza::Answer { .. }) => {
                self.is_asking = false;
                self.told(element);
                if self.since_asked > 0 {
                    self.ask(stream);
                }
                return;
            }
            Some(Nonza::Enable { .. } | Nonza::Resume { .. }) | None => {}
        }
        if !counts(element) {
            return self.fault(format!("unexpected: {}", element.to_xml()));
        }
        if self.sent.is_some() {
            self.received = self.received.wrapping_add(1);
        }
        match (element.name(), element.attribute("type")) {
            (_, Some("error")) => self.fault(element.to_xml()),
            ("iq", Some("get")) => {
                let mut reply = Element::new("iq", ns::CLIENT).with_attribute("type", "result");
                for (ours, theirs) in [("id", "id"), ("to", "from")] {
                    reply.set_attribute(ours, element.attribute(theirs).unwrap_or_default());
                }
                self.send(stream, reply);
            }
            ("message", _) => self.show(element),
            _ => {}
        }
    }

    fn show(&self, message: &Element) {
        let Some(body) = message.child("body", ns::CLIENT).map(Element::text) else { return };
        let attribute = |name| message.attribute(name).unwrap_or_default().to_owned();
        let is_delayed = message.child("delay", DELAY).is_some();
        let from = attribute("from").split('/').next().unwrap_or_default().to_owned();
        let said = Said { from, id: attribute("id"), body, is_delayed };
        self.with(|log| log.shown.push(said));
    }

    /// The server told how much it has handled.
    fn told(&mut self, element: &Element) {
        let h: u32 = element.attribute("h").and_then(|h| h.parse().ok()).unwrap();
        let Some(sent) = &mut self.sent else { return };
        let faulty = sent.acknowledged(h).err().map(|fault| fault.to_string());
        let unacknowledged = sent.len();
        self.with(|log| {
            if h < log.last_h {
                log.faults.push(format!("h went back from {} to {h}", log.last_h));
            }
            log.faults.extend(faulty);
            log.last_h = h;
            log.unacknowledged = unacknowledged;
        });
    }

    fn fault(&self, fault: String) {
        self.with(|log| log.faults.push(fault));
    }

    fn with(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.log.lock().unwrap());
    }
}

/// One connection.
struct Stream {
    reading: ReadHalf<ClientStream>,
    writing: WriteHalf<ClientStream>,
    reader: Reader,
    out: Vec<u8>,
    is_dirty: bool,
    header: String,
}

impl Stream {
    async fn log_in(account: &Account) -> std::io::Result<Self> {
        let connection = connect(account.address, account.domain, &account.ca_pem).await?;
        let (reading, writing) = tokio::io::split(connection);
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
            account.domain
        );
        let mut stream = Self { reading, writing, reader: Reader::new(AFTER_LOGIN), out: Vec::new(), is_dirty: false, header };
        stream.open().await?;
        let (mechanism, text) = match account.login {
            Some((user, password)) => ("PLAIN", STANDARD.encode(format!("\0{user}\0{password}"))),
            None => ("ANONYMOUS", "=".to_owned()),
        };
        stream.send(&Element::new("auth", ns::SASL).with_attribute("mechanism", mechanism).with_text(text));
        if !stream.next().await?.is("success", ns::SASL) {
            return Err(broken());
        }
        stream.reader.restart_keeping();
        stream.open().await?;
        Ok(stream)
    }

    async fn open(&mut self) -> std::io::Result<()> {
        self.out.extend_from_slice(self.header.as_bytes());
        if self.next().await?.is("features", ns::STREAM) { Ok(()) } else { Err(broken()) }
    }

    async fn bind(&mut self) -> std::io::Result<()> {
        let bind = Element::new("bind", ns::BIND).with_child(Element::new("resource", ns::BIND).with_text("crash"));
        let iq = Element::new("iq", ns::CLIENT).with_attribute("type", "set").with_attribute("id", "bind").with_child(bind);
        self.send(&iq);
        if self.next().await?.attribute("type") == Some("result") { Ok(()) } else { Err(broken()) }
    }

    fn send(&mut self, element: &Element) {
        let mut text = String::new();
        element.write(ns::CLIENT, &mut text);
        self.out.extend_from_slice(text.as_bytes());
    }

    async fn next(&mut self) -> std::io::Result<Element> {
        loop {
            match self.reader.poll() {
                Ok(Some(ReadEvent::Stanza(element))) => return Ok(element),
                Ok(Some(ReadEvent::StreamOpen(_))) => {}
                Ok(None) => {
                    if !self.turn().await? {
                        return Err(broken());
                    }
                }
                Ok(Some(ReadEvent::StreamClose)) | Err(_) => return Err(broken()),
            }
        }
    }

    /// Reads or writes once, whichever is possible; false at the end. Nothing is lost when it is dropped.
    async fn turn(&mut self) -> std::io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        tokio::select! {
            read = self.reading.read(&mut chunk) => {
                let count = read?;
                self.reader.push(&chunk[..count]);
                Ok(count > 0)
            }
            written = write(&mut self.writing, &self.out), if self.is_dirty || !self.out.is_empty() => {
                let count = written?;
                self.out.drain(..count);
                self.is_dirty = count > 0;
                Ok(true)
            }
        }
    }
}

/// Writes some bytes, or flushes where there are none.
async fn write(writing: &mut WriteHalf<ClientStream>, bytes: &[u8]) -> std::io::Result<usize> {
    if bytes.is_empty() { writing.flush().await.map(|()| 0) } else { writing.write(bytes).await }
}

fn nonza(name: &'static str) -> Element {
    Element::new(name, ns::STREAM_MANAGEMENT)
}

fn broken() -> std::io::Error {
    std::io::ErrorKind::ConnectionAborted.into()
}
