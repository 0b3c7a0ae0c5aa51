//! Short codes: what stands in for a link where a token does not fit, in an address, on a card, over the telephone.
//!
//! A code is 26 characters of Crockford's base32: the label of the connector that made it, then 125 random bits. It says nothing by
//! itself; its connector knows what it stands for. Read aloud or typed, case does not matter, hyphens may stand anywhere, and the
//! letters that look like digits are taken for them.

use std::fmt;

/// What codes bear in place of an issuer.
pub const CODE_ISSUER: &str = "code";

/// Characters of a code.
pub const CODE_LENGTH: usize = 26;

/// Longest text that is looked at: a code with a hyphen or blank after every character.
const MAX_TEXT: usize = 2 * CODE_LENGTH;

/// Characters between two hyphens where a code is written for people.
const GROUP: usize = 5;

/// Without the letters i, l, o and u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The first character of a connector's codes, by which a relay knows whom to ask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(u8);

impl Label {
    /// Reads one character.
    pub fn parse(text: &str) -> Option<Self> {
        let [byte] = text.as_bytes() else { return None };
        // What is written in a file is written as it stands in codes.
        Some(Self(symbol(*byte)?)).filter(|label| label.0 == *byte)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        char::from(self.0).fmt(f)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A code in the one form that is compared. It is a secret: whoever knows it may enter.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkCode(String);

impl LinkCode {
    /// A new code of the connector `label`; three of the random bits are left over.
    pub fn new(label: Label, random: [u8; 16]) -> Self {
        let mut rest = u128::from_be_bytes(random);
        let mut text = String::with_capacity(CODE_LENGTH);
        text.push(char::from(label.0));
        for _ in 1..CODE_LENGTH {
            let digit = usize::try_from(rest % 32).unwrap_or_default();
            text.push(char::from(ALPHABET[digit]));
            rest /= 32;
        }
        Self(text)
    }

    /// Reads what somebody typed or copied; `None` where it has not the form of a code.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return None;
        }
        let symbols = text.bytes().filter(|byte| !matches!(byte, b'-' | b' ')).map(symbol);
        let code: String = symbols.map(|symbol| symbol.map(char::from)).collect::<Option<_>>()?;
        (code.len() == CODE_LENGTH).then_some(Self(code))
    }

    /// Whose it is.
    pub fn label(&self) -> Label {
        Label(self.0.as_bytes().first().copied().unwrap_or_default())
    }

    /// The code itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The code in groups, for a card or to be read aloud.
    pub fn grouped(&self) -> String {
        let (label, rest) = self.0.split_at(1);
        let groups = rest.as_bytes().chunks(GROUP).map(|group| String::from_utf8_lossy(group).into_owned());
        let groups: Vec<String> = groups.collect();
        format!("{label}{}", groups.join("-"))
    }
}

impl fmt::Debug for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkCode({}…, MASKED)", self.label())
    }
}

/// The character of the alphabet that is meant.
fn symbol(byte: u8) -> Option<u8> {
    let meant = match byte.to_ascii_lowercase() {
        b'o' => b'0',
        b'i' | b'l' => b'1',
        other => other,
    };
    ALPHABET.contains(&meant).then_some(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label::parse("k").unwrap()
    }

    #[test]
    fn a_code_is_its_label_and_what_chance_gave() {
        let code = LinkCode::new(label(), [0; 16]);
        assert_eq!(code.as_str(), "k0000000000000000000000000");
        assert_eq!(code.label(), label());
        let most = LinkCode::new(label(), [0xff; 16]);
        assert_eq!(most.as_str(), "kzzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(most.grouped(), "kzzzzz-zzzzz-zzzzz-zzzzz-zzzzz");
        assert!(!format!("{most:?}").contains("zz"));
    }

    #[test]
    fn each_of_the_125_bits_makes_another_code() {
        let mut seen = std::collections::HashSet::new();
        for bit in 0..125 {
            assert!(seen.insert(LinkCode::new(label(), (1u128 << bit).to_be_bytes()).0), "{bit}");
        }
    }

    #[test]
    fn what_people_make_of_a_code_is_read_back() {
        let code = LinkCode::new(label(), [0x5a; 16]);
        let upper = code.as_str().to_uppercase();
        for text in [code.as_str().to_owned(), upper, code.grouped(), format!(" {}\n", code.grouped().replace('-', " - "))] {
            assert_eq!(LinkCode::parse(&text), Some(code.clone()), "{text}");
        }
        let spoken = "kOoIiLl0000000000000000000";
        assert_eq!(LinkCode::parse(spoken).unwrap().as_str(), "k0011110000000000000000000");
    }

    #[test]
    fn what_is_no_code_is_not_taken_for_one() {
        let code = LinkCode::new(label(), [7; 16]).0;
        let long = format!("{code}0");
        for text in ["", "hunter2", &code[1..], &long, "u0000000000000000000000000", "k000000000000.0000000000000", &"-".repeat(500)] {
            assert_eq!(LinkCode::parse(text), None, "{text}");
        }
        for text in ["", "kk", "K", "o", "u", "-", "é"] {
            assert_eq!(Label::parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_code_is_read_back_and_no_text_panics(random: [u8; 16], text in ".{0,60}") {
            let code = LinkCode::new(label(), random);
            assert_eq!(LinkCode::parse(&code.grouped()), Some(code));
            if let Some(code) = LinkCode::parse(&text) {
                assert_eq!(code.as_str().len(), CODE_LENGTH);
            }
        }
    }
}
