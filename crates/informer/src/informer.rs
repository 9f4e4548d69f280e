//! A local copy of all objects of one kind, kept current by a watch.

use std::any::TypeId;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::sparse::give_back;
use crate::{Cause, Object, ObjectKey};

/// What happened to one object: `new` alone for an addition, `old` alone for a deletion, both for a change.
///
/// After a lost watch, the difference between the two states is delivered in the same form; what happened in between
/// is not.
#[derive(Debug, Clone)]
pub struct Change<K> {
    /// The object's kind.
    pub kind: Arc<str>,
    /// The object as it was known before.
    pub old: Option<Arc<K>>,
    /// The object as it is now.
    pub new: Option<Arc<K>>,
}

impl<K: kube::Resource> Change<K> {
    /// The key of the object that changed.
    pub fn key(&self) -> ObjectKey {
        self.new.as_deref().or(self.old.as_deref()).map(ObjectKey::of).unwrap_or_default()
    }
}

impl<K: kube::Resource + Send + Sync + 'static> Change<K> {
    /// The change as the cause of work.
    pub fn cause(&self) -> Cause {
        match (&self.new, &self.old) {
            (Some(new), _) => Cause::change(&self.kind, new, false),
            (None, Some(old)) => Cause::change(&self.kind, old, true),
            (None, None) => Cause::new("a change of nothing"),
        }
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;
type IndexFn<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

/// A local copy of all objects of one kind. Cheap to clone; all clones share the copy.
///
/// Reads take a short lock and never wait for the network. The copy lags behind the API server by the time of one
/// watch event, and reconcilers must be right with that.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<K> {
    kind: Arc<str>,
    // None is held across an await, and each critical section is a few map operations.
    state: RwLock<State<K>>,
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: HashMap<ObjectKey, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
}

struct Index<K> {
    values_of: IndexFn<K>,
    // Ordered, so that whoever walks an index sees the same order every time.
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

impl<K: Object> Informer<K>
where
    K::DynamicType: Clone,
{
    /// Starts to watch what `api` and `config` select, until `cancel` is triggered.
    pub fn start(api: Api<K>, config: watcher::Config, cancel: CancellationToken) -> Self
    where
        K::DynamicType: Default,
    {
        Self::start_dynamic(&K::DynamicType::default(), api, config, cancel)
    }

    /// As [`Informer::start`], of a kind that is known at run time only.
    pub fn start_dynamic(
        type_: &K::DynamicType,
        api: Api<K>,
        config: watcher::Config,
        cancel: CancellationToken,
    ) -> Self {
        let informer = Self {
            shared: Arc::new(Shared {
                kind: K::kind(type_).into(),
                state: RwLock::new(State { objects: HashMap::new(), indexes: HashMap::new() }),
                handlers: Mutex::new(Vec::new()),
                synced: watch::Sender::new(false),
            }),
        };
        let shared = Arc::clone(&informer.shared);
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = reflect(&shared, api, config) => {}
            }
        });
        informer
    }

    /// The object with this key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.shared.read().objects.get(key).cloned()
    }

    /// All objects, in no particular order. For few objects; with many, use an index.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.read().objects.values().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.read().objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the index `name`: `values_of` says under which values an object is found. Adding an index of the same name
    /// again does nothing, so that every user of a shared informer may ask for what it needs.
    pub fn index(&self, name: &'static str, values_of: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        let mut state = self.shared.write();
        if state.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { values_of: Box::new(values_of), keys: HashMap::new() };
        for (key, object) in &state.objects {
            index.insert(key, object);
        }
        state.indexes.insert(name, index);
    }

    /// The objects that the index `name` has under `value`, ordered by key. Empty also where no such index was added.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let state = self.shared.read();
        let Some(keys) = state.indexes.get(name).and_then(|index| index.keys.get(value)) else {
            return Vec::new();
        };
        keys.iter().filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    /// Calls `handler` for every change from now on, and at once for each object that is already known.
    ///
    /// The handler runs on the informer's own task: it must return quickly (put a key into a queue) and must not call
    /// [`Informer::on_change`] itself.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        // The handlers' lock is held while the present is replayed, and changes are applied under it, so a handler
        // sees every object exactly once however it races with the watch.
        let mut handlers = self.shared.handlers();
        for object in self.list() {
            handler(&Change { kind: Arc::clone(&self.shared.kind), old: None, new: Some(object) });
        }
        handlers.push(Box::new(handler));
    }

    /// Waits until the first full list has arrived. Decisions made earlier would mistake the unknown for the absent.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives in `shared`, which this informer holds: the channel cannot close.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Whether the first full list has arrived.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }
}

impl<K> Shared<K> {
    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        self.state.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        self.state.write()
    }

    fn handlers(&self) -> MutexGuard<'_, Vec<Handler<K>>> {
        self.handlers.lock()
    }
}

impl<K: Object> Shared<K> {
    fn apply(&self, object: K) {
        let key = ObjectKey::of(&object);
        let new = Arc::new(object);
        let handlers = self.handlers();
        let old = self.write().insert(key, Arc::clone(&new));
        // A watch that was resumed may repeat what is already known.
        if old.as_deref().is_some_and(|old| same_version(old, &new)) {
            return;
        }
        let change = Change { kind: Arc::clone(&self.kind), old, new: Some(new) };
        handlers.iter().for_each(|handler| handler(&change));
    }

    fn delete(&self, object: &K) {
        let handlers = self.handlers();
        let Some(old) = self.write().remove(&ObjectKey::of(object)) else {
            return;
        };
        let change = Change { kind: Arc::clone(&self.kind), old: Some(old), new: None };
        handlers.iter().for_each(|handler| handler(&change));
    }

    /// Makes the copy what a fresh list says: what the list lacks was deleted while nobody watched.
    ///
    /// Handlers hear of deletions first, then of what was known already, and last of what is new. Whoever counts relies on
    /// it, as the kubelet does when it admits a pod: what others gave up is free before something new asks for room.
    fn replace(&self, listed: Vec<K>) {
        let listed_keys: HashSet<ObjectKey> = listed.iter().map(ObjectKey::of).collect();
        let gone: Vec<Arc<K>> = {
            let state = self.read();
            let gone = |(key, _): &(&ObjectKey, &Arc<K>)| !listed_keys.contains(*key);
            state.objects.iter().filter(gone).map(|(_, object)| Arc::clone(object)).collect()
        };
        gone.iter().for_each(|object| self.delete(object));
        let (known, new): (Vec<K>, Vec<K>) = {
            let state = self.read();
            listed.into_iter().partition(|object| state.objects.contains_key(&ObjectKey::of(object)))
        };
        known.into_iter().chain(new).for_each(|object| self.apply(object));
    }
}

/// The object without its `managedFields`, which are half of what it takes in memory and tell no controller anything; but for
/// ResourceQuotas, of which they tell whether the API server charged one or somebody wrote to it.
fn without_managers<K: Object>(mut object: K) -> K {
    if TypeId::of::<K>() != TypeId::of::<ResourceQuota>() {
        object.meta_mut().managed_fields = None;
    }
    object
}

fn same_version<K: kube::Resource>(old: &K, new: &K) -> bool {
    let (old, new) = (old.meta(), new.meta());
    old.uid == new.uid && old.resource_version == new.resource_version && new.resource_version.is_some()
}

impl<K> State<K> {
    fn insert(&mut self, key: ObjectKey, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.insert(key.clone(), Arc::clone(&object));
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        old
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        give_back(&mut self.objects);
        for index in self.indexes.values_mut() {
            index.remove(key, &old);
        }
        Some(old)
    }
}

impl<K> Index<K> {
    fn insert(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values_of)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values_of)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                    give_back(&mut self.keys);
                }
            }
        }
    }
}

/// Follows the watch for ever. Errors are retried with back-off: an API server that is away comes back.
async fn reflect<K: Object>(shared: &Shared<K>, api: Api<K>, config: watcher::Config)
where
    K::DynamicType: Clone,
{
    let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.push(without_managers(object)),
            Ok(Event::InitDone) => {
                shared.replace(std::mem::take(&mut listed));
                shared.synced.send_replace(true);
            }
            Ok(Event::Apply(object)) => shared.apply(without_managers(object)),
            Ok(Event::Delete(object)) => shared.delete(&object),
            Err(error @ watcher::Error::WatchError(_)) => {
                debug!(kind = std::any::type_name::<K>(), %error, "watch starts over");
            }
            Err(error) => warn!(kind = std::any::type_name::<K>(), %error, "watch failed, trying again"),
        }
    }
}

#[cfg(test)]
mod tests;
