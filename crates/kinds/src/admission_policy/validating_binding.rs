//! admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding.

use std::collections::HashSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicyBinding as Object, ValidatingAdmissionPolicyBindingSpec,
};
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name, generation_of};
use serde_json::Value;

use super::{
    GROUP, binding_columns, check_match_resources, check_references, default_match_resources, shown_param_ref,
};
use crate::check::Report;

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

/// ValidatingAdmissionPolicyBindings.
pub(crate) struct ValidatingAdmissionPolicyBinding;

impl Kind for ValidatingAdmissionPolicyBinding {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        categories: &["api-extensions"],
        unconditional_update: false,
        ..Descriptor::cluster(GROUP, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
    };

    fn default(object: &mut Object) {
        if let Some(resources) = &mut object.spec.match_resources {
            default_match_resources(resources);
        }
    }

    generation_of!(spec);

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        check_spec(&mut errors, &Path::new("spec"), &object.spec);
        errors
    }

    fn columns() -> Vec<Column> {
        binding_columns()
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            cell_name(&object.metadata),
            object.spec.policy_name.as_str().into(),
            shown_param_ref(object.spec.param_ref.as_ref()).into(),
            cell_age(&object.metadata, now),
        ]
    }
}

fn check_spec(errors: &mut ErrorList, path: &Path, spec: &ValidatingAdmissionPolicyBindingSpec) {
    check_references(errors, path, &spec.policy_name, spec.param_ref.as_ref());
    if let Some(resources) = &spec.match_resources {
        // So upstream spells the path.
        check_match_resources(errors, &path.child("matchResouces"), resources);
    }
    let (place, actions) = (path.child("validationActions"), &spec.validation_actions);
    let mut seen = HashSet::new();
    for (index, action) in actions.iter().enumerate() {
        if !ACTIONS.contains(&action.as_str()) {
            errors.not_supported(&place.index(index), action, &ACTIONS);
        }
        if !seen.insert(action.as_str()) {
            errors.duplicate(&place.index(index), action);
        }
    }
    let wants = |wanted: &str| actions.iter().any(|action| action == wanted);
    if wants("Deny") && wants("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                   response and headers serves no purpose)";
        errors.invalid(&place, actions, why);
    }
    if actions.is_empty() {
        errors.required(&place, "at least one validation action is required");
    }
}
