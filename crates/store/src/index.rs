//! The objects of one resource, in order, in memory.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::OrdMap;

use crate::{Entry, Key};

/// An ordered map from namespace and name to entry. A copy costs nothing and does not change any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index(OrdMap<Name, Arc<Entry>>);

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was written between the two. Both are held, so neither can have become another one in its place.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0) || self.len() == 0 && other.len() == 0
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Entry>> {
        self.0.get(&Sought { namespace, name })
    }

    pub(crate) fn insert(&mut self, entry: Arc<Entry>) {
        let name = Name { namespace: Arc::clone(&entry.key.namespace), name: Arc::clone(&entry.key.name) };
        self.0.insert(name, entry);
    }

    pub(crate) fn remove(&mut self, namespace: &str, name: &str) {
        self.0.remove(&Sought { namespace, name });
    }

    /// Moves the entries after a name to other memory, up to so many bytes of them. Answers with the last one; none if there was
    /// none left.
    pub(crate) fn repack(&mut self, after: Option<&Key>, most: usize) -> Option<Key> {
        let after = after.map(|key| (&*key.namespace, &*key.name));
        let mut bytes = 0;
        let some = self.range(None, after).take_while(|entry| {
            let is_first = bytes == 0;
            bytes += entry.value.len().max(1);
            is_first || bytes <= most
        });
        let moved: Vec<Arc<Entry>> = some.map(|entry| Arc::new(entry.moved())).collect();
        let last = moved.last().map(|entry| entry.key.clone());
        for entry in moved {
            // A map keeps the key that it has.
            self.remove(&entry.key.namespace, &entry.key.name);
            self.insert(entry);
        }
        last
    }

    /// Puts a key's state back to what it was.
    pub(crate) fn restore(&mut self, key: &Key, state: Option<Arc<Entry>>) {
        match state {
            Some(entry) => self.insert(entry),
            None => self.remove(&key.namespace, &key.name),
        }
    }

    /// The text of a namespace, shared with an object in it where there is one, so that it is kept once.
    pub(crate) fn shared_namespace(&self, namespace: &Arc<str>) -> Arc<str> {
        let from = Sought { namespace, name: "" };
        match self.0.get_next(&from) {
            Some((found, _)) if found.namespace == *namespace => Arc::clone(&found.namespace),
            _ => Arc::clone(namespace),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.0.values()
    }

    /// The entries of one namespace or of all, those after a namespace and name only.
    pub(crate) fn range<'a>(
        &'a self,
        namespace: Option<&'a str>,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> {
        let first = namespace.map(|namespace| Sought { namespace, name: "" });
        let after = after.map(|(namespace, name)| Sought { namespace, name });
        let start = match (first, after) {
            (Some(first), Some(after)) if after < first => Bound::Included(first),
            (_, Some(after)) => Bound::Excluded(after),
            (Some(first), None) => Bound::Included(first),
            (None, None) => Bound::Unbounded,
        };
        self.0
            .range::<_, Sought<'_>>((start, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(move |entry| namespace.is_none_or(|n| *entry.key.namespace == *n))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    namespace: Arc<str>,
    name: Arc<str>,
}

/// A name that is looked for, borrowed from the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sought<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl Equivalent<Name> for Sought<'_> {
    fn equivalent(&self, other: &Name) -> bool {
        self.compare(other).is_eq()
    }
}

impl Comparable<Name> for Sought<'_> {
    fn compare(&self, other: &Name) -> Ordering {
        self.namespace.cmp(&other.namespace).then_with(|| self.name.cmp(&other.name))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Attributes;

    fn index(names: &[(&str, &str)]) -> Index {
        let mut index = Index::default();
        for (namespace, name) in names {
            index.insert(Arc::new(Entry {
                key: Key::new("core/pods", *namespace, *name),
                value: Bytes::new(),
                revision: 1,
                create_revision: 1,
                attributes: Attributes::default(),
            }));
        }
        index
    }

    #[test]
    fn a_range_is_a_namespace_from_a_name() {
        let index = index(&[("a", "1"), ("a", "2"), ("a-b", "1"), ("b", "1"), ("b", "3")]);
        let check = |namespace, after, expected: &[&str]| {
            let found: Vec<String> =
                index.range(namespace, after).map(|e| format!("{}/{}", e.key.namespace, e.key.name)).collect();
            assert_eq!(found, expected, "{namespace:?} after {after:?}");
        };
        check(None, None, &["a/1", "a/2", "a-b/1", "b/1", "b/3"]);
        check(None, Some(("a", "2")), &["a-b/1", "b/1", "b/3"]);
        check(None, Some(("a", "9")), &["a-b/1", "b/1", "b/3"]);
        check(None, Some(("c", "")), &[]);
        check(Some("a"), None, &["a/1", "a/2"]);
        check(Some("a"), Some(("a", "1")), &["a/2"]);
        check(Some("b"), Some(("a", "1")), &["b/1", "b/3"]);
        check(Some("b"), Some(("b", "2")), &["b/3"]);
        check(Some("b"), Some(("c", "2")), &[]);
        check(Some("x"), None, &[]);
    }

    #[test]
    fn entries_move_in_parts() {
        let names = [("a", "1"), ("a", "2"), ("a-b", "1"), ("b", "1"), ("b", "3")];
        let mut index = index(&names);
        let before = index.clone();
        let mut parts = Vec::new();
        let mut last = None;
        while let Some(key) = index.repack(last.as_ref(), 2) {
            parts.push(format!("{}/{}", key.namespace, key.name));
            last = Some(key);
        }
        assert_eq!(parts, ["a/2", "b/1", "b/3"]);
        let names_of = |index: &Index| index.iter().map(|e| e.key.to_string()).collect::<Vec<_>>();
        assert_eq!(names_of(&index), names_of(&before));
        for (namespace, name) in names {
            let (old, new) = (before.get(namespace, name).unwrap(), index.get(namespace, name).unwrap());
            assert!(old == new && !Arc::ptr_eq(old, new) && !Arc::ptr_eq(&old.key.name, &new.key.name));
        }
        assert_eq!(Index::default().repack(None, 100), None);
    }

    #[test]
    fn a_namespace_is_kept_once() {
        let index = index(&[("a", "1")]);
        let fresh: Arc<str> = Arc::from("a");
        assert!(!Arc::ptr_eq(&index.shared_namespace(&fresh), &fresh));
        let other: Arc<str> = Arc::from("b");
        assert!(Arc::ptr_eq(&index.shared_namespace(&other), &other));
    }
}
