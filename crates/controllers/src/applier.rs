//! Server-side apply of what a controller makes, without sending again what is as it was left.

use std::collections::HashMap;

use informer::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use crate::client::{Api, Error};

/// By this one sees whether somebody changed an object: its UID, and its generation where the kind has one, else its
/// version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    uid: Option<String>,
    generation: Option<i64>,
    version: Option<String>,
}

impl Mark {
    /// That of the object with this metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let version = if metadata.generation.is_none() { metadata.resource_version.clone() } else { None };
        Self { uid: metadata.uid.clone(), generation: metadata.generation, version }
    }
}

/// By kind and name: a hash of what was applied, and the object that it led to.
type Sent = HashMap<(String, String), (u32, Mark)>;

/// Applies objects on behalf of those that own them.
pub struct Applier {
    client: Client,
    manager: &'static str,
    /// What was applied last for each owner.
    // Never held across an await.
    sent: Mutex<HashMap<ObjectKey, Sent>>,
}

impl Applier {
    /// An applier by this name of a field manager.
    pub fn new(client: Client, manager: &'static str) -> Self {
        Self { client, manager, sent: Mutex::default() }
    }

    /// Makes sure of `object`, which belongs to `owner`, while what is there has the mark `there`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, owner: &ObjectKey, object: &Value, there: Option<Mark>) -> Result<(), Error> {
        let named = (text(&object["kind"]).to_owned(), text(&object["metadata"]["name"]).to_owned());
        let hash = machinery::hash::object_hash(object);
        let as_left = |(sent, left): &(u32, Mark)| *sent == hash && there.as_ref() == Some(left);
        if self.sent().get(owner).and_then(|of_owner| of_owner.get(&named)).is_some_and(as_left) {
            return Ok(());
        }
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.client.clone(),
            &owner.namespace,
            &resource(text(&object["apiVersion"]), &named.0),
        );
        let params = PatchParams::apply(self.manager).force();
        let written = api.patch(&named.1, &params, &Patch::Apply(object)).await?;
        self.sent().entry(owner.clone()).or_default().insert(named, (hash, Mark::of(&written.metadata)));
        Ok(())
    }

    /// Forgets what was applied for an owner that is gone.
    pub fn forget(&self, owner: &ObjectKey) {
        self.sent().remove(owner);
    }

    fn sent(&self) -> MutexGuard<'_, HashMap<ObjectKey, Sent>> {
        self.sent.lock()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The resource of a kind whose plural is a regular one.
pub fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, version, kind),
        &format!("{}s", kind.to_lowercase()),
    )
}
