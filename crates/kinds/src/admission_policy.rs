//! The policies of admissionregistration.k8s.io/v1 and their bindings. They are asked by `registry/src/admission/policy/`; the
//! rules here are those of upstream's `pkg/apis/admissionregistration/validation/validation.go`.

mod mutating;
mod mutating_binding;
mod validating;
mod validating_binding;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, RuleWithOperations, Variable,
};
use machinery::expression::{Compiler, is_identifier};
use machinery::field::{ErrorList, Path};
use machinery::gvk::GroupVersion;
use machinery::validate;
use registry::kind::Column;
use registry::ops::Typed;
use registry::table::Resource;

use super::check::{Report, dns_subdomain, label_selector};
use super::common::{list, text};
use super::webhooks::check_rule;

const GROUP: &str = "admissionregistration.k8s.io";

/// What tables show where there is nothing.
const UNSET: &str = "<unset>";

/// The rows of the policies and bindings.
pub(super) fn all() -> [Resource; 4] {
    [
        Typed::<mutating::MutatingAdmissionPolicy>::shared(),
        Typed::<mutating_binding::MutatingAdmissionPolicyBinding>::shared(),
        Typed::<validating::ValidatingAdmissionPolicy>::shared(),
        Typed::<validating_binding::ValidatingAdmissionPolicyBinding>::shared(),
    ]
}

fn default_match_resources(resources: &mut MatchResources) {
    resources.match_policy.get_or_insert_with(|| "Equivalent".to_owned());
    resources.namespace_selector.get_or_insert_default();
    resources.object_selector.get_or_insert_default();
    let rules = [&mut resources.resource_rules, &mut resources.exclude_resource_rules];
    for rule in rules.into_iter().flatten().flatten() {
        rule.scope.get_or_insert_with(|| "*".to_owned());
    }
}

/// Fills in what policies of both kinds have.
fn default_policy(failure_policy: &mut Option<String>, constraints: Option<&mut MatchResources>) {
    failure_policy.get_or_insert_with(|| "Fail".to_owned());
    if let Some(constraints) = constraints {
        default_match_resources(constraints);
    }
}

fn check_failure_policy(errors: &mut ErrorList, path: &Path, failure_policy: Option<&str>) {
    let place = path.child("failurePolicy");
    match failure_policy {
        None => errors.required(&place, ""),
        Some("Fail" | "Ignore") => {}
        Some(other) => errors.not_supported(&place, other, &["Fail", "Ignore"]),
    }
}

/// Says what is wrong with what a policy is about.
fn check_match_constraints(errors: &mut ErrorList, path: &Path, constraints: Option<&MatchResources>) {
    let place = path.child("matchConstraints");
    let Some(constraints) = constraints else { return errors.required(&place, "") };
    check_match_resources(errors, &place, constraints);
    if list(&constraints.resource_rules).is_empty() {
        errors.required(&place.child("resourceRules"), "");
    }
}

/// Says which operations a policy that changes objects cannot be about: nothing can be changed in one that goes.
fn check_mutating_operations(errors: &mut ErrorList, path: &Path, resources: Option<&MatchResources>) {
    let rules = resources.map_or(&[][..], |resources| list(&resources.resource_rules));
    for operation in rules.iter().flat_map(|rule| list(&rule.operations)) {
        if !["*", "CONNECT", "CREATE", "UPDATE"].contains(&operation.as_str()) {
            let place = path.child("resourceRules").child("operations");
            errors.not_supported(&place, operation, &["*", "CONNECT", "CREATE", "UPDATE"]);
        }
    }
}

/// Says what is wrong with the references of a binding.
fn check_references(errors: &mut ErrorList, path: &Path, policy: &str, params: Option<&ParamRef>) {
    let place = path.child("policyName");
    if policy.is_empty() {
        errors.required(&place, "");
    } else {
        dns_subdomain(errors, &place, policy);
    }
    if let Some(reference) = params {
        check_param_ref(errors, &path.child("paramRef"), reference);
    }
}

/// The columns of policies, which say how many rules of a kind there are.
fn policy_columns(rules: &'static str, description: &'static str) -> Vec<Column> {
    vec![
        Column::name(),
        Column::integer(rules, description),
        Column::string("ParamKind", "The kind of the parameters."),
        Column::age(),
    ]
}

fn binding_columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::string("PolicyName", "The policy that is bound."),
        Column::string("ParamRef", "The parameters."),
        Column::age(),
    ]
}

fn check_match_resources(errors: &mut ErrorList, path: &Path, resources: &MatchResources) {
    let place = path.child("matchPolicy");
    match resources.match_policy.as_deref() {
        None => errors.required(&place, ""),
        Some("Equivalent" | "Exact") => {}
        Some(other) => errors.not_supported(&place, other, &["Equivalent", "Exact"]),
    }
    for (field, selector) in
        [("namespaceSelector", &resources.namespace_selector), ("objectSelector", &resources.object_selector)]
    {
        let place = path.child(field);
        match selector {
            None => errors.required(&place, ""),
            Some(selector) => label_selector(errors, &place, Some(selector)),
        }
    }
    for (field, rules) in
        [("resourceRules", &resources.resource_rules), ("excludeResourceRules", &resources.exclude_resource_rules)]
    {
        for (index, rule) in list(rules).iter().enumerate() {
            check_named_rule(errors, &path.child(field).index(index), rule);
        }
    }
}

fn check_named_rule(errors: &mut ErrorList, path: &Path, rule: &NamedRuleWithOperations) {
    let mut seen = HashSet::new();
    for (index, name) in list(&rule.resource_names).iter().enumerate() {
        let path = path.child("resourceNames").index(index);
        errors.messages(&path, name, validate::path_segment(name));
        if !seen.insert(name.as_str()) {
            errors.duplicate(&path, name);
        }
    }
    let NamedRuleWithOperations { api_groups, api_versions, operations, resources, scope, .. } = rule.clone();
    check_rule(errors, path, &RuleWithOperations { api_groups, api_versions, operations, resources, scope });
}

fn check_param_kind(errors: &mut ErrorList, path: &Path, kind: &ParamKind) {
    let place = path.child("apiVersion");
    let api_version = text(&kind.api_version);
    match GroupVersion::parse(api_version) {
        _ if api_version.is_empty() => errors.required(&place, ""),
        Err(error) => errors.invalid(&place, api_version, error.to_string()),
        Ok(GroupVersion { group, version }) => {
            let messages = if group.is_empty() { Vec::new() } else { validate::dns_subdomain(&group) };
            if !messages.is_empty() {
                errors.invalid(&place, &*group, messages.join(","));
            }
            let messages = validate::dns1035_label(&version);
            if version.is_empty() {
                errors.invalid(&place, api_version, "version must be specified");
            } else if !messages.is_empty() {
                errors.invalid(&place, &*version, messages.join(","));
            }
        }
    }
    let place = path.child("kind");
    let name = text(&kind.kind);
    let messages = validate::dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.required(&place, "");
    } else if !messages.is_empty() {
        let rule = messages.join(",");
        errors.invalid(&place, name, format!("may have mixed case, but should otherwise match: {rule}"));
    }
}

fn check_param_ref(errors: &mut ErrorList, path: &Path, reference: &ParamRef) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let name = text(&reference.name);
    if !name.is_empty() {
        let place = path.child("name");
        errors.messages(&place, name, validate::path_segment(name));
        if reference.selector.is_some() {
            errors.forbidden(&place, EXCLUSIVE);
        }
    }
    if reference.selector.is_some() {
        let place = path.child("selector");
        label_selector(errors, &place, reference.selector.as_ref());
        if !name.is_empty() {
            errors.forbidden(&place, EXCLUSIVE);
        }
    } else if name.is_empty() {
        errors.required(path, "one of name or selector must be specified");
    }
    let place = path.child("parameterNotFoundAction");
    match text(&reference.parameter_not_found_action) {
        "" => errors.required(&place, ""),
        "Allow" | "Deny" => {}
        other => errors.not_supported(&place, other, &["Deny", "Allow"]),
    }
}

/// Says what is wrong with variables, and declares them for the expressions that are compiled later.
fn check_variables(errors: &mut ErrorList, path: &Path, variables: &[Variable], compiler: &mut Compiler<'_>) {
    for (index, Variable { name, expression }) in variables.iter().enumerate() {
        let path = path.index(index);
        if name.trim().is_empty() {
            errors.required(&path.child("name"), "name is not specified");
        } else if !is_identifier(name) {
            errors.invalid(&path.child("name"), name, "must be a valid CEL identifier");
        }
        let place = path.child("expression");
        if expression.trim().is_empty() {
            errors.required(&place, "expression is not specified");
        } else if let Err(why) = compiler.declare(name, expression) {
            errors.invalid(&place, expression, why.to_string());
        }
    }
}

fn shown_param_kind(kind: Option<&ParamKind>) -> String {
    kind.map_or_else(|| UNSET.to_owned(), |kind| format!("{}/{}", text(&kind.api_version), text(&kind.kind)))
}

fn shown_param_ref(reference: Option<&ParamRef>) -> String {
    let Some(reference) = reference else { return UNSET.to_owned() };
    match (text(&reference.name), text(&reference.namespace), &reference.selector) {
        ("", _, Some(selector)) => super::common::format_selector(selector),
        ("", ..) => UNSET.to_owned(),
        // Upstream: whether the parameters have a namespace cannot be told from here.
        (name, "", _) => format!("*/{name}"),
        (name, namespace, _) => format!("{namespace}/{name}"),
    }
}
