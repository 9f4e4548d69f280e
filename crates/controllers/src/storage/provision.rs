//! The built-in provisioner: a volume is a directory on this machine.
//!
//! The directories are one beside the other under one parent that is closed to others: containers enter by their
//! mounts, not by the path. Within, everybody may write, for nobody knows as whom a container runs.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::well_known::HOSTNAME;
pub(crate) use machinery::well_known::PROVISIONER;

use super::facts::{BOUND_BY_CONTROLLER, DELETION_FINALIZER, PROVISIONED_BY, mode};
use crate::meta;

/// So much of a claim's name is in that of its directory.
const NAME_MAX: usize = 100;

/// Where the directories are.
#[derive(Debug, Clone)]
pub(crate) struct Directories(PathBuf);

impl Directories {
    /// Below `parent`, which need not exist.
    pub(crate) fn new(parent: PathBuf) -> Self {
        Self(parent)
    }

    /// The directory of a claim's volume. The names of the claim are for people who look there; a file's name can be no
    /// longer than 255 bytes.
    pub(crate) fn path(&self, claim: &PersistentVolumeClaim) -> PathBuf {
        let name: String = meta::name(claim).chars().take(NAME_MAX).collect();
        self.0.join(format!("{}_{}_{name}", volume_name(claim), meta::namespace(claim)))
    }

    /// Makes the directory `path`; that it is there already is fine. Blocks.
    pub(crate) fn create(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && fs::symlink_metadata(path)?.is_dir() => {}
            result => result?,
        }
        // Not as part of the creation: the umask would take from it.
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        // The directory must outlive a power cut together with the volume that is about to name it.
        fs::File::open(&self.0)?.sync_all()
    }

    /// Removes a directory that was made here, and nothing else, whatever the volume's object says; nor what somebody
    /// has mounted in it. Blocks.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        if path.parent() != Some(self.0.as_path()) || path.file_name().is_none() {
            let why = format!("{} is not below {}", path.display(), self.0.display());
            return Err(io::Error::new(ErrorKind::PermissionDenied, why));
        }
        hostfs::remove_tree(path)
    }
}

/// Why no volume is made for a claim, whatever the machine has.
pub(crate) fn refusal(claim: &PersistentVolumeClaim) -> Option<String> {
    let spec = claim.spec.as_ref()?;
    if mode(Some(&spec.volume_mode)) == "Block" {
        return Some(format!("{PROVISIONER} does not support block volume provisioning"));
    }
    if spec.selector.is_some() {
        return Some("claim.Spec.Selector is not supported".to_owned());
    }
    let source = spec.data_source_ref.as_ref();
    source.map(|source| format!("{PROVISIONER} cannot provision from a {}", source.kind))
}

/// The name of the volume made for a claim: the same however often it is tried.
pub(crate) fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", meta::uid(claim))
}

/// The volume made for a claim. `hostname` is the node that is to use it, where the class waited for that.
pub(crate) fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    path: &Path,
    hostname: Option<&str>,
) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let mut reference = meta::reference(claim);
    reference.resource_version.clone_from(&claim.metadata.resource_version);
    let policy = class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned());
    let affinity = hostname.map(|hostname| VolumeNodeAffinity {
        required: Some(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm {
                match_expressions: Some(vec![NodeSelectorRequirement {
                    key: HOSTNAME.to_owned(),
                    operator: "In".to_owned(),
                    values: Some(vec![hostname.to_owned()]),
                }]),
                match_fields: None,
            }],
        }),
    });
    let annotations = [(BOUND_BY_CONTROLLER, "yes"), (PROVISIONED_BY, PROVISIONER)];
    let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(volume_name(claim)),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            finalizers: (policy == "Delete").then(|| vec![DELETION_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some(requests.into_iter().filter(|(name, _)| name == "storage").collect()),
            claim_ref: Some(reference),
            // Not `DirectoryOrCreate`: data that is gone must not look like a new volume.
            host_path: Some(HostPathVolumeSource {
                path: path.display().to_string(),
                type_: Some("Directory".to_owned()),
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: affinity,
            persistent_volume_reclaim_policy: Some(policy),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: spec.volume_mode,
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}
