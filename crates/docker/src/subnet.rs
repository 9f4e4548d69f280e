//! IPv4 subnets, and which of them are still free.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

/// An IPv4 subnet, `10.244.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet(Ipv4Net);

/// Why a text is not a [`Subnet`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseSubnetError(String);

impl fmt::Display for ParseSubnetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an IPv4 subnet such as 10.244.0.0/16", self.0)
    }
}

impl std::error::Error for ParseSubnetError {}

impl Subnet {
    /// The subnet of `prefix` bits (at most 32) that `address` is in.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        Self(Ipv4Net::new_assert(address, prefix.min(32)).trunc())
    }

    /// Its first address, that of the network itself.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        self.0.network()
    }

    /// Length of its prefix.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.0.prefix_len()
    }

    /// The address that many above the first.
    #[must_use]
    pub fn nth(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address().to_bits().wrapping_add(offset))
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.0.contains(&address)
    }

    /// Whether it has an address in common with another.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }
}

impl From<Subnet> for Ipv4Net {
    fn from(subnet: Subnet) -> Self {
        subnet.0
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Subnet {
    type Err = ParseSubnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net: Ipv4Net = text.parse().map_err(|_| ParseSubnetError(text.to_owned()))?;
        Ok(Self(net.trunc()))
    }
}

/// The first candidate that overlaps nothing taken.
#[must_use]
pub fn first_free(candidates: impl IntoIterator<Item = Subnet>, taken: &[Subnet]) -> Option<Subnet> {
    candidates.into_iter().find(|candidate| !taken.iter().any(|subnet| subnet.overlaps(*candidate)))
}

/// Subnets for pods, in order of preference: the customary one first, then others that are rarely used.
pub fn pod_candidates() -> impl Iterator<Item = Subnet> {
    (244..=254)
        .chain(128..=243)
        .map(|second| Subnet::new(Ipv4Addr::new(10, second, 0, 0), 16))
        .chain((16..=31).map(|second| Subnet::new(Ipv4Addr::new(172, second, 0, 0), 16)))
}

/// Subnets for services, in order of preference: the customary one first.
pub fn service_candidates() -> impl Iterator<Item = Subnet> {
    (96..=126).map(|second| Subnet::new(Ipv4Addr::new(10, second, 0, 0), 16))
}

/// The subnets this machine has routes to, from the text of `/proc/net/route`; the default route is none.
pub(crate) fn routes(table: &str) -> Vec<Subnet> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let destination = parse_hex(fields.nth(1)?)?;
            let mask = parse_hex(fields.nth(5)?)?;
            let prefix = u8::try_from(mask.to_bits().leading_ones()).ok()?;
            (prefix > 0).then(|| Subnet::new(destination, prefix))
        })
        .collect()
}

/// The kernel prints addresses as numbers in the machine's byte order.
fn parse_hex(text: &str) -> Option<Ipv4Addr> {
    let number = u32::from_str_radix(text, 16).ok()?;
    Some(Ipv4Addr::from(number.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn parsing_and_containment() {
        assert_eq!(subnet("10.244.3.4/16").to_string(), "10.244.0.0/16");
        for text in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/-1", "::/8"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
        let cases = [
            ("10.0.0.0/8", "10.244.0.0/16", true),
            ("10.244.0.0/16", "10.245.0.0/16", false),
            ("0.0.0.0/0", "1.2.3.4/32", true),
            ("1.2.3.4/32", "1.2.3.5/32", false),
        ];
        for (a, b, expect) in cases {
            assert_eq!(subnet(a).overlaps(subnet(b)), expect);
            assert_eq!(subnet(b).overlaps(subnet(a)), expect);
        }
        assert_eq!(subnet("10.244.0.0/16").nth(1), Ipv4Addr::new(10, 244, 0, 1));
    }

    #[test]
    fn the_first_free_candidate_wins() {
        let taken = [subnet("10.244.0.0/20"), subnet("10.245.0.0/16")];
        assert_eq!(first_free(pod_candidates(), &[]), Some(subnet("10.244.0.0/16")));
        assert_eq!(first_free(pod_candidates(), &taken), Some(subnet("10.246.0.0/16")));
        // A machine in a company's 10.0.0.0/8.
        let company = [subnet("10.0.0.0/8"), subnet("172.17.0.0/16")];
        assert_eq!(first_free(pod_candidates(), &company), Some(subnet("172.16.0.0/16")));
        assert_eq!(first_free(pod_candidates(), &[subnet("0.0.0.0/0")]), None);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn routing_table() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            garbage\n";
        assert_eq!(routes(table), [subnet("172.17.0.0/16")]);
    }
}
