//! core/v1 ResourceQuota. What it counts is in `machinery::quota`, who enforces it in `admission::resource_quota`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ResourceQuota as Object, ResourceQuotaSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use machinery::field::{ErrorList, Path};
use machinery::validate;
use registry::kind::{Column, Context, Descriptor, Kind, Subresource, cell_age, cell_name};
use serde_json::Value;

use super::check::Report;
use super::common::{canonical_quantities, entries, list};
use super::pod::resources::validate_quantity;

/// Names without a slash that may be limited; `count/...` and `hugepages-...` besides.
const NAMES: [&str; 19] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// What is counted in whole numbers.
const WHOLE: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const CONFLICTING: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

/// Resource quotas.
pub(crate) struct ResourceQuota;

impl Kind for ResourceQuota {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["quota"],
        subresources: &[Subresource::Status],
        returns_deleted_object: true,
        ..Descriptor::namespaced("", "v1", "ResourceQuota", "resourcequotas")
    };

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        canonical_quantities(&mut spec.hard);
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.status = None;
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
        if let Some(status) = &mut new.status {
            canonical_quantities(&mut status.hard);
            canonical_quantities(&mut status.used);
        }
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        if let Some(spec) = &object.spec {
            amounts(&mut errors, &Path::new("spec").child("hard"), &spec.hard);
            scopes(&mut errors, spec);
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let scopes = |object: &Object| object.spec.as_ref().and_then(|spec| spec.scopes.clone()).unwrap_or_default();
        let (mut now, mut before) = (scopes(new), scopes(old));
        now.sort();
        before.sort();
        if now != before {
            errors.invalid(&Path::new("spec").child("scopes"), scopes(new), "field is immutable");
        }
        errors
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("status");
        if let Some(status) = &new.status {
            amounts(&mut errors, &path.child("hard"), &status.hard);
            amounts(&mut errors, &path.child("used"), &status.used);
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Request", "What is used and the limit, of what is requested or counted."),
            Column::string("Limit", "What is used and the limit, of what containers are limited to."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let status = object.status.clone().unwrap_or_default();
        let used = |name: &str| status.used.as_ref().and_then(|used| used.get(name)).map_or("0", |amount| &amount.0);
        let print = |limits: bool| -> String {
            entries(&status.hard)
                .filter(|(name, _)| name.starts_with("limits.") == limits)
                .map(|(name, hard)| format!("{name}: {}/{}", used(name), hard.0))
                .collect::<Vec<_>>()
                .join(", ")
        };
        vec![cell_name(&object.metadata), print(false).into(), print(true).into(), cell_age(&object.metadata, now)]
    }
}

fn amounts(errors: &mut ErrorList, path: &Path, hard: &Option<BTreeMap<String, WireQuantity>>) {
    for (name, amount) in entries(hard) {
        let path = path.key(name);
        let messages = validate::qualified_name(name);
        let standard = NAMES.contains(&name.as_str())
            || ["hugepages-", "requests.hugepages-"].iter().any(|prefix| name.starts_with(prefix));
        if !messages.is_empty() {
            errors.messages(&path, name, messages);
        } else if !name.contains('/') && !standard {
            errors.invalid(&path, name, "must be a standard resource for quota");
        }
        let found = errors.0.len();
        validate_quantity(errors, &path, name, amount);
        let whole = WHOLE.contains(&name.as_str()) || name.starts_with("count/");
        if whole
            && errors.0.len() == found
            && amount.0.parse::<machinery::Quantity>().is_ok_and(|amount| !amount.is_whole())
        {
            errors.invalid(&path, &amount.0, "must be an integer");
        }
    }
}

fn scopes(errors: &mut ErrorList, spec: &ResourceQuotaSpec) {
    let path = Path::new("spec").child("scopes");
    let all = list(&spec.scopes);
    for scope in all {
        if !SCOPES.contains(&scope.as_str()) {
            errors.invalid(&path, all, "unsupported scope");
        } else {
            for _ in entries(&spec.hard).filter(|(name, _)| !scope_allows(scope, name)) {
                errors.invalid(&path, all, "unsupported scope applied to resource");
            }
        }
    }
    for pair in CONFLICTING {
        if pair.iter().all(|scope| all.iter().any(|other| other == scope)) {
            errors.invalid(&path, all, "conflicting scopes");
        }
    }
    let path = Path::new("spec").child("scopeSelector").child("matchExpressions");
    let expressions = spec.scope_selector.as_ref().map(|selector| list(&selector.match_expressions));
    for expression in expressions.unwrap_or_default() {
        if !SCOPES.contains(&expression.scope_name.as_str()) {
            errors.invalid(&path.child("scopeName"), &expression.scope_name, "unsupported scope");
        }
        let values = list(&expression.values);
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => errors.required(
                &path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                &path.child("values"),
                values,
                "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
    }
}

/// A scope is about pods; the one of best-effort pods only about their number.
fn scope_allows(scope: &str, name: &str) -> bool {
    let of_pods = NAMES.contains(&name)
        && !matches!(name, "requests.storage" | "persistentvolumeclaims" | "configmaps" | "secrets")
        && !matches!(name, "replicationcontrollers" | "resourcequotas")
        && !name.starts_with("services");
    match scope {
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => true,
        _ => of_pods || name.contains("hugepages-") || name.starts_with("requests."),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{CREATED, errors, row, update_errors};

    fn quota(spec: Value) -> Value {
        json!({ "metadata": { "name": "q", "namespace": "n", "creationTimestamp": CREATED }, "spec": spec })
    }

    #[test]
    fn what_may_be_limited() {
        let ok = json!({ "pods": "1", "limits.cpu": "500m", "count/jobs.batch": "2", "requests.nvidia.com/gpu": "4" });
        for (spec, expect) in [
            (json!({ "hard": ok }), vec![]),
            (
                json!({ "hard": { "pots": "1" } }),
                vec!["spec.hard[pots]: Invalid value: \"pots\": must be a standard resource for quota"],
            ),
            (
                json!({ "hard": { "pods": "1500m" } }),
                vec!["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
            ),
            (
                json!({ "hard": { "cpu": "-1" } }),
                vec!["spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                json!({ "scopes": ["BestEffort", "NotBestEffort"], "hard": { "pods": "1" } }),
                vec!["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
            ),
            (
                json!({ "scopes": ["BestEffort"], "hard": { "cpu": "1" } }),
                vec!["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
            ),
            (json!({ "scopes": ["Best"] }), vec!["spec.scopes: Invalid value: [\"Best\"]: unsupported scope"]),
        ] {
            assert_eq!(errors::<ResourceQuota>(quota(spec)), expect);
        }
        let scoped = |scope: &str| quota(json!({ "scopes": [scope] }));
        assert_eq!(
            update_errors::<ResourceQuota>(scoped("Terminating"), scoped("NotTerminating")),
            ["spec.scopes: Invalid value: [\"NotTerminating\"]: field is immutable"]
        );
    }

    #[test]
    fn cells() {
        let mut object = quota(json!({}));
        object["status"] = json!({ "hard": { "pods": "5", "limits.cpu": "2", "cpu": "1" }, "used": { "pods": "1", "limits.cpu": "500m" } });
        assert_eq!(
            row::<ResourceQuota>(object),
            ["q", "cpu: 0/1, pods: 1/5", "limits.cpu: 500m/2", "10m"].map(Value::from)
        );
    }
}
