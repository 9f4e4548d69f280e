//! A VolumeAttributesClass stays as long as a claim or a volume names it.
//!
//! Watches VolumeAttributesClasses, claims and volumes; owns the finalizer `kubernetes.io/vac-protection`, which admission gives
//! to all of them. Upstream: `pkg/controller/volume/vacprotection/vac_protection_controller.go`.

use std::sync::Arc;

use informer::{Action, Change, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::Client;
use kube::api::PostParams;

use super::facts::has_finalizer;
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::meta;

const FINALIZER: &str = "kubernetes.io/vac-protection";
/// Claims, and volumes, by the classes they name.
const BY_CLASS: &str = "controllers/attributes-class";

/// The classes that a claim names: the one it asks for, the one it has, and the one it is changed to.
pub(super) fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let status = claim.status.as_ref();
    let changed = status.and_then(|status| status.modify_volume_status.as_ref());
    let named = [
        claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_ref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_ref()),
        changed.and_then(|changed| changed.target_volume_attributes_class_name.as_ref()),
    ];
    let mut classes: Vec<String> = named.into_iter().flatten().filter(|name| !name.is_empty()).cloned().collect();
    classes.sort_unstable();
    classes.dedup();
    classes
}

fn classes_of_volume(volume: &PersistentVolume) -> Vec<String> {
    let named = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_ref());
    named.into_iter().filter(|name| !name.is_empty()).cloned().collect()
}

/// The class with the finalizers that it should have; nothing if it has them.
pub(super) fn plan(class: &VolumeAttributesClass, is_used: impl FnOnce() -> bool) -> Option<VolumeAttributesClass> {
    let mut finalizers = class.metadata.finalizers.clone().unwrap_or_default();
    match (meta::is_deleting(class), has_finalizer(class, FINALIZER)) {
        (false, false) => finalizers.push(FINALIZER.to_owned()),
        (true, true) if !is_used() => finalizers.retain(|present| present != FINALIZER),
        _ => return None,
    }
    let mut class = class.clone();
    class.metadata.finalizers = Some(finalizers);
    Some(class)
}

/// Asks for work on the classes that an object names no more: it may have been the last.
fn add_released<O>(queue: &WorkQueue<String>, change: &Change<O>, classes: fn(&O) -> Vec<String>)
where
    O: kube::Resource + Send + Sync + 'static,
{
    let named = change.new.as_deref().map(classes).unwrap_or_default();
    for class in change.old.as_deref().map(classes).unwrap_or_default() {
        if !named.contains(&class) {
            queue.add(class, change.cause());
        }
    }
}

/// The controller of the protection finalizer of VolumeAttributesClasses.
pub(crate) struct ClassProtection {
    client: Client,
    classes: Informer<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    queue: WorkQueue<String>,
}

impl Controller for ClassProtection {
    const NAME: &'static str = "vacprotection";
    const WORKERS: fn(usize) -> usize = |_| 1;
    /// The name of a class.
    type Key = String;

    fn new(context: &Context, queue: WorkQueue<String>) -> Self {
        let (claims, volumes) = (context.informer(), context.informer());
        claims.index(BY_CLASS, classes_of_claim);
        volumes.index(BY_CLASS, classes_of_volume);
        Self { client: context.client.clone(), classes: context.informer(), claims, volumes, queue }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.classes.on_change(move |change| queue.add(change.key().name, change.cause()));
        let queue = self.queue.clone();
        self.claims.on_change(move |change| add_released(&queue, change, classes_of_claim));
        let queue = self.queue.clone();
        self.volumes.on_change(move |change| add_released(&queue, change, classes_of_volume));
    }

    async fn synced(&self) {
        self.classes.synced().await;
        self.claims.synced().await;
        self.volumes.synced().await;
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(class) = self.classes.get(&ObjectKey::new("", name)) else { return Ok(Action::AwaitChange) };
        let is_used =
            || !self.volumes.by_index(BY_CLASS, name).is_empty() || !self.claims.by_index(BY_CLASS, name).is_empty();
        if let Some(class) = plan(&class, is_used) {
            let api: Api<VolumeAttributesClass> = Api::all(self.client.clone());
            ok_if_not_found(api.replace(name, &PostParams::default(), &class).await)?;
        }
        Ok(Action::AwaitChange)
    }
}
