//! The object that a controller works for, without its type: what is needed to own others, to be named in events, and to
//! have its status written. Code that takes an [`Owner`] exists once, whatever kinds use it.

use informer::ObjectKey;
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde::Serialize;

use crate::client::{Error, if_found};
use crate::ledger::Ledger;
use crate::meta;

/// An object that owns others.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    /// Its namespace and name.
    pub(crate) key: ObjectKey,
    /// How events name it.
    pub(crate) reference: ObjectReference,
    /// How what it owns names it.
    pub(crate) controller: OwnerReference,
    version: Option<u64>,
    resource: ApiResource,
}

impl Owner {
    /// What is to be known of `object`.
    pub(crate) fn of<K>(object: &K) -> Self
    where
        K: k8s_openapi::Resource + Metadata<Ty = ObjectMeta> + kube::Resource<DynamicType = ()>,
    {
        Self {
            key: ObjectKey::of(object),
            reference: meta::reference(object),
            controller: meta::controller_ref(object),
            version: meta::version(Metadata::metadata(object)),
            resource: ApiResource::erase::<K>(&()),
        }
    }

    /// What is to be known of an object of a kind that is known by its names alone.
    pub(crate) fn of_dynamic(object: &DynamicObject, resource: &ApiResource) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            key: ObjectKey::new(text(&object.metadata.namespace), text(&object.metadata.name)),
            reference: ObjectReference {
                api_version: Some(resource.api_version.clone()),
                kind: Some(resource.kind.clone()),
                namespace: object.metadata.namespace.clone(),
                name: object.metadata.name.clone(),
                uid: object.metadata.uid.clone(),
                ..ObjectReference::default()
            },
            controller: OwnerReference {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
                name: text(&object.metadata.name),
                uid: text(&object.metadata.uid),
                controller: Some(true),
                block_owner_deletion: Some(true),
            },
            version: meta::version(&object.metadata),
            resource: resource.clone(),
        }
    }

    /// Its UID.
    pub(crate) fn uid(&self) -> &str {
        &self.controller.uid
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.key.name
    }

    /// Upstream: who adopts must be sure that it is not being deleted itself, or it would take what it adopts with it.
    pub(crate) async fn is_alive(&self, client: &Client) -> Result<bool, Error> {
        let live = if_found(self.api(client).get_metadata(self.name()).await)?;
        let same = |live: &ObjectMeta| live.uid.as_deref() == Some(self.uid()) && live.deletion_timestamp.is_none();
        Ok(live.is_some_and(|live| same(&live.metadata)))
    }

    /// Turns the status `old` into `new`. What was written is noted, where it must be shown before the next look.
    pub(crate) async fn patch_status<S: Serialize>(
        &self,
        client: &Client,
        (old, new): (&S, &S),
        note: Option<(&Ledger, &(dyn Fn() -> Option<u64> + Sync))>,
    ) -> Result<(), Error> {
        self.patch_status_of(client, (old, new), None, note).await
    }

    /// The same, of a status that others write too: it fails if the object is not at this version any more.
    pub(crate) async fn patch_status_of<S: Serialize>(
        &self,
        client: &Client,
        (old, new): (&S, &S),
        version: Option<&str>,
        note: Option<(&Ledger, &(dyn Fn() -> Option<u64> + Sync))>,
    ) -> Result<(), Error> {
        let Some(mut patch) = meta::status_patch(old, new)? else {
            return Ok(());
        };
        // It fails if another object of the same name has taken this one's place.
        patch["metadata"] = serde_json::json!({ "uid": self.uid() });
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = version.into();
        }
        let answer = self.api(client).patch_status(self.name(), &PatchParams::default(), &Patch::Merge(patch)).await;
        let written = if_found(answer)?.and_then(|written| meta::version(&written.metadata));
        if let (Some((ledger, shown)), Some(written)) = (note, written.filter(|_| written != self.version)) {
            ledger.wrote_version(&self.key, self.key.clone(), written, shown);
        }
        Ok(())
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        if self.key.namespace.is_empty() {
            return Api::all_with(client.clone(), &self.resource);
        }
        Api::namespaced_with(client.clone(), &self.key.namespace, &self.resource)
    }
}
