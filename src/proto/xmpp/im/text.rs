//! A stranger's text made fit to be shown on another's screen.
//!
//! Terminals act on control characters, and bidirectional overrides make text read as what it is not; neither says anything.

use crate::im::MAX_ID_BYTES;

/// `text` with its lines ending in `\n`, and without control characters other than `\n` and `\t`, bidirectional
/// embeddings, overrides and isolates (U+202A–E, U+2066–9), or characters that XML 1.0 cannot hold.
pub(in crate::proto::xmpp) fn cleaned(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' => {
                characters.next_if_eq(&'\n');
                out.push('\n');
            }
            '\n' | '\t' => out.push(character),
            other if is_unfit(other) => {}
            other => out.push(other),
        }
    }
    out
}

/// `text` on one line: cleaned, its line ends and tabs turned to spaces, trimmed, and cut to `most` bytes between two characters.
pub(in crate::proto::xmpp) fn cleaned_line(text: &str, most: usize) -> String {
    let line: String = text
        .chars()
        .map(|character| if matches!(character, '\r' | '\n' | '\t') { ' ' } else { character })
        .filter(|character| !is_unfit(*character))
        .collect();
    let line = line.trim();
    line[..line.floor_char_boundary(most)].trim_end().to_owned()
}

/// `id` where it is fit to be carried: not empty, at most [`MAX_ID_BYTES`], and clean. An id cut short would name nothing.
pub(in crate::proto::xmpp) fn fit_id(id: &str) -> Option<&str> {
    (!id.is_empty() && id.len() <= MAX_ID_BYTES && !id.chars().any(is_unfit)).then_some(id)
}

/// Whether a character has no place in anything that is carried.
fn is_unfit(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_bidi_overrides_are_removed() {
        assert_eq!(cleaned("a\u{0}b\u{1b}[31mc\u{9b}d\u{7f}\u{202e}e\u{2066}f\u{2069}\u{ffff}"), "ab[31mcdef");
    }

    #[test]
    fn lines_and_tabs_survive_and_line_ends_become_newlines() {
        assert_eq!(cleaned("one\r\ntwo\rthree\n\tfour\r\r\n"), "one\ntwo\nthree\n\tfour\n\n");
    }

    #[test]
    fn letters_of_every_script_survive() {
        let text = "Grüße, مرحبا, שלום, 你好, 👩\u{200d}💻 e\u{301}";
        assert_eq!(cleaned(text), text);
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(cleaned_line(" a\nb\u{7}ö ", 4), "a b");
        assert_eq!(cleaned_line("ab\u{7}ö", 4), "abö");
    }

    #[test]
    fn an_id_is_carried_whole_or_not_at_all() {
        assert_eq!(fit_id(""), None);
        assert_eq!(fit_id("a\nb"), None);
        assert_eq!(fit_id(&"x".repeat(MAX_ID_BYTES + 1)), None);
        assert_eq!(fit_id("purple1b2c"), Some("purple1b2c"));
    }
}
