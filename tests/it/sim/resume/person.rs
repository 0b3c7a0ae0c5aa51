//! A customer's client with XEP-0198 as the XEP has it.

use std::collections::VecDeque;
use std::time::Instant;

use outgate::proto::xmpp::ns;
use outgate::proto::xmpp::reader::{AFTER_LOGIN, ReadEvent, Reader};
use outgate::proto::xmpp::stanza::Element;
use outgate::proto::xmpp::stream_management::{Nonza, Unacknowledged, answer, counts, nonza_of, request};
use outgate::session::SessionSecret;

use super::{DOMAIN, QUEUE};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' from='im.example' version='1.0' xmlns:stream='http://etherx.jabber.org/streams'>";

/// Where he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Without a connection until then.
    Away(Instant),
    /// At a relay, on a connection of this name.
    At(usize, u64),
}

pub(super) struct Person {
    pub(super) number: usize,
    pub(super) secret: SessionSecret,
    stage: Option<Stage>,
    /// What he has written and the relay has not read.
    pub(super) outbox: VecDeque<Element>,
    reader: Reader,
    previd: Option<String>,
    sent: Option<Unacknowledged<Element>>,
    received: u32,
    last_h: u32,
    is_resuming: bool,
    pub(super) said: usize,
    pub(super) told: usize,
    pub(super) got: Vec<String>,
}

impl Person {
    pub(super) fn new(number: usize, seed: u64) -> Self {
        let secret = SessionSecret((u128::from(seed) << 64 | (number as u128 + 1)).to_be_bytes());
        Self {
            number,
            secret,
            stage: None,
            outbox: VecDeque::new(),
            reader: Reader::new(AFTER_LOGIN),
            previd: None,
            sent: None,
            received: 0,
            last_h: 0,
            is_resuming: false,
            said: 0,
            told: 0,
            got: Vec::new(),
        }
    }

    /// Whether a break of his connection costs him nothing.
    pub(super) fn may_break(&self) -> bool {
        self.previd.is_some()
    }

    /// Whether he has asked to resume, and waits for the answer. Who goes elsewhere meanwhile is not played here (docs: Not yet).
    pub(super) fn is_asking(&self) -> bool {
        self.is_resuming && self.place().is_some()
    }

    /// What he asks to resume, and his count.
    pub(super) fn resumes(&self) -> Option<u32> {
        self.previd.as_ref().map(|_| self.received)
    }

    pub(super) fn place(&self) -> Option<(usize, u64)> {
        if let Some(Stage::At(relay, key)) = self.stage { Some((relay, key)) } else { None }
    }

    pub(super) fn is_at(&self, relay: usize) -> bool {
        self.place().is_some_and(|(at, _)| at == relay)
    }

    pub(super) fn wants_back(&self, now: Instant) -> bool {
        match self.stage {
            None => true,
            Some(Stage::Away(until)) => until <= now,
            Some(Stage::At(..)) => false,
        }
    }

    /// A new connection; what is on the old one is gone.
    pub(super) fn goes_to(&mut self, relay: usize, key: u64) {
        self.stage = Some(Stage::At(relay, key));
        self.outbox.clear();
        self.reader = Reader::new(AFTER_LOGIN);
        self.reader.push(HEADER.as_bytes());
        self.is_resuming = self.previd.is_some();
        if self.previd.is_none() {
            self.outbox.push_back(sm("enable").with_attribute("resume", "true"));
        }
    }

    /// His connection breaks, with what is on it.
    pub(super) fn break_off(&mut self, until: Instant) -> Option<(usize, u64)> {
        let place = self.place()?;
        self.stage = Some(Stage::Away(until));
        self.outbox.clear();
        Some(place)
    }

    pub(super) fn lose_relay(&mut self, relay: usize, now: Instant) {
        if self.is_at(relay) {
            self.break_off(now);
        }
    }

    pub(super) fn says(&mut self) {
        if self.previd.is_none() || self.is_resuming || self.sent.as_ref().is_none_or(|sent| sent.len() > 60) {
            return;
        }
        self.said += 1;
        let body = Element::new("body", ns::CLIENT).with_text(format!("customer {} {}", self.number, self.said));
        let composing = Element::new("paused", ns::CHAT_STATES);
        let message = Element::new("message", ns::CLIENT).with_attribute("type", "chat").with_attribute("to", QUEUE).with_child(body);
        self.sends(if self.said.is_multiple_of(3) { message.with_child(composing) } else { message });
    }

    pub(super) fn pings(&mut self) {
        if self.previd.is_none() || self.is_resuming {
            return;
        }
        let ping = Element::new("iq", ns::CLIENT)
            .with_attribute("type", "get")
            .with_attribute("to", DOMAIN)
            .with_attribute("id", "ping")
            .with_child(Element::new("ping", ns::PING));
        self.sends(ping);
    }

    fn sends(&mut self, stanza: Element) {
        if let Some(sent) = &mut self.sent {
            sent.sent(stanza.clone());
        }
        // While he is away it waits with all that is unacknowledged.
        if matches!(self.stage, Some(Stage::At(..))) {
            self.outbox.push_back(stanza);
            self.outbox.push_back(request());
        }
    }

    pub(super) fn reads(&mut self, text: &str, violations: &mut Vec<String>) {
        self.reader.push(text.as_bytes());
        loop {
            match self.reader.poll() {
                Ok(Some(ReadEvent::Stanza(element))) => self.take_in(&element, violations),
                Ok(Some(ReadEvent::StreamOpen(_) | ReadEvent::StreamClose)) => {}
                Ok(None) => return,
                Err(fault) => return violations.push(format!("the relay's XML: {}", fault.condition())),
            }
        }
    }

    fn take_in(&mut self, element: &Element, violations: &mut Vec<String>) {
        if element.namespace() == ns::STREAM_MANAGEMENT {
            return self.take_in_nonza(element, violations);
        }
        if !counts(element) {
            return violations.push(format!("unexpected: {}", element.to_xml()));
        }
        if self.sent.is_some() {
            self.received = self.received.wrapping_add(1);
        }
        if let Some(body) = element.child("body", ns::CLIENT) {
            // The queue's own sentences are nobody's words.
            self.got.extend(Some(body.text()).filter(|text| text.starts_with("agent ")));
        } else if element.name() == "iq" && element.attribute("type") == Some("get") {
            let reply = Element::new("iq", ns::CLIENT)
                .with_attribute("type", "error")
                .with_attribute("id", element.attribute("id").unwrap_or_default());
            self.sends(reply);
        }
    }

    fn take_in_nonza(&mut self, element: &Element, violations: &mut Vec<String>) {
        match (element.name(), nonza_of(element)) {
            ("enabled", _) => {
                self.previd = element.attribute("id").map(str::to_owned);
                self.sent = Some(Unacknowledged::new());
            }
            ("resumed", _) => {
                self.told(element, violations);
                self.is_resuming = false;
                self.outbox.extend(self.sent.iter().flat_map(Unacknowledged::iter).cloned());
            }
            (_, Some(Nonza::Request)) => self.outbox.push_back(answer(self.received)),
            (_, Some(Nonza::Answer { .. })) => self.told(element, violations),
            _ => violations.push(format!("unexpected: {}", element.to_xml())),
        }
    }

    fn told(&mut self, element: &Element, violations: &mut Vec<String>) {
        let h: u32 = element.attribute("h").and_then(|h| h.parse().ok()).unwrap_or_default();
        if h < self.last_h {
            violations.push(format!("h went back from {} to {h}", self.last_h));
        }
        self.last_h = h;
        if let Some(Err(fault)) = self.sent.as_mut().map(|sent| sent.acknowledged(h)) {
            violations.push(fault.to_string());
        }
    }
}

fn sm(name: &'static str) -> Element {
    Element::new(name, ns::STREAM_MANAGEMENT)
}
