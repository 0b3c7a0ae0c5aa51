//! The order of versions, as programs name theirs: "0.9" before "0.13.1", "0.13.1-rc2" before "0.13.1".
//!
//! Only the first word counts ("2.14.12 (libpurple 2.14.12)"), without a leading "v" and without what follows a "+".

use std::cmp::Ordering;

/// Parts of a version that are looked at; no program has as many.
const MOST_PARTS: usize = 16;

/// Words that tell of a version before the one whose numbers stand before them. Any other word, as in "1.0.2k", comes after it.
const BEFORE: [&str; 12] = ["a", "alpha", "b", "beta", "c", "dev", "git", "nightly", "pre", "preview", "rc", "snapshot"];

/// A version. "1.2" and "1.2.0" are one.
#[derive(Clone, Debug)]
pub struct Version(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// A word that comes before nothing at all.
    Before(String),
    /// Digits without leading zeros.
    Number(String),
    /// A word that comes after nothing at all.
    After(String),
}

impl Version {
    /// Reads one; `None` where it does not begin with a number.
    pub fn parse(text: &str) -> Option<Self> {
        let word = text.split_whitespace().next()?;
        let word = word.strip_prefix(['v', 'V']).unwrap_or(word);
        let word = word.split('+').next()?;
        if !word.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        let mut parts = Vec::new();
        let mut rest = word;
        while !rest.is_empty() && parts.len() < MOST_PARTS {
            let separator = rest.starts_with(|next: char| !next.is_ascii_alphanumeric());
            if separator {
                let mark = rest.chars().next()?;
                rest = rest.get(mark.len_utf8()..)?;
                if mark == '~' {
                    parts.push(Part::Before(String::new()));
                }
                continue;
            }
            let is_number = rest.starts_with(|next: char| next.is_ascii_digit());
            let end = rest.find(|next: char| next.is_ascii_digit() != is_number || !next.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let (run, tail) = rest.split_at_checked(end)?;
            parts.push(if is_number { Part::Number(run.trim_start_matches('0').to_owned()) } else { word_part(run) });
            rest = tail;
        }
        Some(Self(parts))
    }

    /// Whether this is `series` or a part of it: "0.13.1" is of "0.13", "0.130" is not.
    pub fn is_of(&self, series: &Self) -> bool {
        self.0.starts_with(&series.0)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let nothing = Part::Number(String::new());
        let count = self.0.len().max(other.0.len());
        let at = |version: &Self, index| version.0.get(index).cloned().unwrap_or_else(|| nothing.clone());
        let order = (0..count).map(|index| at(self, index).order(&at(other, index)));
        order.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Part {
    /// A part that is missing is the number 0.
    fn order(&self, other: &Self) -> Ordering {
        let rank = |part: &Self| match part {
            Self::Before(_) => 0,
            Self::Number(digits) if digits.is_empty() => 1,
            Self::After(_) => 2,
            Self::Number(_) => 3,
        };
        match (self, other) {
            (Self::Before(left), Self::Before(right)) | (Self::After(left), Self::After(right)) => left.cmp(right),
            (Self::Number(left), Self::Number(right)) => (left.len(), left).cmp(&(right.len(), right)),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

fn word_part(word: &str) -> Part {
    let word = word.to_ascii_lowercase();
    if BEFORE.contains(&word.as_str()) { Part::Before(word) } else { Part::After(word) }
}

/// Versions that a rule is of: "0.13" for it and all of its parts, or bounds such as ">=0.9, <0.13.1".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRange(Vec<Bound>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Bound {
    Series(Version),
    Exactly(Version),
    Below(Version),
    UpTo(Version),
    From(Version),
    Above(Version),
}

impl VersionRange {
    /// Reads one; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let bound = |word: &str| {
            let word = word.trim();
            let number = word.trim_start_matches(['<', '>', '=']);
            let version = Version::parse(number.trim_start()).filter(|_| !number.trim_start().contains(char::is_whitespace))?;
            let (operator, _) = word.split_at_checked(word.len() - number.len())?;
            Some(match operator {
                "" => Bound::Series(version),
                "=" => Bound::Exactly(version),
                "<" => Bound::Below(version),
                "<=" => Bound::UpTo(version),
                ">=" => Bound::From(version),
                ">" => Bound::Above(version),
                _ => return None,
            })
        };
        let bounds: Option<Vec<_>> = text.split(',').map(bound).collect();
        bounds.map(Self)
    }

    /// Whether `version` lies in it; what is no version lies nowhere.
    pub fn holds(&self, version: &str) -> bool {
        let Some(version) = Version::parse(version) else { return false };
        self.0.iter().all(|bound| match bound {
            Bound::Series(series) => version.is_of(series),
            Bound::Exactly(one) => version.cmp(one).is_eq(),
            Bound::Below(end) => version < *end,
            Bound::UpTo(end) => version <= *end,
            Bound::From(start) => version >= *start,
            Bound::Above(start) => version > *start,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn versions_stand_in_the_order_in_which_they_are_released() {
        let ordered = [
            "0.9",
            "0.13~git5",
            "0.13.0-alpha",
            "0.13.0-beta2",
            "0.13.0-beta11",
            "0.13.0-rc1",
            "0.13",
            "0.13.1.dev3",
            "0.13.1rc1",
            "0.13.1",
            "0.13.1k",
            "0.13.2",
            "0.100",
            "1.0.0-rc.1",
            "1.0.0",
            "2",
            "2.14.12 (libpurple 2.14.12)",
            "20250101",
            "99999999999999999999999999",
        ];
        for (index, early) in ordered.iter().enumerate() {
            for late in ordered.iter().skip(index + 1) {
                assert!(version(early) < version(late), "{early} < {late}");
                assert!(version(late) > version(early), "{late} > {early}");
            }
        }
    }

    #[test]
    fn the_same_version_may_be_written_in_several_ways() {
        for (one, other) in [("1.2", "1.2.0"), ("v1.2", "1.02"), ("2.12.8+free", "2.12.8"), ("1.2RC1", "1.2-rc.1"), ("1.2 (x)", "1.2")] {
            assert_eq!(version(one).cmp(&version(other)), Ordering::Equal, "{one} = {other}");
        }
        for none in ["", " ", "latest", "-1", "v", "(1.2)"] {
            assert_eq!(Version::parse(none), None, "{none}");
        }
    }

    #[test]
    fn a_range_holds_what_lies_in_it() {
        for (range, inside, outside) in [
            ("0.13", &["0.13", "0.13.1", "0.13.1-rc1", "v0.13.9 beta"][..], &["0.130", "0.12", "0.14", ""][..]),
            ("<0.13.1", &["0.9", "0.13.1-rc1", "0.13"], &["0.13.1", "0.13.1k", "1", "unknown"]),
            (">=0.9, <0.13.1", &["0.9", "0.10", "0.13.0"], &["0.8.9", "0.9-rc1", "0.13.1"]),
            ("<=2", &["1.9", "2", "2.0.0"], &["2.0.1"]),
            (">2", &["2.0.1", "10"], &["2", "2.0-rc1"]),
            ("= 2.14.12", &["2.14.12 (libpurple 2.14.12)"], &["2.14.1", "2.14.12.1"]),
        ] {
            let range = VersionRange::parse(range).unwrap();
            assert!(inside.iter().all(|version| range.holds(version)), "{range:?} {inside:?}");
            assert!(!outside.iter().any(|version| range.holds(version)), "{range:?} {outside:?}");
        }
        for none in ["", ",", "<", "=>1", "<<1", "1 2", ">=0.9,", "any", "== 1"] {
            assert_eq!(VersionRange::parse(none), None, "{none}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_version_or_none_and_the_order_is_one(texts in proptest::collection::vec("[0-9a-c.~+ -]{0,12}", 3)) {
            let mut versions: Vec<_> = texts.iter().filter_map(|text| Version::parse(text)).collect();
            versions.sort();
            proptest::prop_assert!(versions.is_sorted());
            for pair in versions.windows(2) {
                proptest::prop_assert_eq!(pair[0].cmp(&pair[1]).reverse(), pair[1].cmp(&pair[0]));
            }
        }
    }
}
