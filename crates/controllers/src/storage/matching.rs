//! Which volume a claim gets: of those that fit, one that was kept for it, else the smallest.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use machinery::selector::LabelSelector;

use super::facts::{
    VolumePhase, capacity, claim_class, claim_ref, is_kept_for, mode, requested, text, volume_class, volume_phase,
};
use crate::meta;

/// The best of `candidates` for `claim`. While the claim waits for its first consumer only one that was kept for it
/// counts: the choice is the scheduler's, who knows where the consumer can run.
pub(crate) fn find(
    claim: &PersistentVolumeClaim,
    candidates: &[Arc<PersistentVolume>],
    waits_for_consumer: bool,
) -> Option<Arc<PersistentVolume>> {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector =
        selector.map_or_else(|| Ok(LabelSelector::default()), |labels| LabelSelector::from_object(Some(labels)));
    let selector = selector.ok()?;
    let fits = |volume: &&Arc<PersistentVolume>| {
        capacity(volume) >= requested(claim)
            && same_mode(volume, claim)
            && same_attributes(volume, claim)
            && has_modes(volume, claim)
            && !meta::is_deleting(&***volume)
    };
    if let Some(kept) = candidates.iter().filter(fits).find(|volume| is_kept_for(volume, claim)) {
        return Some(Arc::clone(kept));
    }
    if waits_for_consumer {
        return None;
    }
    let free = candidates.iter().filter(fits).filter(|volume| {
        claim_ref(volume).is_none()
            && volume_phase(volume) == VolumePhase::Available
            && volume_class(volume) == claim_class(claim)
            && selector.matches_option(volume.metadata.labels.as_ref())
    });
    // Upstream: a volume that can do the least, then the smallest; the name makes the choice the same every time.
    let order =
        |volume: &&Arc<PersistentVolume>| (modes(volume).len(), capacity(volume), meta::name(&***volume).to_owned());
    free.min_by_key(order).cloned()
}

/// Why a volume that a claim names cannot be bound to it; the words are upstream's.
pub(crate) fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), &'static str> {
    match () {
        () if requested(claim) > capacity(volume) => Err("requested PV is too small"),
        () if claim_class(claim) != volume_class(volume) => Err("storageClassName does not match"),
        () if !same_mode(volume, claim) => Err("incompatible volumeMode"),
        () if !has_modes(volume, claim) => Err("incompatible accessMode"),
        () if !same_attributes(volume, claim) => Err("volumeAttributesClassName does not match"),
        () => Ok(()),
    }
}

fn modes(volume: &PersistentVolume) -> &[String] {
    volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

fn has_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let asked = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    asked.iter().all(|mode| modes(volume).contains(mode))
}

/// Whether volume and claim agree on being a file system or a device.
pub(super) fn same_mode(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let volume = mode(volume.spec.as_ref().map(|spec| &spec.volume_mode));
    volume == mode(claim.spec.as_ref().map(|spec| &spec.volume_mode))
}

fn same_attributes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let volume = volume.spec.as_ref().map_or("", |spec| text(&spec.volume_attributes_class_name));
    volume == claim.spec.as_ref().map_or("", |spec| text(&spec.volume_attributes_class_name))
}
