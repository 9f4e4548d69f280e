//! Expectations: what a controller has written and its informer does not show yet.
//!
//! An informer lags behind the API server. A controller that reads it right after a write would write again: a second
//! Pod, a second slice. [`Expectations`] close that gap. Whoever writes first says what the write will show, and the
//! informer's events observe it. Until then the reconciler adds what is pending to what it sees (a Pod that was created
//! counts as present) or waits (an object that was changed is not planned with while its old state shows).
//!
//! Creations are expected under names that the controller chooses itself, before the request is sent: so no event can
//! come too early, and nothing depends on the order of answer and event.
//!
//! An expectation can miss what it waits for: the object came and went while a watch was lost, or the request never arrived.
//! So after each [`EXPECTATIONS_TIMEOUT`] the API server is asked: when the informer shows the state that is served, there is
//! nothing to wait for, and the expectation ends. An informer that lags, however long, is waited for: a plan made from what
//! it shows would be wrong.
//!
//! Upstream's are numbers of creations and deletions and UIDs (`pkg/controller/controller_utils.go`,
//! `ControllerExpectations`), which end after five minutes, whether the informer lags or not.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use informer::{Change, Informer, Object, ObjectKey};
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::{Mutex, MutexGuard};
// The clock of the queues that keys come back from: a simulation runs ahead of the wall's.
use tokio::time::Instant;

use crate::meta;

/// How long an expectation is believed before the API server is asked, and whoever waits for one looks again.
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

/// Whether the informer shows something else of an object than what is served.
type Lags = Box<dyn Fn(ObjectKey) -> BoxFuture<'static, kube::Result<bool>> + Send + Sync>;

/// Expectations about objects of one kind, by the object that each was written for.
pub struct Expectations {
    state: Mutex<State>,
    lags: Lags,
}

impl fmt::Debug for Expectations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expectations").field("state", &self.state).finish_non_exhaustive()
    }
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
    /// Expectations about what `informer` shows, whose objects `api` reads: those of a namespace, or of cluster scope if that
    /// is empty.
    pub fn of<K: Object>(informer: &Informer<K>, api: impl Fn(&str) -> kube::Api<K> + Send + Sync + 'static) -> Self
    where
        K::DynamicType: Clone,
    {
        let informer = informer.clone();
        Self::new(move |key| {
            let (informer, api) = (informer.clone(), api(&key.namespace));
            Box::pin(async move {
                let served = api.get_metadata_opt(&key.name).await?;
                // Looked at last: it may have caught up while the API server was asked.
                let shown = informer.get(&key);
                Ok(lags(served.as_ref().map(|object| &object.metadata), shown.as_deref().map(kube::Resource::meta)))
            })
        })
    }

    fn new(lags: impl Fn(ObjectKey) -> BoxFuture<'static, kube::Result<bool>> + Send + Sync + 'static) -> Self {
        Self { state: Mutex::default(), lags: Box::new(lags) }
    }

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
    pub async fn satisfied(&self, owner: &ObjectKey) -> bool {
        self.pending(owner).await.is_empty()
    }

    /// Whether everything that was written for `owner` has been observed, of all of these.
    pub async fn all_satisfied(all: &[&Self], owner: &ObjectKey) -> bool {
        for expectations in all {
            if !expectations.satisfied(owner).await {
                return false;
            }
        }
        true
    }

    /// What was written for `owner` and not observed yet.
    pub async fn pending(&self, owner: &ObjectKey) -> Pending {
        for object in self.overdue(owner) {
            let lags = (self.lags)(object.clone()).await.unwrap_or_else(|error| {
                tracing::debug!(%owner, %object, %error, "whether a write is shown cannot be asked");
                true
            });
            self.settle(owner, &object, lags);
        }
        let state = self.state();
        let mut pending = Pending::default();
        for object in state.by_owner.get(owner).into_iter().flatten() {
            let names = match state.entries.get(object).map(|entry| &entry.expectation) {
                Some(Expectation::Present) => &mut pending.present,
                Some(Expectation::Version(_)) => &mut pending.changed,
                Some(Expectation::Gone(_)) => &mut pending.gone,
                None => continue,
            };
            names.insert(object.name.clone());
        }
        pending
    }

    fn overdue(&self, owner: &ObjectKey) -> Vec<ObjectKey> {
        let (state, now) = (self.state(), Instant::now());
        let objects = state.by_owner.get(owner).into_iter().flatten();
        objects.filter(|&object| state.is_overdue(object, now)).cloned().collect()
    }

    fn settle(&self, owner: &ObjectKey, object: &ObjectKey, lags: bool) {
        let (mut state, now) = (self.state(), Instant::now());
        // What was written meanwhile is another expectation.
        if !state.is_overdue(object, now) {
            return;
        }
        if !lags {
            tracing::debug!(%owner, %object, "a write that no event showed is waited for no more");
            return state.observed(object);
        }
        tracing::warn!(%owner, %object, "a write is not shown by the watch yet");
        if let Some(entry) = state.entries.get_mut(object) {
            entry.until = now + EXPECTATIONS_TIMEOUT;
        }
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

/// Whether an informer that shows `shown` of an object has to catch up with what is served.
fn lags(served: Option<&ObjectMeta>, shown: Option<&ObjectMeta>) -> bool {
    match (served, shown) {
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
        (Some(served), Some(shown)) => meta::version(shown) < meta::version(served),
    }
}

impl State {
    fn is_overdue(&self, object: &ObjectKey, now: Instant) -> bool {
        self.entries.get(object).is_some_and(|entry| entry.until <= now)
    }

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
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;

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

    /// As if the informer showed an older state than the one that is served as long as `lagging` says so.
    fn expectations(lagging: &Arc<AtomicBool>) -> Expectations {
        let lagging = Arc::clone(lagging);
        Expectations::new(move |_| {
            let lags = lagging.load(Relaxed);
            Box::pin(async move { Ok(lags) })
        })
    }

    #[tokio::test(start_paused = true)]
    async fn expectations_end_with_what_they_wait_for_alone() {
        let owner = ObjectKey::new("ns", "rs");
        let key = ObjectKey::new("ns", "p");
        let expectations = expectations(&Arc::default());

        expectations.expect_creation(&owner, key.clone());
        assert_eq!(expectations.pending(&owner).await.present, names("p"));
        expectations.observe(&changed(Some(pod(2, false))));
        assert!(expectations.satisfied(&owner).await);

        expectations.expect_deletion(&owner, &*pod(2, false));
        expectations.observe(&changed(Some(pod(3, false))));
        assert_eq!(expectations.pending(&owner).await.gone, names("p"), "another change of it");
        expectations.observe(&changed(Some(pod(4, true))));
        assert!(expectations.satisfied(&owner).await);

        expectations.expect_write(&owner, &*pod(6, false), |_| Some(pod(5, false)));
        expectations.observe(&changed(Some(pod(5, false))));
        assert_eq!(expectations.pending(&owner).await.changed, names("p"));
        expectations.observe(&changed(Some(pod(7, false))));
        assert!(expectations.satisfied(&owner).await);

        expectations.expect_write(&owner, &*pod(8, false), |_| Some(pod(8, false)));
        assert!(expectations.satisfied(&owner).await, "the event came first");

        expectations.expect_write(&owner, &*pod(9, false), |_| None);
        expectations.observe(&changed(None));
        assert!(expectations.satisfied(&owner).await, "it was deleted");
    }

    #[tokio::test(start_paused = true)]
    async fn an_expectation_ends_unobserved_when_there_is_nothing_more_to_show() {
        let owner = ObjectKey::new("ns", "rs");
        let lagging = Arc::new(AtomicBool::new(true));
        let expectations = expectations(&lagging);
        expectations.expect_deletion(&owner, &*pod(2, false));
        for _ in 0..3 {
            tokio::time::advance(EXPECTATIONS_TIMEOUT).await;
            assert_eq!(expectations.pending(&owner).await.gone, names("p"), "the informer lags");
        }
        lagging.store(false, Relaxed);
        assert!(!expectations.satisfied(&owner).await, "nobody is asked before the time");
        tokio::time::advance(EXPECTATIONS_TIMEOUT).await;
        assert!(expectations.satisfied(&owner).await);
        assert!(expectations.state().by_owner.is_empty(), "it is forgotten");
    }

    #[test]
    fn an_informer_lags_that_shows_something_older() {
        let pods = [None, Some(pod(1, false)), Some(pod(2, false))];
        let answers =
            pods.iter().flat_map(|served| pods.iter().map(move |shown| (served, shown))).map(|(served, shown)| {
                lags(served.as_deref().map(Metadata::metadata), shown.as_deref().map(Metadata::metadata))
            });
        let newer_is_shown = false;
        let expected = [false, true, true, true, false, newer_is_shown, true, true, false];
        assert_eq!(answers.collect::<Vec<_>>(), expected);
    }
}
