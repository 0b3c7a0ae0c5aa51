//! Links whose signature was verified a moment ago: CHECK comes first, OPEN follows, and one of both is enough.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Now;
use super::admission::sha256;
use crate::link::LinkTerms;

/// How long a verification holds: from SASL to the end of bind. A key that is withdrawn meanwhile has this grace.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// Verifications that are kept: as many as there are pending OPENs of one relay.
const MOST: usize = 1024;

/// The last of them, by the digest of token and domain.
#[derive(Debug, Default)]
pub(super) struct VerifiedLinks(VecDeque<Verified>);

#[derive(Debug)]
struct Verified {
    link: [u8; 32],
    terms: LinkTerms,
    until: Instant,
}

impl VerifiedLinks {
    /// What `token` granted in `domain` a moment ago, if it still does by its times.
    pub(super) fn find(&mut self, token: &str, domain: &str, now: Now) -> Option<LinkTerms> {
        while self.0.pop_front_if(|verified| verified.until <= now.instant).is_some() {}
        if self.0.is_empty() {
            return None;
        }
        let link = digest(token, domain);
        let terms = &self.0.iter().find(|verified| verified.link == link)?.terms;
        (now.unix_millis / 1000 < terms.expires).then(|| terms.clone())
    }

    /// Keeps what was verified now.
    pub(super) fn keep(&mut self, token: &str, domain: &str, terms: &LinkTerms, now: Now) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(Verified { link: digest(token, domain), terms: terms.clone(), until: now.instant + GOOD_FOR });
    }
}

fn digest(token: &str, domain: &str) -> [u8; 32] {
    sha256(&[domain.as_bytes(), &[0], token.as_bytes()].concat())
}
