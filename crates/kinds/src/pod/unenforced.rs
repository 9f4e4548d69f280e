//! What a pod may ask for and no node here does: told to whoever writes it, with the way out where there is one.
//!
//! `docs/pods.md` says of every field what becomes of it; a test holds the two together.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, PodSecurityContext, PodSpec, SecurityContext, Volume};
use machinery::field::Path;

use super::warnings::Warnings;
use crate::common::{entry, list, text};

const HOST_USERS: &str = "not enforced: the containers run in the host's user namespace; use runAsUser and runAsNonRoot, \
     or a Docker daemon with userns-remap";
const APP_ARMOR: &str = "not enforced: containers that are not privileged have Docker's own AppArmor profile wherever \
     there is AppArmor; use type RuntimeDefault";
const SE_LINUX: &str = "not enforced: containers have the SELinux labels that Docker gives them";
const SUPPLEMENTAL: &str = "not enforced: groups of the image's /etc/group are added as with Merge";
const PROC_MOUNT: &str = "not enforced: containers have the default masks of /proc";
const STORAGE: &str = "not enforced: the container may use all of the disk";
const CLAIMS: &str = "not enforced: no devices are allocated; use an extended resource";

/// Looks at what is set for the whole pod.
pub(super) fn of_spec(warnings: &mut Warnings, spec: &PodSpec) {
    let linux = spec.os.as_ref().is_none_or(|os| os.name == "linux");
    let limits =
        spec.resources.as_ref().is_some_and(|resources| resources.limits.as_ref().is_some_and(|all| !all.is_empty()));
    let claimed = !list(&spec.resource_claims).is_empty();
    for (found, field, what) in [
        (spec.host_users == Some(false), "hostUsers", HOST_USERS),
        (!linux, "os", "not enforced: the nodes run Linux"),
        (claimed, "resourceClaims", CLAIMS),
        (limits, "resources", "limits of a whole pod are not enforced; set them for its containers"),
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
        (is_armored(context.app_armor_profile.as_ref()), "appArmorProfile", APP_ARMOR),
        (context.se_linux_options.is_some(), "seLinuxOptions", SE_LINUX),
        (context.se_linux_change_policy.is_some(), "seLinuxChangePolicy", SE_LINUX),
        (text(&context.supplemental_groups_policy) == "Strict", "supplementalGroupsPolicy", SUPPLEMENTAL),
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
    let context = container.security_context.as_ref();
    let set = |is: fn(&SecurityContext) -> bool| context.is_some_and(is);
    for (found, field, what) in [
        (set(|context| is_armored(context.app_armor_profile.as_ref())), "appArmorProfile", APP_ARMOR),
        (set(|context| context.se_linux_options.is_some()), "seLinuxOptions", SE_LINUX),
        (set(|context| text(&context.proc_mount) == "Unmasked"), "procMount", PROC_MOUNT),
    ] {
        if found {
            say(&|at| at.child("securityContext").child(field), what);
        }
    }
    if let Some(resources) = &container.resources {
        if entry(&resources.limits, "ephemeral-storage").is_some() {
            say(&|at| at.child("resources").child("limits").key("ephemeral-storage"), STORAGE);
        }
        if !list(&resources.claims).is_empty() {
            say(&|at| at.child("resources").child("claims"), CLAIMS);
        }
    }
    for (index, variable) in list(&container.env).iter().enumerate() {
        if variable.value_from.as_ref().is_some_and(|from| from.file_key_ref.is_some()) {
            let what = "not supported: the variable is not set; use a ConfigMap or a Secret";
            say(&|at| at.child("env").index(index).child("valueFrom").child("fileKeyRef"), what);
        }
    }
    for (index, mount) in list(&container.volume_mounts).iter().enumerate() {
        if text(&mount.recursive_read_only) == "Enabled" {
            let what = "not enforced: what is mounted below the volume stays writable";
            say(&|at| at.child("volumeMounts").index(index).child("recursiveReadOnly"), what);
        }
    }
}

/// A profile other than the runtime's own, which every container has.
fn is_armored(profile: Option<&AppArmorProfile>) -> bool {
    profile.is_some_and(|profile| profile.type_ != "RuntimeDefault")
}

fn of_volume(warnings: &mut Warnings, index: usize, volume: &Volume) {
    let path = |warnings: &Warnings| warnings.path("spec").child("volumes").index(index);
    if let Some(source) = volume.empty_dir.as_ref()
        && source.size_limit.is_some()
        && text(&source.medium) != "Memory"
    {
        let path = path(warnings).child("emptyDir").child("sizeLimit");
        warnings.say(&path, "not enforced: the volume may use all of the disk; with medium Memory it has this size");
    }
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
