//! An offer: one session held for one agent for a short time, and how it reads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::fingerprint::ClientSoftware;

/// How long an agent who declined a session, or let its offer pass, is left alone with it while others can serve.
pub const EXCLUDED_FOR: Duration = Duration::from_secs(60);

/// How soon the same agent may be asked again where nobody else can serve.
pub const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A session held for one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Whom it is offered to.
    pub agent: String,
    /// When it passes.
    pub deadline: Instant,
}

/// How an agent stands to one session after having declined it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// May be asked.
    Free,
    /// May be asked if nobody else can.
    LastResort,
    /// Was asked a moment ago.
    Barred,
}

/// Who declined a session or let it pass, and when.
#[derive(Clone, Debug, Default)]
pub struct Exclusions {
    since: BTreeMap<String, Instant>,
}

impl Exclusions {
    /// Notes that `agent` did not take it.
    pub fn exclude(&mut self, agent: &str, now: Instant) {
        self.since.insert(agent.to_owned(), now);
    }

    /// How `agent` stands now.
    pub fn bar(&self, agent: &str, now: Instant) -> Bar {
        match self.since.get(agent).map(|since| now.saturating_duration_since(*since)) {
            None => Bar::Free,
            Some(passed) if passed >= EXCLUDED_FOR => Bar::Free,
            Some(passed) if passed >= ASK_AGAIN_AFTER => Bar::LastResort,
            Some(_) => Bar::Barred,
        }
    }
}

/// What an offer tells the agent.
#[derive(Clone, Copy, Debug)]
pub struct OfferText<'a> {
    /// The session's short code.
    pub code: &'a str,
    /// The queue's name.
    pub queue: &'a str,
    /// How long the customer has waited.
    pub waited: Duration,
    /// The customer's name.
    pub customer: &'a str,
    /// Why the customer comes; may be empty.
    pub reason: &'a str,
    /// The customer's software.
    pub software: &'a ClientSoftware,
    /// How long the offer stands.
    pub stands: Duration,
}

impl std::fmt::Display for OfferText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}] {}, {} s waiting - {}", self.code.to_uppercase(), self.queue, self.waited.as_secs(), self.customer)?;
        if !self.reason.is_empty() {
            write!(f, " \"{}\"", self.reason)?;
        }
        let code = self.code;
        write!(f, " - {}. Reply: take {code} | skip {code} ({} s)", self.software, self.stands.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::{Confidence, SoftwareSource};

    #[test]
    fn an_offer_names_all_that_an_agent_decides_by() {
        let software = ClientSoftware {
            name: "Profanity".into(),
            version: "0.13.1".into(),
            system: String::new(),
            source: SoftwareSource::Asked,
            confidence: Confidence::Stated,
            ..ClientSoftware::unknown()
        };
        let text = OfferText {
            code: "7f3a",
            queue: "billing",
            waited: Duration::from_millis(42_900),
            customer: "guest-7f3a",
            reason: "card declined",
            software: &software,
            stands: Duration::from_secs(20),
        };
        assert_eq!(
            text.to_string(),
            "[7F3A] billing, 42 s waiting - guest-7f3a \"card declined\" - Profanity 0.13.1. Reply: take 7f3a | skip 7f3a (20 s)"
        );
    }

    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    #[test]
    fn who_declined_is_asked_last_then_again() {
        let start = Instant::now();
        let mut exclusions = Exclusions::default();
        exclusions.exclude("alice", start);
        assert_eq!(exclusions.bar("bob", start), Bar::Free);
        assert_eq!(exclusions.bar("alice", start), Bar::Barred);
        assert_eq!(exclusions.bar("alice", start + ASK_AGAIN_AFTER), Bar::LastResort);
        assert_eq!(exclusions.bar("alice", start + EXCLUDED_FOR), Bar::Free);
    }
}
