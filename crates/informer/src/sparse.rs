//! Hash tables that give back the room of a burst.
//!
//! A table grows with what it holds and never shrinks by itself. Whoever removes from one that follows the objects of a
//! cluster calls [`give_back`], so that ten thousand pods that came and went leave nothing behind.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// Tables of fewer places than this are left alone.
const SMALL: usize = 1024;

/// Halves the table until at least an eighth of it is used. To be called after a removal: it costs nothing unless the table is
/// that sparse, and then no more than the removals that made it so.
pub fn give_back<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if map.capacity() >= SMALL && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_follows_what_is_in_it() {
        let mut map: HashMap<u32, u32> = (0..100_000).map(|n| (n, n)).collect();
        let full = map.capacity();
        for n in 0..99_000 {
            map.remove(&n);
            give_back(&mut map);
            assert!(map.capacity() < SMALL || map.capacity() <= 8 * map.len().max(1) * 2);
        }
        assert!(map.capacity() < full / 10);
        assert!((99_000..100_000).all(|n| map.get(&n) == Some(&n)));
    }

    #[test]
    fn a_small_table_keeps_its_room() {
        let mut map: HashMap<u32, u32> = HashMap::with_capacity(SMALL / 2);
        let room = map.capacity();
        give_back(&mut map);
        assert_eq!(map.capacity(), room);
    }
}
