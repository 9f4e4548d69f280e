//! core/v1 PersistentVolume.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume as Object, PersistentVolumeSpec, PersistentVolumeStatus};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::quantity::Quantity;
use registry::kind::{Column, Context, Descriptor, Kind, Subresource, cell_age, cell_name, status_apart};
use registry::meta;
use serde_json::Value;

use super::{MODES, STORAGE, access_modes, class_name, class_of, short_modes, sources, storage_cell};
use crate::check::{NEGATIVE, POSITIVE, Report, immutable, optional_one_of};
use crate::common::{canonical_quantities, default_text, entries, list, quantity, text};
use crate::pod::scheduling::node_selector;

const RECLAIM: [&str; 3] = ["Delete", "Recycle", "Retain"];

/// PersistentVolumes.
pub(crate) struct PersistentVolume;

impl Kind for PersistentVolume {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["pv"],
        subresources: &[Subresource::Status],
        returns_deleted_object: true,
        ..Descriptor::cluster("", "v1", "PersistentVolume", "persistentvolumes")
    };

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        default_text(&mut spec.persistent_volume_reclaim_policy, "Retain");
        default_text(&mut spec.volume_mode, "Filesystem");
        canonical_quantities(&mut spec.capacity);
        sources::default(spec);
        default_text(&mut object.status.get_or_insert_default().phase, "Pending");
    }

    fn prepare_create(object: &mut Object, context: &Context<'_>) {
        object.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".to_owned()),
            last_phase_transition_time: Some(meta::time(context.now)),
            ..PersistentVolumeStatus::default()
        });
    }

    status_apart!();

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = PersistentVolumeSpec::default();
        validate_spec(&mut errors, &Path::new("spec"), object.spec.as_ref().unwrap_or(&empty));
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
        if sources::of(new) != sources::of(old) {
            errors.forbidden(
                &Path::new("spec").child("persistentvolumesource"),
                "spec.persistentvolumesource is immutable after creation",
            );
        }
        immutable(&mut errors, &Path::new("volumeMode"), &new.volume_mode, &old.volume_mode);
        if old.node_affinity.is_some() {
            immutable(&mut errors, &Path::new("nodeAffinity"), &new.node_affinity, &old.node_affinity);
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Capacity", "How much it holds."),
            Column::string("Access Modes", "How it can be mounted."),
            Column::string("Reclaim Policy", "What becomes of it when its claim is gone."),
            Column::string("Status", "Its phase."),
            Column::string("Claim", "The claim it is bound to, or kept for."),
            Column::string("StorageClass", "Its class."),
            Column::string("VolumeAttributesClass", "The class of its attributes."),
            Column::string("Reason", "Why it is in its phase, in one word."),
            Column::age(),
            Column::wide("VolumeMode", "Whether it is a file system or a raw device."),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (PersistentVolumeSpec::default(), PersistentVolumeStatus::default());
        let spec = object.spec.as_ref().unwrap_or(&no_spec);
        let status = object.status.as_ref().unwrap_or(&no_status);
        let claim = spec.claim_ref.as_ref();
        let claim = claim.map(|claim| format!("{}/{}", text(&claim.namespace), text(&claim.name)));
        let unset = |value: &Option<String>| value.clone().unwrap_or_else(|| "<unset>".to_owned());
        let terminating = object.metadata.deletion_timestamp.is_some();
        vec![
            cell_name(&object.metadata),
            storage_cell(&spec.capacity).into(),
            short_modes(list(&spec.access_modes)).into(),
            text(&spec.persistent_volume_reclaim_policy).into(),
            if terminating { "Terminating" } else { text(&status.phase) }.into(),
            claim.unwrap_or_default().into(),
            class_of(&object.metadata, &spec.storage_class_name).into(),
            unset(&spec.volume_attributes_class_name).into(),
            text(&status.reason).into(),
            cell_age(&object.metadata, now),
            unset(&spec.volume_mode).into(),
        ]
    }
}

/// Validates a volume that is inline in a VolumeAttachment: one of CSI, and nothing that only a PersistentVolume has.
pub(super) fn validate_inline(errors: &mut ErrorList, path: &Path, spec: &PersistentVolumeSpec) {
    const NOT_INLINE: &str = "may not be specified in the context of inline volumes";
    let of_volume = [
        ("claimRef", spec.claim_ref.is_some()),
        ("capacity", entries(&spec.capacity).next().is_some()),
        ("nodeAffinity", spec.node_affinity.is_some()),
        ("storageClassName", !text(&spec.storage_class_name).is_empty()),
    ];
    for (field, _) in of_volume.into_iter().filter(|(_, there)| *there) {
        errors.forbidden(&path.child(field), NOT_INLINE);
    }
    if spec.csi.is_none() {
        errors.required(&path.child("csi"), "has to be specified in the context of inline volumes");
    }
    access_modes(errors, &path.child("accessModes"), list(&spec.access_modes), "");
    if !matches!(text(&spec.persistent_volume_reclaim_policy), "" | "Retain") {
        let why = "may only be Retain in the context of inline volumes";
        errors.forbidden(&path.child("persistentVolumeReclaimPolicy"), why);
    }
    sources::validate(errors, path, spec);
    if !matches!(spec.volume_mode.as_deref(), None | Some("Filesystem")) {
        let why = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.forbidden(&path.child("volumeMode"), why);
    }
}

/// Validates the specification of a PersistentVolume.
fn validate_spec(errors: &mut ErrorList, path: &Path, spec: &PersistentVolumeSpec) {
    access_modes(errors, &path.child("accessModes"), list(&spec.access_modes), "");
    capacity(errors, &path.child("capacity"), spec);
    let policy = &spec.persistent_volume_reclaim_policy;
    optional_one_of(errors, &path.child("persistentVolumeReclaimPolicy"), policy, &RECLAIM);
    if let Some(affinity) = &spec.node_affinity {
        let path = path.child("nodeAffinity").child("required");
        match &affinity.required {
            Some(selector) => node_selector(errors, &path, selector),
            None => errors.required(&path, "must specify required node constraints"),
        }
    }
    sources::validate(errors, path, spec);
    if spec.host_path.as_ref().is_some_and(|source| is_root(&source.path)) && text(policy) == "Recycle" {
        errors.forbidden(
            &path.child("persistentVolumeReclaimPolicy"),
            "may not be 'recycle' for a hostPath mount of '/'",
        );
    }
    class_name(errors, &path.child("storageClassName"), text(&spec.storage_class_name));
    optional_one_of(errors, &path.child("volumeMode"), &spec.volume_mode, &MODES);
    class_name(errors, &path.child("volumeAttributesClassName"), text(&spec.volume_attributes_class_name));
}

fn capacity(errors: &mut ErrorList, path: &Path, spec: &PersistentVolumeSpec) {
    if entries(&spec.capacity).next().is_none() {
        errors.required(path, "");
    }
    if !entries(&spec.capacity).map(|(name, _)| name.as_str()).eq([STORAGE]) {
        let mut error = FieldError::not_supported(path, "", &[STORAGE]);
        error.value = serde_json::to_value(&spec.capacity).ok();
        errors.push(error);
    }
    for (name, amount) in entries(&spec.capacity) {
        let path = path.key(name);
        match quantity(amount) {
            Some(value) if value.is_negative() => {
                errors.invalid(&path, &amount.0, NEGATIVE);
                errors.invalid(&path, &amount.0, POSITIVE);
            }
            Some(value) if value == Quantity::ZERO => errors.invalid(&path, &amount.0, POSITIVE),
            _ => {}
        }
    }
}

fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|element| element.is_empty() || element == ".")
}
