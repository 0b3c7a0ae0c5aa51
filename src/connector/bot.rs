//! A queue's bot: greets, answers by rule, hands over when a human is wanted.

/// How a bot speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BotConfig {
    /// Its name, shown to the customer.
    pub name: String,
    /// Said when a session begins; nothing where empty.
    pub greeting: String,
    /// Tried in order; the first whose word occurs answers.
    pub rules: Vec<BotRule>,
    /// Words that ask for a human; [`HANDOVER_WORDS`] where empty.
    pub handover: Vec<String>,
    /// Said when no rule fits.
    pub fallback: String,
}

/// One answer and the words that call for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BotRule {
    /// Any of these words or phrases, whole, in any case.
    pub words: Vec<String>,
    /// The answer.
    pub answer: String,
}

/// Words that ask for a human unless the configuration names others.
pub const HANDOVER_WORDS: [&str; 4] = ["human", "agent", "person", "operator"];

/// Said when no rule fits and the configuration has no sentence for it.
pub const FALLBACK: &str = "I did not understand that. Write \"human\" to talk with a person.";

/// What the bot does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BotAnswer<'a> {
    /// Says this.
    Say(&'a str),
    /// Lets a human take over.
    HandOver,
}

impl BotConfig {
    /// Answers a customer's text.
    pub fn answer(&self, text: &str) -> BotAnswer<'_> {
        let said = words_of(text);
        let says = |phrase: &str| said.contains(&words_of(phrase));
        let wants_human = if self.handover.is_empty() {
            HANDOVER_WORDS.iter().any(|word| says(word))
        } else {
            self.handover.iter().any(|word| says(word))
        };
        if wants_human {
            return BotAnswer::HandOver;
        }
        let rule = self.rules.iter().find(|rule| rule.words.iter().any(|word| says(word)));
        match rule {
            Some(rule) => BotAnswer::Say(&rule.answer),
            None if self.fallback.is_empty() => BotAnswer::Say(FALLBACK),
            None => BotAnswer::Say(&self.fallback),
        }
    }
}

/// The words of a text in lower case, each between two spaces, so that a phrase is found by its whole words.
fn words_of(text: &str) -> String {
    let mut words = String::from(" ");
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        words.push_str(&word.to_lowercase());
        words.push(' ');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bot_answers_by_whole_words_in_any_case() {
        let bot =
            BotConfig { rules: vec![BotRule { words: vec!["Hours".into()], answer: "Nine to five.".into() }], ..BotConfig::default() };
        assert_eq!(bot.answer("Your HOURS?"), BotAnswer::Say("Nine to five."));
        assert_eq!(bot.answer("after-hours"), BotAnswer::Say("Nine to five."));
        assert_eq!(bot.answer("hoursly"), BotAnswer::Say(FALLBACK));
        assert_eq!(bot.answer("I want a Human!"), BotAnswer::HandOver);
        assert_eq!(bot.answer("reagents"), BotAnswer::Say(FALLBACK));
        let phrase = BotRule { words: vec!["opening hours".into()], answer: "Nine to five.".into() };
        let bot = BotConfig { rules: vec![phrase], ..BotConfig::default() };
        assert_eq!(bot.answer("What are your opening, hours?"), BotAnswer::Say("Nine to five."));
        assert_eq!(bot.answer("opening what hours"), BotAnswer::Say(FALLBACK));
    }
}
