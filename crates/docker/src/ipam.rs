//! IPAM, the management of addresses: which of a node's range its sandboxes have. Kept in memory; after a restart the
//! running sandboxes tell.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::subnet::Subnet;

/// The pool of one node's addresses.
#[derive(Debug, Clone)]
pub(crate) struct AddressPool(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    range: Subnet,
    /// Whose each is; `None` while its sandbox is being made.
    taken: HashMap<Ipv4Addr, Option<String>>,
    /// Where to look first: an address rests as long as possible before somebody else gets it.
    next: u32,
}

/// An address for a sandbox that is being made. Dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: AddressPool,
    address: Ipv4Addr,
}

impl AddressPool {
    /// The addresses of a range, some of which are taken. Its first two and its last are nobody's: they are the
    /// network's, the node's own and, in the last range, that of a broadcast.
    pub(crate) fn new(range: Subnet, taken: impl IntoIterator<Item = (Ipv4Addr, String)>) -> Self {
        let taken: HashMap<_, _> = taken.into_iter().map(|(address, id)| (address, Some(id))).collect();
        let last = taken.keys().filter(|address| range.contains(**address)).max();
        let next = last.map_or(2, |last| last.to_bits() - range.address().to_bits() + 1);
        Self(Arc::new(Mutex::new(State { range, taken, next })))
    }

    /// A free address.
    pub(crate) fn take(&self) -> Option<Lease> {
        let mut state = self.state();
        let last = 1_u32.checked_shl(32 - u32::from(state.range.prefix())).unwrap_or(0).wrapping_sub(1);
        let count = last.checked_sub(2).filter(|count| *count > 0)?;
        let first = state.next.saturating_sub(2) % count;
        let mut offsets = (0..count).map(|step| 2 + (first + step) % count);
        let offset = offsets.find(|offset| !state.taken.contains_key(&state.range.nth(*offset)))?;
        let address = state.range.nth(offset);
        state.taken.insert(address, None);
        state.next = offset + 1;
        Some(Lease { pool: self.clone(), address })
    }

    /// A sandbox is gone: its address is free.
    pub(crate) fn free(&self, id: &str) {
        self.state().taken.retain(|_, holder| holder.as_deref() != Some(id));
    }

    /// The whole range.
    pub(crate) fn range(&self) -> Subnet {
        self.state().range
    }

    /// Held for a look or a change, and consistent after each.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Lease {
    /// The address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The sandbox is made: the address is its own until it is freed.
    pub(crate) fn keep(self, id: &str) {
        self.pool.state().taken.insert(self.address, Some(id.to_owned()));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        if state.taken.get(&self.address) == Some(&None) {
            state.taken.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: &str, taken: &[&str]) -> AddressPool {
        let taken = taken.iter().map(|address| (address.parse().unwrap(), format!("id of {address}")));
        AddressPool::new(range.parse().unwrap(), taken)
    }

    fn take(pool: &AddressPool) -> Option<String> {
        let lease = pool.take()?;
        let address = lease.address().to_string();
        lease.keep(&format!("id of {address}"));
        Some(address)
    }

    #[test]
    fn addresses_go_round() {
        let pool = pool("10.0.0.0/29", &[]);
        let all: Vec<_> = std::iter::from_fn(|| take(&pool)).collect();
        assert_eq!(all, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        pool.free("id of 10.0.0.2");
        pool.free("id of 10.0.0.4");
        assert_eq!(take(&pool).as_deref(), Some("10.0.0.2"));
        pool.free("id of 10.0.0.2");
        assert_eq!(take(&pool).as_deref(), Some("10.0.0.4"), "the one that rests longer");
    }

    #[test]
    fn what_was_taken_before_stays_so() {
        let pool = pool("10.0.0.0/29", &["10.0.0.4", "10.0.7.9"]);
        assert_eq!(take(&pool).as_deref(), Some("10.0.0.5"));
        let failed = pool.take().unwrap();
        assert_eq!(failed.address().to_string(), "10.0.0.6");
        drop(failed);
        let rest: Vec<_> = std::iter::from_fn(|| take(&pool)).collect();
        assert_eq!(rest, ["10.0.0.2", "10.0.0.3", "10.0.0.6"]);
    }

    #[test]
    fn ranges_without_room_have_none() {
        for range in ["10.0.0.0/32", "10.0.0.0/31", "10.0.0.0/30"] {
            let pool = pool(range, &[]);
            let count = std::iter::from_fn(|| take(&pool)).count();
            assert_eq!(count, usize::from(range.ends_with("30")), "{range}");
        }
    }
}
