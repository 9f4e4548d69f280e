//! What a pod may ask for and no node here does: told to whoever writes it, with the way out where there is one.
//!
//! `docs/pods.md` says of every field what becomes of it; a test holds the two together.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, Volume};
use machinery::field::Path;

use super::warnings::Warnings;
use crate::common::{entries, entry, list};

const SE_LINUX: &str = "only enforced where Docker runs with SELinux: elsewhere there are no labels";
const SE_LINUX_CHANGE: &str = "not enforced: volumes keep the SELinux labels that they have";
const POD_LIMITS: &str = "each container that sets no limit of its own may use all of it, and together they may use more; set \
     limits for the containers";
const CLAIMS: &str = "not enforced: no devices are allocated; use an extended resource";

/// Looks at what is set for the whole pod.
pub(super) fn of_spec(warnings: &mut Warnings, spec: &PodSpec) {
    let limits = spec.resources.iter().flat_map(|resources| entries(&resources.limits));
    let shared = limits.into_iter().any(|(name, _)| {
        let own =
            |container: &&Container| container.resources.as_ref().is_some_and(|own| entry(&own.limits, name).is_some());
        spec.containers.iter().filter(|container| !own(container)).count() > 1
    });
    let claimed = !list(&spec.resource_claims).is_empty();
    for (found, field, what) in [
        (claimed, "resourceClaims", CLAIMS),
        (shared, "resources", POD_LIMITS),
        (
            spec.runtime_class_name.as_ref().is_some_and(|name| !name.is_empty()),
            "runtimeClassName",
            "overhead and scheduling are taken from the class; its handler is not used: containers run in Docker's \
             default runtime",
        ),
        (
            spec.scheduling_group.is_some(),
            "schedulingGroup",
            "not enforced; a gang is a PodGroup of scheduling.x-k8s.io, named by the label scheduling.x-k8s.io/pod-group",
        ),
    ] {
        if found {
            let path = warnings.path("spec").child(field);
            warnings.say(&path, what);
        }
    }
    if let Some(context) = &spec.security_context {
        of_context(warnings, context);
    }
    for (index, volume) in list(&spec.volumes).iter().enumerate() {
        of_volume(warnings, index, volume);
    }
}

fn of_context(warnings: &mut Warnings, context: &PodSecurityContext) {
    for (found, field, what) in [
        (context.se_linux_options.is_some(), "seLinuxOptions", SE_LINUX),
        (context.se_linux_change_policy.is_some(), "seLinuxChangePolicy", SE_LINUX_CHANGE),
    ] {
        if found {
            let path = warnings.path("spec").child("securityContext").child(field);
            warnings.say(&path, what);
        }
    }
}

/// Looks at a container that stands at `at`.
pub(super) fn of_container(warnings: &mut Warnings, container: &Container, at: impl Fn(&Warnings) -> Path) {
    let mut say = |path: &dyn Fn(Path) -> Path, what: &str| {
        let path = path(at(warnings));
        warnings.say(&path, what);
    };
    if container.security_context.as_ref().is_some_and(|context| context.se_linux_options.is_some()) {
        say(&|at| at.child("securityContext").child("seLinuxOptions"), SE_LINUX);
    }
    if container.resources.as_ref().is_some_and(|resources| !list(&resources.claims).is_empty()) {
        say(&|at| at.child("resources").child("claims"), CLAIMS);
    }
    for (index, variable) in list(&container.env).iter().enumerate() {
        if variable.value_from.as_ref().is_some_and(|from| from.file_key_ref.is_some()) {
            let what = "not supported: the variable is not set; use a ConfigMap or a Secret";
            say(&|at| at.child("env").index(index).child("valueFrom").child("fileKeyRef"), what);
        }
    }
}

fn of_volume(warnings: &mut Warnings, index: usize, volume: &Volume) {
    let path = |warnings: &Warnings| warnings.path("spec").child("volumes").index(index);
    let what = "no node here can provide volumes of this type: the pod will wait; use a persistentVolumeClaim, a \
                hostPath or an emptyDir";
    for (found, field) in [
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.cinder.is_some(), "cinder"),
        (volume.csi.is_some(), "csi"),
        (volume.fc.is_some(), "fc"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.image.is_some(), "image"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.nfs.is_some(), "nfs"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
    ] {
        if found {
            let path = path(warnings).child(field);
            warnings.say(&path, what);
        }
    }
}
