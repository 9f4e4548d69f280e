//! What is in use stays: a claim as long as a Pod uses it, a volume as long as it is bound.
//!
//! Watches claims, volumes and Pods; takes the finalizers `kubernetes.io/pvc-protection` and `kubernetes.io/pv-protection`,
//! which admission gives to all of them, off those that are being deleted and in nobody's use.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use informer::{Action, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Key;
use super::facts::{BY_CLAIM, VolumePhase, claims_of, has_finalizer, volume_phase};
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::{meta, pods};

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

/// Whether a Pod keeps its claims. One that is on no node does not: no kubelet starts it with a claim that is going.
pub(crate) fn keeps_claims(pod: &Pod) -> bool {
    pods::node_name(pod).is_some()
}

/// The patch that takes a finalizer off an object that is being deleted; nothing if there is nothing to take.
pub(crate) fn take_off<K>(object: &K, finalizer: &str) -> Option<Value>
where
    K: k8s_openapi::Metadata<Ty = ObjectMeta>,
{
    if !meta::is_deleting(object) || !has_finalizer(object, finalizer) {
        return None;
    }
    let meta = object.metadata();
    let left: Vec<&String> = meta.finalizers.iter().flatten().filter(|present| *present != finalizer).collect();
    Some(json!({ "metadata": { "resourceVersion": meta.resource_version, "finalizers": left } }))
}

/// The controller of the protection finalizers of claims and volumes.
pub(crate) struct Protection {
    client: Client,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    pods: Informer<Pod>,
    lists: Mutex<HashMap<String, Listed>>,
    queue: WorkQueue<Key>,
}

impl Controller for Protection {
    const NAME: &'static str = "pvcprotection";
    type Key = Key;

    fn new(context: &Context, queue: WorkQueue<Key>) -> Self {
        let pods = context.informer();
        pods.index(BY_CLAIM, claims_of);
        Self {
            client: context.client.clone(),
            claims: context.informer(),
            volumes: context.informer(),
            pods,
            lists: Mutex::default(),
            queue,
        }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.claims.on_change(move |change| {
            if change.new.as_ref().is_some_and(|claim| meta::is_deleting(&**claim)) {
                queue.add(Key::Claim(change.key()), change.cause());
            }
        });
        let queue = self.queue.clone();
        self.volumes.on_change(move |change| {
            if change.new.as_ref().is_some_and(|volume| meta::is_deleting(&**volume)) {
                queue.add(Key::Volume(change.key().name), change.cause());
            }
        });
        let controller = Arc::clone(self);
        self.pods.on_change(move |change| {
            if change.new.is_some() {
                return;
            }
            let namespace = change.key().namespace;
            for name in change.old.iter().flat_map(|pod| super::facts::claim_names(pod)) {
                let key = ObjectKey::new(namespace.as_str(), name);
                if controller.claims.get(&key).is_some_and(|claim| meta::is_deleting(&*claim)) {
                    controller.queue.add(Key::Claim(key), change.cause());
                }
            }
        });
    }

    async fn synced(&self) {
        self.claims.synced().await;
        self.volumes.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        match key {
            Key::Claim(key) => self.claim(key).await,
            Key::Volume(name) => self.volume(name).await,
        }
    }
}

/// The claims that Pods of one namespace used at one version of everything.
struct Listed {
    version: u64,
    used: HashSet<String>,
}

impl Protection {
    async fn claim(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(Action::AwaitChange) };
        let Some(patch) = take_off(&*claim, CLAIM) else { return Ok(Action::AwaitChange) };
        let users = self.pods.by_index(BY_CLAIM, &format!("{}/{}", key.namespace, key.name));
        if users.iter().any(|pod| keeps_claims(pod)) || self.is_used(&claim).await? {
            return Ok(Action::AwaitChange);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        ok_if_not_found(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(Action::AwaitChange)
    }

    async fn volume(&self, name: &str) -> Result<Action, Error> {
        let Some(volume) = self.volumes.get(&ObjectKey::new("", name)) else { return Ok(Action::AwaitChange) };
        let Some(patch) = take_off(&*volume, VOLUME).filter(|_| volume_phase(&volume) != VolumePhase::Bound) else {
            return Ok(Action::AwaitChange);
        };
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        ok_if_not_found(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(Action::AwaitChange)
    }

    /// Asks the API server, for the informer may not show yet a Pod that was bound just before the claim was deleted.
    /// A Pod that is bound later is started by nobody. So one list serves all claims that were deleted before it, as far as
    /// it says that they are free: a Pod in it may have ended since, and whoever ended it asks no second time.
    async fn is_used(&self, claim: &PersistentVolumeClaim) -> Result<bool, Error> {
        let (namespace, name) = (meta::namespace(claim), meta::name(claim));
        let mut lists = self.lists.lock().await;
        let deleted = meta::version(&claim.metadata).unwrap_or(u64::MAX);
        if lists.get(namespace).is_some_and(|listed| listed.version >= deleted && !listed.used.contains(name)) {
            return Ok(false);
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = api.list(&ListParams::default()).await?;
        let version = pods.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        let used: HashSet<String> =
            pods.items.iter().filter(|pod| keeps_claims(pod)).flat_map(super::facts::claim_names).collect();
        let is_used = used.contains(name);
        lists.insert(namespace.to_owned(), Listed { version: version.unwrap_or_default(), used });
        Ok(is_used)
    }
}
