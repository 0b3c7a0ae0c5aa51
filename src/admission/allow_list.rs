//! Who may connect, by address: prefixes that are allowed and prefixes that are denied; the longest that holds an address decides.
//!
//! An IPv4 address mapped into IPv6 (`::ffff:192.0.2.1`, RFC 4291 §2.5.5.2) is the IPv4 address, in questions and in prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU32, ParseIntError};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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
    v4: Ranges<u32>,
    v6: Ranges<u128>,
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
        Self { entries, v4: Ranges::of(v4), v6: Ranges::of(v6), otherwise }
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
            IpAddr::V4(address) => self.v4.decider(u32::from(address)),
            IpAddr::V6(address) => self.v6.decider(u128::from(address)),
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

/// Nested prefixes laid out flat: from each start on, up to the next, one entry decides or none.
#[derive(Clone, Debug)]
struct Ranges<A> {
    /// Each start with its decider, side by side for the sake of the cache.
    starts: Vec<(A, Option<Decider>)>,
    /// How many starts lie below each of equally wide slices of what they span, so that the search has few of them before it.
    slices: Vec<u32>,
    /// Bits of an address, counted from the first start, that are within a slice.
    within: u32,
}

/// An address as a number.
trait Number: Copy + Ord {
    /// The address behind it; none behind the last of all.
    fn next(self) -> Option<Self>;
    /// How many bits the distance from `first` to it has.
    fn width_from(self, first: Self) -> u32;
    /// The slice that it is in, where slices begin at `first` and are 2 to the power of `within` wide; none below `first`.
    fn slice(self, first: Self, within: u32) -> Option<usize>;
}

impl Number for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn width_from(self, first: Self) -> u32 {
        Self::BITS - self.abs_diff(first).leading_zeros()
    }

    fn slice(self, first: Self, within: u32) -> Option<usize> {
        usize::try_from(self.checked_sub(first)?.checked_shr(within).unwrap_or(0)).ok()
    }
}

impl Number for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn width_from(self, first: Self) -> u32 {
        Self::BITS - self.abs_diff(first).leading_zeros()
    }

    fn slice(self, first: Self, within: u32) -> Option<usize> {
        // What lies far behind is in the last slice, as all behind the last start is.
        Some(usize::try_from(self.checked_sub(first)?.checked_shr(within).unwrap_or(0)).unwrap_or(usize::MAX))
    }
}

impl<A: Number> Ranges<A> {
    /// Lays out `prefixes`: first address, last address, decider.
    fn of(mut prefixes: Vec<(A, A, Decider)>) -> Self {
        // An outer prefix comes before those within it; a denial comes last of its equals, and so lies on top.
        prefixes.sort_by(|left, right| left.0.cmp(&right.0).then(right.1.cmp(&left.1)).then(left.2.access().cmp(&right.2.access())));
        let mut ranges = Self { starts: Vec::new(), slices: Vec::new(), within: 0 };
        let mut open = Vec::new();
        for (first, last, decider) in prefixes {
            ranges.close(&mut open, Some(first));
            ranges.begin(first, Some(decider));
            open.push((last, decider));
        }
        ranges.close(&mut open, None);
        ranges.cut();
        ranges
    }

    /// Ends the prefixes that end before `first`, or all of them.
    fn close(&mut self, open: &mut Vec<(A, Decider)>, first: Option<A>) {
        while let Some((last, _)) = open.pop_if(|(last, _)| first.is_none_or(|first| *last < first)) {
            if let Some(behind) = last.next() {
                self.begin(behind, open.last().map(|(_, outer)| *outer));
            }
        }
    }

    fn begin(&mut self, start: A, decider: Option<Decider>) {
        self.starts.pop_if(|(last, _)| *last == start);
        if self.starts.last().is_none_or(|(_, last)| *last != decider) {
            self.starts.push((start, decider));
        }
    }

    /// Cuts what the starts span into about as many slices as there are starts, 65,536 at the most.
    fn cut(&mut self) {
        let (Some(&(first, _)), Some(&(last, _))) = (self.starts.first(), self.starts.last()) else { return };
        self.within = last.width_from(first).saturating_sub(self.starts.len().ilog2().min(16));
        let mut begun: u32 = 0;
        for (start, _) in &self.starts {
            let slice = start.slice(first, self.within).unwrap_or(0);
            self.slices.resize(self.slices.len().max(slice + 1), begun);
            begun += 1;
        }
        self.slices.push(begun);
    }

    fn decider(&self, address: A) -> Option<Decider> {
        let slice = address.slice(self.starts.first()?.0, self.within)?.min(self.slices.len().checked_sub(2)?);
        let [from, to] = [slice, slice + 1].map(|slice| self.slices.get(slice).map_or(0, |count| *count as usize));
        let behind = from + self.starts.get(from..to)?.partition_point(|(start, _)| *start <= address);
        self.starts.get(behind.checked_sub(1)?)?.1
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

    /// Few bits, so that prefixes nest and touch.
    fn crowded() -> impl Strategy<Value = (IpNet, Access)> {
        let access = prop_oneof![Just(Access::Allow), Just(Access::Deny)];
        let v4_net = (any::<u8>(), 24..=32u8).prop_map(|(last, length)| v4(Ipv4Addr::new(192, 0, 2, last), length).trunc());
        let v6_net =
            (any::<u8>(), 120..=128u8).prop_map(|(last, length)| v6(Ipv6Addr::from(u128::MAX << 8 | u128::from(last)), length).trunc());
        (prop_oneof![v4_net, v6_net], access)
    }

    proptest! {
        /// Every address of the crowd gets what a search through all prefixes says.
        #[test]
        fn it_judges_as_a_search_through_all_prefixes_does(entries in prop::collection::vec(crowded(), 0..40), closed: bool) {
            let otherwise = if closed { Access::Deny } else { Access::Allow };
            let entries: Vec<_> = (1..).zip(entries).map(|(line, (prefix, access))| Entry { prefix, access, file: "list".into(), line }).collect();
            let list = AllowList::new(entries.clone(), otherwise);
            for last in 0..=u8::MAX {
                for address in [IpAddr::from([192, 0, 2, last]), IpAddr::from(Ipv6Addr::from(u128::MAX << 8 | u128::from(last)))] {
                    let holds = entries.iter().filter(|entry| entry.prefix.contains(&address));
                    let expected = holds.max_by_key(|entry| (entry.prefix.prefix_len(), entry.access)).map_or(otherwise, |entry| entry.access);
                    prop_assert_eq!(list.judge(address).access, expected, "{}", address);
                }
            }
        }
    }
}
