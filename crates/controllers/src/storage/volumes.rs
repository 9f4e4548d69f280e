//! What is to be done about a volume.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::claims::Note;
use super::facts::{
    DELETION_FINALIZER, PROVISIONED_BY, VolumePhase, claim_ref, has_finalizer, text, volume_name, volume_phase,
};
use super::matching;
use super::provision::PROVISIONER;
use crate::meta;

/// What is to be done about a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It moves into this phase, unless it is there.
    Phase(VolumePhase),
    /// Its claim has not taken it yet: that is the claim's to do.
    AskClaim,
    /// Its claim took another volume.
    Unbind,
    /// It is told that its claim cannot have it.
    Tell(Note),
    /// Its claim is gone, and it stays as it is.
    Release,
    /// Its claim is gone, and its bytes and then itself are removed.
    Remove,
    /// Its claim is gone, and it ought to be removed or made new, which nobody here can do.
    Fail(Note),
    /// Whether the bytes go with it is decided by its policy, and shown by a finalizer.
    Finalizer {
        /// Whether it is to have the finalizer.
        present: bool,
    },
}

/// Decides about a volume, given the claim of the name that it is bound to or kept for.
pub(crate) fn plan(volume: &PersistentVolume, claim: Option<&Arc<PersistentVolumeClaim>>) -> Plan {
    let ours = meta::annotation(volume, PROVISIONED_BY) == Some(PROVISIONER);
    let deletes = policy(volume) == "Delete";
    if ours && has_finalizer(volume, DELETION_FINALIZER) != deletes && (!deletes || !meta::is_deleting(volume)) {
        return Plan::Finalizer { present: deletes };
    }
    let Some(reference) = claim_ref(volume) else {
        return match ours && deletes && meta::is_deleting(volume) {
            true => Plan::Remove,
            false => Plan::Phase(VolumePhase::Available),
        };
    };
    if text(&reference.uid).is_empty() {
        return match claim {
            Some(claim) if volume_name(claim).is_empty() || volume_name(claim) == meta::name(volume) => Plan::AskClaim,
            _ => Plan::Phase(VolumePhase::Available),
        };
    }
    // A claim of the same name that came later is another claim.
    let Some(claim) = claim.filter(|claim| meta::uid(&***claim) == text(&reference.uid)) else {
        return reclaim(volume, ours);
    };
    let named = volume_name(claim);
    if named == meta::name(volume) {
        return Plan::Phase(VolumePhase::Bound);
    }
    if named.is_empty() {
        if matching::same_mode(volume, claim) {
            return Plan::AskClaim;
        }
        let message = format!(
            "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{}\" due to incompatible volumeMode.",
            meta::name(&**claim)
        );
        return Plan::Tell(Note::warning("VolumeMismatch", message));
    }
    // Two volumes were meant for one claim. One that was made for it is of no use to anybody else.
    if ours && deletes { Plan::Remove } else { Plan::Unbind }
}

fn reclaim(volume: &PersistentVolume, ours: bool) -> Plan {
    let name = meta::name(volume);
    match (policy(volume), meta::annotation(volume, PROVISIONED_BY)) {
        ("Delete", _) if ours => Plan::Remove,
        // Whoever made it removes it.
        ("Delete", Some(_)) => Plan::Release,
        (policy @ ("Delete" | "Recycle"), _)
            if matches!(volume_phase(volume), VolumePhase::Released | VolumePhase::Failed) =>
        {
            let (reason, word) =
                if policy == "Delete" { ("VolumeFailedDelete", "delet") } else { ("VolumeFailedRecycle", "recycl") };
            Plan::Fail(Note::warning(
                reason,
                format!(
                    "error getting {word}er volume plugin for volume \"{name}\": no {word}able volume plugin matched"
                ),
            ))
        }
        _ => Plan::Release,
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().map_or("", |spec| text(&spec.persistent_volume_reclaim_policy))
}
