//! admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicyBinding as Object, MutatingAdmissionPolicyBindingSpec,
};
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name, generation_of};
use serde_json::Value;

use super::{
    GROUP, binding_columns, check_match_resources, check_mutating_operations, check_references,
    default_match_resources, shown_param_ref,
};
use crate::common::text;

/// MutatingAdmissionPolicyBindings.
pub(crate) struct MutatingAdmissionPolicyBinding;

impl Kind for MutatingAdmissionPolicyBinding {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        categories: &["api-extensions"],
        unconditional_update: false,
        ..Descriptor::cluster(GROUP, "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
    };

    fn default(object: &mut Object) {
        let resources = object.spec.as_mut().and_then(|spec| spec.match_resources.as_mut());
        if let Some(resources) = resources {
            default_match_resources(resources);
        }
    }

    generation_of!(spec);

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = MutatingAdmissionPolicyBindingSpec::default();
        let MutatingAdmissionPolicyBindingSpec { match_resources, param_ref, policy_name } =
            object.spec.as_ref().unwrap_or(&empty);
        let path = Path::new("spec");
        check_references(&mut errors, &path, text(policy_name), param_ref.as_ref());
        if let Some(resources) = match_resources {
            let path = path.child("matchResources");
            check_match_resources(&mut errors, &path, resources);
            check_mutating_operations(&mut errors, &path, Some(resources));
        }
        errors
    }

    fn columns() -> Vec<Column> {
        binding_columns()
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.spec.as_ref();
        vec![
            cell_name(&object.metadata),
            spec.map_or("", |spec| text(&spec.policy_name)).into(),
            shown_param_ref(spec.and_then(|spec| spec.param_ref.as_ref())).into(),
            cell_age(&object.metadata, now),
        ]
    }
}
