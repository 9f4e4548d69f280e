//! Volumes that are claims: what is behind a claim, and whether a pod may have it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use machinery::phase::PodPhase;
use machinery::well_known::{PROVISIONED_BY, PROVISIONER};

use super::local;

/// The name of the claim behind `volume` of `pod`; nothing if it is not a claim's. An ephemeral volume's claim is called
/// after the pod.
pub(crate) fn name_of(pod: &Pod, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name)),
        (None, None) => None,
    }
}

/// The name of the volume that `pod` gets by its claim, or why it gets none; the words are upstream's.
pub(crate) fn volume_name<'a>(pod: &Pod, ephemeral: bool, claim: &'a PersistentVolumeClaim) -> Result<&'a str, String> {
    let meta = &claim.metadata;
    let owned = meta
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == pod.metadata.uid.as_deref());
    if ephemeral && !owned {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        return Err(format!(
            "PVC {}/{} was not created for pod {}/{} (pod is not owner)",
            text(&meta.namespace),
            text(&meta.name),
            text(&pod.metadata.namespace),
            text(&pod.metadata.name),
        ));
    }
    // A pod that has run already keeps what it has: its use is what holds the claim back.
    let has_run = PodPhase::of(pod).is_some_and(|phase| phase != PodPhase::Pending);
    if meta.deletion_timestamp.is_some() && !has_run {
        return Err("PVC is being deleted".to_owned());
    }
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    name.filter(|_| bound).ok_or_else(|| "PVC is not bound".to_owned())
}

/// Whether `volume` has been given to `claim` and nobody else.
pub(crate) fn belongs(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return Err(format!(
            "found PV object \"{name}\" but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        ));
    };
    if reference.uid == claim.metadata.uid {
        return Ok(());
    }
    Err(format!(
        "found PV object \"{name}\" but its pv.Spec.ClaimRef.UID {} does not point to claim.UID {}",
        reference.uid.as_deref().unwrap_or_default(),
        claim.metadata.uid.as_deref().unwrap_or_default(),
    ))
}

/// Where the bytes of `volume` are on this machine, which must be as the volume says. Blocks.
pub(crate) fn path(volume: &PersistentVolume) -> Result<PathBuf, String> {
    let Some(spec) = &volume.spec else { return Err("the volume has no specification".to_owned()) };
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("this node cannot provide volumes with volumeMode Block".to_owned());
    }
    if let Some(source) = &spec.host_path {
        local::host_path(source)?;
        return Ok(PathBuf::from(&source.path));
    }
    if let Some(source) = &spec.local {
        let path = PathBuf::from(&source.path);
        return match fs::metadata(&path) {
            Ok(_) => Ok(path),
            Err(_) => Err(format!("path \"{}\" does not exist", source.path)),
        };
    }
    Err("this node cannot provide volumes of this type".to_owned())
}

/// Whether a pod's `fsGroup` applies to `volume`: not to a directory of the machine that somebody else cares for.
pub(crate) fn takes_group(volume: &PersistentVolume) -> bool {
    let annotations = volume.metadata.annotations.as_ref();
    let provisioner = annotations.and_then(|annotations| annotations.get(PROVISIONED_BY));
    let local = volume.spec.as_ref().is_some_and(|spec| spec.local.is_some());
    local || provisioner.is_some_and(|provisioner| provisioner == PROVISIONER)
}

/// Whether the top of a volume is as a group's volume should be, so that `fsGroupChangePolicy: OnRootMismatch` has
/// nothing to do.
pub(crate) fn root_matches(path: &Path, group: u32) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return false };
    let wanted = 0o2770;
    metadata.gid() == group && metadata.permissions().mode() & wanted == wanted
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn merged(mut base: Value, more: &Value) -> Value {
        for (key, value) in more.as_object().unwrap() {
            match (&mut base[key], value) {
                (Value::Object(into), Value::Object(from)) => into.extend(from.clone()),
                (into, value) => *into = value.clone(),
            }
        }
        base
    }

    #[test]
    fn what_a_pod_gets_by_its_claim() {
        let check = |claim: Value, ephemeral: bool, phase: &str, expect: Result<&str, &str>| {
            let base = json!({
                "metadata": { "namespace": "ns", "name": "data", "uid": "c" },
                "spec": { "volumeName": "pv" },
                "status": { "phase": "Bound" },
            });
            let claim: PersistentVolumeClaim = from_value(merged(base, &claim)).unwrap();
            let pod =
                json!({ "metadata": { "namespace": "ns", "name": "p", "uid": "u" }, "status": { "phase": phase } });
            let pod: Pod = from_value(pod).unwrap();
            assert_eq!(volume_name(&pod, ephemeral, &claim), expect.map_err(str::to_owned));
        };
        let owner = |uid: &str| {
            let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true });
            json!({ "metadata": { "ownerReferences": [owner] } })
        };
        let deleting = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
        check(json!({}), false, "Pending", Ok("pv"));
        check(json!({ "status": { "phase": "Pending" } }), false, "Pending", Err("PVC is not bound"));
        check(json!({ "spec": { "volumeName": "" } }), false, "Pending", Err("PVC is not bound"));
        check(deleting.clone(), false, "Pending", Err("PVC is being deleted"));
        check(deleting, false, "Running", Ok("pv"));
        check(owner("u"), true, "Pending", Ok("pv"));
        check(owner("v"), true, "Pending", Err("PVC ns/data was not created for pod ns/p (pod is not owner)"));
    }

    #[test]
    fn where_the_bytes_are() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().to_str().unwrap();
        let missing = format!("{root}/missing");
        let check = |spec: Value, expect: Result<&str, String>| {
            let volume: PersistentVolume = from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
            assert_eq!(path(&volume), expect.map(PathBuf::from));
        };
        check(json!({ "hostPath": { "path": root, "type": "Directory" } }), Ok(root));
        check(
            json!({ "hostPath": { "path": missing, "type": "Directory" } }),
            Err(format!("hostPath type check failed: {missing} is not a directory")),
        );
        check(json!({ "local": { "path": root } }), Ok(root));
        check(json!({ "local": { "path": missing } }), Err(format!("path \"{missing}\" does not exist")));
        check(
            json!({ "local": { "path": root }, "volumeMode": "Block" }),
            Err("this node cannot provide volumes with volumeMode Block".to_owned()),
        );
        check(
            json!({ "nfs": { "server": "s", "path": "/" } }),
            Err("this node cannot provide volumes of this type".to_owned()),
        );
    }
}
