//! Where the bytes of a PersistentVolume are: exactly one source. Those that coracle does not mount are checked for what
//! makes them well-formed only.

use k8s_openapi::api::core::v1::PersistentVolumeSpec;
use machinery::field::{ErrorList, Path};

use crate::check::{Report, no_backsteps, optional_one_of};
use crate::common::default_text;

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// What a source needs that it does not have.
struct Missing(&'static str);

/// Defaults of the sources.
pub(super) fn default(spec: &mut PersistentVolumeSpec) {
    if let Some(source) = &mut spec.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut spec.iscsi {
        default_text(&mut source.iscsi_interface, "default");
    }
    if let Some(source) = &mut spec.rbd {
        default_text(&mut source.pool, "rbd");
        default_text(&mut source.user, "admin");
        default_text(&mut source.keyring, "/etc/ceph/keyring");
    }
    if let Some(source) = &mut spec.azure_disk {
        default_text(&mut source.caching_mode, "ReadWrite");
        default_text(&mut source.fs_type, "ext4");
        default_text(&mut source.kind, "Shared");
        source.read_only.get_or_insert(false);
    }
    if let Some(source) = &mut spec.scale_io {
        default_text(&mut source.storage_mode, "ThinProvisioned");
        default_text(&mut source.fs_type, "xfs");
    }
}

/// Takes the source out of a specification, so that what is left can be compared.
pub(super) fn of(spec: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    }
}

/// Validates that there is one source, and what is in it.
pub(super) fn validate(errors: &mut ErrorList, path: &Path, spec: &PersistentVolumeSpec) {
    let mut seen = false;
    for (name, missing) in present(spec) {
        let source = path.child(name);
        if std::mem::replace(&mut seen, true) {
            errors.forbidden(&source, "may not specify more than 1 volume type");
            continue;
        }
        for Missing(field) in missing {
            errors.required(&source.child(field), "");
        }
        match name {
            "hostPath" => host_path(errors, &source, spec),
            "local" => local(errors, &source, spec),
            "nfs" => nfs(errors, &source, spec),
            _ => {}
        }
    }
    if !seen {
        errors.required(path, "must specify a volume type");
    }
}

fn host_path(errors: &mut ErrorList, path: &Path, spec: &PersistentVolumeSpec) {
    let Some(source) = spec.host_path.as_ref().filter(|source| !source.path.is_empty()) else { return };
    no_backsteps(errors, &path.child("path"), &source.path);
    optional_one_of(errors, &path.child("type"), &source.type_, &HOST_PATH_TYPES);
}

fn local(errors: &mut ErrorList, path: &Path, spec: &PersistentVolumeSpec) {
    let Some(source) = &spec.local else { return };
    no_backsteps(errors, &path.child("path"), &source.path);
    if spec.node_affinity.is_none() {
        // Upstream names the place from the time when the affinity was an annotation.
        errors.required(&Path::new("metadata").child("annotations"), "Local volume requires node affinity");
    }
}

fn nfs(errors: &mut ErrorList, path: &Path, spec: &PersistentVolumeSpec) {
    let Some(source) = &spec.nfs else { return };
    if !source.path.starts_with('/') {
        errors.invalid(&path.child("path"), &source.path, "must be an absolute path");
    }
}

/// The sources that are there, with what each lacks, in upstream's order.
fn present(spec: &PersistentVolumeSpec) -> Vec<(&'static str, Vec<Missing>)> {
    fn lacks(fields: &[(&'static str, &str)]) -> Vec<Missing> {
        fields.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| Missing(name)).collect()
    }
    let all = [
        ("hostPath", spec.host_path.as_ref().map(|source| lacks(&[("path", &source.path)]))),
        ("gcePersistentDisk", spec.gce_persistent_disk.as_ref().map(|source| lacks(&[("pdName", &source.pd_name)]))),
        (
            "awsElasticBlockStore",
            spec.aws_elastic_block_store.as_ref().map(|source| lacks(&[("volumeID", &source.volume_id)])),
        ),
        (
            "glusterfs",
            spec.glusterfs.as_ref().map(|source| lacks(&[("endpoints", &source.endpoints), ("path", &source.path)])),
        ),
        ("flocker", spec.flocker.as_ref().map(|_| Vec::new())),
        ("nfs", spec.nfs.as_ref().map(|source| lacks(&[("server", &source.server), ("path", &source.path)]))),
        ("rbd", spec.rbd.as_ref().map(|source| lacks(&[("image", &source.image)]))),
        (
            "quobyte",
            spec.quobyte.as_ref().map(|source| lacks(&[("registry", &source.registry), ("volume", &source.volume)])),
        ),
        ("cephfs", spec.cephfs.as_ref().map(|_| Vec::new())),
        (
            "iscsi",
            spec.iscsi.as_ref().map(|source| lacks(&[("targetPortal", &source.target_portal), ("iqn", &source.iqn)])),
        ),
        ("cinder", spec.cinder.as_ref().map(|source| lacks(&[("volumeID", &source.volume_id)]))),
        ("fc", spec.fc.as_ref().map(|_| Vec::new())),
        ("flexVolume", spec.flex_volume.as_ref().map(|source| lacks(&[("driver", &source.driver)]))),
        (
            "azureFile",
            spec.azure_file
                .as_ref()
                .map(|source| lacks(&[("secretName", &source.secret_name), ("shareName", &source.share_name)])),
        ),
        ("vsphereVolume", spec.vsphere_volume.as_ref().map(|source| lacks(&[("volumePath", &source.volume_path)]))),
        ("photonPersistentDisk", spec.photon_persistent_disk.as_ref().map(|source| lacks(&[("pdID", &source.pd_id)]))),
        ("portworxVolume", spec.portworx_volume.as_ref().map(|source| lacks(&[("volumeID", &source.volume_id)]))),
        (
            "azureDisk",
            spec.azure_disk
                .as_ref()
                .map(|source| lacks(&[("diskName", &source.disk_name), ("diskURI", &source.disk_uri)])),
        ),
        (
            "scaleIO",
            spec.scale_io.as_ref().map(|source| lacks(&[("gateway", &source.gateway), ("system", &source.system)])),
        ),
        ("local", spec.local.as_ref().map(|source| lacks(&[("path", &source.path)]))),
        ("storageos", spec.storageos.as_ref().map(|_| Vec::new())),
        (
            "csi",
            spec.csi
                .as_ref()
                .map(|source| lacks(&[("driver", &source.driver), ("volumeHandle", &source.volume_handle)])),
        ),
    ];
    all.into_iter().filter_map(|(name, source)| Some((name, source?))).collect()
}
