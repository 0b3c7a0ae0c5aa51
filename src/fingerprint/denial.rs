//! Software that is not let in.

use super::ClientSoftware;

/// Refuses a client by what it says of itself. It keeps out honest clients of a bad version, not liars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The software's name, letter case aside.
    pub software: String,
    /// The version; `None` for every one. "1.2" is also "1.2.7", and not "1.20".
    pub version: Option<String>,
    /// What the customer is told; empty for the usual sentence.
    pub text: String,
}

/// What a customer is told whose client is refused, unless a denial has words of its own.
const SENTENCE: &str = "This version of your messenger is not accepted here. Please update it or use another one.";

impl Denial {
    /// Whether this software is refused.
    pub fn refuses(&self, software: &ClientSoftware) -> bool {
        let same_name = !software.name.is_empty() && software.name.to_lowercase() == self.software.to_lowercase();
        same_name && self.version.as_deref().is_none_or(|version| is_within(&software.version, version))
    }

    /// What the customer is told.
    pub fn sentence(&self) -> &str {
        if self.text.is_empty() { SENTENCE } else { &self.text }
    }
}

/// Whether `version` is `series` or a part of it.
fn is_within(version: &str, series: &str) -> bool {
    let rest = version.strip_prefix(series);
    rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_series_of_versions_are_refused_and_nothing_else() {
        let denial = |version: Option<&str>| Denial { software: "Chatty".into(), version: version.map(str::to_owned), text: String::new() };
        let software =
            |name: &str, version: &str| ClientSoftware { name: name.to_owned(), version: version.to_owned(), ..ClientSoftware::unknown() };
        assert!(denial(None).refuses(&software("chatty", "9")));
        for (version, refused) in
            [("1.2", true), ("1.2.7", true), ("1.2~beta", true), ("1.20", false), ("1.2b", false), ("1.3", false), ("", false)]
        {
            assert_eq!(denial(Some("1.2")).refuses(&software("CHATTY", version)), refused, "{version}");
        }
        assert!(!denial(None).refuses(&software("Chatty2", "1.2")));
        assert!(!denial(None).refuses(&ClientSoftware::unknown()));
    }
}
