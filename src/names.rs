//! Names that strangers gave, made fit to be shown to others: what is seen is what is there.
//!
//! A name is brought into one form (NFC), on one line, without what is not seen (control characters, bidirectional and other
//! invisible ones), with few marks on each letter, and bounded. One that passes a letter of one script off as that of another is marked.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;
use unicode_security::MixedScript as _;

/// Most marks on one letter: Vietnamese has two, pointed Hebrew three. What has more climbs over the lines around it.
const MAX_MARKS: usize = 3;

/// Stands behind a name that mixes scripts within a word. A stranger can write it too, and gains nothing.
const MIXED: &str = " (mixed scripts)";

/// `text` as one line of at most `most` characters.
pub fn shown_line(text: &str, most: usize) -> String {
    let mut seen = String::new();
    for letter in text.chars().filter(|letter| !is_unseen(*letter)) {
        // They join letters of scripts that join, and pictures. Between others nobody sees them.
        let joins_nothing = matches!(letter, JOINER | NON_JOINER) && seen.chars().last().is_none_or(|before| before.is_ascii());
        if !joins_nothing {
            seen.push(if letter.is_whitespace() { ' ' } else { letter });
        }
    }
    let mut line = String::new();
    let (mut letters, mut marks) = (0, 0);
    for letter in seen.nfc() {
        marks = if is_combining_mark(letter) { marks + 1 } else { 0 };
        let is_too_much = marks > MAX_MARKS || (letter == ' ' && (line.is_empty() || line.ends_with(' ')));
        if is_too_much {
            continue;
        }
        if letters == most {
            break;
        }
        line.push(letter);
        letters += 1;
    }
    line.truncate(line.trim_end().len());
    line
}

/// `text` as a name of at most `most` characters, marked where it mixes scripts.
pub fn shown_name(text: &str, most: usize) -> String {
    let mut name = shown_line(text, most);
    if is_mixed(&name) {
        name.push_str(MIXED);
    }
    name
}

/// Whether a word of `name` is of several scripts (UTS 39 §5.1). Latin letters beside Chinese, Japanese or Korean ones are usual, and
/// are not taken for each other.
pub fn is_mixed(name: &str) -> bool {
    name.split(' ').any(|word| {
        if word.is_single_script() {
            return false;
        }
        let rest: String = word.chars().filter(|letter| !letter.is_ascii()).collect();
        let scripts = rest.resolve_script_set();
        !(scripts.hanb || scripts.jpan || scripts.kore)
    })
}

const NON_JOINER: char = '\u{200c}';
const JOINER: char = '\u{200d}';

/// Whether a character shows nothing of its own and says nothing in a name: controls, bidirectional marks, embeddings, overrides and
/// isolates, fillers, zero-width spaces, tags, selectors of rare variants, and what is no character.
fn is_unseen(letter: char) -> bool {
    (letter.is_control() && !letter.is_whitespace())
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_name_has_one_form() {
        assert_eq!(shown_name("Ann\u{e9}", 99), shown_name("Anne\u{301}", 99));
        assert_eq!(shown_name("Cafe\u{301}", 99), "Caf\u{e9}");
    }

    #[test]
    fn a_name_is_one_line_without_spaces_around_it() {
        assert_eq!(shown_name(" Ann \r\n\t of\u{2028}Troy\u{a0}\u{3000} ", 99), "Ann of Troy");
        assert_eq!(shown_name("abcdef", 3), "abc");
        assert_eq!(shown_name("ab c", 3), "ab");
    }

    #[test]
    fn bidi_controls_and_whatever_is_not_seen_are_removed() {
        for unseen in "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}\u{200b}\u{feff}\u{ad}\u{0}\u{7f}\u{9b}\u{e0041}\u{200d}\u{200c}".chars() {
            assert_eq!(shown_name(&format!("ad{unseen}min"), 99), "admin", "{unseen:?}");
        }
    }

    #[test]
    fn letters_carry_few_marks() {
        let zalgo = format!("Z{}a", "\u{335}\u{322}\u{34d}".repeat(40));
        assert!(shown_name(&zalgo, 99).chars().count() <= 2 + MAX_MARKS, "{}", shown_name(&zalgo, 99));
        for honest in [
            "Nguy\u{1ec5}n Th\u{1ecb}",
            "\u{5e9}\u{5c1}\u{5b8}\u{5dc}\u{5d5}\u{5b9}\u{5dd}",
            "\u{e01}\u{e33}",
            "\u{1f469}\u{200d}\u{1f4bb}",
        ] {
            assert_eq!(shown_name(honest, 99), honest.nfc().collect::<String>());
        }
    }

    #[test]
    fn mixed_scripts_within_a_word_are_marked_and_honest_names_are_not() {
        for spoofed in ["P\u{430}ypal", "\u{410}dmin", "\u{3bf}utgate", "Support \u{422}eam"] {
            assert_eq!(shown_name(spoofed, 99), format!("{spoofed} (mixed scripts)"));
        }
        for honest in [
            "Gajim 1.7.3",
            "\u{418}\u{432}\u{430}\u{43d} Smith",
            "\u{5c71}\u{7530}\u{592a}\u{90ce}",
            "T\u{30b7}\u{30e3}\u{30c4}",
            "\u{645}\u{631}\u{62d}\u{628}\u{627} 2",
            "\u{ae40}\u{bbfc}\u{c218}",
            "O'Brien-M\u{fc}ller",
            "Ann \u{1f600}",
        ] {
            assert_eq!(shown_name(honest, 99), honest);
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_short_seen_and_shown_alike_twice(text in "\\PC{0,60}|[a-z\u{300}-\u{370}\u{200b}-\u{2070} ]{0,60}", most in 0..40_usize) {
            let line = shown_line(&text, most);
            prop_assert!(line.chars().count() <= most);
            prop_assert!(!line.chars().any(|letter| is_unseen(letter) || letter.is_control()));
            prop_assert_eq!(shown_line(&line, most), line);
        }
    }
}
