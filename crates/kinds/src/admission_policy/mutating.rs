//! admissionregistration.k8s.io/v1 MutatingAdmissionPolicy.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy as Object, MutatingAdmissionPolicySpec, Mutation,
};
use machinery::expression::{Compiler, Kind as Type, Wanted, admission};
use machinery::field::{ErrorList, Path};
use registry::admission::check_conditions;
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name, generation_of};
use serde_json::Value;

use super::{
    GROUP, check_failure_policy, check_match_constraints, check_mutating_operations, check_param_kind, check_variables,
    default_policy, policy_columns, shown_param_kind,
};
use crate::check::{Report, short_together};
use crate::common::{list, text};

/// MutatingAdmissionPolicies.
pub(crate) struct MutatingAdmissionPolicy;

impl Kind for MutatingAdmissionPolicy {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        categories: &["api-extensions"],
        compiles: true,
        unconditional_update: false,
        ..Descriptor::cluster(GROUP, "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies")
    };

    fn default(object: &mut Object) {
        let Some(spec) = &mut object.spec else { return };
        default_policy(&mut spec.failure_policy, spec.match_constraints.as_mut());
    }

    generation_of!(spec);

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = MutatingAdmissionPolicySpec::default();
        check_spec(&mut errors, &Path::new("spec"), object.spec.as_ref().unwrap_or(&empty));
        errors
    }

    /// What was accepted once is compiled no more.
    fn is_settled(new: &Object, old: &Object) -> bool {
        new.spec == old.spec
    }

    fn columns() -> Vec<Column> {
        policy_columns("Mutations", "How many mutations there are.")
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.spec.as_ref();
        vec![
            cell_name(&object.metadata),
            spec.map_or(0, |spec| list(&spec.mutations).len()).into(),
            shown_param_kind(spec.and_then(|spec| spec.param_kind.as_ref())).into(),
            cell_age(&object.metadata, now),
        ]
    }
}

/// The expressions of a policy.
fn expressions(spec: &MutatingAdmissionPolicySpec) -> impl Iterator<Item = &str> {
    let conditions = list(&spec.match_conditions).iter().map(|condition| &*condition.expression);
    let variables = list(&spec.variables).iter().map(|variable| &*variable.expression);
    let configurations = list(&spec.mutations).iter().filter_map(|mutation| mutation.apply_configuration.as_ref());
    let patches = list(&spec.mutations).iter().filter_map(|mutation| mutation.json_patch.as_ref());
    let configurations = configurations.map(|configuration| text(&configuration.expression));
    conditions.chain(variables).chain(configurations).chain(patches.map(|patch| text(&patch.expression)))
}

fn check_spec(errors: &mut ErrorList, path: &Path, spec: &MutatingAdmissionPolicySpec) {
    if !short_together(errors, path, "all expressions of a policy", expressions(spec)) {
        return;
    }
    check_failure_policy(errors, path, spec.failure_policy.as_deref());
    if let Some(kind) = &spec.param_kind {
        check_param_kind(errors, &path.child("paramKind"), kind);
    }
    check_match_constraints(errors, path, spec.match_constraints.as_ref());
    check_mutating_operations(errors, &path.child("matchConstraints"), spec.match_constraints.as_ref());
    let params = spec.param_kind.is_some();
    check_conditions(errors, &path.child("matchConditions"), list(&spec.match_conditions), params);
    let mut compiler = admission::compiler(Type::Any, params.then_some(Type::Any)).composing();
    check_variables(errors, &path.child("variables"), list(&spec.variables), &mut compiler);
    let (place, compiler) = (path.child("mutations"), compiler.mutating());
    if list(&spec.mutations).is_empty() {
        errors.required(&place, "mutations must contain at least one item");
    }
    for (index, mutation) in list(&spec.mutations).iter().enumerate() {
        check_mutation(errors, &place.index(index), mutation, &compiler);
    }
    let place = path.child("reinvocationPolicy");
    match text(&spec.reinvocation_policy) {
        "" => errors.required(&place, ""),
        "IfNeeded" | "Never" => {}
        other => errors.not_supported(&place, other, &["IfNeeded", "Never"]),
    }
}

fn check_mutation(errors: &mut ErrorList, path: &Path, mutation: &Mutation, compiler: &Compiler<'_>) {
    let Mutation { apply_configuration, json_patch, patch_type } = mutation;
    let configuration = ("applyConfiguration", apply_configuration.as_ref().map(|found| text(&found.expression)));
    let patch = ("jsonPatch", json_patch.as_ref().map(|found| text(&found.expression)));
    let ((field, expression), (other, unexpected), wanted) = match patch_type.as_str() {
        "ApplyConfiguration" => (configuration, patch, Wanted::Object),
        "JSONPatch" => (patch, configuration, Wanted::JsonPatch),
        "" => return errors.required(&path.child("patchType"), ""),
        unknown => {
            return errors.not_supported(&path.child("patchType"), unknown, &["ApplyConfiguration", "JSONPatch"]);
        }
    };
    let place = path.child(field).child("expression");
    match expression.map(str::trim) {
        None => errors.required(&path.child(field), &format!("must be specified when patchType is {patch_type}")),
        Some("") => errors.required(&place, ""),
        Some(expression) => {
            if let Err(why) = compiler.compile(expression, wanted) {
                errors.invalid(&place, expression, why.to_string());
            }
        }
    }
    if unexpected.is_some() {
        let why = format!("must not be specified when patchType is {patch_type}");
        errors.invalid(&path.child(other), format!("{{{other}}}"), why);
    }
}
