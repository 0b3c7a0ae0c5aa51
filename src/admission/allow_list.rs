//! Who may connect, by address: prefixes that are allowed and prefixes that are denied; the longest that holds an address decides.
//!
//! An IPv4 address mapped into IPv6 (`::ffff:192.0.2.1`, RFC 4291 §2.5.5.2) is the IPv4 address, in questions and in prefixes.

mod ranges;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU32, ParseIntError};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use ranges::{Layer, Ranges, V6Ranges};

/// Bits before the IPv4 address in a mapped one.
const MAPPED: u8 = 96;

/// What is said of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// It may connect.
    Allow,
    /// It may not.
    Deny,
}

impl Access {
    /// Its word in configuration and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// One prefix, and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The addresses.
    pub prefix: IpNet,
    /// What is said.
    pub access: Access,
    /// The file that says it.
    pub file: Arc<str>,
    /// The line there, from 1.
    pub line: u32,
}

/// What becomes of an address, and which entry decides; none where no prefix holds the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'l> {
    /// What becomes of it.
    pub access: Access,
    /// What decides.
    pub entry: Option<&'l Entry>,
}

/// An allow-list, made for lookups.
#[derive(Clone, Debug)]
pub struct AllowList {
    entries: Vec<Entry>,
    v4: Ranges<u32, Decider>,
    v6: V6Ranges,
    otherwise: Access,
}

impl AllowList {
    /// Makes the list of `entries`. Of two that name the same prefix a denial counts; an address in none of them gets `otherwise`.
    pub fn new(entries: Vec<Entry>, otherwise: Access) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let Some(decider) = Decider::of(index, entry.access) else { break };
            match entry.prefix {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()), decider)),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()), decider)),
            }
        }
        Self { entries, v4: Ranges::of(v4), v6: V6Ranges::of(v6), otherwise }
    }

    /// A list that lets everybody in.
    pub fn open() -> Self {
        Self::new(Vec::new(), Access::Allow)
    }

    /// What becomes of `address`.
    pub fn judge(&self, address: IpAddr) -> Verdict<'_> {
        let entry = self.decider(address).and_then(|decider| self.entries.get(decider.index()));
        Verdict { access: entry.map_or(self.otherwise, |entry| entry.access), entry }
    }

    /// Whether `address` may connect. It costs less than to learn why.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.decider(address).map_or(self.otherwise, Decider::access) == Access::Allow
    }

    fn decider(&self, address: IpAddr) -> Option<Decider> {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.at(u32::from(address)),
            IpAddr::V6(address) => self.v6.at(u128::from(address)),
        }
    }

    /// How many prefixes it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The place of an entry in the list, and, in its lowest bit, whether it denies: an answer then reads no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decider(NonZeroU32);

impl Decider {
    /// None for an entry behind the two thousand millionth.
    fn of(index: usize, access: Access) -> Option<Self> {
        let place = u32::try_from(index).ok()?.checked_add(1)?.checked_mul(2)?;
        NonZeroU32::new(place | u32::from(access == Access::Deny)).map(Self)
    }

    fn index(self) -> usize {
        (self.0.get() / 2 - 1) as usize
    }

    fn access(self) -> Access {
        if self.0.get() % 2 == 1 { Access::Deny } else { Access::Allow }
    }
}

impl Layer for Decider {
    /// Of two that say something of the same prefix a denial lies on top.
    fn rank(self) -> u8 {
        u8::from(self.access() == Access::Deny)
    }
}

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixFault {
    /// There is a zone.
    #[error("a zone (`%{0}`) is no part of a prefix: leave it out")]
    Zone(String),
    /// The address is none.
    #[error("\"{0}\" is no IP address: write a prefix such as 192.0.2.0/24, 2001:db8::/32, or one address")]
    Address(String),
    /// The length is none.
    #[error("\"{0}\" is no prefix length: write a number up to {1}")]
    Length(String, u8),
    /// Bits are set behind the prefix, so that one of both is wrong.
    #[error("{0} has bits behind its prefix: write {1}, or the address alone")]
    HostBits(IpNet, IpNet),
}

/// Reads `192.0.2.0/24`, `2001:db8::/32` or one address.
///
/// # Errors
/// It is none of them. The sentence says what to write.
pub fn prefix(text: &str) -> Result<IpNet, PrefixFault> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    if let Some((_, zone)) = address.split_once('%') {
        return Err(PrefixFault::Zone(shown(zone)));
    }
    let address: IpAddr = address.parse().map_err(|_invalid| PrefixFault::Address(shown(text)))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(length) => number(length).ok().filter(|length| *length <= most).ok_or_else(|| PrefixFault::Length(shown(length), most))?,
    };
    let net = match address {
        IpAddr::V6(mapped) if length >= MAPPED => {
            mapped.to_ipv4_mapped().map_or_else(|| v6(mapped, length), |v4_part| v4(v4_part, length - MAPPED))
        }
        IpAddr::V6(address) => v6(address, length),
        IpAddr::V4(address) => v4(address, length),
    };
    if net.trunc() == net { Ok(net) } else { Err(PrefixFault::HostBits(net, net.trunc())) }
}

/// Digits alone: a sign or a leading zero is a slip.
fn number(text: &str) -> Result<u8, ParseIntError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if is_plain { text.parse() } else { "".parse() }
}

fn v4(address: Ipv4Addr, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, length))
}

fn v6(address: Ipv6Addr, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(address, length))
}

/// As much of a text as an error may repeat.
fn shown(text: &str) -> String {
    text.chars().take(64).map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(entries: &[(&str, Access)], otherwise: Access) -> AllowList {
        let entry = |(line, (text, access)): (u32, &(&str, Access))| Entry {
            prefix: prefix(text).unwrap(),
            access: *access,
            file: "list".into(),
            line,
        };
        AllowList::new((1..).zip(entries).map(entry).collect(), otherwise)
    }

    fn line(list: &AllowList, address: &str) -> (Access, Option<u32>) {
        let verdict = list.judge(address.parse().unwrap());
        (verdict.access, verdict.entry.map(|entry| entry.line))
    }

    #[test]
    fn the_longest_prefix_decides_whatever_the_order() {
        use Access::{Allow, Deny};
        let list = list(
            &[("192.0.2.64/26", Deny), ("192.0.2.0/24", Allow), ("192.0.2.66", Allow), ("2001:db8::/32", Allow), ("2001:db8:1::/48", Deny)],
            Deny,
        );
        for (address, expected) in [
            ("192.0.1.255", (Deny, None)),
            ("192.0.2.0", (Allow, Some(2))),
            ("192.0.2.63", (Allow, Some(2))),
            ("192.0.2.64", (Deny, Some(1))),
            ("192.0.2.66", (Allow, Some(3))),
            ("192.0.2.67", (Deny, Some(1))),
            ("192.0.2.127", (Deny, Some(1))),
            ("192.0.2.128", (Allow, Some(2))),
            ("192.0.2.255", (Allow, Some(2))),
            ("192.0.3.0", (Deny, None)),
            ("::ffff:192.0.2.66", (Allow, Some(3))),
            ("2001:db8::1", (Allow, Some(4))),
            ("2001:db8:1:ffff::", (Deny, Some(5))),
            ("2001:db8:2::", (Allow, Some(4))),
            ("2001:db9::", (Deny, None)),
        ] {
            assert_eq!(line(&list, address), expected, "{address}");
        }
    }

    #[test]
    fn the_whole_range_and_its_last_address_are_prefixes_too() {
        use Access::{Allow, Deny};
        let list = list(&[("0.0.0.0/0", Allow), ("255.255.255.255", Deny), ("::/0", Allow), ("ffff::/16", Deny)], Deny);
        assert_eq!(line(&list, "0.0.0.0"), (Allow, Some(1)));
        assert_eq!(line(&list, "255.255.255.254"), (Allow, Some(1)));
        assert_eq!(line(&list, "255.255.255.255"), (Deny, Some(2)));
        assert_eq!(line(&list, "::"), (Allow, Some(3)));
        assert_eq!(line(&list, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), (Deny, Some(4)));
    }

    #[test]
    fn of_equal_prefixes_a_denial_counts() {
        use Access::{Allow, Deny};
        for entries in [[("10.0.0.0/8", Allow), ("10.0.0.0/8", Deny)], [("10.0.0.0/8", Deny), ("10.0.0.0/8", Allow)]] {
            assert_eq!(line(&list(&entries, Allow), "10.1.2.3").0, Deny);
        }
    }

    #[test]
    fn a_prefix_is_read_strictly() {
        assert_eq!(prefix("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(prefix("2001:DB8::/32").unwrap().to_string(), "2001:db8::/32");
        assert_eq!(prefix("::ffff:192.0.2.0/120").unwrap().to_string(), "192.0.2.0/24");
        for (wrong, said) in [
            ("", "is no IP address"),
            ("192.0.2", "is no IP address"),
            ("192.0.2.0/33", "is no prefix length: write a number up to 32"),
            ("192.0.2.0/", "is no prefix length"),
            ("192.0.2.0/+8", "is no prefix length"),
            ("192.0.2.0/08", "is no prefix length"),
            ("192.0.2.0/24/8", "is no prefix length"),
            ("010.0.0.0/8", "is no IP address"),
            ("2001:db8::/129", "write a number up to 128"),
            ("fe80::1%eth0", "a zone (`%eth0`)"),
            ("192.0.2.1/24", "write 192.0.2.0/24"),
            ("2001:db8::1/32", "write 2001:db8::/32"),
            ("example.com", "is no IP address"),
        ] {
            let fault = prefix(wrong).unwrap_err().to_string();
            assert!(fault.contains(said), "{wrong}: {fault}");
        }
    }

    fn across_the_middle(bits: u8) -> Ipv6Addr {
        Ipv6Addr::from((0x2001_0db8 << 96) | (u128::from(bits) << 60))
    }

    /// Few bits, so that prefixes nest and touch.
    fn crowded() -> impl Strategy<Value = (IpNet, Access)> {
        let access = prop_oneof![Just(Access::Allow), Just(Access::Deny)];
        let v4_net = (any::<u8>(), 24..=32u8).prop_map(|(last, length)| v4(Ipv4Addr::new(192, 0, 2, last), length).trunc());
        let v6_net =
            (any::<u8>(), 120..=128u8).prop_map(|(last, length)| v6(Ipv6Addr::from(u128::MAX << 8 | u128::from(last)), length).trunc());
        // Four bits on each side of the middle.
        let middle = (any::<u8>(), 60..=68u8).prop_map(|(bits, length)| v6(across_the_middle(bits), length).trunc());
        (prop_oneof![v4_net, v6_net, middle], access)
    }

    proptest! {
        /// Every address of the crowd gets what a search through all prefixes says.
        #[test]
        fn it_judges_as_a_search_through_all_prefixes_does(entries in prop::collection::vec(crowded(), 0..40), closed: bool) {
            let otherwise = if closed { Access::Deny } else { Access::Allow };
            let entries: Vec<_> = (1..).zip(entries).map(|(line, (prefix, access))| Entry { prefix, access, file: "list".into(), line }).collect();
            let list = AllowList::new(entries.clone(), otherwise);
            for last in 0..=u8::MAX {
                let ends = [across_the_middle(last), Ipv6Addr::from(u128::from(across_the_middle(last)) | ((1 << 60) - 1))];
                let v6_ones = [Ipv6Addr::from(u128::MAX << 8 | u128::from(last)), ends[0], ends[1]].map(IpAddr::from);
                for address in [IpAddr::from([192, 0, 2, last])].into_iter().chain(v6_ones) {
                    let holds = entries.iter().filter(|entry| entry.prefix.contains(&address));
                    let expected = holds.max_by_key(|entry| (entry.prefix.prefix_len(), entry.access)).map_or(otherwise, |entry| entry.access);
                    prop_assert_eq!(list.judge(address).access, expected, "{}", address);
                }
            }
        }
    }
}
