//! The client's side of a stream inside TLS: header → SASL → header → bind, then stanzas. For the demo and benchmarks.
//!
//! Poll order: after `new` and every `handle_bytes`, drain `poll_event`, then `poll_output`.
//! It leaves out STARTTLS and stream management.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::ns;
use super::reader::{AFTER_LOGIN, ReadEvent, Reader};
use super::sasl::scram::ScramClient;
use super::stanza::{Element, escape_attribute};

/// The id of the bind request.
const BIND_ID: &str = "bind";

/// How to log in.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// SASL ANONYMOUS.
    Anonymous,
    /// SASL PLAIN.
    Plain {
        /// User name.
        user: String,
        /// Password or link.
        password: String,
    },
    /// SASL SCRAM-SHA-256.
    Scram {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
}

impl Credentials {
    fn mechanism(&self) -> &'static str {
        match self {
            Self::Anonymous => "ANONYMOUS",
            Self::Plain { .. } => "PLAIN",
            Self::Scram { .. } => "SCRAM-SHA-256",
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Plain { user, .. } | Self::Scram { user, .. } => write!(f, "{} {{ {user:?}, password: MASKED }}", self.mechanism()),
        }
    }
}

/// What the client learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// Bound: stanzas may be sent.
    Ready {
        /// The full JID that the server gave.
        jid: String,
    },
    /// A stanza or nonza came.
    Stanza(Element),
    /// The stream ended as it should.
    Closed,
    /// The stream ended with a fault; nothing comes after it.
    Failed(ClientFault),
}

/// Why a stream failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientFault {
    /// The server refused the login.
    #[error("login refused: {condition} {text}")]
    Login {
        /// The SASL condition.
        condition: String,
        /// The server's sentence.
        text: String,
    },
    /// The server does not offer the mechanism.
    #[error("the server does not offer {0}")]
    MechanismMissing(&'static str),
    /// The server does not know the password's keys.
    #[error("the server could not prove that it knows the password")]
    ServerUnproven,
    /// The server ended the stream with an error, or refused to bind.
    #[error("stream error: {0}")]
    Stream(String),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
}

#[derive(Debug)]
enum Step {
    Login,
    Answer(Option<ScramClient>),
    Bind,
    Ready,
    Over,
}

/// One client's stream.
pub struct XmppClient {
    domain: String,
    credentials: Credentials,
    resource: Option<String>,
    nonce: [u8; 16],
    reader: Reader,
    step: Step,
    output: String,
}

impl std::fmt::Debug for XmppClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XmppClient").field("domain", &self.domain).field("step", &self.step).finish_non_exhaustive()
    }
}

impl XmppClient {
    /// Begins: the header is in the output. `nonce` is random.
    pub fn new(domain: &str, credentials: Credentials, resource: Option<String>, nonce: [u8; 16]) -> Self {
        let mut client = Self {
            domain: domain.to_owned(),
            credentials,
            resource,
            nonce,
            reader: Reader::new(AFTER_LOGIN),
            step: Step::Login,
            output: String::new(),
        };
        client.send_header();
        client
    }

    /// Takes in bytes from the server.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
    }

    /// Sends a stanza; before `Ready` it is dropped.
    pub fn send(&mut self, stanza: &Element) {
        if matches!(self.step, Step::Ready) {
            stanza.write(ns::CLIENT, &mut self.output);
        }
    }

    /// Ends the stream.
    pub fn close(&mut self) {
        if !matches!(self.step, Step::Over) {
            self.output.push_str("</stream:stream>");
        }
    }

    /// Bytes to write.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.output)))
    }

    /// What happened, until nothing more has.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        while !matches!(self.step, Step::Over) {
            let result = match self.reader.poll() {
                Ok(Some(ReadEvent::StreamOpen(_))) => Ok(None),
                Ok(Some(ReadEvent::Stanza(element))) => self.take_in(element),
                Ok(Some(ReadEvent::StreamClose)) => Ok(Some(ClientEvent::Closed)),
                Ok(None) => return None,
                Err(fault) => Err(ClientFault::Protocol(fault.condition())),
            };
            let event = result.unwrap_or_else(|fault| Some(ClientEvent::Failed(fault)));
            if matches!(event, Some(ClientEvent::Closed | ClientEvent::Failed(_))) {
                self.step = Step::Over;
            }
            if event.is_some() {
                return event;
            }
        }
        None
    }

    fn send_header(&mut self) {
        self.output.push_str("<?xml version='1.0'?><stream:stream xmlns='jabber:client' to='");
        escape_attribute(&self.domain, &mut self.output);
        self.output.push_str("' version='1.0' xmlns:stream='http://etherx.jabber.org/streams'>");
    }

    fn take_in(&mut self, element: Element) -> Result<Option<ClientEvent>, ClientFault> {
        if element.is("error", ns::STREAM) {
            return Err(ClientFault::Stream(condition_of(&element, ns::STREAM_ERRORS)));
        }
        match &mut self.step {
            Step::Ready => Ok(Some(ClientEvent::Stanza(element))),
            Step::Login if element.is("features", ns::STREAM) => self.log_in(&element).map(|()| None),
            Step::Bind if element.is("features", ns::STREAM) => {
                self.ask_address();
                Ok(None)
            }
            Step::Answer(scram) if element.namespace() == ns::SASL => {
                let scram = scram.take();
                self.continue_login(&element, scram).map(|()| None)
            }
            Step::Bind if element.is("iq", ns::CLIENT) && element.attribute("id") == Some(BIND_ID) => self.take_address(&element).map(Some),
            Step::Login | Step::Bind | Step::Answer(_) => Err(ClientFault::Protocol("an element out of turn")),
            Step::Over => Ok(None),
        }
    }

    fn log_in(&mut self, features: &Element) -> Result<(), ClientFault> {
        let mechanism = self.credentials.mechanism();
        let offers = features.child("mechanisms", ns::SASL).is_some_and(|offers| offers.elements().any(|offer| offer.text() == mechanism));
        if !offers {
            return Err(ClientFault::MechanismMissing(mechanism));
        }
        let (scram, first) = match &self.credentials {
            Credentials::Anonymous => (None, "=".to_owned()),
            Credentials::Plain { user, password } => (None, STANDARD.encode(format!("\0{user}\0{password}"))),
            Credentials::Scram { user, password } => {
                let (scram, first) = ScramClient::new(user, password, &STANDARD.encode(self.nonce));
                (Some(scram), STANDARD.encode(first))
            }
        };
        Element::new("auth", ns::SASL).with_attribute("mechanism", mechanism).with_text(first).write(ns::CLIENT, &mut self.output);
        self.step = Step::Answer(scram);
        Ok(())
    }

    fn continue_login(&mut self, element: &Element, mut scram: Option<ScramClient>) -> Result<(), ClientFault> {
        let message = STANDARD.decode(element.text()).unwrap_or_default();
        match (element.name(), &mut scram) {
            ("challenge", Some(exchange)) => {
                let proof = exchange.prove(&message).ok_or(ClientFault::Protocol("a bad challenge"))?;
                Element::new("response", ns::SASL).with_text(STANDARD.encode(proof)).write(ns::CLIENT, &mut self.output);
                self.step = Step::Answer(scram);
                Ok(())
            }
            ("success", Some(exchange)) if !exchange.is_server_genuine(&message) => Err(ClientFault::ServerUnproven),
            ("success", _) => {
                self.step = Step::Bind;
                self.reader.restart_keeping();
                self.send_header();
                Ok(())
            }
            ("failure", _) => {
                let text = element.child("text", ns::SASL).map(Element::text).unwrap_or_default();
                Err(ClientFault::Login { condition: condition_of(element, ns::SASL), text })
            }
            _ => Err(ClientFault::Protocol("an unknown SASL element")),
        }
    }

    fn ask_address(&mut self) {
        let mut bind = Element::new("bind", ns::BIND);
        if let Some(resource) = &self.resource {
            bind.push_child(Element::new("resource", ns::BIND).with_text(resource.clone()));
        }
        let iq = Element::new("iq", ns::CLIENT).with_attribute("type", "set").with_attribute("id", BIND_ID).with_child(bind);
        iq.write(ns::CLIENT, &mut self.output);
    }

    fn take_address(&mut self, iq: &Element) -> Result<ClientEvent, ClientFault> {
        let jid = iq.child("bind", ns::BIND).and_then(|bind| bind.child("jid", ns::BIND)).map(Element::text);
        match (iq.attribute("type"), jid) {
            (Some("result"), Some(jid)) => {
                self.step = Step::Ready;
                Ok(ClientEvent::Ready { jid })
            }
            _ => {
                let error = iq.child("error", ns::CLIENT).map(|error| condition_of(error, ns::STANZA_ERRORS));
                Err(ClientFault::Stream(error.unwrap_or_else(|| "no address".to_owned())))
            }
        }
    }
}

/// The name of the first child in `namespace` that is not the text.
fn condition_of(element: &Element, namespace: &str) -> String {
    let condition = element.elements().find(|child| child.namespace() == namespace && child.name() != "text");
    condition.map_or_else(|| "undefined-condition".to_owned(), |condition| condition.name().to_owned())
}

#[cfg(test)]
mod tests;
