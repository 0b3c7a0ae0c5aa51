//! A small XMPP client of the demo's own: direct TLS, login, messages.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::net::client::{ClientStream, connect};
use crate::net::entropy;
use crate::proto::xmpp::client::{ClientEvent, Credentials, XmppClient};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;

/// How long a client waits for what it expects.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes read at once.
const CHUNK: usize = 4096;

/// One person's client.
#[derive(Debug)]
pub(super) struct Person {
    name: &'static str,
    client: XmppClient,
    stream: ClientStream,
}

/// Where a client connects.
#[derive(Clone, Debug)]
pub(super) struct Server<'a> {
    pub(super) address: SocketAddr,
    pub(super) domain: &'a str,
    pub(super) ca_pem: &'a str,
}

/// A message as a client shows it.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) from: String,
    pub(super) body: String,
}

impl Person {
    /// Connects and logs in.
    pub(super) async fn arrive(name: &'static str, server: Server<'_>, credentials: Credentials) -> Result<Self, String> {
        let stream =
            connect(server.address, server.domain, server.ca_pem).await.map_err(|error| format!("{name} cannot connect: {error}"))?;
        let client = XmppClient::new(server.domain, credentials, Some("demo".to_owned()), entropy::sixteen());
        let mut person = Self { name, client, stream };
        match person.next().await? {
            ClientEvent::Ready { .. } => {}
            other @ (ClientEvent::Stanza(_) | ClientEvent::Closed | ClientEvent::Failed(_)) => {
                return Err(format!("{name} cannot log in: {other:?}"));
            }
        }
        person.send(&Element::new("presence", ns::CLIENT)).await?;
        Ok(person)
    }

    /// Says something to someone.
    pub(super) async fn say(&mut self, to: &str, body: &str) -> Result<(), String> {
        let body = Element::new("body", ns::CLIENT).with_text(body);
        let message = Element::new("message", ns::CLIENT).with_attribute("type", "chat").with_attribute("to", to);
        self.send(&message.with_attribute("id", entropy::short_id()).with_child(body)).await
    }

    /// Waits for a message that contains `wanted`; others may come before it.
    pub(super) async fn hear(&mut self, wanted: &str) -> Result<Said, String> {
        let heard = async {
            loop {
                let ClientEvent::Stanza(stanza) = self.next().await? else { return Err(format!("{} was cut off", self.name)) };
                self.answer(&stanza).await?;
                let body = stanza.child("body", ns::CLIENT).map(Element::text);
                if let (Some(from), Some(body)) = (stanza.attribute("from"), body)
                    && body.contains(wanted)
                {
                    return Ok(Said { from: from.to_owned(), body });
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard)
            .await
            .unwrap_or_else(|_| Err(format!("{wanted:?} did not arrive within {} s", PATIENCE.as_secs())))
    }

    /// Leaves politely.
    pub(super) async fn leave(mut self) -> Result<(), String> {
        self.client.close();
        self.flush().await
    }

    /// A question (iq get) gets its answer: pings are confirmed, the software is told.
    async fn answer(&mut self, stanza: &Element) -> Result<(), String> {
        if stanza.name() != "iq" || stanza.attribute("type") != Some("get") {
            return Ok(());
        }
        let mut reply = Element::new("iq", ns::CLIENT).with_attribute("type", "result");
        for (ours, theirs) in [("id", "id"), ("to", "from")] {
            if let Some(value) = stanza.attribute(theirs) {
                reply.set_attribute(ours, value);
            }
        }
        if stanza.child("query", ns::VERSION).is_some() {
            let field = |name, value| Element::new(name, ns::VERSION).with_text(value);
            let query = Element::new("query", ns::VERSION);
            reply.push_child(query.with_child(field("name", "Outgate demo")).with_child(field("version", env!("CARGO_PKG_VERSION"))));
        }
        self.send(&reply).await
    }

    async fn send(&mut self, stanza: &Element) -> Result<(), String> {
        self.client.send(stanza);
        self.flush().await
    }

    async fn next(&mut self) -> Result<ClientEvent, String> {
        let mut chunk = [0; CHUNK];
        loop {
            let event = self.client.poll_event();
            self.flush().await?;
            if let Some(event) = event {
                return Ok(event);
            }
            match self.stream.read(&mut chunk).await {
                Ok(0) => return Err(format!("{} was disconnected", self.name)),
                Ok(count) => self.client.handle_bytes(chunk.get(..count).unwrap_or_default()),
                Err(error) => return Err(format!("{} was disconnected: {error}", self.name)),
            }
        }
    }

    async fn flush(&mut self) -> Result<(), String> {
        while let Some(bytes) = self.client.poll_output() {
            self.stream.write_all(&bytes).await.map_err(|error| format!("{} cannot write: {error}", self.name))?;
        }
        self.stream.flush().await.map_err(|error| format!("{} cannot write: {error}", self.name))
    }
}
