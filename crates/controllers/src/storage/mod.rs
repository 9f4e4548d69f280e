//! Storage: claims get volumes.
//!
//! Watches PersistentVolumeClaims, PersistentVolumes, StorageClasses, Pods and Nodes; owns the binding on both sides, and
//! the volumes that the built-in provisioner makes. Beside it, [`protection`] keeps what is in use, and [`ephemeral`] makes
//! the claims of ephemeral volumes.

mod api;
mod bind;
mod binder;
mod claims;
pub(crate) mod ephemeral;
mod facts;
mod matching;
pub(crate) mod protection;
mod provision;
#[cfg(test)]
mod tests;
mod volumes;

use std::path::PathBuf;
use std::sync::Arc;

use informer::{Informer, Informers, ObjectKey, Recorder, WorkQueue};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;
use tokio_util::sync::CancellationToken;

use self::facts::{
    BIND_COMPLETED, BY_CLAIM, claim_class, claim_ref, claim_ref_key, claims_of, is_default, text, volume_class,
    volume_name, volume_phase,
};
use self::provision::Directories;
use crate::client::requeue_on_conflict;
use crate::meta;

/// Volumes that are free, by their class.
const FREE: &str = "controllers/free-volumes";
/// Volumes by the claim they are bound to or kept for.
const BY_CLAIM_REF: &str = "controllers/claim-ref";
/// Claims without a volume, by their class.
const PENDING: &str = "controllers/pending-claims";
/// Claims by the volume they name.
const BY_VOLUME: &str = "controllers/volume";
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Claim(ObjectKey),
    Volume(String),
}

/// Runs the controller until `cancel` is triggered. Volumes are made below `directory`.
pub(crate) async fn run(
    client: Client,
    informers: Informers,
    directory: PathBuf,
    workers: usize,
    cancel: CancellationToken,
) {
    let binder = Arc::new(Binder::new(client, &informers, Directories::new(directory)));
    let queue = WorkQueue::new();
    binder.index();
    let synced = async {
        binder.claims.synced().await;
        binder.volumes.synced().await;
        binder.classes.synced().await;
        binder.pods.synced().await;
        binder.nodes.synced().await;
    };
    tokio::select! {
        () = cancel.cancelled() => return,
        () = synced => {}
    }
    // Only now: what arrives first would find the rest missing, and missing is an answer here.
    binder.wake(&queue);
    informer::run("storage", queue, workers, cancel, |key: Key| {
        let binder = Arc::clone(&binder);
        async move {
            requeue_on_conflict(match &key {
                Key::Claim(key) => binder.claim(key).await,
                Key::Volume(name) => binder.volume(name).await,
            })
        }
    })
    .await;
}

struct Binder {
    client: Client,
    recorder: Recorder,
    directories: Directories,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
}

impl Binder {
    fn new(client: Client, informers: &Informers, directories: Directories) -> Self {
        Self {
            recorder: Recorder::new(client.clone(), "persistentvolume-controller", None),
            client,
            directories,
            claims: informers.informer(),
            volumes: informers.informer(),
            classes: informers.informer(),
            pods: informers.informer(),
            nodes: informers.informer(),
        }
    }

    fn index(&self) {
        self.pods.index(BY_CLAIM, claims_of);
        self.volumes.index(BY_CLAIM_REF, |volume| claim_ref_key(volume).into_iter().collect());
        self.volumes.index(FREE, |volume| match claim_ref(volume).is_none() && volume_phase(volume) == "Available" {
            true => vec![volume_class(volume).to_owned()],
            false => Vec::new(),
        });
        self.claims.index(BY_VOLUME, |claim| vec![volume_name(claim).to_owned()]);
        self.claims.index(PENDING, |claim| match facts::annotated(claim, BIND_COMPLETED) {
            true => Vec::new(),
            false => vec![claim_class(claim).to_owned()],
        });
    }

    fn wake(&self, queue: &WorkQueue<Key>) {
        let (wake, volumes) = (queue.clone(), self.volumes.clone());
        self.claims.on_change(move |change| {
            let key = change.key();
            let claim = change.new.as_deref().or(change.old.as_deref());
            for volume in volumes.by_index(BY_CLAIM_REF, &format!("{}/{}", key.namespace, key.name)) {
                wake.add(Key::Volume(meta::name(&*volume).to_owned()));
            }
            if let Some(name) = claim.map(volume_name).filter(|name| !name.is_empty()) {
                wake.add(Key::Volume(name.to_owned()));
            }
            wake.add(Key::Claim(key));
        });
        let (wake, claims) = (queue.clone(), self.claims.clone());
        self.volumes.on_change(move |change| {
            let name = change.key().name;
            for claim in claims.by_index(BY_VOLUME, &name) {
                wake.add(Key::Claim(ObjectKey::of(&*claim)));
            }
            if let Some(volume) = &change.new {
                if let Some(reference) = claim_ref(volume) {
                    wake.add(Key::Claim(ObjectKey::new(text(&reference.namespace), text(&reference.name))));
                } else if volume_phase(volume) == "Available" {
                    for claim in claims.by_index(PENDING, volume_class(volume)) {
                        wake.add(Key::Claim(ObjectKey::of(&*claim)));
                    }
                }
            }
            wake.add(Key::Volume(name));
        });
        let (wake, claims) = (queue.clone(), self.claims.clone());
        self.classes.on_change(move |change| {
            let Some(class) = &change.new else { return };
            let name = meta::name(&**class);
            for class in [Some(name), is_default(class).then_some("")].into_iter().flatten() {
                for claim in claims.by_index(PENDING, class) {
                    wake.add(Key::Claim(ObjectKey::of(&*claim)));
                }
            }
        });
    }
}
