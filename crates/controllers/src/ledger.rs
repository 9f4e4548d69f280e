//! What a controller has written and its informer has not shown yet.
//!
//! An informer lags behind the API server. A controller that looked at it right after writing would write again: a
//! second Pod, a second slice. A [`Ledger`] closes that gap. Whoever writes notes first what the write will show, and
//! the informer's events strike the notes out. Until then the reconciler adds them to what it sees (a Pod that was
//! created counts as present) or waits (an object that was changed is not planned with while its old state shows).
//!
//! Creations are noted under names that the controller chooses itself, before the request is sent: so no event can come
//! too early, and no note depends on the order of answer and event. A note that nothing strikes out, because a watch
//! was lost at the wrong moment, ends after [`PATIENCE`].

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use informer::{Change, ObjectKey};
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
// The clock of the queues that keys come back from: a simulation runs ahead of the wall's.
use tokio::time::Instant;

use crate::meta;

/// For so long a note is believed. No informer that works lags so far behind.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a write will show.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sight {
    /// The object, in whatever state.
    Present,
    /// The object at this version or a later one.
    Version(u64),
    /// That the object with this UID is gone or being deleted.
    Gone(String),
}

#[derive(Debug)]
struct Note {
    owner: ObjectKey,
    sight: Sight,
    until: Instant,
}

/// Notes of writes to objects of one kind, by the object that each was made for.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    notes: HashMap<ObjectKey, Note>,
    by_owner: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
}

/// The notes made for one owner that are still open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Open {
    /// Names of objects that were created.
    pub(crate) present: BTreeSet<String>,
    /// Names of objects that were changed.
    pub(crate) changed: BTreeSet<String>,
    /// Names of objects that were deleted.
    pub(crate) gone: BTreeSet<String>,
}

impl Open {
    /// Whether everything that was written has been seen.
    pub(crate) fn is_empty(&self) -> bool {
        self.present.is_empty() && self.changed.is_empty() && self.gone.is_empty()
    }
}

impl Ledger {
    /// Notes that `object` is about to be created for `owner`.
    pub(crate) fn creating(&self, owner: &ObjectKey, object: ObjectKey) {
        self.note(owner, object, Sight::Present);
    }

    /// Notes that `object` is about to be deleted for `owner`.
    pub(crate) fn deleting<K: Metadata<Ty = ObjectMeta>>(&self, owner: &ObjectKey, object: &K) {
        let key = ObjectKey::new(meta::namespace(object), meta::name(object));
        self.note(owner, key, Sight::Gone(meta::uid(object).to_owned()));
    }

    /// Notes that a write for `owner` was answered with `written`, while the informer (asked through `shown`) has an
    /// older state or none.
    pub(crate) fn wrote<K, L>(&self, owner: &ObjectKey, written: &K, shown: L)
    where
        K: Metadata<Ty = ObjectMeta>,
        L: Fn(&ObjectKey) -> Option<std::sync::Arc<K>>,
    {
        let Some(version) = meta::version(written.metadata()) else {
            return;
        };
        let key = ObjectKey::new(meta::namespace(written), meta::name(written));
        let shown = || shown(&key).and_then(|object| meta::version(object.metadata()));
        self.wrote_version(owner, key.clone(), version, shown);
    }

    /// Notes that `object` has this version now, while the informer shows the version `shown` or nothing.
    pub(crate) fn wrote_version(
        &self,
        owner: &ObjectKey,
        object: ObjectKey,
        version: u64,
        shown: impl Fn() -> Option<u64>,
    ) {
        self.note(owner, object.clone(), Sight::Version(version));
        // The event may have come before the answer.
        if shown() >= Some(version) {
            self.strike(&object);
        }
    }

    /// Strikes out the note on `object`: the write failed.
    pub(crate) fn strike(&self, object: &ObjectKey) {
        self.state().strike(object);
    }

    /// Strikes out what `change` shows. For the informer's handler.
    pub(crate) fn seen<K: Metadata<Ty = ObjectMeta> + kube::Resource>(&self, change: &Change<K>) {
        let key = change.key();
        let mut state = self.state();
        let Some(note) = state.notes.get(&key) else {
            return;
        };
        let seen = match (&note.sight, change.new.as_deref()) {
            (Sight::Present, _) | (_, None) => true,
            (Sight::Version(version), Some(object)) => {
                Metadata::metadata(object).resource_version.is_none()
                    || meta::version(Metadata::metadata(object)) >= Some(*version)
            }
            (Sight::Gone(uid), Some(object)) => meta::is_deleting(object) || meta::uid(object) != uid,
        };
        if seen {
            state.strike(&key);
        }
    }

    /// Strikes out a note on an object whose type is not known here, which has this version now, or is gone.
    pub(crate) fn seen_version(&self, object: &ObjectKey, version: Option<Option<u64>>) {
        let mut state = self.state();
        let seen = match (state.notes.get(object).map(|note| &note.sight), version) {
            (None, _) => false,
            (Some(Sight::Version(wanted)), Some(Some(version))) => version >= *wanted,
            (Some(Sight::Gone(_)), Some(_)) => false,
            _ => true,
        };
        if seen {
            state.strike(object);
        }
    }

    /// Strikes out all notes made for `owner`, which is gone.
    pub(crate) fn forget(&self, owner: &ObjectKey) {
        let mut state = self.state();
        for object in state.by_owner.remove(owner).unwrap_or_default() {
            state.notes.remove(&object);
        }
    }

    /// What was written for `owner` and not seen yet.
    pub(crate) fn open(&self, owner: &ObjectKey) -> Open {
        self.open_at(owner, Instant::now())
    }

    fn open_at(&self, owner: &ObjectKey, now: Instant) -> Open {
        let mut state = self.state();
        let mut open = Open::default();
        let mut expired = Vec::new();
        for object in state.by_owner.get(owner).into_iter().flatten() {
            let Some(note) = state.notes.get(object) else {
                continue;
            };
            if note.until <= now {
                expired.push(object.clone());
                continue;
            }
            let names = match note.sight {
                Sight::Present => &mut open.present,
                Sight::Version(_) => &mut open.changed,
                Sight::Gone(_) => &mut open.gone,
            };
            names.insert(object.name.clone());
        }
        for object in &expired {
            tracing::warn!(%owner, %object, "a write was not seen in the watch; looking again without it");
            state.strike(object);
        }
        open
    }

    fn note(&self, owner: &ObjectKey, object: ObjectKey, sight: Sight) {
        let mut state = self.state();
        state.strike(&object);
        state.by_owner.entry(owner.clone()).or_default().insert(object.clone());
        let note = Note { owner: owner.clone(), sight, until: Instant::now() + PATIENCE };
        state.notes.insert(object, note);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A lock of the standard library: never held across an await.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn strike(&mut self, object: &ObjectKey) {
        let Some(note) = self.notes.remove(object) else {
            return;
        };
        if let Some(objects) = self.by_owner.get_mut(&note.owner) {
            objects.remove(object);
            if objects.is_empty() {
                self.by_owner.remove(&note.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{from_value, json};

    use super::*;

    fn pod(version: u64, deleted: bool) -> Arc<Pod> {
        let deleted = deleted.then_some("2020-01-01T00:00:00Z");
        from_value(json!({ "metadata": {
            "namespace": "ns", "name": "p", "uid": "u", "resourceVersion": version.to_string(), "deletionTimestamp": deleted
        } }))
        .expect("pod")
    }

    fn names(name: &str) -> BTreeSet<String> {
        BTreeSet::from([name.to_owned()])
    }

    fn changed(new: Option<Arc<Pod>>) -> Change<Pod> {
        Change { old: Some(pod(1, false)), new }
    }

    #[test]
    fn notes_are_struck_out_by_what_they_wait_for_alone() {
        let owner = ObjectKey::new("ns", "rs");
        let key = ObjectKey::new("ns", "p");
        let ledger = Ledger::default();

        ledger.creating(&owner, key.clone());
        assert_eq!(ledger.open(&owner).present, names("p"));
        ledger.seen(&changed(Some(pod(2, false))));
        assert!(ledger.open(&owner).is_empty());

        ledger.deleting(&owner, &*pod(2, false));
        ledger.seen(&changed(Some(pod(3, false))));
        assert_eq!(ledger.open(&owner).gone, names("p"), "another change of it");
        ledger.seen(&changed(Some(pod(4, true))));
        assert!(ledger.open(&owner).is_empty());

        ledger.wrote(&owner, &*pod(6, false), |_| Some(pod(5, false)));
        ledger.seen(&changed(Some(pod(5, false))));
        assert_eq!(ledger.open(&owner).changed, names("p"));
        ledger.seen(&changed(Some(pod(7, false))));
        assert!(ledger.open(&owner).is_empty());

        ledger.wrote(&owner, &*pod(8, false), |_| Some(pod(8, false)));
        assert!(ledger.open(&owner).is_empty(), "the event came first");

        ledger.wrote(&owner, &*pod(9, false), |_| None);
        ledger.seen(&changed(None));
        assert!(ledger.open(&owner).is_empty(), "it was deleted");
    }

    #[test]
    fn a_note_that_nothing_strikes_out_ends() {
        let owner = ObjectKey::new("ns", "rs");
        let ledger = Ledger::default();
        ledger.creating(&owner, ObjectKey::new("ns", "p"));
        let later = Instant::now() + PATIENCE;
        assert!(!ledger.open(&owner).is_empty());
        assert!(ledger.open_at(&owner, later).is_empty());
        assert!(ledger.open(&owner).is_empty(), "it is forgotten");
    }
}
