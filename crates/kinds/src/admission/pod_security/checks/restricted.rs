//! The checks of the level `restricted`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Volume;

use super::baseline::{self, adding_beyond, is_seccomp_type, must_not_add};
use super::{PodView, Violation, containers_named, plural, quoted, quoted_set, setters};
use crate::common::list;

/// No process gains more privileges than the one that started it.
pub(super) fn privilege_escalation(pod: &PodView<'_>) -> Option<Violation> {
    let containers = pod.containers_that(|container| {
        container.context.and_then(|context| context.allow_privilege_escalation) != Some(false)
    });
    (!containers.is_empty()).then(|| Violation {
        reason: "allowPrivilegeEscalation != false",
        detail: format!("{} must set securityContext.allowPrivilegeEscalation=false", containers_named(&containers)),
    })
}

/// All capabilities are dropped, and none is added but `NET_BIND_SERVICE`.
pub(super) fn capabilities(pod: &PodView<'_>) -> Option<Violation> {
    let keeping = pod.containers_that(|container| {
        let capabilities = container.context.and_then(|context| context.capabilities.as_ref());
        !capabilities.is_some_and(|capabilities| list(&capabilities.drop).iter().any(|name| name == "ALL"))
    });
    let (adding, added) = adding_beyond(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let containers = containers_named(&keeping);
        details.push(format!("{containers} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if !adding.is_empty() {
        details.push(must_not_add(&adding, &added));
    }
    (!details.is_empty()).then(|| Violation { reason: "unrestricted capabilities", detail: details.join("; ") })
}

/// No volumes but those of the cluster itself, and claims.
pub(super) fn volumes(pod: &PodView<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let restricted = list(&pod.spec.volumes).iter().filter(|volume| {
        let kind = restricted_type(volume);
        types.extend(kind);
        kind.is_some()
    });
    let names: Vec<&str> = restricted.map(|volume| volume.name.as_str()).collect();
    (!names.is_empty()).then(|| Violation {
        reason: "restricted volume types",
        detail: format!(
            "{} {} {} {} {}",
            plural(names.len(), "volume", "volumes"),
            quoted(&names),
            plural(names.len(), "uses", "use"),
            plural(types.len(), "restricted volume type", "restricted volume types"),
            quoted_set(&types)
        ),
    })
}

/// The type of a volume, if pods may not have it.
fn restricted_type(volume: &Volume) -> Option<&'static str> {
    let allowed = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    if allowed {
        return None;
    }
    let types = [
        (volume.host_path.is_some(), "hostPath"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.rbd.is_some(), "rbd"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.cinder.is_some(), "cinder"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.flocker.is_some(), "flocker"),
        (volume.fc.is_some(), "fc"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
    ];
    Some(types.iter().find(|(is, _)| *is).map_or("unknown", |(_, name)| name))
}

/// No container runs as root.
pub(super) fn run_as_non_root(pod: &PodView<'_>) -> Option<Violation> {
    let violation = |detail| Some(Violation { reason: "runAsNonRoot != true", detail });
    let of_pod = pod.context().and_then(|context| context.run_as_non_root);
    let setting =
        pod.containers_that(|container| container.context.and_then(|context| context.run_as_non_root) == Some(false));
    let setters = setters(of_pod == Some(false), &setting);
    if !setters.is_empty() {
        return violation(format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    let silent =
        pod.containers_that(|container| container.context.is_none_or(|context| context.run_as_non_root.is_none()));
    if of_pod == Some(true) || silent.is_empty() {
        return None;
    }
    violation(format!("pod or {} must set securityContext.runAsNonRoot=true", containers_named(&silent)))
}

/// No container is told to run as root.
pub(super) fn run_as_user(pod: &PodView<'_>) -> Option<Violation> {
    let of_pod = pod.context().is_some_and(|context| context.run_as_user == Some(0));
    let containers =
        pod.containers_that(|container| container.context.is_some_and(|context| context.run_as_user == Some(0)));
    let setters = setters(of_pod, &containers);
    (!setters.is_empty())
        .then(|| Violation { reason: "runAsUser=0", detail: format!("{setters} must not set runAsUser=0") })
}

/// A seccomp profile confines each container.
pub(super) fn seccomp_profile(pod: &PodView<'_>) -> Option<Violation> {
    if let Some(violation) = baseline::seccomp_profile(pod) {
        return Some(violation);
    }
    let of_pod = pod.context().and_then(|context| context.seccomp_profile.as_ref());
    if of_pod.is_some_and(|profile| is_seccomp_type(&profile.type_)) {
        return None;
    }
    let silent =
        pod.containers_that(|container| container.context.is_none_or(|context| context.seccomp_profile.is_none()));
    (!silent.is_empty()).then(|| Violation {
        reason: "seccompProfile",
        detail: format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers_named(&silent)
        ),
    })
}
