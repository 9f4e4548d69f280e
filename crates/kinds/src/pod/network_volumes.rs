//! Volumes of storage systems that coracle keeps but does not mount: only what makes them well-formed is checked.

use k8s_openapi::api::core::v1::Volume;
use machinery::field::{ErrorList, Path};

use crate::check::Report;

/// Counts the sources of a volume, of which there must be exactly one.
pub(super) struct Sources<'a> {
    path: &'a Path,
    seen: usize,
}

impl<'a> Sources<'a> {
    /// None seen yet.
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path, seen: 0 }
    }

    /// One more, without objection.
    pub(super) fn count(&mut self) {
        self.seen += 1;
    }

    /// One more; its path if it is the first, an error if not.
    pub(super) fn next(&mut self, errors: &mut ErrorList, name: &'static str) -> Option<Path> {
        let path = self.path.child(name);
        if self.seen > 0 {
            errors.forbidden(&path, "may not specify more than 1 volume type");
            return None;
        }
        self.seen += 1;
        Some(path)
    }

    /// Whether there was none.
    pub(super) fn is_empty(&self) -> bool {
        self.seen == 0
    }
}

/// Validates whatever network source the volume has.
pub(super) fn validate(errors: &mut ErrorList, sources: &mut Sources<'_>, volume: &Volume) {
    if let Some(source) = &volume.nfs
        && let Some(path) = sources.next(errors, "nfs")
    {
        required(errors, &path, &[("server", &source.server), ("path", &source.path)]);
        if !source.path.starts_with('/') {
            errors.invalid(&path.child("path"), &source.path, "must be an absolute path");
        }
    }
    if let Some(source) = &volume.csi
        && let Some(path) = sources.next(errors, "csi")
    {
        required(errors, &path, &[("driver", &source.driver)]);
    }
    if let Some(source) = &volume.iscsi
        && let Some(path) = sources.next(errors, "iscsi")
    {
        required(errors, &path, &[("targetPortal", &source.target_portal), ("iqn", &source.iqn)]);
        if !(0..=255).contains(&source.lun) {
            errors.invalid(&path.child("lun"), source.lun, "must be between 0 and 255, inclusive");
        }
    }
    if let Some(source) = &volume.rbd
        && let Some(path) = sources.next(errors, "rbd")
    {
        if source.monitors.is_empty() {
            errors.required(&path.child("monitors"), "");
        }
        required(errors, &path, &[("image", &source.image)]);
    }
    if let Some(source) = &volume.cephfs
        && let Some(path) = sources.next(errors, "cephfs")
        && source.monitors.is_empty()
    {
        errors.required(&path.child("monitors"), "");
    }
    if let Some(source) = &volume.glusterfs
        && let Some(path) = sources.next(errors, "glusterfs")
    {
        required(errors, &path, &[("endpoints", &source.endpoints), ("path", &source.path)]);
    }
    if let Some(source) = &volume.cinder
        && let Some(path) = sources.next(errors, "cinder")
    {
        required(errors, &path, &[("volumeID", &source.volume_id)]);
    }
    if let Some(source) = &volume.git_repo
        && let Some(path) = sources.next(errors, "gitRepo")
    {
        required(errors, &path, &[("repository", &source.repository)]);
    }
    if let Some(source) = &volume.flex_volume
        && let Some(path) = sources.next(errors, "flexVolume")
    {
        required(errors, &path, &[("driver", &source.driver)]);
    }
    if let Some(source) = &volume.gce_persistent_disk
        && let Some(path) = sources.next(errors, "gcePersistentDisk")
    {
        required(errors, &path, &[("pdName", &source.pd_name)]);
    }
    if let Some(source) = &volume.aws_elastic_block_store
        && let Some(path) = sources.next(errors, "awsElasticBlockStore")
    {
        required(errors, &path, &[("volumeID", &source.volume_id)]);
    }
    if let Some(source) = &volume.azure_file
        && let Some(path) = sources.next(errors, "azureFile")
    {
        required(errors, &path, &[("secretName", &source.secret_name), ("shareName", &source.share_name)]);
    }
    if let Some(source) = &volume.azure_disk
        && let Some(path) = sources.next(errors, "azureDisk")
    {
        required(errors, &path, &[("diskName", &source.disk_name), ("diskURI", &source.disk_uri)]);
    }
    if let Some(source) = &volume.vsphere_volume
        && let Some(path) = sources.next(errors, "vsphereVolume")
    {
        required(errors, &path, &[("volumePath", &source.volume_path)]);
    }
    let others = [
        ("fc", volume.fc.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("storageos", volume.storageos.is_some()),
    ];
    for (name, _) in others.into_iter().filter(|(_, set)| *set) {
        sources.next(errors, name);
    }
}

fn required(errors: &mut ErrorList, path: &Path, fields: &[(&'static str, &String)]) {
    for (name, value) in fields {
        if value.is_empty() {
            errors.required(&path.child(*name), "");
        }
    }
}
