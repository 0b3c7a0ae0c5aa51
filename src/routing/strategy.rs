//! Which of several agents gets a session: the longest idle one, those who declined it last.

use super::offer::Bar;

/// An agent who is ready and has capacity to spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The agent.
    pub agent: &'a str,
    /// When the agent last gave up work or became ready, in milliseconds since the Unix epoch.
    pub idle_since: u64,
    /// How the agent stands to this session.
    pub bar: Bar,
}

/// Picks the longest idle candidate; ties go by name, so that the same input gives the same choice.
pub fn longest_idle<'a>(candidates: impl Iterator<Item = Candidate<'a>>) -> Option<&'a str> {
    candidates
        .filter(|candidate| candidate.bar != Bar::Barred)
        .min_by_key(|candidate| (candidate.bar == Bar::LastResort, candidate.idle_since, candidate.agent))
        .map(|candidate| candidate.agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(agent: &str, idle_since: u64, bar: Bar) -> Candidate<'_> {
        Candidate { agent, idle_since, bar }
    }

    #[test]
    fn the_longest_idle_is_chosen_and_who_declined_comes_last() {
        let free = [candidate("bob", 20, Bar::Free), candidate("alice", 30, Bar::Free)];
        assert_eq!(longest_idle(free.into_iter()), Some("bob"));
        let declined = [candidate("bob", 20, Bar::LastResort), candidate("alice", 30, Bar::Free)];
        assert_eq!(longest_idle(declined.into_iter()), Some("alice"));
        let only = [candidate("bob", 20, Bar::LastResort), candidate("alice", 10, Bar::Barred)];
        assert_eq!(longest_idle(only.into_iter()), Some("bob"));
    }
}
