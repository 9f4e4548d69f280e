//! Addresses for pods of fake nodes: of a range that is set aside for benchmarks (RFC 2544), which leads nowhere.

use std::collections::HashSet;
use std::net::Ipv4Addr;

/// `198.18.0.0/15`.
const FIRST: u32 = 0xC612_0000;
const COUNT: u32 = 1 << 17;

/// Hands out addresses, the longest unused first.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    next: u32,
    used: HashSet<u32>,
}

impl Addresses {
    /// A free address. With all of them in use, they repeat: with fake nodes that harms nobody.
    pub(super) fn take(&mut self) -> u32 {
        for _ in 0..COUNT {
            // Neither the first nor the last, which mean the network itself and everybody in it.
            self.next = self.next % (COUNT - 2) + 1;
            if self.used.insert(self.next) {
                break;
            }
        }
        self.next
    }

    /// Takes note that `address` is in use; nothing if it is not of this range.
    pub(super) fn note(&mut self, address: &str) -> Option<u32> {
        let number =
            u32::from(address.parse::<Ipv4Addr>().ok()?).checked_sub(FIRST).filter(|number| *number < COUNT)?;
        self.used.insert(number);
        Some(number)
    }

    /// The address is free again.
    pub(super) fn give_back(&mut self, number: u32) {
        self.used.remove(&number);
    }

    /// As it is written.
    pub(super) fn text(number: u32) -> String {
        Ipv4Addr::from(FIRST + number).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_until_all_are_taken() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.note("198.18.0.2"), Some(2));
        assert_eq!(addresses.note("10.0.0.1"), None);
        let (first, second) = (addresses.take(), addresses.take());
        assert_eq!((Addresses::text(first), Addresses::text(second)), ("198.18.0.1".into(), "198.18.0.3".into()));
        addresses.give_back(first);
        assert_eq!(Addresses::text(addresses.take()), "198.18.0.4", "the longest unused");
        let all: HashSet<u32> = (0..COUNT).map(|_| addresses.take()).collect();
        assert!(all.iter().all(|number| (1..COUNT - 1).contains(number)));
    }
}
