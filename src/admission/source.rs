//! Where somebody comes from, as limits count it: an address and the network around it.
//!
//! An IPv6 host chooses its addresses from a /64 as it likes, so that is the least that counts as one (RFC 6177); a site has a /48 at
//! the most. An IPv4 address counts as such, with the /24 that it is routed in.

use std::net::IpAddr;

/// What is counted as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prefix {
    /// An IPv4 address.
    V4Address(u32),
    /// An IPv4 /24.
    V4Network(u32),
    /// An IPv6 /64.
    V6Address(u64),
    /// An IPv6 /48.
    V6Network(u64),
}

/// Both prefixes of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The IPv4 address or IPv6 /64.
    pub address: Prefix,
    /// The IPv4 /24 or IPv6 /48.
    pub network: Prefix,
}

impl Source {
    /// Where `address` is; an IPv4 address mapped into IPv6 is the IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                Self { address: Prefix::V4Address(bits), network: Prefix::V4Network(bits >> 8) }
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                let site = u64::from(a) << 32 | u64::from(b) << 16 | u64::from(c);
                Self { address: Prefix::V6Address(site << 16 | u64::from(d)), network: Prefix::V6Network(site) }
            }
        }
    }
}

/// Which of both prefixes is at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The address.
    Address,
    /// The network.
    Network,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    #[test]
    fn neighbours_share_a_network_and_an_ipv6_host_is_one_however_it_calls_itself() {
        let [one, neighbour, stranger] = ["192.0.2.1", "192.0.2.255", "192.0.3.1"].map(source);
        assert!(one.address != neighbour.address && one.network == neighbour.network && one.network != stranger.network);
        assert_eq!(one, source("::ffff:192.0.2.1"));
        let [host, again, site, other] = ["2001:db8:1:2::3", "2001:db8:1:2:ffff::", "2001:db8:1:3::3", "2001:db8:2:2::3"].map(source);
        assert_eq!(host, again);
        assert!(host.address != site.address && host.network == site.network && host.network != other.network);
    }
}
