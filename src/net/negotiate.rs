//! A client's connection from its first byte to resource binding: detection, TLS and [`Negotiation`] over a socket.
//!
//! Both listeners use it, the relay's for customers and the connector's for agents; what differs is the [`Judge`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::fingerprint::Fingerprint;
use crate::proto::xmpp::negotiation::{Action, Login, Negotiation, NegotiationSettings, Transport};
use crate::proto::xmpp::reader::Reader;
use crate::proto::xmpp::sasl::{SaslFailure, ScramKeys};

use super::entropy;
use super::shutdown::Stop;
use super::stream::{Greeting, Opening, Stream, opening_of};
use super::tls::{self, TlsError};

const HTTP_ANSWER: &str = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 66\r\n\
    Connection: close\r\n\r\nThis port speaks XMPP. Please connect with an instant messenger.\r\n";

/// How long a stream that is refused may take to hear why.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(1);

/// Largest resource a client may choose, in bytes.
const MAX_RESOURCE: usize = 128;

/// Where a TLS handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Its first byte is there.
    Begins,
    /// It stands.
    Over,
}

/// Decides who comes in, and under which name.
pub trait Judge: Send {
    /// Hears of the TLS handshake; of one that fails, no end.
    fn handshake(&mut self, _handshake: Handshake) {}
    /// Judges a TLS hello before anything is computed for it; the reason's code against it.
    ///
    /// # Errors
    /// It may go no further.
    fn hello(&mut self, _fingerprint: &Fingerprint) -> Result<(), &'static str> {
        Ok(())
    }
    /// Judges a login.
    fn verify(&mut self, login: Login) -> impl Future<Output = Result<(), SaslFailure>> + Send;
    /// The SCRAM keys of a user, if there is such a user.
    fn scram_keys(&mut self, domain: &str, user: &str) -> Option<ScramKeys>;
    /// The full JID of a user who binds a resource.
    fn bind(&mut self, domain: &str, user: &str, resource: Option<String>) -> String;
    /// Resumes a stream (XEP-0198 §5).
    fn resume(&mut self, user: &str, previd: &str, h: u32) -> impl Future<Output = Resumption> + Send;
}

/// What becomes of a stream that its client takes up again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// It goes on: what to write, beginning with `<resumed/>`.
    Resumed(String),
    /// It is over, or never was. The client forgets it, and may bind.
    Unknown,
    /// Nobody can say now. The client keeps what it has, and asks again.
    Unanswered,
}

/// What a listener lets a client take before its session.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What is offered.
    pub negotiation: Arc<NegotiationSettings>,
    /// TLS with the listener's certificate.
    pub tls: Arc<tls::Acceptor>,
    /// Time for the TLS handshake.
    pub tls_within: Duration,
    /// Time for everything up to bind; data does not extend it.
    pub login_within: Duration,
    /// Time for one write.
    pub write_within: Duration,
}

/// A client that is bound or resumed.
#[derive(Debug)]
pub struct Arrived {
    /// Its byte stream.
    pub stream: Stream,
    /// Its reader, with any bytes that are not read yet.
    pub reader: Reader,
    /// What its TLS hello told.
    pub greeting: Option<Greeting>,
}

/// The resource that a client asked for, where it is fit to be shown, else 32 random bits in hexadecimal.
pub fn resource_of(asked: Option<String>) -> String {
    let fit = |resource: &String| !resource.is_empty() && resource.len() <= MAX_RESOURCE && !resource.chars().any(char::is_control);
    asked.filter(fit).unwrap_or_else(entropy::short_id)
}

/// Negotiates with the client at the other end of `stream`.
///
/// # Errors
/// The reason code for counters and the log; the client has been told and the stream is closed.
pub async fn negotiate(stream: Stream, terms: &Terms, judge: &mut impl Judge, mut stop: Stop) -> Result<Arrived, &'static str> {
    let deadline = Instant::now() + terms.login_within;
    let mut arrival = Arrival { terms, stream, negotiation: None, greeting: None };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout_at(deadline, arrival.run(judge)) => match outcome {
            Ok(outcome) => outcome,
            Err(_) => Err(arrival.end("connection-timeout", "Logging in took too long.", "login-timeout").await),
        },
        () = stop.requested() => Err(arrival.end("system-shutdown", "This server stops for a moment.", "shutdown").await),
    };
    match (outcome, arrival.negotiation) {
        (Ok(()), Some(negotiation)) => {
            Ok(Arrived { stream: arrival.stream, reader: negotiation.into_reader(), greeting: arrival.greeting })
        }
        (Ok(()), None) => Err("fault"),
        (Err(reason), _) => {
            arrival.stream.close().await;
            Err(reason)
        }
    }
}

struct Arrival<'a> {
    terms: &'a Terms,
    stream: Stream,
    negotiation: Option<Negotiation>,
    greeting: Option<Greeting>,
}

impl Arrival<'_> {
    async fn run(&mut self, judge: &mut impl Judge) -> Result<(), &'static str> {
        let opening = self.stream.peek().await.map_err(|_| "transport")?;
        let protection = match opening {
            Opening::Nothing => return Err("closed-early"),
            Opening::Http => return self.answer_http().await,
            // It waits for the server's own version; there is no sentence that it would show.
            Opening::Ssh => return Err("ssh"),
            Opening::Proxy => return Err("proxy-not-trusted"),
            Opening::Xml => Transport::Plain,
            Opening::Tls => {
                self.start_tls(judge).await?;
                Transport::Tls
            }
        };
        self.negotiation = Some(Negotiation::new(Arc::clone(&self.terms.negotiation), protection, Box::new(entropy::sixteen)));
        let mut may_be_http = opening == Opening::Tls;
        loop {
            self.write_output().await?;
            let Some(action) = self.negotiation.as_mut().and_then(Negotiation::poll_action) else {
                self.read(std::mem::take(&mut may_be_http)).await?;
                continue;
            };
            if self.act(action, judge).await? {
                return self.write_output().await;
            }
        }
    }

    /// Does what the negotiation asks; tells whether the stream stands.
    async fn act(&mut self, action: Action, judge: &mut impl Judge) -> Result<bool, &'static str> {
        match action {
            Action::StartTls => {
                self.start_tls(judge).await?;
                self.with(Negotiation::tls_established);
            }
            Action::Verify(login) => {
                let verdict = judge.verify(login).await;
                self.with(|negotiation| negotiation.verdict(verdict));
            }
            Action::FindScramKeys { domain, user } => {
                let keys = judge.scram_keys(&domain, &user);
                self.with(|negotiation| negotiation.scram_keys(keys));
            }
            Action::Bind { domain, user, resource } => {
                let jid = judge.bind(&domain, &user, resource);
                self.with(|negotiation| negotiation.bound(&jid));
            }
            Action::Resume { domain: _, user, previd, h } => {
                let resumption = judge.resume(&user, &previd, h).await;
                self.with(|negotiation| match &resumption {
                    Resumption::Resumed(output) => negotiation.resume_accepted(output),
                    Resumption::Unknown => negotiation.resume_refused(),
                    // Most clients take any <failed/> for the end of all they have not sent yet.
                    Resumption::Unanswered => negotiation.end("remote-connection-failed", "Please try again soon."),
                });
            }
            Action::Established => return Ok(true),
            Action::Close { reason } => {
                self.write_output().await?;
                return Err(reason);
            }
        }
        Ok(false)
    }

    async fn read(&mut self, may_be_http: bool) -> Result<(), &'static str> {
        let Some(negotiation) = &mut self.negotiation else { return Err("fault") };
        let taken = self.stream.read(|bytes| {
            let is_http = may_be_http && opening_of(bytes) == Opening::Http;
            if !is_http {
                negotiation.handle_bytes(bytes);
            }
            is_http
        });
        match taken.await {
            Ok(Some(false)) => Ok(()),
            Ok(Some(true)) => self.answer_http().await,
            Ok(None) => Err("closed-early"),
            Err(_) => Err("transport"),
        }
    }

    async fn start_tls(&mut self, judge: &mut impl Judge) -> Result<(), &'static str> {
        judge.handshake(Handshake::Begins);
        let screen = |fingerprint: &Fingerprint| judge.hello(fingerprint);
        match self.stream.start_tls(&self.terms.tls, self.terms.tls_within, screen).await {
            Ok(greeting) => {
                judge.handshake(Handshake::Over);
                self.greeting = Some(greeting);
                Ok(())
            }
            Err(TlsError::Slow) => Err("tls-timeout"),
            Err(TlsError::Refused(reason)) => Err(reason),
            Err(TlsError::Hello(fault)) => {
                tracing::debug!(%fault, "TLS hello not read");
                Err("tls-hello")
            }
            Err(TlsError::Failed(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                Err("tls-handshake")
            }
        }
    }

    async fn answer_http(&mut self) -> Result<(), &'static str> {
        let _gone = self.stream.write(HTTP_ANSWER.as_bytes(), self.terms.write_within).await;
        Err("http")
    }

    async fn write_output(&mut self) -> Result<(), &'static str> {
        while let Some(bytes) = self.negotiation.as_mut().and_then(Negotiation::poll_output) {
            self.stream.write(&bytes, self.terms.write_within).await.map_err(|_| "transport")?;
        }
        Ok(())
    }

    /// Ends the stream from this side.
    async fn end(&mut self, condition: &'static str, text: &str, reason: &'static str) -> &'static str {
        self.with(|negotiation| negotiation.end(condition, text));
        let _gone = tokio::time::timeout(LAST_WORD_WITHIN, self.write_output()).await;
        reason
    }

    fn with(&mut self, act: impl FnOnce(&mut Negotiation)) {
        if let Some(negotiation) = &mut self.negotiation {
            act(negotiation);
        }
    }
}
