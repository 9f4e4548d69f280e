//! Controllers of custom resources that are built in: they run while the CustomResourceDefinition that their addon
//! installs is there. And the objects of other such kinds, which these controllers make and look at.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use informer::{Action, Change, Informer, Informers, ObjectKey, WorkQueue};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client};
use machinery::addon::installed;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::{Error, requeue_on_conflict};
use crate::expectations::Expectations;
use crate::meta;
use crate::owner::Owner;

/// A definition that was written is served within this time, or looked at again.
const SERVED_SOON: Duration = Duration::from_millis(100);

/// Whose definition of a kind is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstalledBy {
    /// The addon of this name. Of one that somebody else installed the objects have a controller already.
    Addon(&'static str),
    /// Whoever it was: objects of the kind are made for whoever looks after them.
    Anybody,
}

impl InstalledBy {
    /// Whether the definition with this metadata is meant, and is to stay.
    fn is_meant(self, definition: &ObjectMeta) -> bool {
        let is_theirs = match self {
            Self::Addon(name) => installed(definition.labels.as_ref(), name),
            Self::Anybody => true,
        };
        is_theirs && definition.deletion_timestamp.is_none()
    }
}

/// Runs `controller` whenever `resource` is served by a definition that is meant, each time until that goes or is no
/// longer meant, and all of it until `cancel` is triggered. The controller gets the informer of all objects of the kind.
pub(crate) async fn while_served<F>(
    client: Client,
    informers: Informers,
    (resource, installed_by): (ApiResource, InstalledBy),
    cancel: CancellationToken,
    controller: impl Fn(Informer<DynamicObject>, CancellationToken) -> F,
) where
    F: Future<Output = ()>,
{
    let definitions = informers.informer_of::<PartialObjectMeta<CustomResourceDefinition>>();
    let key = ObjectKey::new("", format!("{}.{}", resource.plural, resource.group));
    let (present, mut is_present) = watch::channel(false);
    let name = key.name.clone();
    definitions.on_change(move |change| {
        if change.key().name == name {
            let there = change.new.as_ref().is_some_and(|new| installed_by.is_meant(&new.metadata));
            present.send_replace(there);
        }
    });
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            gone = is_present.wait_for(|present| *present) => if gone.is_err() { return },
        }
        let stop = cancel.child_token();
        let run = async {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            while api.list_metadata(&ListParams::default().limit(1)).await.is_err() {
                tokio::select! {
                    // Then there may be nobody any more who would serve it.
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(SERVED_SOON) => {}
                }
            }
            let config = watcher::Config::default().streaming_lists();
            // Its type is known at run time only, so it is no part of the shared set.
            let informer = Informer::start(api, config, stop.clone());
            controller(informer, stop.clone()).await;
        };
        tokio::select! {
            () = run => {}
            gone = is_present.wait_for(|present| !*present) => if gone.is_err() { stop.cancel(); return },
        }
        stop.cancel();
    }
}

/// The objects that a controller is there for: whose turn it is, and what was written to them.
pub(crate) struct Subjects {
    /// They.
    pub(crate) objects: Informer<DynamicObject>,
    /// Those whose turn it is.
    pub(crate) queue: Arc<WorkQueue<ObjectKey>>,
    expectations: Arc<Expectations>,
}

impl Subjects {
    /// These objects, each of whose changes makes it its turn.
    pub(crate) fn new(objects: Informer<DynamicObject>) -> Self {
        let this = Self { objects, queue: Arc::default(), expectations: Arc::default() };
        let (queue, expectations) = (Arc::clone(&this.queue), Arc::clone(&this.expectations));
        this.objects.on_change(move |change| {
            let version = change.new.as_ref().map(|new| meta::version(&new.metadata));
            expectations.observe_version(&change.key(), version);
            queue.add(change.key());
        });
        this
    }

    /// The object with this key, as long as it is to stay.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<DynamicObject>> {
        let object = self.objects.get(key).filter(|object| object.metadata.deletion_timestamp.is_none());
        if object.is_none() {
            self.expectations.forget(key);
        }
        object
    }

    /// Whether what was written to it is shown. The event that shows it makes it its turn again.
    pub(crate) fn is_shown(&self, key: &ObjectKey) -> bool {
        self.expectations.satisfied(key)
    }

    /// Makes it everybody's turn.
    pub(crate) fn wake_all(&self) {
        self.objects.list().iter().for_each(|object| self.queue.add(ObjectKey::of(&**object)));
    }

    /// Gives `object`, which is `owner`, this status.
    pub(crate) async fn patch_status(
        &self,
        client: &Client,
        (owner, object): (&Owner, &DynamicObject),
        status: &Value,
    ) -> Result<(), Error> {
        let shown = || self.objects.get(&owner.key).and_then(|object| meta::version(&object.metadata));
        owner.patch_status(client, (&object.data["status"], status), Some((&self.expectations, &shown))).await
    }

    /// Works for those whose turn it is, until `stop` is triggered.
    pub(crate) async fn work<F>(
        &self,
        name: &'static str,
        workers: usize,
        stop: CancellationToken,
        reconcile: impl Fn(ObjectKey) -> F + Send + Sync,
    ) where
        F: Future<Output = Result<Action, Error>> + Send,
    {
        let reconcile = &reconcile;
        let queue = WorkQueue::clone(&self.queue);
        informer::run(name, queue, workers, stop, |key| async move { requeue_on_conflict(reconcile(key).await) }).await;
    }
}

/// Wakes the object whose name the things of this kind carry in `label`.
///
/// The informer outlives the definition that the queue is there for: it must not keep the queue.
pub(crate) fn wake<K>(informer: &Informer<K>, label: &'static str, queue: &Arc<WorkQueue<ObjectKey>>)
where
    K: informer::Object,
    K::DynamicType: Clone,
{
    let queue = Arc::downgrade(queue);
    informer.on_change(move |change| {
        if let (Some(queue), Some(key)) = (queue.upgrade(), named_by(change, label)) {
            queue.add(key);
        }
    });
}

fn named_by<K: kube::Resource>(change: &Change<K>, label: &str) -> Option<ObjectKey> {
    let metadata = change.new.as_deref().or(change.old.as_deref())?.meta();
    let name = metadata.labels.as_ref()?.get(label)?;
    Some(ObjectKey::new(metadata.namespace.clone().unwrap_or_default(), name))
}

/// The objects of a custom kind: none while its definition is not there.
pub(crate) struct Objects {
    /// The kind.
    pub(crate) resource: ApiResource,
    installed_by: InstalledBy,
    // A lock of the standard library: never held across an await.
    informer: Mutex<Option<Informer<DynamicObject>>>,
}

impl Objects {
    /// Those of `resource`, once they are followed.
    pub(crate) fn new(resource: ApiResource, installed_by: InstalledBy) -> Self {
        Self { resource, installed_by, informer: Mutex::default() }
    }

    /// The object with this key.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<DynamicObject>> {
        self.present()?.get(key)
    }

    /// Whether they are known: nothing is said of them before.
    pub(crate) fn is_followed(&self) -> bool {
        self.slot().is_some()
    }

    /// What the object with this UID controls.
    pub(crate) fn controlled_by(&self, uid: &str) -> Vec<Arc<DynamicObject>> {
        self.present().map(|informer| informer.by_index(meta::BY_CONTROLLER, uid)).unwrap_or_default()
    }

    /// Follows them until `cancel` is triggered. A change wakes the object whose name is in `label`; that there are
    /// such objects at all, or are no more, is told to `turned`.
    pub(crate) async fn follow(
        &self,
        (client, informers): (Client, Informers),
        (label, queue): (&'static str, &Arc<WorkQueue<ObjectKey>>),
        turned: impl Fn(),
        cancel: CancellationToken,
    ) {
        let turned = &turned;
        let kind = (self.resource.clone(), self.installed_by);
        while_served(client, informers, kind, cancel, |informer, stop| async move {
            informer.index(meta::BY_CONTROLLER, |object: &DynamicObject| {
                meta::controller_of(&object.metadata).map(|owner| owner.uid.clone()).into_iter().collect()
            });
            wake(&informer, label, queue);
            informer.synced().await;
            let _present = Present::new(self, informer);
            turned();
            stop.cancelled().await;
        })
        .await;
    }

    fn present(&self) -> Option<Informer<DynamicObject>> {
        self.slot().clone()
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Informer<DynamicObject>>> {
        self.informer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While this is there, so are the objects: the future that holds it is dropped when their definition goes.
struct Present<'a>(&'a Objects);

impl<'a> Present<'a> {
    fn new(objects: &'a Objects, informer: Informer<DynamicObject>) -> Self {
        *objects.slot() = Some(informer);
        Self(objects)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        *self.0.slot() = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_controller_runs_for_the_definition_of_its_addon_alone() {
        let check = |metadata: Value, addon: bool, anybody: bool| {
            let metadata: ObjectMeta = from_value(metadata.clone()).expect("metadata");
            assert_eq!(InstalledBy::Addon("lws").is_meant(&metadata), addon, "{metadata:?}");
            assert_eq!(InstalledBy::Anybody.is_meant(&metadata), anybody, "{metadata:?}");
        };
        let ours = json!({ "coracle.dev/addon": "lws" });
        check(json!({}), false, true);
        check(json!({ "labels": { "app.kubernetes.io/name": "lws" } }), false, true);
        check(json!({ "labels": { "coracle.dev/addon": "rbg" } }), false, true);
        check(json!({ "labels": ours }), true, true);
        check(json!({ "labels": ours, "deletionTimestamp": "2026-01-01T00:00:00Z" }), false, false);
    }
}
