//! The object that a controller works for, without its type: what is needed to own others, to be named in events, and to
//! have its status written. Code that takes an [`Owner`] exists once, whatever kinds use it.

use informer::ObjectKey;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use serde::Serialize;

use crate::client::{Api, Error, ok_if_not_found};
use crate::expectations::Expectations;
use crate::meta;

/// An object that owns others.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// How events name it.
    pub reference: ObjectReference,
    /// How what it owns names it.
    pub controller: OwnerReference,
    /// The version it was read at, which a write of its status must find.
    version: Option<String>,
    resource: ApiResource,
}

impl Owner {
    /// What is to be known of `object`.
    pub fn of<K: kube::Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::new(object.meta(), ApiResource::erase::<K>(&()))
    }

    fn new(metadata: &ObjectMeta, resource: ApiResource) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            key: ObjectKey::new(text(&metadata.namespace), text(&metadata.name)),
            reference: ObjectReference {
                api_version: Some(resource.api_version.clone()),
                kind: Some(resource.kind.clone()),
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone(),
                uid: metadata.uid.clone(),
                ..ObjectReference::default()
            },
            controller: OwnerReference {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
                name: text(&metadata.name),
                uid: text(&metadata.uid),
                controller: Some(true),
                block_owner_deletion: Some(true),
            },
            version: metadata.resource_version.clone(),
            resource,
        }
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        &self.controller.uid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.key.name
    }

    /// Upstream: who adopts must be sure that it is not being deleted itself, or it would take what it adopts with it.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn is_alive(&self, client: &Client) -> Result<bool, Error> {
        let live = ok_if_not_found(self.api(client).get_metadata(self.name()).await)?;
        let same = |live: &ObjectMeta| live.uid.as_deref() == Some(self.uid()) && live.deletion_timestamp.is_none();
        Ok(live.is_some_and(|live| same(&live.metadata)))
    }

    /// Goes on from `written`, the answer to a write of the object itself.
    pub fn written(&mut self, written: &ObjectMeta) {
        self.version.clone_from(&written.resource_version);
    }

    /// Turns the status `old`, which is that of the object as it was read, into `new`. What was written is noted, where it
    /// must be shown before the next look.
    ///
    /// A conflict if the object has changed since: a difference to an old copy would leave standing what that copy does
    /// not show. Whoever uses this looks again after every update of the object, so that the last copy is the one that
    /// counts. Upstream writes the whole status, at the version that was read.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn patch_status<S: Serialize>(
        &self,
        client: &Client,
        (old, new): (&S, &S),
        note: Option<(&Expectations, &(dyn Fn() -> Option<u64> + Sync))>,
    ) -> Result<(), Error> {
        let Some(mut patch) = meta::status_patch(old, new)? else {
            return Ok(());
        };
        // The UID, because another object of the same name may have taken this one's place.
        patch["metadata"] = serde_json::json!({ "uid": self.uid(), "resourceVersion": self.version });
        let answer = self.api(client).patch_status(self.name(), &PatchParams::default(), &Patch::Merge(patch)).await;
        let Some(written) = ok_if_not_found(answer)? else {
            return Ok(());
        };
        if let (Some((expectations, shown)), Some(version)) = (note, meta::version(&written.metadata))
            && written.metadata.resource_version != self.version
        {
            expectations.expect_version(&self.key, self.key.clone(), version, shown);
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
