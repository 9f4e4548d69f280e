//! Which changes belong to the story of an object: those of itself, of all that it owns, and of what names one of these by its
//! uid, as Events and EndpointSlices do.

use std::collections::HashSet;

use registry::scan;
use store::{EventKind, Key, LoggedChange, Store};

/// What renews itself every few seconds and tells no story.
const LEASES: &str = "coordination.k8s.io/leases";
/// How deep what is there is looked for: what owns, what that owns, and so on.
const DEPTH: usize = 8;

/// The objects of a story, as far as they are known.
#[derive(Debug)]
pub(super) struct Related {
    /// Whose story it is; nobody's if it is everything's.
    root: Option<Key>,
    /// Nothing else belongs to it.
    alone: bool,
    keys: HashSet<Key>,
    /// The uids of the root and of what it owns.
    uids: HashSet<String>,
}

impl Related {
    /// The root, and unless it is to be `alone` what it owns now.
    pub(super) fn of(root: Option<Key>, alone: bool, store: &Store) -> Self {
        let mut related = Self { alone, keys: root.iter().cloned().collect(), root, uids: HashSet::new() };
        let Some(root) = related.root.as_ref().and_then(|root| store.get(root)) else { return related };
        related.uids.extend(uid(&root.value));
        if alone {
            return related;
        }
        for _ in 0..DEPTH {
            let before = related.uids.len();
            for resource in store.resources() {
                for entry in store.snapshot(&resource).range(None, None) {
                    if related.owns(&entry.value) {
                        related.uids.extend(uid(&entry.value));
                        related.keys.insert(entry.key.clone());
                    }
                }
            }
            if related.uids.len() == before {
                break;
            }
        }
        related
    }

    /// Whether the root is among the objects.
    pub(super) fn is_there(&self) -> bool {
        !self.uids.is_empty()
    }

    /// Whether a change belongs to the story. Changes must come in their order: what an object owns is known by then.
    pub(super) fn has(&mut self, change: &LoggedChange<'_>) -> bool {
        if &*change.key.resource == LEASES && change.kind == EventKind::Updated {
            return false;
        }
        let Some(root) = &self.root else { return true };
        let is_root = *root == change.key;
        if self.alone {
            return is_root;
        }
        if is_root || self.owns(&change.value) {
            self.uids.extend(uid(&change.value));
            self.keys.insert(change.key.clone());
            return true;
        }
        if self.keys.contains(&change.key) {
            return true;
        }
        let names = mentioned(&change.value).any(|uid| self.uids.contains(uid));
        if names {
            self.keys.insert(change.key.clone());
        }
        names
    }

    /// Whether an object has an owner in the story.
    fn owns(&self, object: &[u8]) -> bool {
        let owners = scan::find(object, &["metadata", "ownerReferences"]);
        owners.is_some_and(|owners| mentioned(&object[owners]).any(|uid| self.uids.contains(uid)))
    }
}

fn uid(object: &[u8]) -> Option<String> {
    let uid = &object[scan::find(object, &["metadata", "uid"])?];
    serde_json::from_slice(uid).ok()
}

/// All uids in an object, its own among them.
fn mentioned(object: &[u8]) -> impl Iterator<Item = &str> {
    const FIELD: &str = "\"uid\":\"";
    // What is stored is JSON, without spaces.
    let mut rest = std::str::from_utf8(object).unwrap_or_default();
    std::iter::from_fn(move || {
        rest = &rest[rest.find(FIELD)? + FIELD.len()..];
        let (uid, after) = rest.split_once('"')?;
        rest = after;
        Some(uid)
    })
}
