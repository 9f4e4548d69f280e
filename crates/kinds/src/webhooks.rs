//! admissionregistration.k8s.io/v1 MutatingWebhookConfiguration and ValidatingWebhookConfiguration. They are called by
//! `registry/src/admission/webhook/`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use machinery::field::{ErrorList, Path};
use machinery::validate;
use registry::admission::{as_mutating, check_conditions};
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name, generation_of};
use serde_json::Value;

use super::check::{Report, dns_subdomain, label_selector, one_of, optional_one_of, short_together};
use super::common::{list, text};

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// Webhooks that change objects.
pub(crate) struct Mutating;
/// Webhooks that refuse objects.
pub(crate) struct Validating;

fn special(hook: MutatingWebhook) -> ValidatingWebhook {
    ValidatingWebhook {
        admission_review_versions: hook.admission_review_versions,
        client_config: hook.client_config,
        failure_policy: hook.failure_policy,
        match_conditions: hook.match_conditions,
        match_policy: hook.match_policy,
        name: hook.name,
        namespace_selector: hook.namespace_selector,
        object_selector: hook.object_selector,
        rules: hook.rules,
        side_effects: hook.side_effects,
        timeout_seconds: hook.timeout_seconds,
    }
}

impl Kind for Mutating {
    type Object = MutatingWebhookConfiguration;

    const DESCRIPTOR: Descriptor = Descriptor {
        categories: &["api-extensions"],
        compiles: true,
        ..Descriptor::cluster(
            "admissionregistration.k8s.io",
            "v1",
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
        )
    };

    fn default(object: &mut Self::Object) {
        for hook in object.webhooks.iter_mut().flatten() {
            default(hook);
            hook.reinvocation_policy.get_or_insert_with(|| "Never".to_owned());
        }
    }

    generation_of!(webhooks);

    fn validate(object: &Self::Object) -> ErrorList {
        let mut errors = ErrorList::new();
        check_all(&mut errors, list(&object.webhooks));
        let path = Path::new("webhooks");
        for (index, hook) in list(&object.webhooks).iter().enumerate() {
            let path = path.index(index).child("reinvocationPolicy");
            optional_one_of(&mut errors, &path, &hook.reinvocation_policy, &["IfNeeded", "Never"]);
        }
        errors
    }

    fn columns() -> Vec<Column> {
        columns()
    }

    fn row(object: &Self::Object, now: Timestamp) -> Vec<Value> {
        vec![cell_name(&object.metadata), list(&object.webhooks).len().into(), cell_age(&object.metadata, now)]
    }
}

impl Kind for Validating {
    type Object = ValidatingWebhookConfiguration;

    const DESCRIPTOR: Descriptor = Descriptor {
        categories: &["api-extensions"],
        compiles: true,
        ..Descriptor::cluster(
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
        )
    };

    fn default(object: &mut Self::Object) {
        for hook in object.webhooks.iter_mut().flatten() {
            let mut whole = as_mutating(std::mem::take(hook));
            default(&mut whole);
            *hook = special(whole);
        }
    }

    generation_of!(webhooks);

    fn validate(object: &Self::Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let hooks: Vec<MutatingWebhook> = list(&object.webhooks).iter().cloned().map(as_mutating).collect();
        check_all(&mut errors, &hooks);
        errors
    }

    fn columns() -> Vec<Column> {
        columns()
    }

    fn row(object: &Self::Object, now: Timestamp) -> Vec<Value> {
        vec![cell_name(&object.metadata), list(&object.webhooks).len().into(), cell_age(&object.metadata, now)]
    }
}

fn columns() -> Vec<Column> {
    vec![Column::name(), Column::integer("Webhooks", "How many webhooks there are."), Column::age()]
}

fn default(hook: &mut MutatingWebhook) {
    hook.failure_policy.get_or_insert_with(|| "Fail".to_owned());
    hook.match_policy.get_or_insert_with(|| "Equivalent".to_owned());
    hook.namespace_selector.get_or_insert_default();
    hook.object_selector.get_or_insert_default();
    hook.timeout_seconds.get_or_insert(10);
    if let Some(service) = &mut hook.client_config.service {
        service.port.get_or_insert(443);
    }
    for rule in hook.rules.iter_mut().flatten() {
        rule.scope.get_or_insert_with(|| "*".to_owned());
    }
}

fn check_all(errors: &mut ErrorList, hooks: &[MutatingWebhook]) {
    let path = Path::new("webhooks");
    let conditions = hooks.iter().flat_map(|hook| list(&hook.match_conditions));
    if !short_together(errors, &path, "all match conditions", conditions.map(|condition| &*condition.expression)) {
        return;
    }
    let mut names = BTreeSet::new();
    for (index, hook) in hooks.iter().enumerate() {
        let path = path.index(index);
        check(errors, &path, hook);
        if !hook.name.is_empty() && !names.insert(&hook.name) {
            errors.duplicate(&path.child("name"), &hook.name);
        }
    }
}

fn check(errors: &mut ErrorList, path: &Path, hook: &MutatingWebhook) {
    let name = path.child("name");
    if hook.name.is_empty() {
        errors.required(&name, "");
    } else {
        let messages = validate::dns_subdomain(&hook.name);
        if !messages.is_empty() {
            errors.messages(&name, &hook.name, messages);
        } else if hook.name.split('.').count() < 3 {
            errors.invalid(&name, &hook.name, "should be a domain with at least three segments separated by dots");
        }
    }
    let versions = path.child("admissionReviewVersions");
    if hook.admission_review_versions.is_empty() {
        errors.required(&versions, "must specify one of v1, v1beta1");
    } else if !hook.admission_review_versions.iter().any(|version| version == "v1") {
        // Upstream also speaks v1beta1 here; it was removed everywhere else.
        errors.invalid(&versions, &hook.admission_review_versions, "must include v1");
    }
    for (index, rule) in list(&hook.rules).iter().enumerate() {
        check_rule(errors, &path.child("rules").index(index), rule);
    }
    optional_one_of(errors, &path.child("failurePolicy"), &hook.failure_policy, &["Fail", "Ignore"]);
    optional_one_of(errors, &path.child("matchPolicy"), &hook.match_policy, &["Equivalent", "Exact"]);
    one_of(errors, &path.child("sideEffects"), &hook.side_effects, &["None", "NoneOnDryRun"]);
    if let Some(seconds) = hook.timeout_seconds.filter(|seconds| !(1..=30).contains(seconds)) {
        errors.invalid(&path.child("timeoutSeconds"), seconds, "the timeout value must be between 1 and 30 seconds");
    }
    label_selector(errors, &path.child("namespaceSelector"), hook.namespace_selector.as_ref());
    label_selector(errors, &path.child("objectSelector"), hook.object_selector.as_ref());
    check_conditions(errors, &path.child("matchConditions"), list(&hook.match_conditions), false);
    check_client(errors, &path.child("clientConfig"), &hook.client_config);
}

pub(super) fn check_rule(errors: &mut ErrorList, path: &Path, rule: &RuleWithOperations) {
    let operations = list(&rule.operations);
    if operations.is_empty() {
        errors.required(&path.child("operations"), "");
    }
    let alone = |values: &[String]| values.len() > 1 && values.iter().any(|value| value == "*");
    if alone(operations) {
        errors.invalid(&path.child("operations"), operations, "if '*' is present, must not specify other operations");
    }
    for (index, operation) in operations.iter().enumerate() {
        if !OPERATIONS.contains(&operation.as_str()) {
            errors.not_supported(&path.child("operations").index(index), operation, &OPERATIONS);
        }
    }
    for (field, values, what) in
        [("apiGroups", list(&rule.api_groups), "API groups"), ("apiVersions", list(&rule.api_versions), "API versions")]
    {
        let path = path.child(field);
        if values.is_empty() {
            errors.required(&path, "");
        }
        if alone(values) {
            errors.invalid(&path, values, format!("if '*' is present, must not specify other {what}"));
        }
    }
    let resources = list(&rule.resources);
    if resources.is_empty() {
        errors.required(&path.child("resources"), "");
    }
    if resources.len() > 1 && resources.iter().any(|resource| resource == "*/*") {
        errors.invalid(&path.child("resources"), resources, "if '*/*' is present, must not specify other resources");
    }
    for (index, resource) in resources.iter().enumerate() {
        if resource.is_empty() {
            errors.required(&path.child("resources").index(index), "");
        }
    }
    optional_one_of(errors, &path.child("scope"), &rule.scope, &["*", "Cluster", "Namespaced"]);
}

fn check_client(errors: &mut ErrorList, path: &Path, client: &WebhookClientConfig) {
    match (&client.url, &client.service) {
        (Some(url), None) => check_url(errors, &path.child("url"), url),
        (None, Some(service)) => check_service(errors, &path.child("service"), service),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn check_url(errors: &mut ErrorList, path: &Path, url: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some((scheme, rest)) = url.split_once("://") else {
        errors.invalid(path, url, format!("'https' is the only allowed URL scheme{FORM}"));
        return;
    };
    if scheme != "https" {
        errors.invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (host, _) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if host.is_empty() {
        errors.invalid(path, host, format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = host.rsplit_once('@') {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    } else if let Some((_, query)) = rest.split_once('?') {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

fn check_service(errors: &mut ErrorList, path: &Path, service: &ServiceReference) {
    if service.name.is_empty() {
        errors.required(&path.child("name"), "service name is required");
    }
    if service.namespace.is_empty() {
        errors.required(&path.child("namespace"), "service namespace is required");
    }
    if let Some(port) = service.port {
        super::check::port(errors, &path.child("port"), port);
    }
    let route = text(&service.path);
    if service.path.is_none() || route == "/" {
        return;
    }
    let path = path.child("path");
    if !route.starts_with('/') {
        errors.invalid(&path, route, "must start with a '/'");
        return;
    }
    let steps = route[1..].strip_suffix('/').unwrap_or(&route[1..]);
    for (index, step) in steps.split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&path, route, format!("segment[{index}] may not be empty"));
        } else {
            dns_subdomain(errors, &path, step);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{CREATED, check_defaults, errors, row, with};

    fn hook(client: Value) -> Value {
        json!({
            "metadata": { "name": "w", "creationTimestamp": CREATED },
            "webhooks": [{
                "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": client,
                "rules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] }],
            }],
        })
    }

    #[test]
    fn defaults() {
        let service = hook(json!({ "service": { "name": "s", "namespace": "n" } }));
        let mut expect = service.clone();
        let filled = &mut expect["webhooks"][0];
        filled["clientConfig"]["service"]["port"] = json!(443);
        filled["rules"][0]["scope"] = json!("*");
        filled["failurePolicy"] = json!("Fail");
        filled["matchPolicy"] = json!("Equivalent");
        filled["namespaceSelector"] = json!({});
        filled["objectSelector"] = json!({});
        filled["timeoutSeconds"] = json!(10);
        check_defaults::<Validating>(service.clone(), &expect);
        expect["webhooks"][0]["reinvocationPolicy"] = json!("Never");
        check_defaults::<Mutating>(service.clone(), &expect);
        assert_eq!(row::<Mutating>(service), [json!("w"), json!(1), json!("10m")]);
    }

    #[test]
    fn what_is_refused() {
        let good = hook(json!({ "url": "https://127.0.0.1:1/x" }));
        for (pointer, value, expect) in [
            ("/metadata/labels", json!({}), vec![]),
            (
                "/webhooks/0/name",
                json!("a.b"),
                vec![
                    "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
                ],
            ),
            (
                "/webhooks/0/sideEffects",
                json!("Some"),
                vec![
                    "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                ],
            ),
            (
                "/webhooks/0/timeoutSeconds",
                json!(31),
                vec![
                    "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                ],
            ),
            (
                "/webhooks/0/clientConfig",
                json!({}),
                vec!["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
            ),
            (
                "/webhooks/0/clientConfig/url",
                json!("http://a/b"),
                vec![
                    "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                ],
            ),
            (
                "/webhooks/0/matchConditions",
                json!([{ "name": "x", "expression": "true" }, { "name": "x", "expression": "1" }, { "name": "y", "expression": "a" }]),
                vec![
                    "webhooks[0].matchConditions[1].expression: Invalid value: \"1\": must evaluate to bool but got int",
                    "webhooks[0].matchConditions[1].name: Duplicate value: \"x\"",
                    "webhooks[0].matchConditions[2].expression: Invalid value: \"a\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'a' (in container '')\n | a\n | ^",
                ],
            ),
            (
                "/webhooks/0/matchConditions",
                json!(vec![json!({ "name": "x", "expression": "true || ".repeat(1000) + "true" }); 25]),
                vec![
                    "webhooks: Forbidden: all match conditions together must not be longer than 200000 characters, where each counts for 40 at least",
                ],
            ),
            (
                "/webhooks/0/rules/0/operations",
                json!(["*", "CREATE"]),
                vec![
                    "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
                ],
            ),
        ] {
            let object = with(good.clone(), pointer, value);
            assert_eq!(errors::<Mutating>(object.clone()), expect, "{pointer}");
            assert_eq!(errors::<Validating>(object), expect, "{pointer}");
        }
    }
}
