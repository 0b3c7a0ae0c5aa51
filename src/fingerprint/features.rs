//! What a client's software may lack of what a conversation can carry.

/// Features by name, in the order of their bits in the tunnel.
const NAMES: [&str; 6] = ["typing", "receipts", "read markers", "corrections", "replies", "links"];

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u32);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);

    /// All that have a name, for who is to choose.
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// These; `None` where a name is none.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let bit = |name: &str| NAMES.iter().position(|known| *known == name).map(|at| 1 << at);
        names.into_iter().try_fold(Self::NONE, |all, name| Some(Self(all.0 | bit(name)?)))
    }

    /// From the tunnel or the store; bits without a name here are left out.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << NAMES.len()) - 1))
    }

    /// For the tunnel and the store.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether it holds nothing.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter_map(move |(at, name)| (self.0 & (1 << at) != 0).then_some(name))
    }
}

impl std::fmt::Display for Features {
    /// Writes "receipts, corrections".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, name) in self.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_are_the_same_set() {
        let some = Features::named(["corrections", "typing"]).unwrap();
        assert_eq!((some.to_string().as_str(), some.bits()), ("typing, corrections", 0b1001));
        assert_eq!(Features::from_bits(some.bits() | 1 << 31), some, "a newer relay's feature is left out");
        assert_eq!(Features::named(["corections"]), None);
        assert!(Features::NONE.is_empty() && Features::NONE.to_string().is_empty());
    }
}
