//! core/v1 PersistentVolumeClaim.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim as Object, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, TypedLocalObjectReference,
    TypedObjectReference,
};
use machinery::field::{ErrorList, Path};
use machinery::quantity::Quantity;
use registry::kind::{Column, Context, Descriptor, Kind, Subresource, cell_age, cell_name};
use serde_json::Value;

use super::{CLASS_ANNOTATION, MODES, STORAGE, access_modes, class_name, class_of, short_modes, storage_cell};
use crate::check::{NEGATIVE, POSITIVE, Report, immutable, label_selector, one_of};
use crate::common::{blank, canonical_quantities, default_text, entry, list, quantity, text};

/// PersistentVolumeClaims.
pub(crate) struct PersistentVolumeClaim;

impl Kind for PersistentVolumeClaim {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["pvc"],
        subresources: &[Subresource::Status],
        returns_deleted_object: true,
        ..Descriptor::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
    };

    fn default(object: &mut Object) {
        default_spec(object.spec.get_or_insert_default());
        let status = object.status.get_or_insert_default();
        default_text(&mut status.phase, "Pending");
        canonical_quantities(&mut status.capacity);
        canonical_quantities(&mut status.allocated_resources);
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        let pending = PersistentVolumeClaimStatus { phase: Some("Pending".to_owned()), ..Default::default() };
        object.status = Some(pending);
        normalize_sources(object.spec.get_or_insert_default());
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        new.status.clone_from(&old.status);
        normalize_sources(new.spec.get_or_insert_default());
    }

    fn prepare_status(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = PersistentVolumeClaimSpec::default();
        validate_spec(&mut errors, &Path::new("spec"), object.spec.as_ref().unwrap_or(&empty));
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
        if masked(new, new_spec, old_spec) != *old_spec {
            errors.forbidden(
                &Path::new("spec"),
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                 claims",
            );
        }
        let size = requested(new);
        if size < requested(old) && size < capacity(new) {
            errors.forbidden(
                &Path::new("spec").child("resources").child("requests").child(STORAGE),
                "field can not be less than status.capacity",
            );
        }
        immutable(&mut errors, &Path::new("volumeMode"), &new_spec.volume_mode, &old_spec.volume_mode);
        errors
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        let path = Path::new("status").child("capacity");
        for (name, amount) in status.capacity.iter().flatten() {
            if quantity(amount).is_some_and(|amount| amount.is_negative()) {
                errors.invalid(&path.key(name), &amount.0, NEGATIVE);
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Status", "Its phase."),
            Column::string("Volume", "The volume it is bound to."),
            Column::string("Capacity", "How much the volume holds."),
            Column::string("Access Modes", "How the volume can be mounted."),
            Column::string("StorageClass", "The class it asks for."),
            Column::string("VolumeAttributesClass", "The class of attributes it asks for."),
            Column::age(),
            Column::wide("VolumeMode", "Whether it is a file system or a raw device."),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (PersistentVolumeClaimSpec::default(), PersistentVolumeClaimStatus::default());
        let spec = object.spec.as_ref().unwrap_or(&no_spec);
        let status = object.status.as_ref().unwrap_or(&no_status);
        let unset = |value: &Option<String>| value.clone().unwrap_or_else(|| "<unset>".to_owned());
        let terminating = object.metadata.deletion_timestamp.is_some();
        let (capacity, modes) = if blank(&spec.volume_name) {
            ("", String::new())
        } else {
            (storage_cell(&status.capacity), short_modes(list(&status.access_modes)))
        };
        vec![
            cell_name(&object.metadata),
            if terminating { "Terminating" } else { text(&status.phase) }.into(),
            text(&spec.volume_name).into(),
            capacity.into(),
            modes.into(),
            class_of(&object.metadata, &spec.storage_class_name).into(),
            unset(&spec.volume_attributes_class_name).into(),
            cell_age(&object.metadata, now),
            unset(&spec.volume_mode).into(),
        ]
    }
}

/// Fills in the specification of a claim, of its own or in a template.
pub(crate) fn default_spec(spec: &mut PersistentVolumeClaimSpec) {
    default_text(&mut spec.volume_mode, "Filesystem");
    let resources = spec.resources.get_or_insert_default();
    canonical_quantities(&mut resources.limits);
    canonical_quantities(&mut resources.requests);
}

/// Validates the specification of a claim, of its own or in a template.
pub(crate) fn validate_spec(errors: &mut ErrorList, path: &Path, spec: &PersistentVolumeClaimSpec) {
    access_modes(errors, &path.child("accessModes"), list(&spec.access_modes), "at least 1 access mode is required");
    label_selector(errors, &path.child("selector"), spec.selector.as_ref());
    let field = path.child("resources").key(STORAGE);
    match spec.resources.as_ref().and_then(|resources| entry(&resources.requests, STORAGE)) {
        None => errors.required(&field, ""),
        Some(amount) if quantity(amount).is_none_or(|amount| amount <= Quantity::ZERO) => {
            errors.invalid(&field, &amount.0, POSITIVE);
        }
        Some(_) => {}
    }
    class_name(errors, &path.child("storageClassName"), text(&spec.storage_class_name));
    if let Some(mode) = &spec.volume_mode {
        one_of(errors, &path.child("volumeMode"), mode, &MODES);
    }
    if let Some(source) = &spec.data_source {
        data_source(errors, &path.child("dataSource"), &source.api_group, &source.kind, &source.name);
    }
    if let Some(source) = &spec.data_source_ref {
        data_source(errors, &path.child("dataSourceRef"), &source.api_group, &source.kind, &source.name);
    }
    if let (Some(one), Some(other)) = (&spec.data_source, &spec.data_source_ref)
        && (&one.api_group, &one.kind, &one.name) != (&other.api_group, &other.kind, &other.name)
    {
        errors.invalid(path, path.child("dataSource").to_string(), "must match dataSourceRef");
    }
    class_name(errors, &path.child("volumeAttributesClassName"), text(&spec.volume_attributes_class_name));
}

fn data_source(errors: &mut ErrorList, path: &Path, group: &Option<String>, kind: &str, name: &str) {
    for (field, value) in [("name", name), ("kind", kind)] {
        if value.is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    if text(group).is_empty() {
        if kind != "PersistentVolumeClaim" {
            errors.invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
        }
    } else {
        class_name(errors, &path.child("apiGroup"), text(group));
    }
}

/// `dataSource` and `dataSourceRef` mirror each other, unless the second points into another namespace.
fn normalize_sources(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(old), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: old.api_group.clone(),
                kind: old.kind.clone(),
                name: old.name.clone(),
                namespace: None,
            });
        }
        (None, Some(new)) if blank(&new.namespace) => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: new.api_group.clone(),
                kind: new.kind.clone(),
                name: new.name.clone(),
            });
        }
        _ => {}
    }
}

/// `new` with what an update may change as it was before.
fn masked(
    object: &Object,
    new: &PersistentVolumeClaimSpec,
    old: &PersistentVolumeClaimSpec,
) -> PersistentVolumeClaimSpec {
    let mut masked = new.clone();
    // The name of the volume is written once, by whoever binds the claim.
    if blank(&old.volume_name) {
        masked.volume_name.clone_from(&old.volume_name);
    }
    // Upstream: a claim from before there was a default class may still get one.
    if old.storage_class_name.is_none() && old_class_unset(object) {
        masked.storage_class_name = None;
    }
    let bound = object.status.as_ref().is_some_and(|status| text(&status.phase) == "Bound");
    if bound {
        let amount = old.resources.as_ref().and_then(|resources| entry(&resources.requests, STORAGE));
        let requests = masked.resources.as_mut().and_then(|resources| resources.requests.as_mut());
        if let (Some(requests), Some(amount)) = (requests, amount) {
            requests.insert(STORAGE.to_owned(), amount.clone());
        }
        if masked.volume_attributes_class_name.is_some() {
            masked.volume_attributes_class_name.clone_from(&old.volume_attributes_class_name);
        }
    }
    masked
}

fn old_class_unset(object: &Object) -> bool {
    entry(&object.metadata.annotations, CLASS_ANNOTATION).is_none()
}

pub(crate) fn requested(claim: &Object) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    resources.and_then(|resources| entry(&resources.requests, STORAGE)).and_then(quantity).unwrap_or_default()
}

fn capacity(claim: &Object) -> Quantity {
    let status = claim.status.as_ref();
    status.and_then(|status| entry(&status.capacity, STORAGE)).and_then(quantity).unwrap_or_default()
}
