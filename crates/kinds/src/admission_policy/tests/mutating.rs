//! Those of the policies that change objects.

use serde_json::{Value, json};

use super::super::mutating::MutatingAdmissionPolicy as Policy;
use super::super::mutating_binding::MutatingAdmissionPolicyBinding as Binding;
use super::{complete, rule};
use crate::testing::{CREATED, check_defaults, errors, row, with};

fn policy() -> Value {
    json!({
        "metadata": { "name": "p.example.com", "creationTimestamp": CREATED },
        "spec": {
            "matchConstraints": { "resourceRules": [rule()] },
            "mutations": [{ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": "Object{}" } }],
            "reinvocationPolicy": "Never",
        },
    })
}

fn binding() -> Value {
    json!({ "metadata": { "name": "b.example.com", "creationTimestamp": CREATED }, "spec": { "policyName": "p.example.com" } })
}

#[test]
fn defaults_and_columns() {
    let mut expect = policy();
    complete(&mut expect["spec"]["matchConstraints"]);
    expect["spec"]["failurePolicy"] = json!("Fail");
    check_defaults::<Policy>(policy(), &expect);
    assert_eq!(row::<Policy>(policy()), [json!("p.example.com"), json!(1), json!("<unset>"), json!("10m")]);
    let narrowed = with(binding(), "/spec/matchResources", json!({ "resourceRules": [rule()] }));
    let mut expect = narrowed.clone();
    complete(&mut expect["spec"]["matchResources"]);
    check_defaults::<Binding>(narrowed, &expect);
    let shown = [json!("b.example.com"), json!("p.example.com"), json!("<unset>"), json!("10m")];
    assert_eq!(row::<Binding>(binding()), shown);
}

#[test]
fn what_is_refused_of_a_policy() {
    let expression =
        |patch_type: &str, field: &str, text: &str| json!([{ "patchType": patch_type, field: { "expression": text } }]);
    for (pointer, value, expect) in [
        ("/metadata/labels", json!({}), vec![]),
        ("/spec/matchConstraints/resourceRules/0/operations", json!(["*"]), vec![]),
        (
            "/spec/matchConstraints/resourceRules/0/operations",
            json!(["CREATE", "DELETE"]),
            vec![
                "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            ],
        ),
        ("/spec/matchConstraints", json!(null), vec!["spec.matchConstraints: Required value"]),
        (
            "/spec/mutations",
            json!([]),
            vec!["spec.mutations: Required value: mutations must contain at least one item"],
        ),
        ("/spec/reinvocationPolicy", json!(null), vec!["spec.reinvocationPolicy: Required value"]),
        (
            "/spec/reinvocationPolicy",
            json!("Always"),
            vec!["spec.reinvocationPolicy: Unsupported value: \"Always\": supported values: \"IfNeeded\", \"Never\""],
        ),
        ("/spec/mutations/0/patchType", json!(""), vec!["spec.mutations[0].patchType: Required value"]),
        (
            "/spec/mutations/0/patchType",
            json!("Merge"),
            vec![
                "spec.mutations[0].patchType: Unsupported value: \"Merge\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
            ],
        ),
        (
            "/spec/mutations/0/patchType",
            json!("JSONPatch"),
            vec![
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch",
            ],
        ),
        (
            "/spec/mutations",
            expression("ApplyConfiguration", "applyConfiguration", " "),
            vec!["spec.mutations[0].applyConfiguration.expression: Required value"],
        ),
        (
            "/spec/mutations",
            expression("ApplyConfiguration", "applyConfiguration", "object"),
            vec![
                "spec.mutations[0].applyConfiguration.expression: Invalid value: \"object\": must evaluate to Object but got dyn",
            ],
        ),
        (
            "/spec/mutations",
            expression("JSONPatch", "jsonPatch", "[]"),
            vec![
                "spec.mutations[0].jsonPatch.expression: Invalid value: \"[]\": must evaluate to list(JSONPatch) but got list(dyn)",
            ],
        ),
    ] {
        assert_eq!(errors::<Policy>(with(policy(), pointer, value.clone())), expect, "{pointer} {value}");
    }
    let variables = json!([{ "name": "a", "expression": "Object{}" }]);
    let found = errors::<Policy>(with(policy(), "/spec/variables", variables));
    assert!(found.len() == 1 && found[0].contains("undeclared reference to 'Object'"), "{found:?}");
}

#[test]
fn what_is_refused_of_a_binding() {
    for (pointer, value, expect) in [
        ("/metadata/labels", json!({}), vec![]),
        ("/spec/policyName", json!(""), vec!["spec.policyName: Required value"]),
        (
            "/spec/paramRef",
            json!({ "parameterNotFoundAction": "Deny" }),
            vec!["spec.paramRef: Required value: one of name or selector must be specified"],
        ),
        (
            "/spec/matchResources",
            json!({ "resourceRules": [{ "operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] }] }),
            vec![
                "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            ],
        ),
    ] {
        assert_eq!(errors::<Binding>(with(binding(), pointer, value.clone())), expect, "{pointer} {value}");
    }
}
