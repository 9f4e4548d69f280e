//! Writes that are no apply: whatever they change is theirs.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::compare::{Comparison, compare};
use super::entries::{Entry, Manager, Operation};
use super::owned;
use super::set::FieldSet;
use super::topology::Topology;

/// The most entries of updates that an object keeps; upstream's figure.
pub(super) const MAX_UPDATERS: usize = 10;
/// Who owns what the oldest of them did.
const ANCIENT: &str = "ancient-changes";
/// Who owns what was there before the first apply of an object that nobody kept track of.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Notes that `manager` has made a change at `now`. `filter` takes away what the write cannot have changed.
pub fn update(
    entries: &mut Vec<Entry>,
    changes: &Comparison,
    manager: &Manager,
    filter: impl Fn(&FieldSet) -> FieldSet,
    now: &str,
) {
    let changes = changes.filter(filter);
    let taken = changes.modified.union(&changes.added);
    release(entries, &taken.union(&changes.removed));
    let own = owned(&taken);
    if !own.is_empty() {
        match entries.iter_mut().find(|entry| entry.manager.is(manager)) {
            Some(entry) => {
                entry.fields = entry.fields.union(&own);
                now.clone_into(&mut entry.time);
            }
            None => entries.push(Entry { manager: manager.clone(), time: now.to_owned(), fields: own }),
        }
    }
    cap(entries);
}

/// Takes fields away from all entries; those that are left with none go.
pub(super) fn release(entries: &mut Vec<Entry>, fields: &FieldSet) {
    for entry in &mut *entries {
        entry.fields = entry.fields.difference(fields);
    }
    entries.retain(|entry| !entry.fields.is_empty());
}

/// The entries of an object that has none, just before it is applied to for the first time.
pub fn before_first_apply<T: Topology>(live: &Value, api_version: &str, place: &T, now: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let manager = Manager {
        name: BEFORE_FIRST_APPLY.to_owned(),
        operation: Operation::Update,
        api_version: api_version.to_owned(),
        subresource: String::new(),
    };
    update(&mut entries, &compare(&json!({}), live, place), &manager, FieldSet::clone, now);
    entries
}

/// Merges the oldest updates, version by version, until there are few enough.
fn cap(entries: &mut Vec<Entry>) {
    let is_update = |entry: &Entry| entry.manager.operation == Operation::Update;
    let mut count = entries.iter().filter(|entry| is_update(entry)).count();
    if count <= MAX_UPDATERS {
        return;
    }
    entries.sort_by(|a, b| (&a.time, &a.manager.name).cmp(&(&b.time, &b.manager.name)));
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    let mut first_of: HashMap<String, usize> = HashMap::new();
    for entry in std::mem::take(entries) {
        if count <= MAX_UPDATERS || !is_update(&entry) {
            kept.push(entry);
            continue;
        }
        match first_of.get(&entry.manager.api_version) {
            None => {
                first_of.insert(entry.manager.api_version.clone(), kept.len());
                kept.push(entry);
            }
            Some(&bucket) => {
                let bucket = &mut kept[bucket];
                ANCIENT.clone_into(&mut bucket.manager.name);
                bucket.manager.subresource.clear();
                bucket.fields = bucket.fields.union(&entry.fields);
                bucket.time = entry.time;
                count -= 1;
            }
        }
    }
    *entries = kept;
}
