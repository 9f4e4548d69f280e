//! Storage: claims get volumes.
//!
//! Watches PersistentVolumeClaims, PersistentVolumes, StorageClasses, Pods and Nodes; owns the binding on both sides, and
//! the volumes that the built-in provisioner makes. Beside it, [`protection`] and [`class_protection`] keep what is in use, and [`ephemeral`] makes
//! the claims of ephemeral volumes.

mod api;
mod bind;
mod binder;
mod claims;
pub(crate) mod class_protection;
pub(crate) mod ephemeral;
mod facts;
mod matching;
pub(crate) mod protection;
mod provision;
#[cfg(test)]
mod tests;
mod volumes;

use std::fmt;
use std::sync::Arc;

use informer::{Action, Informer, ObjectKey, Recorder, WorkQueue};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;

use self::facts::{
    BIND_COMPLETED, BY_CLAIM, VolumePhase, claim_class, claim_ref, claim_ref_key, claims_of, is_default, text,
    volume_class, volume_name, volume_phase,
};
use self::provision::Directories;
use crate::client::Error;
use crate::controller::{Context, Controller};
use crate::meta;

/// Volumes that are free, by their class.
const FREE: &str = "controllers/free-volumes";
/// Volumes by the claim they are bound to or kept for.
const BY_CLAIM_REF: &str = "controllers/claim-ref";
/// Claims without a volume, by their class.
const PENDING: &str = "controllers/pending-claims";
/// Claims by the volume they name.
const BY_VOLUME: &str = "controllers/volume";

/// What to reconcile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A claim.
    Claim(ObjectKey),
    /// A volume, by its name.
    Volume(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

/// The controller that binds PersistentVolumeClaims and PersistentVolumes.
pub(crate) struct Binder {
    queue: WorkQueue<Key>,
    client: Client,
    recorder: Recorder,
    directories: Directories,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
}

impl Controller for Binder {
    const NAME: &'static str = "persistentvolume_binder";
    type Key = Key;

    fn new(context: &Context, queue: WorkQueue<Key>) -> Self {
        let binder = Self {
            queue,
            recorder: context.recorder("persistentvolume-controller"),
            client: context.client.clone(),
            directories: Directories::new(context.config.volumes_dir.clone()),
            claims: context.informer(),
            volumes: context.informer(),
            classes: context.informer(),
            pods: context.informer(),
            nodes: context.informer(),
        };
        binder.pods.index(BY_CLAIM, claims_of);
        binder.volumes.index(BY_CLAIM_REF, |volume| claim_ref_key(volume).into_iter().collect());
        binder.volumes.index(FREE, |volume| {
            match claim_ref(volume).is_none() && volume_phase(volume) == VolumePhase::Available {
                true => vec![volume_class(volume).to_owned()],
                false => Vec::new(),
            }
        });
        binder.claims.index(BY_VOLUME, |claim| vec![volume_name(claim).to_owned()]);
        binder.claims.index(PENDING, |claim| match facts::annotated(claim, BIND_COMPLETED) {
            true => Vec::new(),
            false => vec![claim_class(claim).to_owned()],
        });
        binder
    }

    fn watch(self: &Arc<Self>) {
        let (queue, volumes) = (self.queue.clone(), self.volumes.clone());
        self.claims.on_change(move |change| {
            let key = change.key();
            let claim = change.new.as_deref().or(change.old.as_deref());
            for volume in volumes.by_index(BY_CLAIM_REF, &key.to_string()) {
                queue.add(Key::Volume(meta::name(&*volume).to_owned()), change.cause());
            }
            if let Some(name) = claim.map(volume_name).filter(|name| !name.is_empty()) {
                queue.add(Key::Volume(name.to_owned()), change.cause());
            }
            queue.add(Key::Claim(key), change.cause());
        });
        let (queue, claims) = (self.queue.clone(), self.claims.clone());
        self.volumes.on_change(move |change| {
            let name = change.key().name;
            for claim in claims.by_index(BY_VOLUME, &name) {
                queue.add(Key::Claim(ObjectKey::of(&*claim)), change.cause());
            }
            if let Some(volume) = &change.new {
                if let Some(reference) = claim_ref(volume) {
                    let claim = ObjectKey::new(text(&reference.namespace), text(&reference.name));
                    queue.add(Key::Claim(claim), change.cause());
                } else if volume_phase(volume) == VolumePhase::Available {
                    for claim in claims.by_index(PENDING, volume_class(volume)) {
                        queue.add(Key::Claim(ObjectKey::of(&*claim)), change.cause());
                    }
                }
            }
            queue.add(Key::Volume(name), change.cause());
        });
        let (queue, claims) = (self.queue.clone(), self.claims.clone());
        self.classes.on_change(move |change| {
            let Some(class) = &change.new else { return };
            let name = meta::name(&**class);
            for class in [Some(name), is_default(class).then_some("")].into_iter().flatten() {
                for claim in claims.by_index(PENDING, class) {
                    queue.add(Key::Claim(ObjectKey::of(&*claim)), change.cause());
                }
            }
        });
    }

    async fn synced(&self) {
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        self.pods.synced().await;
        self.nodes.synced().await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        match key {
            Key::Claim(key) => self.claim(key).await,
            Key::Volume(name) => self.volume(name).await,
        }
    }
}
