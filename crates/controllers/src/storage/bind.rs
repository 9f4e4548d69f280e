//! A binding is four writes, each of which can be found half done: the volume names the claim, the volume is Bound, the
//! claim names the volume, the claim is Bound. Each function is the write that is still missing, if it is.
//!
//! All carry the version they were made from: whoever was faster wins, and the loser looks again.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Map, Value, json};

use super::facts::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, ClaimPhase, VolumePhase, annotated, claim_phase, claim_ref, is_kept_for, text,
    volume_name, volume_phase,
};
use crate::meta;

/// Makes the volume name the claim.
pub(crate) fn volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<Value> {
    let complete = claim_ref(volume).is_some_and(|reference| !text(&reference.uid).is_empty());
    if complete && is_kept_for(volume, claim) {
        return None;
    }
    // Whoever kept the volume for the claim before wants it to stay so.
    let own_idea = !is_kept_for(volume, claim);
    let mut patch = json!({
        "metadata": { "resourceVersion": volume.metadata.resource_version },
        "spec": { "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": meta::namespace(claim),
            "name": meta::name(claim),
            "uid": meta::uid(claim),
            "resourceVersion": claim.metadata.resource_version,
        } },
    });
    if own_idea {
        patch["metadata"]["annotations"] = json!({ BOUND_BY_CONTROLLER: "yes" });
    }
    Some(patch)
}

/// Takes back what [`volume`] did: a volume that an administrator kept for the claim stays kept.
pub(crate) fn unbind(volume: &PersistentVolume) -> Value {
    let version = &volume.metadata.resource_version;
    if annotated(volume, BOUND_BY_CONTROLLER) {
        return json!({
            "metadata": { "resourceVersion": version, "annotations": { BOUND_BY_CONTROLLER: null } },
            "spec": { "claimRef": null },
        });
    }
    json!({
        "metadata": { "resourceVersion": version },
        "spec": { "claimRef": { "uid": null, "resourceVersion": null } },
    })
}

/// Moves the volume into `phase`; `message` says why, where that is not plain.
pub(crate) fn volume_phase_patch(
    volume: &PersistentVolume,
    phase: VolumePhase,
    message: &str,
    now: Timestamp,
) -> Option<Value> {
    let known = volume.status.as_ref().map_or("", |status| text(&status.message));
    if volume_phase(volume) == phase && known == message {
        return None;
    }
    let mut status = json!({ "phase": phase, "message": (!message.is_empty()).then_some(message) });
    if volume_phase(volume) != phase {
        status["lastPhaseTransitionTime"] = json!(meta::seconds(now));
    }
    Some(json!({ "metadata": { "resourceVersion": volume.metadata.resource_version }, "status": status }))
}

/// Makes the claim name the volume, for good.
pub(crate) fn claim(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Value> {
    let named = volume_name(claim) == meta::name(volume);
    let mut annotations = Map::new();
    if !named {
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".into());
    }
    if !annotated(claim, BIND_COMPLETED) {
        annotations.insert(BIND_COMPLETED.to_owned(), "yes".into());
    }
    if annotations.is_empty() {
        return None;
    }
    let mut patch = json!({
        "metadata": { "resourceVersion": claim.metadata.resource_version, "annotations": annotations },
    });
    if !named {
        patch["spec"] = json!({ "volumeName": meta::name(volume) });
    }
    Some(patch)
}

/// Makes the claim Bound, with what the volume has. A claim that is Bound already keeps its capacity: while it grows, it
/// may differ from the volume's.
pub(crate) fn claim_bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Value> {
    let spec = volume.spec.as_ref()?;
    let modes = claim.status.as_ref().and_then(|status| status.access_modes.as_ref());
    let bound = claim_phase(claim) == ClaimPhase::Bound;
    if bound && modes == spec.access_modes.as_ref() {
        return None;
    }
    let mut status = json!({ "phase": ClaimPhase::Bound, "accessModes": spec.access_modes });
    if !bound {
        status["capacity"] = json!(spec.capacity);
    }
    Some(json!({ "metadata": { "resourceVersion": claim.metadata.resource_version }, "status": status }))
}

/// Moves the claim into a phase in which it has no volume.
pub(crate) fn claim_phase_patch(claim: &PersistentVolumeClaim, phase: ClaimPhase) -> Option<Value> {
    (claim_phase(claim) != phase).then(|| {
        json!({
            "metadata": { "resourceVersion": claim.metadata.resource_version },
            "status": { "phase": phase, "accessModes": null, "capacity": null },
        })
    })
}
