//! A client's stream from its first byte to resource binding, the server's side (RFC 6120 §4–§7).
//!
//! header → STARTTLS (where TLS is not there yet) → header → SASL → header → bind, or resumption (XEP-0198).
//! Nothing but STARTTLS is offered outside TLS; the domain of the login stays the stream's domain.
//!
//! Poll order: after every `handle_bytes` or answer, drain `poll_output`, then `poll_action`; an action that asks must be
//! answered before more bytes are handled. Bytes that come meanwhile wait, up to [`MAX_WAITING`].

mod bind;
mod header;
mod login;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use self::login::Exchange;
use super::ns;
use super::reader::{AFTER_LOGIN, BEFORE_LOGIN, ReadEvent, Reader};
use super::sasl::{SaslFailure, ScramKeys};
use super::stanza::{Element, escape_attribute, escape_text};

/// Most bytes that wait for an answer of the shell.
pub const MAX_WAITING: usize = 256 * 1024;

/// How the stream is protected when negotiation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Plain TCP: nothing but STARTTLS is offered.
    Plain,
    /// Inside TLS (direct, or after STARTTLS).
    Tls,
}

/// A mechanism that may be offered inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 7677.
    ScramSha256,
    /// RFC 4616.
    Plain,
    /// RFC 4505.
    Anonymous,
}

/// What this listener offers.
pub struct NegotiationSettings {
    /// Served domains with the mechanisms of each, in order of offer. A stream to any other domain ends with host-unknown.
    pub domains: Vec<(String, Vec<Mechanism>)>,
    /// Login attempts per stream.
    pub attempts: u8,
    /// Whether XEP-0198 is among the features after login.
    pub stream_management: bool,
    /// Whether `<resume/>` is handed to the shell as [`Action::Resume`]; else it fails with item-not-found.
    pub resumption: bool,
    /// Secret from which the salts of unknown users are made, so that asking twice does not tell them from known ones.
    pub salt_secret: [u8; 32],
}

impl std::fmt::Debug for NegotiationSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NegotiationSettings")
            .field("domains", &self.domains)
            .field("attempts", &self.attempts)
            .field("stream_management", &self.stream_management)
            .field("resumption", &self.resumption)
            .finish_non_exhaustive()
    }
}

/// What the shell must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// `<proceed/>` is in the output: write it, do the TLS handshake, then call `tls_established`.
    StartTls,
    /// Verify this login, then call `verdict`.
    Verify(Login),
    /// Find the keys of this user, then call `scram_keys`.
    FindScramKeys {
        /// The served domain.
        domain: String,
        /// The user name.
        user: String,
    },
    /// Choose the full JID, then call `bound`.
    Bind {
        /// The served domain.
        domain: String,
        /// The authenticated user's name; empty for ANONYMOUS.
        user: String,
        /// The resource wished for.
        resource: Option<String>,
    },
    /// Resume an earlier stream of this user, then call `resume_accepted` or `resume_refused`.
    Resume {
        /// The served domain.
        domain: String,
        /// The authenticated user's name; empty for ANONYMOUS.
        user: String,
        /// The earlier stream's id.
        previd: String,
        /// Stanzas the client has handled.
        h: u32,
    },
    /// Bound or resumed, and the result is in the output: call `into_reader`, the stanzas that follow are the session's.
    Established,
    /// The stream is over: write the output and close.
    Close {
        /// The reason code for counters, such as "not-well-formed" or "too-many-attempts".
        reason: &'static str,
    },
}

/// A login to be judged.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// PLAIN. `password` is a secret.
    Plain {
        /// The served domain.
        domain: String,
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// ANONYMOUS.
    Anonymous {
        /// The served domain.
        domain: String,
    },
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain { domain, user, .. } => write!(f, "Plain {{ {user:?} at {domain:?}, password: MASKED }}"),
            Self::Anonymous { domain } => write!(f, "Anonymous {{ {domain:?} }}"),
        }
    }
}

/// Where the stream stands.
#[derive(Debug)]
enum Phase {
    /// The client's header comes next.
    Header,
    /// Header and features are told: a request comes next.
    Request,
    /// The shell does the TLS handshake.
    Handshake,
    /// A SASL exchange waits for the client.
    Exchange(Exchange),
    /// The shell judges a login of this user.
    Verdict(String),
    /// The shell looks for keys.
    Keys(super::sasl::scram::ClientFirst),
    /// The shell chooses an address for the iq of this id.
    Address(String),
    /// The shell judges a resumption.
    Resumption,
    /// Done: the stanzas that follow are not ours.
    Established,
    /// Over.
    Closed,
}

/// The negotiation of one stream.
pub struct Negotiation {
    settings: Arc<NegotiationSettings>,
    transport: Transport,
    entropy: Box<dyn FnMut() -> [u8; 16] + Send>,
    reader: Reader,
    phase: Phase,
    /// The served domain of the stream, by its place in the settings.
    domain: Option<usize>,
    /// Who logged in; empty for ANONYMOUS.
    user: Option<String>,
    is_header_sent: bool,
    failures: u8,
    replies: u8,
    output: String,
    actions: VecDeque<Action>,
}

impl std::fmt::Debug for Negotiation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Negotiation").field("transport", &self.transport).field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl Negotiation {
    /// Begins. `entropy` yields stream ids and nonces.
    pub fn new(settings: Arc<NegotiationSettings>, transport: Transport, entropy: Box<dyn FnMut() -> [u8; 16] + Send>) -> Self {
        Self {
            settings,
            transport,
            entropy,
            reader: Reader::new(BEFORE_LOGIN),
            phase: Phase::Header,
            domain: None,
            user: None,
            is_header_sent: false,
            failures: 0,
            replies: 0,
            output: String::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes in bytes from the client.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        match self.phase {
            Phase::Closed => return,
            Phase::Handshake if bytes.iter().all(u8::is_ascii_whitespace) => return,
            Phase::Handshake => return self.fail("policy-violation", "Nothing may follow starttls in the clear.", "bytes-after-starttls"),
            Phase::Header
            | Phase::Request
            | Phase::Exchange(_)
            | Phase::Verdict(_)
            | Phase::Keys(_)
            | Phase::Address(_)
            | Phase::Resumption
            | Phase::Established => self.reader.push(bytes),
        }
        self.run();
        if self.reader.unread() > MAX_WAITING {
            self.fail("policy-violation", "Too much at once.", "policy-violation");
        }
    }

    /// TLS is up after `StartTls`.
    pub fn tls_established(&mut self) {
        if matches!(self.phase, Phase::Handshake) {
            self.transport = Transport::Tls;
            self.begin_stream();
        }
    }

    /// Answers `Verify`.
    pub fn verdict(&mut self, verdict: Result<(), SaslFailure>) {
        if let Phase::Verdict(user) = &mut self.phase {
            match verdict {
                Ok(()) => {
                    let user = std::mem::take(user);
                    self.log_in(user, "");
                }
                Err(failure) => self.refuse_login(&failure),
            }
            self.run();
        }
    }

    /// Answers `FindScramKeys`; `None` goes on with invented keys and fails at the end, like a wrong password.
    pub fn scram_keys(&mut self, keys: Option<ScramKeys>) {
        if let Phase::Keys(first) = &self.phase {
            let first = first.clone();
            self.challenge_scram(first, keys);
            self.run();
        }
    }

    /// Answers `Bind` with the full JID.
    pub fn bound(&mut self, full_jid: &str) {
        if let Phase::Address(id) = &mut self.phase {
            let id = std::mem::take(id);
            self.tell_address(&id, full_jid);
            self.establish();
        }
    }

    /// Answers `Resume`: `output` is what the client is told (`<resumed/>` and the stanzas it has not handled).
    pub fn resume_accepted(&mut self, output: &str) {
        if matches!(self.phase, Phase::Resumption) {
            self.output.push_str(output);
            self.establish();
        }
    }

    /// Answers `Resume`: there is no such stream; the client may bind.
    pub fn resume_refused(&mut self) {
        if matches!(self.phase, Phase::Resumption) {
            self.phase = Phase::Request;
            self.refuse_resumption("item-not-found");
            self.run();
        }
    }

    /// Ends the stream with a stream error of our own (`connection-timeout`, `system-shutdown`, …).
    pub fn end(&mut self, condition: &'static str, text: &str) {
        self.fail(condition, text, condition);
    }

    /// Bytes to write.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.output)))
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The reader, with after-login limits and any unread bytes, once established.
    pub fn into_reader(self) -> Reader {
        self.reader
    }

    fn run(&mut self) {
        while matches!(self.phase, Phase::Header | Phase::Request | Phase::Exchange(_)) {
            match self.reader.poll() {
                Ok(Some(ReadEvent::StreamOpen(header))) => self.open_stream(&header),
                Ok(Some(ReadEvent::Stanza(element))) => self.take_in(&element),
                Ok(Some(ReadEvent::StreamClose)) => {
                    self.output.push_str("</stream:stream>");
                    self.close("client-closed");
                }
                Ok(None) => return,
                Err(fault) => self.fail(fault.condition(), "", fault.condition()),
            }
        }
    }

    fn begin_stream(&mut self) {
        self.reader.restart_keeping();
        self.phase = Phase::Header;
        self.is_header_sent = false;
    }

    fn take_in(&mut self, element: &Element) {
        match (&self.phase, self.transport, &self.user) {
            (Phase::Exchange(_), _, _) => self.continue_login(element),
            (_, Transport::Plain, _) => self.take_in_outside_tls(element),
            (_, Transport::Tls, None) => self.take_in_before_login(element),
            (_, Transport::Tls, Some(_)) => self.take_in_before_bind(element),
        }
    }

    fn take_in_outside_tls(&mut self, element: &Element) {
        if !element.is("starttls", ns::TLS) {
            return self.refuse_outside_tls(element);
        }
        if self.reader.restart() > 0 {
            return self.fail("policy-violation", "Nothing may follow starttls in the clear.", "bytes-after-starttls");
        }
        write_in(&mut self.output, "proceed", ns::TLS, "");
        self.phase = Phase::Handshake;
        self.actions.push_back(Action::StartTls);
    }

    fn establish(&mut self) {
        self.reader.set_limits(AFTER_LOGIN);
        self.phase = Phase::Established;
        self.actions.push_back(Action::Established);
    }

    fn fail(&mut self, condition: &str, text: &str, reason: &'static str) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        if !self.is_header_sent {
            self.send_header(None);
        }
        self.output.push_str(&stream_error(condition, text));
        self.close(reason);
    }

    fn close(&mut self, reason: &'static str) {
        self.phase = Phase::Closed;
        self.reader = Reader::new(BEFORE_LOGIN);
        self.actions.clear();
        self.actions.push_back(Action::Close { reason });
    }
}

/// The end of a stream for a fault: `<stream:error>…</stream:error></stream:stream>`.
pub fn stream_error(condition: &str, text: &str) -> String {
    let mut out = String::from("<stream:error>");
    write_in(&mut out, condition, ns::STREAM_ERRORS, "");
    if !text.is_empty() {
        out.push_str("<text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>");
        escape_text(text, &mut out);
        out.push_str("</text>");
    }
    out.push_str("</stream:error></stream:stream>");
    out
}

/// Appends `<name xmlns='namespace'>inner</name>`; `inner` is markup already.
fn write_in(out: &mut String, name: &str, namespace: &str, inner: &str) {
    for piece in ["<", name, " xmlns='", namespace] {
        out.push_str(piece);
    }
    if inner.is_empty() {
        return out.push_str("'/>");
    }
    for piece in ["'>", inner, "</", name, ">"] {
        out.push_str(piece);
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_attribute(text, &mut out);
    out
}

#[cfg(test)]
mod tests;
