//! Which software a client runs: XEP-0092 asked once, XEP-0115 read.
//!
//! Three things are known, each better than the one before: the address of the software's home that the client's presence
//! names (`<c node=…/>`), the name by which the client answers disco#info (asked once, when capabilities were seen and the
//! version is not known yet), and its answer to the version request. Where its list of capabilities has the hash that it announced,
//! whose list that is is remembered: the next one with that hash is known without a question. The first result comes when the best is known or
//! [`ANSWER_WITHIN`] is over; later answers that know better yield another. Dino, xmpp.js and Converse never answer the version
//! request; Gajim answers only contacts on its roster, so begin when the client has had its roster.
//!
//! All of it is the client's word. Left out: what follows from it.

mod caps;
mod claims;

use std::time::{Duration, Instant};

use super::{ns, stanza::Element};
use crate::fingerprint::{ClientSoftware, Confidence, Knowledge};

use self::caps::Announced;

/// How long routing waits for the answer.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(1500);

/// Asks once, from the queue's JID, and listens.
///
/// After `new`, `handle_stanza` and `handle_timeout`, drain `poll_result`, then set the timer to `poll_timeout`.
#[derive(Debug)]
pub struct SoftwareQuery {
    asker: String,
    client: String,
    id: String,
    deadline: Instant,
    is_overdue: bool,
    version: Question,
    disco: Question,
    announced: Option<Announced>,
    knowledge: Knowledge,
    /// The best that was learned.
    best: Evidence,
    /// How good the told result was.
    told: Option<Rank>,
}

impl SoftwareQuery {
    /// Begins: the questions to send now (version iq; later a disco#info iq once caps are seen). `asker` is the queue's bare JID,
    /// `client` the client's full JID, `id` a random id.
    pub fn new(asker: &str, client: &str, id: &str, knowledge: Knowledge, now: Instant) -> (Self, Vec<Element>) {
        let query = Self {
            asker: asker.to_owned(),
            client: client.to_owned(),
            id: id.to_owned(),
            deadline: now + ANSWER_WITHIN,
            is_overdue: false,
            version: Question::Asked,
            disco: Question::NotAsked,
            announced: None,
            knowledge,
            best: Evidence { rank: Rank::Nothing, software: ClientSoftware::unknown() },
            told: None,
        };
        let ask = query.question(&query.version_id(), Element::new("query", ns::VERSION));
        (query, vec![ask])
    }

    /// A stanza arrived: true when it answered us and must go no further. May add a question to `ask`.
    pub fn handle_stanza(&mut self, stanza: &Element, ask: &mut Vec<Element>) -> bool {
        if stanza.attribute("from").is_some_and(|from| from != self.client) {
            return false;
        }
        if stanza.is("presence", ns::CLIENT) && stanza.attribute("type").is_none() {
            ask.extend(self.handle_presence(stanza));
            return false;
        }
        stanza.is("iq", ns::CLIENT) && matches!(stanza.attribute("type"), Some("result" | "error")) && self.handle_answer(stanza)
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.is_overdue |= now >= self.deadline;
    }

    /// The result once, when the answer came or the time is up (then possibly unknown or from caps); again when a late answer improves it.
    pub fn poll_result(&mut self) -> Option<ClientSoftware> {
        let is_due = match self.told {
            None => self.is_overdue || self.is_settled(),
            Some(told) => self.best.rank > told,
        };
        if !is_due {
            return None;
        }
        self.told = Some(self.best.rank);
        Some(self.best.software.clone())
    }

    /// When `handle_timeout` is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.told.is_none() && !self.is_overdue).then_some(self.deadline)
    }

    /// Whether nothing better can come: the version is known, or it was refused and so was or came the identity.
    fn is_settled(&self) -> bool {
        self.best.rank == Rank::Version || (self.version == Question::Answered && self.disco == Question::Answered)
    }

    /// Reads the capabilities of the first presence that has them (XEP-0115 §4).
    fn handle_presence(&mut self, presence: &Element) -> Option<Element> {
        let caps = presence.child("c", ns::CAPS)?;
        if self.disco != Question::NotAsked {
            return None;
        }
        let node = caps.attribute("node").unwrap_or_default();
        if self.best.rank == Rank::Version {
            return None;
        }
        if let Some(software) = claims::of_node(node) {
            self.learn(Rank::Node, software);
        }
        self.announced = Announced::of(caps);
        if let Some(software) = self.announced.as_ref().and_then(|announced| self.knowledge.caps(&announced.ver)) {
            self.disco = Question::Answered;
            self.learn(Rank::Identity, software);
            return None;
        }
        self.disco = Question::Asked;
        let mut query = Element::new("query", ns::DISCO_INFO);
        if let Some(node) = claims::disco_node(node, caps.attribute("ver").unwrap_or_default()) {
            query.set_attribute("node", node);
        }
        Some(self.question(&self.disco_id(), query))
    }

    /// Reads an iq result or error if it is an answer to a question that is open.
    fn handle_answer(&mut self, iq: &Element) -> bool {
        let Some(id) = iq.attribute("id") else { return false };
        let is_result = iq.attribute("type") == Some("result");
        if self.version == Question::Asked && id == self.version_id() {
            self.version = Question::Answered;
            if let Some(software) = iq.child("query", ns::VERSION).filter(|_| is_result).and_then(claims::of_version) {
                self.learn(Rank::Version, software);
            }
            return true;
        }
        if self.disco == Question::Asked && id == self.disco_id() {
            self.disco = Question::Answered;
            if let Some(query) = iq.child("query", ns::DISCO_INFO).filter(|_| is_result) {
                self.handle_capabilities(query);
            }
            return true;
        }
        false
    }

    /// Reads the list of what the client can; one without the announced hash is not remembered.
    fn handle_capabilities(&mut self, query: &Element) {
        let Some(mut software) = claims::of_identity(query) else { return };
        match self.announced.take() {
            Some(announced) if announced.is_of(query) => self.knowledge.learned.learn(&announced.ver, software.clone()),
            Some(_) => software.confidence = Confidence::Inferred,
            None => {}
        }
        self.learn(Rank::Identity, software);
    }

    /// Keeps what is better than what was known.
    fn learn(&mut self, rank: Rank, software: ClientSoftware) {
        if rank > self.best.rank {
            self.best = Evidence { rank, software };
        }
    }

    /// A get to the client.
    fn question(&self, id: &str, payload: Element) -> Element {
        Element::new("iq", ns::CLIENT)
            .with_attribute("type", "get")
            .with_attribute("id", id)
            .with_attribute("from", self.asker.as_str())
            .with_attribute("to", self.client.as_str())
            .with_child(payload)
    }

    /// The id of the version request.
    fn version_id(&self) -> String {
        format!("{}-version", self.id)
    }

    /// The id of the disco#info request.
    fn disco_id(&self) -> String {
        format!("{}-disco", self.id)
    }
}

/// A question's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    NotAsked,
    Asked,
    Answered,
}

/// What was learned, and how good it is.
#[derive(Debug)]
struct Evidence {
    rank: Rank,
    software: ClientSoftware,
}

/// How good evidence is, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Nothing,
    Node,
    Identity,
    Version,
}

#[cfg(test)]
mod tests;
