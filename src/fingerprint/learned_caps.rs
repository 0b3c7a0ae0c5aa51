//! Capabilities (XEP-0115) whose hash was checked: whose they are is known from then on without asking again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Catalogue, ClientSoftware};

/// Hashes that are remembered; the oldest goes first. Strangers fill it: what they push out is learned again.
const MOST: usize = 1024;

/// What is known of capabilities: shipped and learned.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// What the files say.
    pub catalogue: Arc<Catalogue>,
    /// What clients have shown.
    pub learned: Arc<LearnedCaps>,
}

impl Knowledge {
    /// Whose capabilities have this hash.
    pub fn caps(&self, hash: &str) -> Option<ClientSoftware> {
        self.catalogue.caps(hash).or_else(|| self.learned.find(hash))
    }
}

/// Hashes that were checked against what the client lists, and its name.
#[derive(Debug, Default)]
pub struct LearnedCaps(Mutex<Learned>);

#[derive(Debug, Default)]
struct Learned {
    software: HashMap<String, ClientSoftware>,
    order: VecDeque<String>,
}

impl LearnedCaps {
    /// Remembers whose capabilities have this hash, which was computed from them.
    pub fn learn(&self, hash: &str, software: ClientSoftware) {
        let mut learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if learned.software.insert(hash.to_owned(), software).is_none() {
            learned.order.push_back(hash.to_owned());
        }
        while learned.order.len() > MOST {
            if let Some(oldest) = learned.order.pop_front() {
                learned.software.remove(&oldest);
            }
        }
    }

    fn find(&self, hash: &str) -> Option<ClientSoftware> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).software.get(hash).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_is_found_and_the_oldest_is_forgotten() {
        let knowledge = Knowledge::default();
        let named = |name: &str| ClientSoftware { name: name.to_owned(), ..ClientSoftware::unknown() };
        for number in 0..=MOST {
            knowledge.learned.learn(&number.to_string(), named("x"));
            knowledge.learned.learn(&number.to_string(), named("y"));
        }
        assert_eq!(knowledge.caps("0"), None);
        assert_eq!(knowledge.caps("1"), Some(named("y")));
        assert_eq!(knowledge.learned.0.lock().unwrap().software.len(), MOST);
    }
}
