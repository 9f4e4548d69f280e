//! A bounded number of slots, shared fairly among the clients that want them.
//!
//! Each client may hold as many slots as are free at that moment: the dynamic threshold of Choudhury and Hahne for memory
//! that the ports of a switch share. One greedy client gets half of all, N of them N/(N+1), and there is always something
//! left for the next client that comes, without anybody knowing beforehand how many there are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

/// The slots. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    in_use: Mutex<InUse>,
}

#[derive(Debug, Default)]
struct InUse {
    total: usize,
    /// Of those clients that hold any: this map is never larger than the number of slots.
    by_client: HashMap<IpAddr, usize>,
}

/// A slot in use; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    client: IpAddr,
}

impl Slots {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit, in_use: Mutex::default() }))
    }

    /// A slot for this client; `None` when it holds its share.
    pub(crate) fn take(&self, client: IpAddr) -> Option<Slot> {
        let mut in_use = self.lock();
        let free = self.0.limit.saturating_sub(in_use.total);
        let own = in_use.by_client.get(&client).copied().unwrap_or_default();
        if own >= free {
            return None;
        }
        in_use.total += 1;
        in_use.by_client.insert(client, own + 1);
        Some(Slot { slots: self.clone(), client })
    }

    /// Held for one operation, and consistent after each.
    fn lock(&self) -> MutexGuard<'_, InUse> {
        self.0.in_use.lock()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut in_use = self.slots.lock();
        in_use.total = in_use.total.saturating_sub(1);
        let left = in_use.by_client.get(&self.client).map_or(0, |own| own.saturating_sub(1));
        match left {
            0 => in_use.by_client.remove(&self.client),
            _ => in_use.by_client.insert(self.client, left),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many slots as this client gets.
    fn take_all(slots: &Slots, client: u8) -> Vec<Slot> {
        std::iter::from_fn(|| slots.take(IpAddr::from([10, 244, 0, client]))).collect()
    }

    #[test]
    fn greedy_clients_leave_something_for_the_next() {
        let slots = Slots::new(1000);
        let first = take_all(&slots, 1);
        assert_eq!(first.len(), 500);
        let second = take_all(&slots, 2);
        assert_eq!(second.len(), 250);
        let third = take_all(&slots, 3);
        assert_eq!(third.len(), 125);
        // Who holds more than a fair share by now gets nothing before the others have theirs.
        assert!(take_all(&slots, 1).is_empty());
        drop((first, second, third));
        assert!(slots.lock().by_client.is_empty(), "nothing is kept of clients that hold nothing");
        assert_eq!(take_all(&slots, 1).len(), 500);
    }

    #[test]
    fn shares_even_out() {
        let slots = Slots::new(90);
        let mut held = [Vec::new(), Vec::new()];
        held[0].extend(take_all(&slots, 0));
        // Answers come for one question at a time, and both ask on.
        for _ in 0..200 {
            held[0].pop();
            held[1].pop();
            held[1].extend(take_all(&slots, 1));
            held[0].extend(take_all(&slots, 0));
        }
        // A third each, and a third is free.
        assert!(held.iter().all(|held| (29..=31).contains(&held.len())), "{} {}", held[0].len(), held[1].len());
    }

    #[test]
    fn none_is_none() {
        assert!(Slots::new(0).take(IpAddr::from([10, 0, 0, 1])).is_none());
    }
}
