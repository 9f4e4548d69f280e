//! What claims, volumes and classes say, read as upstream reads it.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::quantity::Quantity;
pub(super) use machinery::well_known::{BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, SELECTED_NODE};
use serde::Serialize;
use std::collections::BTreeMap;

use crate::meta;

/// On a claim: who is to make its volume; the second is the older name of the first.
pub(super) const PROVISIONERS: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// On a volume whose bytes must go before it does.
pub(super) const DELETION_FINALIZER: &str = "kubernetes.io/pv-controller";

/// The index under which Pods are found by the claims they use, `NAMESPACE/NAME`.
pub(crate) const BY_CLAIM: &str = "controllers/claim";

/// The values for [`BY_CLAIM`].
pub(crate) fn claims_of(pod: &Pod) -> Vec<String> {
    let namespace = meta::namespace(pod);
    claim_names(pod).map(|name| format!("{namespace}/{name}")).collect()
}

/// The claims a Pod uses, those made for its ephemeral volumes among them.
pub(super) fn claim_names(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(ephemeral_claim(pod, &volume.name)),
        (None, None) => None,
    })
}

/// The name of the claim of an ephemeral volume.
pub(super) fn ephemeral_claim(pod: &Pod, volume: &str) -> String {
    format!("{}-{volume}", meta::name(pod))
}

/// Optional text; absent reads as empty.
pub(super) fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

fn class_of<'a>(meta: &'a ObjectMeta, named: Option<&'a String>) -> &'a str {
    let annotated = meta.annotations.as_ref().and_then(|annotations| annotations.get(CLASS_ANNOTATION));
    annotated.or(named).map_or("", String::as_str)
}

/// The class a claim asks for; empty for none.
pub(super) fn claim_class(claim: &PersistentVolumeClaim) -> &str {
    class_of(&claim.metadata, claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref()))
}

/// Whether a claim says nothing about its class, not even that it wants none.
pub(super) fn lacks_class(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_some());
    !named && meta::annotation(claim, CLASS_ANNOTATION).is_none()
}

/// The class of a volume; empty for none.
pub(super) fn volume_class(volume: &PersistentVolume) -> &str {
    class_of(&volume.metadata, volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref()))
}

/// Whether claims of a class wait until a Pod needs them.
pub(super) fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Whether a class is the default one.
pub(super) fn is_default(class: &StorageClass) -> bool {
    DEFAULT_MARKS.iter().any(|mark| meta::annotation(class, mark) == Some("true"))
}

fn storage(amounts: Option<&BTreeMap<String, WireQuantity>>) -> Option<Quantity> {
    amounts?.get("storage")?.0.parse().ok()
}

/// How much a claim asks for.
pub(super) fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref())).unwrap_or_default()
}

/// How much a bound claim has; nothing if it does not say.
pub(super) fn granted(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    storage(claim.status.as_ref().and_then(|status| status.capacity.as_ref()))
}

/// How much a volume holds.
pub(super) fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref())).unwrap_or_default()
}

/// `Block` or `Filesystem`.
pub(super) fn mode(named: Option<&Option<String>>) -> &str {
    named.and_then(Option::as_deref).unwrap_or("Filesystem")
}

/// The name of the volume a claim asks for or has; empty for none.
pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().map_or("", |spec| text(&spec.volume_name))
}

/// `PersistentVolumeClaimPhase` in `k8s.io/api/core/v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum ClaimPhase {
    /// Nobody has set it, or to something that is none.
    Unset,
    Pending,
    Bound,
    Lost,
}

/// The phase of a claim.
pub(super) fn claim_phase(claim: &PersistentVolumeClaim) -> ClaimPhase {
    match claim.status.as_ref().map_or("", |status| text(&status.phase)) {
        "Pending" => ClaimPhase::Pending,
        "Bound" => ClaimPhase::Bound,
        "Lost" => ClaimPhase::Lost,
        _ => ClaimPhase::Unset,
    }
}

/// `PersistentVolumePhase` in `k8s.io/api/core/v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum VolumePhase {
    /// Nobody has set it, or to something that is none.
    Unset,
    Pending,
    Available,
    Bound,
    Released,
    Failed,
}

/// The phase of a volume.
pub(super) fn volume_phase(volume: &PersistentVolume) -> VolumePhase {
    match volume.status.as_ref().map_or("", |status| text(&status.phase)) {
        "Pending" => VolumePhase::Pending,
        "Available" => VolumePhase::Available,
        "Bound" => VolumePhase::Bound,
        "Released" => VolumePhase::Released,
        "Failed" => VolumePhase::Failed,
        _ => VolumePhase::Unset,
    }
}

/// The claim a volume is bound to, or kept for.
pub(super) fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The key of that claim, `NAMESPACE/NAME`.
pub(super) fn claim_ref_key(volume: &PersistentVolume) -> Option<String> {
    claim_ref(volume).map(|claim| format!("{}/{}", text(&claim.namespace), text(&claim.name)))
}

/// Whether a volume is bound to this claim, or kept for a claim of its name.
pub(super) fn is_kept_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        text(&reference.namespace) == meta::namespace(claim)
            && text(&reference.name) == meta::name(claim)
            && (text(&reference.uid).is_empty() || text(&reference.uid) == meta::uid(claim))
    })
}

/// Whether `object` has the annotation, whatever its value.
pub(super) fn annotated<K: k8s_openapi::Metadata<Ty = ObjectMeta>>(object: &K, key: &str) -> bool {
    meta::annotation(object, key).is_some()
}

/// Whether `object` has the finalizer.
pub(super) fn has_finalizer<K: k8s_openapi::Metadata<Ty = ObjectMeta>>(object: &K, finalizer: &str) -> bool {
    object.metadata().finalizers.iter().flatten().any(|present| present == finalizer)
}
