//! The end of a CustomResourceDefinition: its objects go first. And what its end frees: names that others wait for.
//!
//! Watches the metadata of CustomResourceDefinitions; owns the finalizer `customresourcecleanup.apiextensions.k8s.io`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use informer::{Action, Informer, WorkQueue};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{DeleteParams, DynamicObject, ListParams, PartialObjectMeta, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::meta;

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// So long objects get to go before it is looked again: some have finalizers of their own.
const AGAIN: Duration = Duration::from_millis(250);

/// What is to be done about a definition, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    /// Delete its objects, then let it go.
    Clean(String),
    /// Have the server look again whether its names are free.
    Reconsider(String),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean(name) => write!(f, "clean {name}"),
            Self::Reconsider(name) => write!(f, "reconsider {name}"),
        }
    }
}

/// What a change of a definition means; `known` are the names of all, which only matter when one is gone.
fn tasks(meta: &ObjectMeta, gone: bool, known: impl FnOnce() -> BTreeSet<String>) -> Vec<Task> {
    let name = meta.name.as_deref().unwrap_or_default();
    if gone {
        let group = |name: &str| name.split_once('.').map(|(_, group)| group.to_owned());
        let siblings = known().into_iter().filter(|other| *other != name && group(other) == group(name));
        return siblings.map(Task::Reconsider).collect();
    }
    let held = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if held && meta.deletion_timestamp.is_some() { vec![Task::Clean(name.to_owned())] } else { Vec::new() }
}

/// The controller of CustomResourceDefinitions that are being deleted.
pub(crate) struct CustomResources {
    client: Client,
    definitions: Informer<PartialObjectMeta<CustomResourceDefinition>>,
    queue: WorkQueue<Task>,
    cancel: CancellationToken,
}

impl Controller for CustomResources {
    const NAME: &'static str = "crd_finalizer";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = Task;

    fn new(context: &Context, queue: WorkQueue<Task>) -> Self {
        let (client, cancel) = (context.client.clone(), context.cancel.clone());
        Self { client, definitions: context.informers.informer_of(), queue, cancel }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.definitions.on_change(move |change| {
            let Some(definition) = change.new.as_ref().or(change.old.as_ref()) else { return };
            let known = || {
                let all = controller.definitions.list().into_iter();
                all.filter_map(|known| known.metadata.name.clone()).collect()
            };
            let tasks = tasks(&definition.metadata, change.new.is_none(), known);
            tasks.into_iter().for_each(|task| controller.queue.add(task, change.cause()));
        });
    }

    async fn synced(&self) {
        self.definitions.synced().await;
    }

    async fn reconcile(&self, task: &Task) -> Result<Action, Error> {
        match task {
            // There may be many objects. What is left when the controller stops is found at the next start.
            Task::Clean(name) => tokio::select! {
                () = self.cancel.cancelled() => Ok(Action::AwaitChange),
                done = clean(&self.client, name) => done,
            },
            Task::Reconsider(name) => reconsider(&self.client, name).await,
        }
    }
}

/// A write that changes nothing makes the server look again at what it decides itself.
async fn reconsider(client: &Client, name: &str) -> Result<Action, Error> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    ok_if_not_found(definitions.patch_metadata(name, &PatchParams::default(), &Patch::Merge(json!({}))).await)?;
    Ok(Action::AwaitChange)
}

async fn clean(client: &Client, name: &str) -> Result<Action, Error> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let Some(definition) = ok_if_not_found(definitions.get(name).await)? else { return Ok(Action::AwaitChange) };
    if !meta::is_deleting(&definition) {
        return Ok(Action::AwaitChange);
    }
    if let Some((resource, namespaced)) = resource(&definition)
        && delete_all(client, &resource, namespaced).await?
    {
        return Ok(Action::RequeueAfter(AGAIN));
    }
    let finalizers = definition.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER);
    let patch = json!({ "metadata": {
        "finalizers": finalizers.collect::<Vec<_>>(),
        "resourceVersion": definition.metadata.resource_version,
    } });
    ok_if_not_found(definitions.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
    Ok(Action::AwaitChange)
}

/// What the objects of a definition are reached by: the version they are stored in, so that nothing has to be converted, or
/// another one that is served; and whether they are in namespaces. With no version served, the server serves the one that
/// is stored until all objects are gone.
fn resource(definition: &CustomResourceDefinition) -> Option<(ApiResource, bool)> {
    let spec = &definition.spec;
    let storage = spec.versions.iter().find(|version| version.storage)?;
    let served = || spec.versions.iter().find(|version| version.served);
    let version = Some(storage).filter(|storage| storage.served).or_else(served).unwrap_or(storage);
    let resource = ApiResource {
        group: spec.group.clone(),
        version: version.name.clone(),
        api_version: format!("{}/{}", spec.group, version.name),
        kind: spec.names.kind.clone(),
        plural: spec.names.plural.clone(),
    };
    Some((resource, spec.scope == "Namespaced"))
}

/// Deletes all objects of a resource. Whether there were any.
async fn delete_all(client: &Client, resource: &ApiResource, namespaced: bool) -> Result<bool, Error> {
    let everywhere: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), resource);
    // Nothing is found where it was never served.
    let Some(list) = ok_if_not_found(everywhere.list(&ListParams::default()).await)? else { return Ok(false) };
    let namespaces: BTreeSet<String> =
        list.items.iter().map(|object| object.metadata.namespace.clone().unwrap_or_default()).collect();
    for namespace in &namespaces {
        let api: Api<DynamicObject> = if namespaced {
            Api::namespaced_with(client.clone(), namespace, resource)
        } else {
            Api::all_with(client.clone(), resource)
        };
        api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    }
    Ok(!namespaces.is_empty())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn what_changes_mean() {
        let known = || ["a.x.io", "b.x.io", "a.y.io"].map(str::to_owned).into();
        let meta = |deleting: bool, finalizers: &[&str]| ObjectMeta {
            name: Some("a.x.io".into()),
            deletion_timestamp: deleting.then_some(Time(Timestamp::UNIX_EPOCH)),
            finalizers: Some(finalizers.iter().map(|name| (*name).to_owned()).collect()),
            ..ObjectMeta::default()
        };
        for (meta, gone, expect) in [
            (meta(false, &[]), false, vec![]),
            (meta(true, &["other/one"]), false, vec![]),
            (meta(true, &[FINALIZER]), false, vec![Task::Clean("a.x.io".into())]),
            (meta(true, &[]), true, vec![Task::Reconsider("b.x.io".into())]),
        ] {
            assert_eq!(tasks(&meta, gone, known), expect);
        }
    }
}
