//! Expectations: what a controller has written and its informer does not show yet.
//!
//! An informer lags behind the API server. A controller that reads it right after a write would write again: a second
//! Pod, a second slice. [`Expectations`] close that gap. Whoever writes first says what the write will show, and the
//! informer's events observe it. Until then the reconciler adds what is pending to what it sees (a Pod that was created
//! counts as present) or waits (an object that was changed is not planned with while its old state shows).
//!
//! Creations are expected under names that the controller chooses itself, before the request is sent: so no event can
//! come too early, and nothing depends on the order of answer and event. An expectation that nothing observes, because a
//! watch was lost at the wrong moment, ends after [`EXPECTATIONS_TIMEOUT`].
//!
//! Upstream's are numbers of creations and deletions and UIDs (`pkg/controller/controller_utils.go`,
//! `ControllerExpectations`, five minutes); these are names and versions, so that a wrong guess costs seconds.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use informer::{Change, ObjectKey};
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::{Mutex, MutexGuard};
// The clock of the queues that keys come back from: a simulation runs ahead of the wall's.
use tokio::time::Instant;

use crate::meta;

/// How long an expectation is believed. No informer that works lags so far behind.
pub const EXPECTATIONS_TIMEOUT: Duration = Duration::from_secs(10);

/// What a write will show.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expectation {
    /// The object, in whatever state.
    Present,
    /// The object at this version or a later one.
    Version(u64),
    /// That the object with this UID is gone or being deleted.
    Gone(String),
}

#[derive(Debug)]
struct Entry {
    owner: ObjectKey,
    expectation: Expectation,
    until: Instant,
}

/// Expectations about objects of one kind, by the object that each was written for.
#[derive(Debug, Default)]
pub struct Expectations {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<ObjectKey, Entry>,
    by_owner: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
}

/// Names of objects that were written for one owner and not observed yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pending {
    /// Those that were created.
    pub present: BTreeSet<String>,
    /// Those that were changed.
    pub changed: BTreeSet<String>,
    /// Those that were deleted.
    pub gone: BTreeSet<String>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.present.is_empty() && self.changed.is_empty() && self.gone.is_empty()
    }
}

impl Expectations {
    /// Expects `object` to appear: it is about to be created for `owner`.
    pub fn expect_creation(&self, owner: &ObjectKey, object: ObjectKey) {
        self.expect(owner, object, Expectation::Present);
    }

    /// Expects `object` to go: it is about to be deleted for `owner`.
    pub fn expect_deletion<K: Metadata<Ty = ObjectMeta>>(&self, owner: &ObjectKey, object: &K) {
        let key = ObjectKey::new(meta::namespace(object), meta::name(object));
        self.expect(owner, key, Expectation::Gone(meta::uid(object).to_owned()));
    }

    /// Expects the version of `written`, the answer to a write for `owner`, while the informer (asked through `shown`) has an
    /// older state or none.
    pub fn expect_write<K, L>(&self, owner: &ObjectKey, written: &K, shown: L)
    where
        K: Metadata<Ty = ObjectMeta>,
        L: Fn(&ObjectKey) -> Option<std::sync::Arc<K>>,
    {
        let Some(version) = meta::version(written.metadata()) else {
            return;
        };
        let key = ObjectKey::new(meta::namespace(written), meta::name(written));
        let shown = || shown(&key).and_then(|object| meta::version(object.metadata()));
        self.expect_version(owner, key.clone(), version, shown);
    }

    /// Expects this version of `object`, while the informer shows the version `shown` or none.
    pub fn expect_version(&self, owner: &ObjectKey, object: ObjectKey, version: u64, shown: impl Fn() -> Option<u64>) {
        self.expect(owner, object.clone(), Expectation::Version(version));
        // The event may have come before the answer.
        if shown() >= Some(version) {
            self.observed(&object);
        }
    }

    /// Ends the expectation about `object`: it was observed, or the write failed.
    pub fn observed(&self, object: &ObjectKey) {
        self.state().observed(object);
    }

    /// Ends what `change` shows to be fulfilled. For the informer's handler.
    pub fn observe<K: Metadata<Ty = ObjectMeta> + kube::Resource>(&self, change: &Change<K>) {
        let key = change.key();
        let mut state = self.state();
        let Some(entry) = state.entries.get(&key) else {
            return;
        };
        let seen = match (&entry.expectation, change.new.as_deref()) {
            (Expectation::Present, _) | (_, None) => true,
            (Expectation::Version(version), Some(object)) => {
                Metadata::metadata(object).resource_version.is_none()
                    || meta::version(Metadata::metadata(object)) >= Some(*version)
            }
            (Expectation::Gone(uid), Some(object)) => meta::is_deleting(object) || meta::uid(object) != uid,
        };
        if seen {
            state.observed(&key);
        }
    }

    /// As [`Expectations::observe`], for an object whose type is known at run time only: its version, or none if it is gone.
    pub fn observe_version(&self, object: &ObjectKey, version: Option<Option<u64>>) {
        let mut state = self.state();
        let seen = match (state.entries.get(object).map(|entry| &entry.expectation), version) {
            (None, _) => false,
            (Some(Expectation::Version(wanted)), Some(Some(version))) => version >= *wanted,
            (Some(Expectation::Gone(_)), Some(_)) => false,
            _ => true,
        };
        if seen {
            state.observed(object);
        }
    }

    /// Drops all expectations of `owner`, which is gone.
    pub fn forget(&self, owner: &ObjectKey) {
        let mut state = self.state();
        for object in state.by_owner.remove(owner).unwrap_or_default() {
            state.entries.remove(&object);
        }
    }

    /// Whether everything that was written for `owner` has been observed.
    pub fn satisfied(&self, owner: &ObjectKey) -> bool {
        self.pending(owner).is_empty()
    }

    /// What was written for `owner` and not observed yet.
    pub fn pending(&self, owner: &ObjectKey) -> Pending {
        self.pending_at(owner, Instant::now())
    }

    fn pending_at(&self, owner: &ObjectKey, now: Instant) -> Pending {
        let mut state = self.state();
        let mut pending = Pending::default();
        let mut expired = Vec::new();
        for object in state.by_owner.get(owner).into_iter().flatten() {
            let Some(entry) = state.entries.get(object) else {
                continue;
            };
            if entry.until <= now {
                expired.push(object.clone());
                continue;
            }
            let names = match entry.expectation {
                Expectation::Present => &mut pending.present,
                Expectation::Version(_) => &mut pending.changed,
                Expectation::Gone(_) => &mut pending.gone,
            };
            names.insert(object.name.clone());
        }
        for object in &expired {
            tracing::warn!(%owner, %object, "a write was not observed in the watch; reconciling again without it");
            state.observed(object);
        }
        pending
    }

    fn expect(&self, owner: &ObjectKey, object: ObjectKey, expectation: Expectation) {
        let mut state = self.state();
        state.observed(&object);
        state.by_owner.entry(owner.clone()).or_default().insert(object.clone());
        let entry = Entry { owner: owner.clone(), expectation, until: Instant::now() + EXPECTATIONS_TIMEOUT };
        state.entries.insert(object, entry);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Never held across an await.
        self.state.lock()
    }
}

impl State {
    fn observed(&mut self, object: &ObjectKey) {
        let Some(entry) = self.entries.remove(object) else {
            return;
        };
        if let Some(objects) = self.by_owner.get_mut(&entry.owner) {
            objects.remove(object);
            if objects.is_empty() {
                self.by_owner.remove(&entry.owner);
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
        Change { kind: "Pod".into(), old: Some(pod(1, false)), new }
    }

    #[test]
    fn expectations_end_with_what_they_wait_for_alone() {
        let owner = ObjectKey::new("ns", "rs");
        let key = ObjectKey::new("ns", "p");
        let expectations = Expectations::default();

        expectations.expect_creation(&owner, key.clone());
        assert_eq!(expectations.pending(&owner).present, names("p"));
        expectations.observe(&changed(Some(pod(2, false))));
        assert!(expectations.satisfied(&owner));

        expectations.expect_deletion(&owner, &*pod(2, false));
        expectations.observe(&changed(Some(pod(3, false))));
        assert_eq!(expectations.pending(&owner).gone, names("p"), "another change of it");
        expectations.observe(&changed(Some(pod(4, true))));
        assert!(expectations.satisfied(&owner));

        expectations.expect_write(&owner, &*pod(6, false), |_| Some(pod(5, false)));
        expectations.observe(&changed(Some(pod(5, false))));
        assert_eq!(expectations.pending(&owner).changed, names("p"));
        expectations.observe(&changed(Some(pod(7, false))));
        assert!(expectations.satisfied(&owner));

        expectations.expect_write(&owner, &*pod(8, false), |_| Some(pod(8, false)));
        assert!(expectations.satisfied(&owner), "the event came first");

        expectations.expect_write(&owner, &*pod(9, false), |_| None);
        expectations.observe(&changed(None));
        assert!(expectations.satisfied(&owner), "it was deleted");
    }

    #[test]
    fn an_expectation_that_nothing_observes_ends() {
        let owner = ObjectKey::new("ns", "rs");
        let expectations = Expectations::default();
        expectations.expect_creation(&owner, ObjectKey::new("ns", "p"));
        let later = Instant::now() + EXPECTATIONS_TIMEOUT;
        assert!(!expectations.satisfied(&owner));
        assert!(expectations.pending_at(&owner, later).is_empty());
        assert!(expectations.satisfied(&owner), "it is forgotten");
    }
}
