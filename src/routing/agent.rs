//! Whether an agent may be offered work: presence, overruled by the agent's own word.

use crate::im::Availability;

/// What the agent asked for by command; it stands until the next command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `!ready`: offers, whatever the client's presence shows.
    Ready,
    /// `!pause`: no offers, with the reason given, which may be empty.
    Pause(String),
}

/// What routing sees of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No client is there.
    Offline,
    /// There, but the client's presence says away or busy.
    Away,
    /// There, and paused by command.
    Paused(String),
    /// May be offered work.
    Ready,
}

impl Standing {
    /// The word used in status and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Away => "away",
            Self::Paused(_) => "paused",
            Self::Ready => "ready",
        }
    }
}

/// Judges an agent by the presence of the client that gets its work and by its last command. Being offline always wins.
pub fn standing(presence: Option<Availability>, wish: Option<&Wish>) -> Standing {
    let shown = match presence {
        None | Some(Availability::Unavailable) => return Standing::Offline,
        Some(Availability::Available | Availability::Chat) => Standing::Ready,
        Some(Availability::Away | Availability::ExtendedAway | Availability::DoNotDisturb) => Standing::Away,
    };
    match wish {
        None => shown,
        Some(Wish::Ready) => Standing::Ready,
        Some(Wish::Pause(reason)) => Standing::Paused(reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_decides_until_a_command_does() {
        assert_eq!(standing(Some(Availability::Chat), None), Standing::Ready);
        assert_eq!(standing(Some(Availability::DoNotDisturb), None), Standing::Away);
        assert_eq!(standing(Some(Availability::Away), Some(&Wish::Ready)), Standing::Ready);
        assert_eq!(standing(Some(Availability::Available), Some(&Wish::Pause("lunch".into()))), Standing::Paused("lunch".into()));
    }

    #[test]
    fn nobody_is_ready_without_a_client() {
        assert_eq!(standing(None, Some(&Wish::Ready)), Standing::Offline);
        assert_eq!(standing(Some(Availability::Unavailable), Some(&Wish::Ready)), Standing::Offline);
    }
}
