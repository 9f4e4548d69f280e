//! A table that forgets.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// What is known of the latest distinct things, at most so many; those that came first are forgotten first.
#[derive(Debug)]
pub struct Recent<K, V> {
    limit: usize,
    known: HashMap<K, V>,
    /// The keys, in the order in which they came.
    order: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// An empty one of at most `limit` things.
    pub fn new(limit: usize) -> Self {
        Self { limit, known: HashMap::new(), order: VecDeque::new() }
    }

    /// Keeps what is known of a thing. One that was known keeps its place in the order.
    pub fn insert(&mut self, key: K, value: V) {
        self.make_room(&key);
        self.known.insert(key, value);
    }

    /// What is known of a thing.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.known.get(key)
    }

    /// As [`Recent::get`], to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.known.get_mut(key)
    }

    /// What is known of a thing; `new` when that is nothing.
    pub fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        self.make_room(&key);
        self.known.entry(key).or_insert_with(new)
    }

    /// All there is, in the order in which it came.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.order.iter().filter_map(|key| self.known.get_key_value(key))
    }

    /// How many things are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Puts a new thing in its order, and forgets the oldest when there are too many.
    fn make_room(&mut self, key: &K) {
        if self.known.contains_key(key) {
            return;
        }
        self.order.push_back(key.clone());
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_forgotten_first() {
        let mut recent = Recent::new(2);
        recent.insert("a", 1);
        recent.insert("b", 2);
        recent.insert("a", 3);
        assert_eq!((recent.order.len(), recent.get(&"a")), (2, Some(&3)), "it keeps its place");
        *recent.entry("c", || 4) += 1;
        assert_eq!(recent.iter().collect::<Vec<_>>(), [(&"b", &2), (&"c", &5)]);
        assert_eq!((recent.len(), recent.order.len()), (2, 2));
    }
}
