//! Addresses and ports as ranges that neither overlap nor touch. Pure.
//!
//! The kernel refuses a set with elements that overlap, and is quicker with few.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::service::Protocol;

/// Addresses from the first to the last, both included.
pub(super) type Addresses = (Ipv4Addr, Ipv4Addr);
/// Ports of a protocol from the first to the last, both included.
pub(super) type Ports = (Protocol, u16, u16);

/// All addresses.
pub(super) const EVERYWHERE: Addresses = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);

/// The addresses of a block, `ADDRESS/PREFIX`. `None` for one of IPv6, which nothing here has.
pub(super) fn block(cidr: &str) -> Option<Addresses> {
    let (address, prefix) = cidr.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let prefix: u32 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or_default();
    let first = address.to_bits() & mask;
    Some((Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(first | !mask)))
}

/// The same addresses in order, with ranges that overlap or touch made one.
pub(super) fn union(mut ranges: Vec<Addresses>) -> Vec<Addresses> {
    ranges.sort_unstable();
    let mut united: Vec<Addresses> = Vec::new();
    for (first, last) in ranges {
        match united.last_mut() {
            Some(before) if first.to_bits() <= before.1.to_bits().saturating_add(1) => before.1 = before.1.max(last),
            _ => united.push((first, last)),
        }
    }
    united
}

/// The addresses of a range but for those of others.
pub(super) fn subtract((first, last): Addresses, others: Vec<Addresses>) -> Vec<Addresses> {
    let mut left = Vec::new();
    // `None` beyond the last address that there is.
    let mut next = Some(first.to_bits());
    for (from, to) in union(others) {
        let Some(start) = next.filter(|start| *start <= last.to_bits()) else {
            return left;
        };
        if to.to_bits() < start {
            continue;
        }
        if from.to_bits() > start {
            left.push((Ipv4Addr::from_bits(start), last.min(Ipv4Addr::from_bits(from.to_bits() - 1))));
        }
        next = to.to_bits().checked_add(1);
    }
    if let Some(start) = next.filter(|start| *start <= last.to_bits()) {
        left.push((Ipv4Addr::from_bits(start), last));
    }
    left
}

/// The same pairs of addresses and ports, with addresses that overlap divided so that each pair is in one place only.
pub(super) fn divide(pairs: &BTreeSet<(Addresses, Ports)>) -> Vec<(Addresses, Ports)> {
    // Where ranges begin (+1) and where they have ended (-1): an address more than there are, hence 64 bits.
    let mut turns: BTreeMap<u64, Vec<(Ports, i32)>> = BTreeMap::new();
    for ((first, last), ports) in pairs {
        turns.entry(u64::from(first.to_bits())).or_default().push((*ports, 1));
        turns.entry(u64::from(last.to_bits()) + 1).or_default().push((*ports, -1));
    }
    let mut open: BTreeMap<Ports, i32> = BTreeMap::new();
    let mut stretches: Vec<(Addresses, Vec<Ports>)> = Vec::new();
    let mut turns = turns.into_iter().peekable();
    while let Some((start, changes)) = turns.next() {
        for (ports, change) in changes {
            let count = open.entry(ports).or_default();
            *count += change;
            if *count == 0 {
                open.remove(&ports);
            }
        }
        let end = turns.peek().map_or(start, |(next, _)| *next - 1);
        let (Ok(first), Ok(last)) = (u32::try_from(start), u32::try_from(end)) else { continue };
        let ports = union_of_ports(open.keys().copied());
        match stretches.last_mut() {
            Some((before, same)) if *same == ports => before.1 = Ipv4Addr::from_bits(last),
            _ => stretches.push(((Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last)), ports)),
        }
    }
    stretches.into_iter().flat_map(|(range, ports)| ports.into_iter().map(move |ports| (range, ports))).collect()
}

/// Ports in order, with ranges that overlap or touch made one.
fn union_of_ports(sorted: impl Iterator<Item = Ports>) -> Vec<Ports> {
    let mut united: Vec<Ports> = Vec::new();
    for (protocol, first, last) in sorted {
        match united.last_mut() {
            Some(before) if before.0 == protocol && first <= before.2.saturating_add(1) => {
                before.2 = before.2.max(last);
            }
            _ => united.push((protocol, first, last)),
        }
    }
    united
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `FIRST-LAST`, or one address.
    fn range(text: &str) -> Addresses {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        (first.parse().unwrap(), last.parse().unwrap())
    }

    fn ranges(texts: &[&str]) -> Vec<Addresses> {
        texts.iter().map(|text| range(text)).collect()
    }

    #[test]
    fn blocks_are_ranges() {
        let check = |cidr: &str, expected: Option<&str>| assert_eq!(block(cidr), expected.map(range), "{cidr}");
        check("10.0.0.0/8", Some("10.0.0.0-10.255.255.255"));
        check("10.1.2.3/24", Some("10.1.2.0-10.1.2.255"));
        check("10.1.2.3/32", Some("10.1.2.3"));
        check("0.0.0.0/0", Some("0.0.0.0-255.255.255.255"));
        check("10.1.2.3/33", None);
        check("10.1.2.3", None);
        check("fd00::/8", None);
    }

    #[test]
    fn unions_do_not_overlap() {
        let check = |of: &[&str], expected: &[&str]| assert_eq!(union(ranges(of)), ranges(expected), "{of:?}");
        check(&[], &[]);
        check(&["10.0.0.3", "10.0.0.1"], &["10.0.0.1", "10.0.0.3"]);
        check(&["10.0.0.2", "10.0.0.1", "10.0.0.1"], &["10.0.0.1-10.0.0.2"]);
        check(&["10.0.0.0-10.0.0.255", "10.0.0.7", "10.0.0.200-10.0.1.4"], &["10.0.0.0-10.0.1.4"]);
        check(&["0.0.0.0-255.255.255.255", "255.255.255.255"], &["0.0.0.0-255.255.255.255"]);
    }

    #[test]
    fn what_is_excepted_is_left_out() {
        let check = |of: &str, but: &[&str], expected: &[&str]| {
            assert_eq!(subtract(range(of), ranges(but)), ranges(expected), "{of} {but:?}");
        };
        let block = "10.0.0.0-10.0.0.255";
        check(block, &[], &[block]);
        check(block, &["10.0.0.0-10.0.0.15"], &["10.0.0.16-10.0.0.255"]);
        check(block, &["10.0.0.240-10.0.0.255"], &["10.0.0.0-10.0.0.239"]);
        check(block, &["10.0.0.9", "10.0.0.4"], &["10.0.0.0-10.0.0.3", "10.0.0.5-10.0.0.8", "10.0.0.10-10.0.0.255"]);
        check(block, &["10.0.0.4-10.0.0.9", "10.0.0.5"], &["10.0.0.0-10.0.0.3", "10.0.0.10-10.0.0.255"]);
        check(block, &["9.0.0.0-9.9.9.9", "11.0.0.0-11.9.9.9"], &[block]);
        check(block, &["0.0.0.0-255.255.255.255"], &[]);
        check("0.0.0.0-255.255.255.255", &["255.255.255.0-255.255.255.255"], &["0.0.0.0-255.255.254.255"]);
    }

    #[test]
    fn pairs_are_divided() {
        let pair = |(addresses, protocol, first, last): (&str, Protocol, u16, u16)| {
            (range(addresses), (protocol, first, last))
        };
        let check = |of: &[(&str, Protocol, u16, u16)], expected: &[(&str, Protocol, u16, u16)]| {
            let expected: Vec<_> = expected.iter().copied().map(pair).collect();
            assert_eq!(divide(&of.iter().copied().map(pair).collect()), expected, "{of:?}");
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        check(&[], &[]);
        // Neighbours with the same ports are one range, others are not.
        check(&[("10.0.0.1", tcp, 80, 80), ("10.0.0.2", tcp, 80, 80)], &[("10.0.0.1-10.0.0.2", tcp, 80, 80)]);
        check(
            &[("10.0.0.1", tcp, 80, 80), ("10.0.0.2", udp, 80, 80)],
            &[("10.0.0.1", tcp, 80, 80), ("10.0.0.2", udp, 80, 80)],
        );
        check(
            &[("10.0.0.1", tcp, 80, 80), ("10.0.0.3", tcp, 80, 80)],
            &[("10.0.0.1", tcp, 80, 80), ("10.0.0.3", tcp, 80, 80)],
        );
        // Ports that overlap or touch.
        check(
            &[
                ("10.0.0.1", tcp, 80, 90),
                ("10.0.0.1", tcp, 85, 95),
                ("10.0.0.1", tcp, 96, 96),
                ("10.0.0.1", tcp, 98, 98),
            ],
            &[("10.0.0.1", tcp, 80, 96), ("10.0.0.1", tcp, 98, 98)],
        );
        check(&[("10.0.0.1", tcp, 0, u16::MAX), ("10.0.0.1", tcp, 9, 9)], &[("10.0.0.1", tcp, 0, u16::MAX)]);
        // A part of the addresses has more ports.
        check(
            &[("10.0.0.0-10.0.0.9", tcp, 80, 80), ("10.0.0.4-10.0.0.5", tcp, 70, 90)],
            &[
                ("10.0.0.0-10.0.0.3", tcp, 80, 80),
                ("10.0.0.4-10.0.0.5", tcp, 70, 90),
                ("10.0.0.6-10.0.0.9", tcp, 80, 80),
            ],
        );
        // To the last address there is.
        check(
            &[("0.0.0.0-255.255.255.255", tcp, 80, 80), ("255.255.255.255", udp, 53, 53)],
            &[
                ("0.0.0.0-255.255.255.254", tcp, 80, 80),
                ("255.255.255.255", tcp, 80, 80),
                ("255.255.255.255", udp, 53, 53),
            ],
        );
    }
}
