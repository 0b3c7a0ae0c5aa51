//! Agents' commands: bare words to the desk, `!words` in any chat.

use super::{Desk, LegId};
use crate::routing::agent::{Standing, Wish};
use crate::session::SessionId;
use crate::store::{Op, Place};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Take an offered session; without a code the only one offered.
    Take(Option<String>),
    /// Decline an offered session.
    Skip(Option<String>),
    /// End the conversation of this chat.
    Done,
    /// No more offers, for this reason.
    Pause(String),
    /// Offers again.
    Ready,
    /// Which sessions are mine.
    Mine,
    /// The list of commands.
    Help,
}

/// What a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A command.
    Command(Command),
    /// A `!word` that is no command.
    Unknown(String),
    /// Words for a person.
    Text,
}

const HELP: &str = "To the desk: take CODE, skip CODE. In any chat: !done ends the conversation, !pause [why] stops offers, \
                    !ready takes them again, !mine lists your conversations. !!text sends \"!text\".";

impl Heard {
    /// A text in a customer's chat: only what begins with one exclamation mark is a command.
    pub(super) fn in_chat(body: &str) -> Self {
        let body = body.trim_start();
        match body.strip_prefix('!') {
            None => Self::Text,
            Some(rest) if rest.starts_with('!') => Self::Text,
            Some(rest) => Self::command(rest).unwrap_or_else(|| Self::Unknown(body.split_whitespace().next().unwrap_or("!").to_owned())),
        }
    }

    /// A text to the desk: commands with or without the exclamation mark.
    pub(super) fn at_desk(body: &str) -> Self {
        match Self::command(body) {
            Some(command) => command,
            None => Self::in_chat(body),
        }
    }

    fn command(text: &str) -> Option<Self> {
        let (word, rest) = text.trim().split_once(char::is_whitespace).unwrap_or_else(|| (text.trim(), ""));
        let rest = rest.trim();
        let code = || rest.split_whitespace().next().map(str::to_lowercase);
        Some(Self::Command(match word.to_lowercase().as_str() {
            "take" => Command::Take(code()),
            "skip" => Command::Skip(code()),
            "done" => Command::Done,
            "pause" => Command::Pause(rest.chars().take(100).collect()),
            "ready" => Command::Ready,
            "mine" => Command::Mine,
            "help" => Command::Help,
            _ => return None,
        }))
    }
}

impl Desk {
    /// Runs a command given in the chat with `from`, which is a customer's if `session` is given.
    pub(super) fn run(&mut self, leg: LegId, agent: &str, from: &str, session: Option<SessionId>, command: Command) {
        let answer = match command {
            Command::Take(code) => self.take(agent, code.as_deref()),
            Command::Skip(code) => self.skip(agent, code.as_deref()),
            Command::Done => self.done(agent, session),
            Command::Pause(reason) => Some(self.pause(agent, reason)),
            Command::Ready => Some(self.ready(agent)),
            Command::Mine => Some(self.mine(agent)),
            Command::Help => Some(HELP.to_owned()),
        };
        if let Some(answer) = answer {
            self.tell(leg, from, answer, session);
        }
    }

    fn take(&mut self, agent: &str, code: Option<&str>) -> Option<String> {
        let (id, shown) = match self.named(agent, code) {
            Ok(named) => named,
            Err(answer) => return Some(answer),
        };
        let session = self.sessions.get(&id)?;
        match &session.place {
            Place::Agent(owner) if owner == agent => Some(format!("{shown} is with you already.")),
            Place::Agent(owner) => Some(format!("{shown} was taken by {}.", self.display_of(owner))),
            Place::Bot | Place::Closed(_) => Some(format!("{shown} is no longer waiting.")),
            Place::Queued => match session.offer.as_ref().map(|offer| offer.agent.clone()) {
                Some(other) if other != agent => Some(format!("{shown} is offered to {} now.", self.display_of(&other))),
                None if !self.agents.get(agent).is_some_and(|agent| agent.serves(&session.record.queue)) => {
                    Some(format!("{shown} waits in a queue that is not yours."))
                }
                Some(_) | None => {
                    self.counters.offers_accepted += 1;
                    self.connect(id, agent);
                    None
                }
            },
        }
    }

    fn skip(&mut self, agent: &str, code: Option<&str>) -> Option<String> {
        let (id, shown) = match self.named(agent, code) {
            Ok(named) => named,
            Err(answer) => return Some(answer),
        };
        let is_his = self.sessions.get(&id)?.offer.as_ref().is_some_and(|offer| offer.agent == agent);
        if !is_his {
            return Some(format!("{shown} is not offered to you."));
        }
        self.drop_offer(id);
        self.counters.offers_declined += 1;
        self.pass_on(id, agent);
        Some(format!("{shown} goes to someone else."))
    }

    /// The session a command names, and how it is shown.
    fn named(&self, agent: &str, code: Option<&str>) -> Result<(SessionId, String), String> {
        if let Some(code) = code {
            let shown: String = code.chars().take(12).collect::<String>().to_uppercase();
            let bare = code.trim_start_matches('[').trim_end_matches(']');
            return self.codes.get(bare).map(|id| (*id, shown.clone())).ok_or_else(|| format!("{shown} is no longer waiting."));
        }
        let offers = self.agents.get(agent).map(|agent| &agent.offers);
        match offers.map(|offers| (offers.len(), offers.first())) {
            Some((1, Some(id))) => Ok((*id, self.code_of(*id))),
            Some((0, _)) | None => Err("Nothing is offered to you now.".to_owned()),
            Some(_) => Err("Several are offered to you: name the code.".to_owned()),
        }
    }

    fn done(&mut self, agent: &str, session: Option<SessionId>) -> Option<String> {
        let Some(id) = session else { return Some("Write !done in the customer's chat.".to_owned()) };
        if !self.sessions.get(&id).is_some_and(|session| session.is_with(agent)) {
            return Some(format!("{} is not with you.", self.code_of(id)));
        }
        self.end_by_agent(id);
        None
    }

    pub(super) fn pause(&mut self, name: &str, reason: String) -> String {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.wish = Some(Wish::Pause(reason.clone()));
            self.op(Op::Wish { agent: name.to_owned(), wish: Wish::Pause(reason) });
        }
        self.stirred.insert(name.to_owned());
        let offers: Vec<SessionId> = self.agents.get(name).map(|agent| agent.offers.iter().copied().collect()).unwrap_or_default();
        for id in offers {
            self.drop_offer(id);
            self.pass_on(id, name);
        }
        "You are paused: no more offers. Your conversations go on. !ready ends the pause.".to_owned()
    }

    fn ready(&mut self, name: &str) -> String {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.wish = Some(Wish::Ready);
            self.op(Op::Wish { agent: name.to_owned(), wish: Wish::Ready });
        }
        self.stirred.insert(name.to_owned());
        "You are ready: offers will come.".to_owned()
    }

    fn mine(&self, name: &str) -> String {
        let Some(agent) = self.agents.get(name) else { return String::new() };
        let state = match self.standing_of(name) {
            Standing::Ready => "ready".to_owned(),
            Standing::Away => "away".to_owned(),
            Standing::Paused(reason) if reason.is_empty() => "paused".to_owned(),
            Standing::Paused(reason) => format!("paused ({reason})"),
            Standing::Offline => "offline".to_owned(),
        };
        let mut lines = vec![format!("You are {state}, with {} of {} conversations.", agent.sessions.len(), agent.config.capacity)];
        for session in agent.sessions.iter().filter_map(|id| self.sessions.get(id)) {
            let record = &session.record;
            lines.push(format!("[{}] {} - {} - {}", record.code.to_uppercase(), record.queue, record.customer, record.software));
        }
        lines.join("\n")
    }

    fn display_of(&self, agent: &str) -> String {
        self.agents.get(agent).map_or_else(|| agent.to_owned(), |agent| agent.config.display.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_exclamation_mark_makes_a_command_in_a_chat() {
        assert_eq!(Heard::in_chat("!done"), Heard::Command(Command::Done));
        assert_eq!(Heard::in_chat("  !pause lunch break"), Heard::Command(Command::Pause("lunch break".into())));
        assert_eq!(Heard::in_chat("!dnoe now"), Heard::Unknown("!dnoe".into()));
        assert_eq!(Heard::in_chat("! done"), Heard::Command(Command::Done));
        assert_eq!(Heard::in_chat("!!important"), Heard::Text);
        assert_eq!(Heard::in_chat("take 7f3a"), Heard::Text);
    }

    #[test]
    fn the_desk_takes_bare_words() {
        assert_eq!(Heard::at_desk("Take 7F3A"), Heard::Command(Command::Take(Some("7f3a".into()))));
        assert_eq!(Heard::at_desk("!skip 7f3a"), Heard::Command(Command::Skip(Some("7f3a".into()))));
        assert_eq!(Heard::at_desk("take"), Heard::Command(Command::Take(None)));
        assert_eq!(Heard::at_desk("hello"), Heard::Text);
    }
}
