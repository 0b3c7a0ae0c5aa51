//! A well-behaved client, customer's or agent's, on the library's own stanza code.

use std::net::SocketAddr;

use bytes::BytesMut;
use outgate::net::client::{ClientStream, connect};
use outgate::proto::xmpp::client::{ClientEvent, Credentials, XmppClient};
use outgate::proto::xmpp::ns;
use outgate::proto::xmpp::stanza::Element;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Someone who talks.
#[derive(Debug)]
pub(super) struct Talker {
    client: XmppClient,
    stream: ClientStream,
    unwritten: BytesMut,
}

/// A message with a body.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) from: String,
    pub(super) body: String,
}

impl Talker {
    pub(super) async fn arrive(address: SocketAddr, domain: &str, ca_pem: &str, credentials: Credentials) -> Self {
        let stream = connect(address, domain, ca_pem).await.unwrap();
        let mut talker =
            Self { client: XmppClient::new(domain, credentials, None, *b"not quite random"), stream, unwritten: BytesMut::new() };
        let ready = talker.event().await;
        assert!(matches!(ready, ClientEvent::Ready { .. }), "{ready:?}");
        talker.send(&Element::new("presence", ns::CLIENT)).await;
        talker
    }

    pub(super) async fn say(&mut self, to: &str, body: &str) {
        let body = Element::new("body", ns::CLIENT).with_text(body);
        let message = Element::new("message", ns::CLIENT).with_attribute("type", "chat").with_attribute("to", to);
        self.send(&message.with_attribute("id", uuid::Uuid::now_v7().to_string()).with_child(body)).await;
    }

    /// The next message that says something; may be dropped while it waits.
    pub(super) async fn hear(&mut self) -> Heard {
        loop {
            let event = self.event().await;
            let ClientEvent::Stanza(stanza) = event else { panic!("the stream of a live conversation ended: {event:?}") };
            self.answer(&stanza);
            if let (Some(from), Some(body)) = (stanza.attribute("from"), stanza.child("body", ns::CLIENT)) {
                return Heard { from: from.to_owned(), body: body.text() };
            }
        }
    }

    /// A question gets its answer (RFC 6120 §8.2.3): the relay counts what an answered ping proves.
    fn answer(&mut self, stanza: &Element) {
        if stanza.name() == "iq" && stanza.attribute("type") == Some("get") {
            let mut reply = Element::new("iq", ns::CLIENT).with_attribute("type", "result");
            for (ours, theirs) in [("id", "id"), ("to", "from")] {
                if let Some(value) = stanza.attribute(theirs) {
                    reply.set_attribute(ours, value);
                }
            }
            self.client.send(&reply);
        }
    }

    async fn send(&mut self, stanza: &Element) {
        self.client.send(stanza);
        self.flush().await;
    }

    async fn event(&mut self) -> ClientEvent {
        let mut chunk = [0; 4096];
        loop {
            if let Some(event) = self.client.poll_event() {
                return event;
            }
            self.flush().await;
            let count = self.stream.read(&mut chunk).await.unwrap();
            assert!(count > 0, "the server hung up on a live conversation");
            self.client.handle_bytes(&chunk[..count]);
        }
    }

    async fn flush(&mut self) {
        while let Some(bytes) = self.client.poll_output() {
            self.unwritten.extend_from_slice(&bytes);
        }
        while !self.unwritten.is_empty() {
            self.stream.write_buf(&mut self.unwritten).await.unwrap();
        }
        self.stream.flush().await.unwrap();
    }
}
