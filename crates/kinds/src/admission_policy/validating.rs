//! admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy.

use std::collections::HashSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ValidatingAdmissionPolicy as Object, ValidatingAdmissionPolicySpec, Validation,
};
use machinery::expression::{Compiler, Kind as Type, Wanted, admission};
use machinery::field::{ErrorList, Path};
use machinery::json_path::JsonPath;
use machinery::validate;
use registry::admission::check_conditions;
use registry::kind::{Column, Descriptor, Kind, MetadataReset, Subresource, cell_age, cell_name, spec_and_status};
use serde_json::Value;

use super::{
    GROUP, check_failure_policy, check_match_constraints, check_param_kind, check_variables, default_policy,
    policy_columns, shown_param_kind,
};
use crate::check::{Report, short_together};
use crate::common::{list, text};

/// The most audit annotations of a policy, and the longest expression for the value of one.
const MAX_ANNOTATIONS: usize = 20;
const MAX_VALUE_EXPRESSION: usize = 5 * 1024;

const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

/// ValidatingAdmissionPolicies.
pub(crate) struct ValidatingAdmissionPolicy;

impl Kind for ValidatingAdmissionPolicy {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        categories: &["api-extensions"],
        compiles: true,
        subresources: &[Subresource::Status],
        status_reset: MetadataReset::Everything,
        unconditional_update: false,
        ..Descriptor::cluster(GROUP, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies")
    };

    spec_and_status!();

    fn default(object: &mut Object) {
        let Some(spec) = &mut object.spec else { return };
        default_policy(&mut spec.failure_policy, spec.match_constraints.as_mut());
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = ValidatingAdmissionPolicySpec::default();
        let name = text(&object.metadata.name);
        check_spec(&mut errors, &Path::new("spec"), name, object.spec.as_ref().unwrap_or(&empty));
        errors
    }

    /// What was accepted once is compiled no more.
    fn is_settled(new: &Object, old: &Object) -> bool {
        new.spec == old.spec
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        let path = Path::new("status");
        let warnings = status.type_checking.as_ref().map_or(&[][..], |checked| list(&checked.expression_warnings));
        for (index, warning) in warnings.iter().enumerate() {
            let path = path.child("typeChecking").child("expressionWarnings").index(index);
            if warning.warning.is_empty() {
                errors.required(&path.child("warning"), "");
            }
            let (place, field) = (path.child("fieldRef"), warning.field_ref.trim());
            if field.is_empty() {
                errors.required(&place, "");
            } else if JsonPath::parse(field).is_none() {
                errors.invalid(&place, field, "invalid JSONPath");
            }
        }
        let conditions = list(&status.conditions);
        let types = conditions.iter().map(|condition| condition.type_.as_str());
        crate::flowcontrol::condition_types(&mut errors, &path.child("conditions"), types);
        errors
    }

    fn columns() -> Vec<Column> {
        policy_columns("Validations", "How many validations there are.")
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.spec.as_ref();
        vec![
            cell_name(&object.metadata),
            spec.map_or(0, |spec| list(&spec.validations).len()).into(),
            shown_param_kind(spec.and_then(|spec| spec.param_kind.as_ref())).into(),
            cell_age(&object.metadata, now),
        ]
    }
}

/// The expressions of a policy.
fn expressions(spec: &ValidatingAdmissionPolicySpec) -> impl Iterator<Item = &str> {
    let conditions = list(&spec.match_conditions).iter().map(|condition| &*condition.expression);
    let variables = list(&spec.variables).iter().map(|variable| &*variable.expression);
    let validations = list(&spec.validations).iter();
    let validations =
        validations.flat_map(|validation| [&*validation.expression, text(&validation.message_expression)]);
    let annotations = list(&spec.audit_annotations).iter().map(|annotation| &*annotation.value_expression);
    conditions.chain(variables).chain(validations).chain(annotations)
}

fn check_spec(errors: &mut ErrorList, path: &Path, name: &str, spec: &ValidatingAdmissionPolicySpec) {
    if !short_together(errors, path, "all expressions of a policy", expressions(spec)) {
        return;
    }
    check_failure_policy(errors, path, spec.failure_policy.as_deref());
    if let Some(kind) = &spec.param_kind {
        check_param_kind(errors, &path.child("paramKind"), kind);
    }
    check_match_constraints(errors, path, spec.match_constraints.as_ref());
    let params = spec.param_kind.is_some();
    check_conditions(errors, &path.child("matchConditions"), list(&spec.match_conditions), params);
    let mut compiler = admission::compiler(Type::Any, params.then_some(Type::Any));
    let variables = list(&spec.variables);
    if !variables.is_empty() {
        compiler = compiler.composing();
    }
    check_variables(errors, &path.child("variables"), variables, &mut compiler);
    let (validations, annotations) = (list(&spec.validations), list(&spec.audit_annotations));
    if validations.is_empty() && annotations.is_empty() {
        const NEITHER: &str = "validations or auditAnnotations must contain at least one item";
        errors.required(&path.child("validations"), NEITHER);
        errors.required(&path.child("auditAnnotations"), NEITHER);
    }
    let messages = compiler.without(admission::AUTHORIZER);
    for (index, validation) in validations.iter().enumerate() {
        check_validation(errors, &path.child("validations").index(index), validation, &compiler, &messages);
    }
    let path = path.child("auditAnnotations");
    if annotations.len() > MAX_ANNOTATIONS {
        errors.invalid(&path, annotations, format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations"));
    }
    let mut seen = HashSet::new();
    for (index, annotation) in annotations.iter().enumerate() {
        check_annotation(errors, &path.index(index), name, annotation, &compiler);
        if !seen.insert(annotation.key.as_str()) {
            errors.duplicate(&path.index(index).child("key"), &annotation.key);
        }
    }
}

fn check_validation(
    errors: &mut ErrorList,
    path: &Path,
    validation: &Validation,
    compiler: &Compiler<'_>,
    messages: &Compiler<'_>,
) {
    let place = path.child("expression");
    if validation.expression.trim().is_empty() {
        errors.required(&place, "expression is not specified");
    } else if let Err(why) = compiler.compile(&validation.expression, Wanted::Bool) {
        errors.invalid(&place, &validation.expression, why.to_string());
    }
    let (place, expression) = (path.child("messageExpression"), text(&validation.message_expression));
    if !expression.is_empty() && expression.trim().is_empty() {
        errors.invalid(&place, expression, "must be non-empty if specified");
    } else if !expression.is_empty()
        && let Err(why) = messages.compile(expression, Wanted::String)
    {
        errors.invalid(&place, expression, why.to_string());
    }
    let (place, message) = (path.child("message"), text(&validation.message));
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&place, message, "message must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(&place, message, "message must not contain line breaks");
    }
    if let Some(reason) = validation.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
        errors.not_supported(&path.child("reason"), reason, &REASONS);
    }
}

fn check_annotation(
    errors: &mut ErrorList,
    path: &Path,
    policy: &str,
    annotation: &AuditAnnotation,
    compiler: &Compiler<'_>,
) {
    let (place, key) = (path.child("key"), &annotation.key);
    if policy.is_empty() {
        errors.invalid(&place, key, "requires metadata.name be non-empty");
    } else {
        let name = format!("{policy}/{key}");
        errors.messages(&place, &name, validate::qualified_name(&name));
    }
    let (place, expression) = (path.child("valueExpression"), annotation.value_expression.trim());
    if expression.is_empty() {
        errors.required(&place, "valueExpression is not specified");
    } else if expression.len() > MAX_VALUE_EXPRESSION {
        errors.required(&place, &format!("must not exceed {MAX_VALUE_EXPRESSION} bytes in length"));
    } else if let Err(why) = compiler.compile(expression, Wanted::StringOrNull) {
        errors.invalid(&place, &annotation.value_expression, why.to_string());
    }
}
