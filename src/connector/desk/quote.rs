//! Keeps what a customer writes from looking like what Outgate says to the agent.
//!
//! Outgate's own sentences in a customer's chat begin with "* ", and so does what clients make of "/me" (XEP-0245). A customer's
//! line that does gets a backslash before it: people write lists, and an agent reads them as they are, but never takes one for a
//! notice. The record keeps the text as it was written.

/// Signs that pass for an asterisk.
const STARS: [char; 12] = [
    '*', '\u{66d}', '\u{204e}', '\u{2055}', '\u{2217}', '\u{2731}', '\u{2732}', '\u{26b9}', '\u{a673}', '\u{fe61}', '\u{ff0a}', '\u{22c6}',
];

/// Puts a backslash before each line that would pass for a notice.
pub(super) fn quote(body: &mut String) {
    if !body.contains(STARS) && !body.contains("/me") {
        return;
    }
    let mut quoted = String::with_capacity(body.len() + 8);
    for line in body.split_inclusive(ends_line) {
        if is_like_ours(line) {
            quoted.push('\\');
        }
        quoted.push_str(line);
    }
    *body = quoted;
}

fn is_like_ours(line: &str) -> bool {
    let seen = line.trim_start_matches(|c: char| c.is_whitespace() || is_invisible(c));
    let ends_word = |rest: &str| rest.chars().next().is_none_or(|c| c.is_whitespace() || is_invisible(c));
    seen.strip_prefix("/me").is_some_and(ends_word) || seen.strip_prefix(STARS).is_some_and(ends_word)
}

fn ends_line(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Takes no place on a screen.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}')
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> String {
        let mut body = text.to_owned();
        quote(&mut body);
        body
    }

    #[test]
    fn what_looks_like_a_notice_is_quoted_whatever_hides_before_it() {
        for text in ["* gone", "  * gone", "*\u{a0}gone", "\u{200b}* gone", "\u{ff0a} gone", "*\u{200b}gone", "*", "/me is gone", "/me"] {
            assert_eq!(quoted(text), format!("\\{text}"));
        }
        assert_eq!(quoted("well\n* gone\u{2028}* gone\n"), "well\n\\* gone\u{2028}\\* gone\n");
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for text in ["*bold* words", "2 * 3 = 6", "**", "/measure", "see /me", "", "\n", "- one\n- two"] {
            assert_eq!(quoted(text), text);
        }
    }
}
