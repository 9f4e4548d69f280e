//! storage.k8s.io/v1 StorageClass.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::TopologySelectorTerm;
use k8s_openapi::api::storage::v1::StorageClass as Object;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::validate;
use registry::kind::{Column, Descriptor, Kind, cell_age};
use serde_json::Value;

use crate::admission::default_storage_class::is_default;
use crate::check::{Report, immutable, label_name, one_of};
use crate::common::{count, default_text, entries, list, text};

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE_MAX: usize = 256 * 1024;

/// StorageClasses.
pub(crate) struct StorageClass;

impl Kind for StorageClass {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["sc"],
        returns_deleted_object: true,
        ..Descriptor::cluster("storage.k8s.io", "v1", "StorageClass", "storageclasses")
    };

    fn default(object: &mut Object) {
        default_text(&mut object.reclaim_policy, "Delete");
        default_text(&mut object.volume_binding_mode, "Immediate");
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        provisioner(&mut errors, &Path::new("provisioner"), &object.provisioner);
        parameters(&mut errors, &Path::new("parameters"), &object.parameters);
        one_of(&mut errors, &Path::new("reclaimPolicy"), text(&object.reclaim_policy), &["Delete", "Retain"]);
        one_of(
            &mut errors,
            &Path::new("volumeBindingMode"),
            text(&object.volume_binding_mode),
            &["Immediate", "WaitForFirstConsumer"],
        );
        topologies(&mut errors, &Path::new("allowedTopologies"), list(&object.allowed_topologies));
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let fixed = [
            ("parameters", new.parameters == old.parameters),
            ("provisioner", new.provisioner == old.provisioner),
            ("reclaimPolicy", new.reclaim_policy == old.reclaim_policy),
        ];
        for (field, _) in fixed.into_iter().filter(|(_, same)| !same) {
            errors.forbidden(&Path::new(field), format!("updates to {field} are forbidden."));
        }
        immutable(&mut errors, &Path::new("volumeBindingMode"), &new.volume_binding_mode, &old.volume_binding_mode);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Provisioner", "Who makes its volumes."),
            Column::string("ReclaimPolicy", "What becomes of a volume when its claim is gone."),
            Column::string("VolumeBindingMode", "When a claim is bound."),
            Column::string("AllowVolumeExpansion", "Whether claims may grow."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let mark = if is_default(&object.metadata) { " (default)" } else { "" };
        vec![
            format!("{}{mark}", text(&object.metadata.name)).into(),
            object.provisioner.as_str().into(),
            object.reclaim_policy.as_deref().unwrap_or("Delete").into(),
            object.volume_binding_mode.as_deref().unwrap_or("<unset>").into(),
            object.allow_volume_expansion.unwrap_or_default().into(),
            cell_age(&object.metadata, now),
        ]
    }
}

/// The name of a driver or provisioner.
pub(super) fn provisioner(errors: &mut ErrorList, path: &Path, value: &str) {
    if value.is_empty() {
        errors.required(path, value);
    } else {
        errors.messages(path, value, validate::qualified_name(&value.to_lowercase()));
    }
}

/// What is handed to a driver or provisioner.
pub(super) fn parameters(errors: &mut ErrorList, path: &Path, parameters: &Option<BTreeMap<String, String>>) {
    if count(parameters) > PARAMETERS_MAX {
        errors.push(FieldError::too_long(path, "", PARAMETERS_MAX));
        return;
    }
    let mut size = 0;
    for (key, value) in entries(parameters) {
        if key.is_empty() {
            errors.invalid(path, key, "field can not be empty.");
        }
        size += key.len() + value.len();
    }
    if size > PARAMETERS_SIZE_MAX {
        errors.push(FieldError::too_long(path, "", PARAMETERS_SIZE_MAX));
    }
}

fn topologies(errors: &mut ErrorList, path: &Path, terms: &[TopologySelectorTerm]) {
    for (index, term) in terms.iter().enumerate() {
        let term_path = path.index(index);
        let mut keys = BTreeSet::new();
        for (at, requirement) in list(&term.match_label_expressions).iter().enumerate() {
            let path = term_path.child("matchLabelExpressions").index(at);
            if !keys.insert(&requirement.key) {
                errors.duplicate(&path.child("key"), &requirement.key);
            }
            if requirement.values.is_empty() {
                errors.required(&path.child("values"), "");
            }
            let mut seen = BTreeSet::new();
            for (at, value) in requirement.values.iter().enumerate() {
                if !seen.insert(value) {
                    errors.duplicate(&path.child("values").index(at), value);
                }
            }
            label_name(errors, &path.child("key"), &requirement.key);
        }
        if terms[..index].contains(term) {
            errors.duplicate(&term_path.child("matchLabelExpressions"), "");
        }
    }
}
