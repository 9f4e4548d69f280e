//! Whether a transaction may happen, and what it changes. Pure: no disk, no threads.

use std::collections::HashMap;
use std::sync::Arc;

use crate::index::Index;
use crate::{CommitError, Committed, Encoded, Entry, Event, EventKind, Key, Op, Precondition, Revision, Transaction};

/// The largest object that is taken. What the API accepts is far below.
const MAX_VALUE: usize = 1 << 30;

/// The objects of all resources as the writer sees them: with what is on its way to the disk, which nobody else sees yet.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    indexes: HashMap<Arc<str>, Index>,
}

impl Staged {
    pub(crate) fn new(indexes: HashMap<Arc<str>, Index>) -> Self {
        Self { indexes }
    }

    /// The objects of one resource.
    pub(crate) fn index(&self, resource: &str) -> Option<&Index> {
        self.indexes.get(resource)
    }

    /// The same, to move what is in it.
    pub(crate) fn index_mut(&mut self, resource: &str) -> Option<&mut Index> {
        self.indexes.get_mut(resource)
    }

    /// Checks a transaction and applies it, as the revision after `current`. Its events are added to `events`. If it is
    /// refused, nothing has changed.
    pub(crate) fn stage(
        &mut self,
        transaction: Transaction,
        current: Revision,
        events: &mut Vec<Arc<Event>>,
    ) -> Result<Committed, CommitError> {
        validate(&transaction.ops)?;
        let mut writes = 0;
        for (at, op) in transaction.ops.iter().enumerate() {
            self.check(at, op)?;
            writes += usize::from(!matches!(op, Op::Check { .. }));
        }
        let mut entries = Vec::with_capacity(writes);
        if writes == 0 {
            let revision = current;
            return Ok(Committed { revision, entries });
        }
        let revision = current + 1;
        for op in transaction.ops {
            let event = match op {
                Op::Put { key, value, attributes, .. } => self.put(key, &value, attributes, revision),
                Op::Delete { key, last, .. } => match self.delete(&key, &last, revision) {
                    Some(event) => event,
                    None => continue,
                },
                Op::Check { .. } => continue,
            };
            entries.push(Arc::clone(&event.entry));
            events.push(Arc::new(event.by(transaction.author.clone())));
        }
        Ok(Committed { revision, entries })
    }

    /// Applies an event that was found on disk.
    pub(crate) fn replay(&mut self, event: &Event) {
        let entry = &event.entry;
        let index = self.indexes.entry(Arc::clone(&entry.key.resource)).or_default();
        match event.kind {
            EventKind::Deleted => index.remove(&entry.key.namespace, &entry.key.name),
            EventKind::Created | EventKind::Updated => index.insert(Arc::clone(entry)),
        }
    }

    /// The object of this name.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.indexes.get(&key.resource)?.get(&key.namespace, &key.name)
    }

    fn check(&self, at: usize, op: &Op) -> Result<(), CommitError> {
        let current = self.get(op.key());
        let holds = match op.expect() {
            Precondition::Absent => current.is_none(),
            Precondition::Revision(revision) => current.is_some_and(|c| c.revision == revision),
            Precondition::Any => true,
        };
        let deletes_nothing = matches!(op, Op::Delete { .. }) && current.is_none();
        if holds && !deletes_nothing {
            return Ok(());
        }
        Err(CommitError::Conflict { op: at, current: current.cloned() })
    }

    fn put(&mut self, key: Key, value: &Encoded, attributes: crate::Attributes, revision: Revision) -> Event {
        if !self.indexes.contains_key(&key.resource) {
            self.indexes.insert(Arc::clone(&key.resource), Index::default());
        }
        let previous = self.get(&key).cloned();
        let entry = Arc::new(Entry {
            key: match &previous {
                // The names of an object are kept once, however often it is written.
                Some(previous) => previous.key.clone(),
                None => self.intern(key),
            },
            value: value.splice(revision),
            revision,
            create_revision: previous.as_ref().map_or(revision, |p| p.create_revision),
            attributes,
        });
        if let Some(index) = self.indexes.get_mut(&entry.key.resource) {
            index.insert(Arc::clone(&entry));
        }
        let kind = match previous {
            Some(_) => EventKind::Updated,
            None => EventKind::Created,
        };
        Event::new(kind, entry, previous)
    }

    fn delete(&mut self, key: &Key, last: &Encoded, revision: Revision) -> Option<Event> {
        let previous = self.get(key).cloned()?;
        if let Some(index) = self.indexes.get_mut(&key.resource) {
            index.remove(&key.namespace, &key.name);
        }
        let entry = Arc::new(Entry {
            key: previous.key.clone(),
            value: last.splice(revision),
            revision,
            create_revision: previous.create_revision,
            attributes: previous.attributes.clone(),
        });
        Some(Event::new(EventKind::Deleted, entry, Some(previous)))
    }

    /// Replaces the names that other objects have too by theirs.
    fn intern(&self, key: Key) -> Key {
        match self.indexes.get_key_value(&key.resource) {
            Some((resource, index)) => Key {
                resource: Arc::clone(resource),
                namespace: index.shared_namespace(&key.namespace),
                name: key.name,
            },
            None => key,
        }
    }
}

fn validate(ops: &[Op]) -> Result<(), CommitError> {
    let invalid = |op, reason| Err(CommitError::Invalid { op, reason });
    for (at, op) in ops.iter().enumerate() {
        if let Some(reason) = op.key().fault() {
            return invalid(at, reason);
        }
        if let Op::Put { value, .. } | Op::Delete { last: value, .. } = op {
            if value.revision_at > value.bytes.len() {
                return invalid(at, "the revision lies beyond the object");
            }
            if value.bytes.len() > MAX_VALUE {
                return invalid(at, "the object is too large");
            }
        }
    }
    if ops.len() > 1 {
        let mut written: Vec<(&Key, usize)> =
            (0..).zip(ops).filter(|(_, op)| !matches!(op, Op::Check { .. })).map(|(at, op)| (op.key(), at)).collect();
        written.sort_unstable();
        if let Some(twice) = written.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return invalid(twice[1].1, "one key is changed twice");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attributes;

    fn key(name: &str) -> Key {
        Key::new("core/pods", "default", name)
    }

    fn put(name: &str, precondition: Precondition) -> Op {
        Op::Put { key: key(name), value: Encoded::new("v", 1), attributes: Attributes::default(), precondition }
    }

    fn delete(name: &str, precondition: Precondition) -> Op {
        let key = key(name);
        let last = Encoded::new("gone", 4);
        Op::Delete { key, last, precondition }
    }

    fn check(name: &str, precondition: Precondition) -> Op {
        let key = key(name);
        Op::Check { key, precondition }
    }

    /// "a" as of revision 1, "b" as of revision 2.
    fn staged() -> Staged {
        let mut staged = Staged::default();
        for (revision, name) in [(0, "a"), (1, "b")] {
            let op = put(name, Precondition::Absent);
            let committed = staged.stage(op.into(), revision, &mut Vec::new());
            assert_eq!(committed.unwrap().revision, revision + 1);
        }
        staged
    }

    /// What becomes of a transaction at revision 9, in words.
    fn outcome(ops: Vec<Op>) -> String {
        let mut staged = staged();
        let mut events = Vec::new();
        let before = format!("{staged:?}");
        match staged.stage(ops.into(), 9, &mut events) {
            Ok(committed) => {
                let events: Vec<String> = events
                    .iter()
                    .map(|e| {
                        let value = String::from_utf8_lossy(&e.entry.value);
                        let create_revision = e.entry.create_revision;
                        format!("{:?} {} {value} {create_revision}", e.kind, e.entry.key.name)
                    })
                    .collect();
                assert_eq!(committed.entries.len(), events.len());
                format!("{}: {}", committed.revision, events.join(", "))
            }
            Err(error) => {
                assert_eq!(format!("{staged:?}"), before, "a refusal changes nothing");
                assert!(events.is_empty());
                match error {
                    CommitError::Conflict { op, current } => {
                        format!("conflict at {op} with {:?}", current.map(|c| c.revision))
                    }
                    CommitError::Invalid { op, reason } => format!("{op}: {reason}"),
                    other => other.to_string(),
                }
            }
        }
    }

    #[test]
    fn preconditions_and_their_effects() {
        use Precondition::{Absent, Any, Revision};
        for (ops, expected) in [
            (vec![put("c", Absent)], "10: Created c v10 10"),
            (vec![put("c", Any)], "10: Created c v10 10"),
            (vec![put("c", Revision(1))], "conflict at 0 with None"),
            (vec![put("a", Absent)], "conflict at 0 with Some(1)"),
            (vec![put("a", Revision(1))], "10: Updated a v10 1"),
            (vec![put("a", Any)], "10: Updated a v10 1"),
            (vec![put("a", Revision(2))], "conflict at 0 with Some(1)"),
            (vec![delete("a", Revision(1))], "10: Deleted a gone10 1"),
            (vec![delete("b", Any)], "10: Deleted b gone10 2"),
            (vec![delete("b", Revision(1))], "conflict at 0 with Some(2)"),
            (vec![delete("c", Any)], "conflict at 0 with None"),
            (vec![delete("c", Absent)], "conflict at 0 with None"),
            (vec![check("a", Revision(1))], "9: "),
            (vec![check("c", Absent)], "9: "),
            (vec![check("a", Absent)], "conflict at 0 with Some(1)"),
            (vec![], "9: "),
            (
                vec![check("b", Revision(2)), put("c", Absent), delete("a", Revision(1))],
                "10: Created c v10 10, Deleted a gone10 1",
            ),
            (vec![put("c", Absent), delete("a", Any), check("b", Revision(1))], "conflict at 2 with Some(2)"),
            (vec![put("c", Absent), put("a", Any), put("c", Any)], "2: one key is changed twice"),
            (vec![check("a", Any), put("a", Any)], "10: Updated a v10 1"),
        ] {
            assert_eq!(outcome(ops.clone()), expected, "{ops:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let value = Encoded::new("abc", 4);
        let (attributes, precondition) = (Attributes::default(), Precondition::Any);
        let beyond = Op::Put { key: key("a"), value, attributes, precondition };
        assert_eq!(outcome(vec![beyond]), "0: the revision lies beyond the object");
        assert_eq!(outcome(vec![check("a/b", Precondition::Any)]), "0: a name is not empty and has no slash");
    }

    #[test]
    fn names_are_kept_once() {
        let mut staged = staged();
        let mut events = Vec::new();
        for name in ["a", "c"] {
            let op = put(name, Precondition::Any);
            staged.stage(op.into(), 5, &mut events).unwrap();
        }
        let kept = &staged.get(&key("b")).unwrap().key;
        for event in &events {
            assert!(Arc::ptr_eq(&event.entry.key.resource, &kept.resource));
            assert!(Arc::ptr_eq(&event.entry.key.namespace, &kept.namespace));
        }
    }
}
