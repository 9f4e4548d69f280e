//! Controllers of custom resources: they run while the CustomResourceDefinition that their addon installs is there. And the
//! objects of other such kinds, which these controllers make and look at.
//!
//! A custom resource is watched as JSON and decoded when it is reconciled. So one object that does not fit its type, because it
//! was stored under another schema, is one reconcile that fails, and not a watch that ends for all; and the code of a watch
//! ([`informer::Watched`] says what it costs) is there once for all of them.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use addons::installed;
use informer::{Cause, Change, Informer, ObjectKey, WorkQueue};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta};
use kube::runtime::watcher;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::client::Error;
use crate::controller::{self, Context, Controller, Row};
use crate::expectations::Expectations;
use crate::meta;
use crate::owner::Owner;

/// A definition that was written is served within this time, or looked at again.
const SERVED_SOON: Duration = Duration::from_millis(100);
/// The longest that one that cannot be listed is left alone.
const SERVED_LATE: Duration = Duration::from_secs(10);

/// Whose definition of a kind is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstalledBy {
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

/// A controller of a custom resource: it runs while the resource is served.
pub trait CustomResourceController: Controller {
    /// The addon that installs the definition.
    const ADDON: &'static str;
    /// What it reconciles.
    type Resource: kube::Resource<DynamicType = ()>;
}

impl Row {
    /// The row of a controller that runs while its custom resource is served.
    pub const fn of_custom<C: CustomResourceController>() -> Self {
        Self { name: C::NAME, run: |context| Box::pin(run_while_served::<C>(context)) }
    }
}

async fn run_while_served<C: CustomResourceController>(context: Context) {
    let resource = ApiResource::erase::<C::Resource>(&());
    while_served(&context, &resource, InstalledBy::Addon(C::ADDON), |served| controller::run::<C>(served)).await;
}

/// Runs `work` whenever `resource` is served by a definition that is meant, each time until that goes or is no longer
/// meant, and all of it until the context's token is triggered. The token of the context that `work` gets ends with the
/// definition.
async fn while_served<F>(
    context: &Context,
    resource: &ApiResource,
    installed_by: InstalledBy,
    work: impl Fn(Context) -> F,
) where
    F: Future<Output = ()>,
{
    let definitions = context.informers.informer_of::<PartialObjectMeta<CustomResourceDefinition>>();
    let definition = ObjectKey::new("", format!("{}.{}", resource.plural, resource.group));
    let (present, mut is_present) = watch::channel(false);
    definitions.on_change(move |change| {
        if change.key() == definition {
            present.send_replace(change.new.as_ref().is_some_and(|new| installed_by.is_meant(&new.metadata)));
        }
    });
    loop {
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => return,
            gone = is_present.wait_for(|present| *present) => if gone.is_err() { return },
        }
        let stop = context.cancel.child_token();
        let run = async {
            let api: kube::Api<DynamicObject> = kube::Api::all_with(context.client.clone(), resource);
            let mut pause = SERVED_SOON;
            while let Err(error) = api.list_metadata(&ListParams::default().limit(1)).await {
                if !matches!(&error, kube::Error::Api(status) if status.code == 404) {
                    tracing::warn!(%error, resource = %resource.plural, "cannot list a custom resource; trying again");
                }
                tokio::select! {
                    // Then there may be nobody any more who would serve it.
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(SERVED_LATE),
                }
            }
            work(Context { cancel: stop.clone(), ..context.clone() }).await;
        };
        tokio::select! {
            () = run => {}
            gone = is_present.wait_for(|present| !*present) => if gone.is_err() { stop.cancel(); return },
        }
        stop.cancel();
    }
}

/// The informer of all objects of a custom resource. Its type is known at run time only, so it is no part of the shared
/// set; it ends with the context's token.
fn informer(context: &Context, resource: &ApiResource) -> Informer<DynamicObject> {
    let api = kube::Api::all_with(context.client.clone(), resource);
    let config = watcher::Config::default().streaming_lists();
    Informer::start_dynamic(resource, api, config, context.cancel.clone())
}

/// The objects that a controller of a custom resource reconciles, and what was written to them.
pub struct Subjects<K> {
    objects: Informer<DynamicObject>,
    /// The keys of those to reconcile.
    pub queue: WorkQueue<ObjectKey>,
    expectations: Expectations,
    kind: PhantomData<fn() -> K>,
}

impl<K> Subjects<K>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + 'static,
{
    /// All objects of the kind.
    pub fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let resource = ApiResource::erase::<K>(&());
        let (objects, client) = (informer(context, &resource), context.client.clone());
        let expectations = Expectations::of(&objects, move |namespace| {
            if namespace.is_empty() {
                return kube::Api::all_with(client.clone(), &resource);
            }
            kube::Api::namespaced_with(client.clone(), namespace, &resource)
        });
        Self { objects, queue, expectations, kind: PhantomData }
    }

    /// The object with this key, as long as it is to stay.
    ///
    /// # Errors
    /// When it is not what its type has.
    pub fn get(&self, key: &ObjectKey) -> Result<Option<K>, Error> {
        let Some(object) = self.json(key).filter(|object| object.metadata.deletion_timestamp.is_none()) else {
            self.expectations.forget(key);
            return Ok(None);
        };
        let decoded = (*object).clone().try_parse();
        decoded.map(Some).map_err(|source| Error::Decode { kind: K::kind(&()).into_owned(), key: key.clone(), source })
    }
}

impl<K: 'static> Subjects<K> {
    /// Enqueues each object that changes. `of` finds these in the controller.
    pub fn watch<C: Send + Sync + 'static>(controller: &Arc<C>, of: fn(&C) -> &Self) {
        // The informer is the controller's own: a handler that kept the controller would keep both for ever.
        let watched = Arc::downgrade(controller);
        of(controller).objects.on_change(move |change| {
            let Some(controller) = watched.upgrade() else { return };
            let subjects = of(&controller);
            let version = change.new.as_ref().map(|new| meta::version(&new.metadata));
            subjects.expectations.observe_version(&change.key(), version);
            subjects.queue.add_changed(change);
        });
    }

    /// Waits until all are known.
    pub async fn synced(&self) {
        self.objects.synced().await;
    }

    /// The object with this key as it is served, also what its type does not have.
    pub fn json(&self, key: &ObjectKey) -> Option<Arc<DynamicObject>> {
        self.objects.get(key)
    }

    /// Whether what was written to it is shown. The event that shows it enqueues it again.
    pub async fn satisfied(&self, key: &ObjectKey) -> bool {
        self.expectations.satisfied(key).await
    }

    /// Enqueues all objects.
    pub fn enqueue_all(&self, cause: &Cause) {
        self.objects.list().iter().for_each(|object| self.queue.add(ObjectKey::of(&**object), cause.clone()));
    }

    /// Turns the status `old` of `owner`, as it was read, into `new`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn patch_status<S: Serialize>(
        &self,
        client: &Client,
        owner: &Owner,
        (old, new): (&S, &S),
    ) -> Result<(), Error> {
        let shown = || self.objects.get(&owner.key).and_then(|object| meta::version(&object.metadata));
        owner.patch_status(client, (old, new), Some((&self.expectations, &shown))).await
    }
}

/// Enqueues the object whose name the things of this kind carry in `label`.
///
/// The informer outlives the definition that the queue is there for: it must not keep the queue.
pub fn enqueue_labelled<K>(informer: &Informer<K>, label: &'static str, queue: &WorkQueue<ObjectKey>)
where
    K: informer::Object,
    K::DynamicType: Clone,
{
    let queue = queue.downgrade();
    informer.on_change(move |change| {
        if let (Some(queue), Some(key)) = (queue.upgrade(), named_by(change, label)) {
            queue.add(key, change.cause());
        }
    });
}

fn named_by<K: kube::Resource>(change: &Change<K>, label: &str) -> Option<ObjectKey> {
    let metadata = change.new.as_deref().or(change.old.as_deref())?.meta();
    let name = metadata.labels.as_ref()?.get(label)?;
    Some(ObjectKey::new(metadata.namespace.clone().unwrap_or_default(), name))
}

/// The objects of a custom kind: none while its definition is not there.
pub struct Objects {
    /// The kind.
    pub resource: ApiResource,
    installed_by: InstalledBy,
    // Never held across an await.
    informer: Mutex<Option<Informer<DynamicObject>>>,
}

impl Objects {
    /// Those of `resource`, once they are followed.
    pub fn new(resource: ApiResource, installed_by: InstalledBy) -> Self {
        Self { resource, installed_by, informer: Mutex::default() }
    }

    /// The object with this key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<DynamicObject>> {
        self.present()?.get(key)
    }

    /// Whether they are known: nothing is said of them before.
    pub fn is_followed(&self) -> bool {
        self.slot().is_some()
    }

    /// What the object with this UID controls.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<DynamicObject>> {
        self.present().map(|informer| informer.by_index(meta::BY_CONTROLLER, uid)).unwrap_or_default()
    }

    /// Follows them until the context's token is triggered. A change enqueues the object whose name is in `label`; that
    /// there are such objects now is told to `turned`.
    pub async fn follow(
        &self,
        context: &Context,
        (label, queue): (&'static str, &WorkQueue<ObjectKey>),
        turned: impl Fn(),
    ) {
        let turned = &turned;
        while_served(context, &self.resource, self.installed_by, |served| async move {
            let informer = informer(&served, &self.resource);
            informer.index(meta::BY_CONTROLLER, |object: &DynamicObject| {
                meta::controller_of(&object.metadata).map(|owner| owner.uid.clone()).into_iter().collect()
            });
            enqueue_labelled(&informer, label, queue);
            informer.synced().await;
            let _present = Present::new(self, informer);
            turned();
            served.cancel.cancelled().await;
        })
        .await;
    }

    fn present(&self) -> Option<Informer<DynamicObject>> {
        self.slot().clone()
    }

    fn slot(&self) -> parking_lot::MutexGuard<'_, Option<Informer<DynamicObject>>> {
        self.informer.lock()
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
    use serde_json::{Value, from_value, json};

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
