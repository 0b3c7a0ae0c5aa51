//! Which software the client runs, and what follows: what is told to the connector, or the end with a sentence.

use std::sync::Arc;
use std::time::Instant;

use crate::fingerprint::{ClientSoftware, Denial, Fingerprint, Knowledge};
use crate::im::ImEvent;
use crate::proto::tunnel::RelayCommand;
use crate::proto::xmpp::software::SoftwareQuery;
use crate::proto::xmpp::stanza::Element;

use super::{Client, Phase, hex, payload_of};

/// What software is judged by.
#[derive(Clone, Debug, Default)]
pub struct Screening {
    /// What is known and thought of software.
    pub knowledge: Knowledge,
    /// What the queue's connector does not let in.
    pub denied: Arc<[Denial]>,
    /// How the client said hello in TLS.
    pub hello: Option<Fingerprint>,
}

impl Screening {
    /// What is known of software before it has said anything.
    pub fn seen(&self) -> ClientSoftware {
        // A name that the hello alone gives waits for the client's own.
        let ClientSoftware { ja4, library, .. } = self.knowledge.catalogue.weigh(ClientSoftware::unknown(), self.hello.as_ref());
        ClientSoftware { ja4, library, ..ClientSoftware::unknown() }
    }
}

/// The question, once it is asked, and what its answer is judged by.
#[derive(Debug)]
pub(super) struct Software {
    screening: Screening,
    query: Option<SoftwareQuery>,
}

impl Software {
    pub(super) fn new(screening: Screening) -> Self {
        Self { screening, query: None }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some(query) = &mut self.query {
            query.handle_timeout(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.query.as_ref().and_then(SoftwareQuery::poll_timeout)
    }
}

impl Client {
    /// Asks, unless that was done.
    pub(super) fn ask_software(&mut self, now: Instant) {
        if self.software.query.is_some() {
            return;
        }
        let id = hex(&(self.entropy)());
        let asker = self.site.contacts.first().map_or(self.desk.as_str(), |queue| queue.jid.as_str());
        let knowledge = self.software.screening.knowledge.clone();
        let (query, questions) = SoftwareQuery::new(asker, &self.site.client, &id, knowledge, now);
        self.software.query = Some(query);
        self.say_all(&questions, now);
    }

    /// Whether the stanza answers a question about software.
    pub(super) fn handle_software(&mut self, stanza: &Element, now: Instant) -> bool {
        let Some(query) = &mut self.software.query else { return false };
        let mut questions = Vec::new();
        let is_ours = query.handle_stanza(stanza, &mut questions);
        self.say_all(&questions, now);
        is_ours
    }

    /// Judges what has become known.
    pub(super) fn poll_software(&mut self, now: Instant) {
        let Some(said) = self.software.query.as_mut().and_then(SoftwareQuery::poll_result) else { return };
        if self.phase != Phase::Live {
            return;
        }
        let Screening { knowledge, denied, hello } = &self.software.screening;
        let weighed = knowledge.catalogue.weigh(said, hello.as_ref());
        match knowledge.catalogue.judge(weighed, denied) {
            Ok(software) => {
                let (payload, bytes) = payload_of(&ImEvent::Software(software));
                let sm_in = self.inward.bare_event_sent(bytes);
                self.commands.push_back(RelayCommand::Send { session: self.session, payload, sm_in });
            }
            Err(refusal) => {
                // Few clients show the text of a stream's error.
                self.notice(&refusal.sentence, now);
                self.end_with_error("policy-violation", &refusal.sentence, refusal.reason);
            }
        }
    }
}
