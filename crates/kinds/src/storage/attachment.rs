//! storage.k8s.io/v1 VolumeAttachment.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{VolumeAttachment as Object, VolumeAttachmentSource, VolumeAttachmentStatus};
use machinery::field::{ErrorList, Path};
use registry::kind::{
    Column, Context, Descriptor, Kind, MetadataReset, Subresource, cell_age, cell_name, status_apart,
};
use serde_json::Value;

use super::csi_driver::driver_name;
use super::volume::validate_inline;
use crate::check::{Report, dns_subdomain, immutable};
use crate::common::{blank, text};

const ONE_SOURCE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";

/// VolumeAttachments.
pub(crate) struct VolumeAttachment;

impl Kind for VolumeAttachment {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        subresources: &[Subresource::Status],
        unconditional_update: false,
        returns_deleted_object: true,
        status_reset: MetadataReset::Everything,
        ..Descriptor::cluster("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments")
    };

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.status = Some(VolumeAttachmentStatus::default());
    }

    status_apart!();

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec");
        driver_name(&mut errors, &path.child("attacher"), &object.spec.attacher);
        source(&mut errors, &path.child("source"), &object.spec.source);
        dns_subdomain(&mut errors, &path.child("nodeName"), &object.spec.node_name);
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        immutable(&mut errors, &Path::new("spec"), &new.spec, &old.spec);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Attacher", "Who attaches the volume."),
            Column::string("PV", "The volume."),
            Column::string("Node", "The node it is attached to."),
            Column::string("Attached", "Whether it is attached."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            cell_name(&object.metadata),
            object.spec.attacher.as_str().into(),
            text(&object.spec.source.persistent_volume_name).into(),
            object.spec.node_name.as_str().into(),
            object.status.as_ref().is_some_and(|status| status.attached).into(),
            cell_age(&object.metadata, now),
        ]
    }
}

fn source(errors: &mut ErrorList, path: &Path, source: &VolumeAttachmentSource) {
    match (&source.inline_volume_spec, &source.persistent_volume_name) {
        (None, None) => errors.required(path, ONE_SOURCE),
        (Some(_), Some(_)) => errors.forbidden(path, ONE_SOURCE),
        (None, name) if blank(name) => {
            errors.required(&path.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
        }
        (Some(spec), None) => validate_inline(errors, &path.child("inlineVolumeSpec"), spec),
        (None, Some(_)) => {}
    }
}
