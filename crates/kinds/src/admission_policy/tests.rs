//! Defaults, validation and columns of policies and bindings.

mod mutating;

use serde_json::{Value, json};

use super::validating::ValidatingAdmissionPolicy as Policy;
use super::validating_binding::ValidatingAdmissionPolicyBinding as Binding;
use crate::testing::{CREATED, check_defaults, errors, row, with};

fn rule() -> Value {
    json!({ "operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"] })
}

fn policy() -> Value {
    json!({
        "metadata": { "name": "p.example.com", "creationTimestamp": CREATED },
        "spec": {
            "matchConstraints": { "resourceRules": [rule()] },
            "validations": [{ "expression": "object.spec.replicas <= 5" }],
        },
    })
}

fn binding() -> Value {
    json!({
        "metadata": { "name": "b.example.com", "creationTimestamp": CREATED },
        "spec": { "policyName": "p.example.com", "validationActions": ["Deny"] },
    })
}

/// Adds the defaults of what a policy or binding is about.
fn complete(resources: &mut Value) {
    resources["matchPolicy"] = json!("Equivalent");
    resources["namespaceSelector"] = json!({});
    resources["objectSelector"] = json!({});
    for rules in ["resourceRules", "excludeResourceRules"] {
        for rule in resources[rules].as_array_mut().into_iter().flatten() {
            rule["scope"] = json!("*");
        }
    }
    resources.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
}

#[test]
fn defaults_and_columns() {
    let mut expect = policy();
    complete(&mut expect["spec"]["matchConstraints"]);
    expect["spec"]["failurePolicy"] = json!("Fail");
    check_defaults::<Policy>(policy(), &expect);
    assert_eq!(row::<Policy>(policy()), [json!("p.example.com"), json!(1), json!("<unset>"), json!("10m")]);
    let with_params = with(policy(), "/spec/paramKind", json!({ "apiVersion": "v1", "kind": "ConfigMap" }));
    assert_eq!(row::<Policy>(with_params)[2], "v1/ConfigMap");

    let narrowed = with(binding(), "/spec/matchResources", json!({ "excludeResourceRules": [rule()] }));
    let mut expect = narrowed.clone();
    complete(&mut expect["spec"]["matchResources"]);
    check_defaults::<Binding>(narrowed, &expect);
    for (reference, shown) in [
        (json!(null), "<unset>"),
        (json!({ "name": "a", "parameterNotFoundAction": "Deny" }), "*/a"),
        (json!({ "name": "a", "namespace": "n", "parameterNotFoundAction": "Deny" }), "n/a"),
    ] {
        let shown_row = row::<Binding>(with(binding(), "/spec/paramRef", reference));
        assert_eq!(shown_row, [json!("b.example.com"), json!("p.example.com"), json!(shown), json!("10m")]);
    }
}

#[test]
fn what_is_refused_of_a_policy() {
    let good = policy();
    for (pointer, value, expect) in [
        ("/metadata/labels", json!({}), vec![]),
        (
            "/spec/failurePolicy",
            json!("Maybe"),
            vec!["spec.failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \"Ignore\""],
        ),
        ("/spec/matchConstraints", json!(null), vec!["spec.matchConstraints: Required value"]),
        (
            "/spec/matchConstraints/resourceRules",
            json!([]),
            vec!["spec.matchConstraints.resourceRules: Required value"],
        ),
        (
            "/spec/matchConstraints/resourceRules/0/resourceNames",
            json!(["a", "a", "b/c"]),
            vec![
                "spec.matchConstraints.resourceRules[0].resourceNames[1]: Duplicate value: \"a\"",
                "spec.matchConstraints.resourceRules[0].resourceNames[2]: Invalid value: \"b/c\": may not contain '/'",
            ],
        ),
        (
            "/spec/validations",
            json!([]),
            vec![
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ],
        ),
        (
            "/spec/validations",
            json!([{ "expression": " " }, { "expression": "1", "message": " ", "reason": "Gone" }]),
            vec![
                "spec.validations[0].expression: Required value: expression is not specified",
                "spec.validations[1].expression: Invalid value: \"1\": must evaluate to bool but got int",
                "spec.validations[1].message: Invalid value: \" \": message must be non-empty if specified",
                "spec.validations[1].reason: Unsupported value: \"Gone\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\", \"Unauthorized\"",
            ],
        ),
        (
            "/spec/validations/0/expression",
            json!("params.x == 1"),
            vec![
                "spec.validations[0].expression: Invalid value: \"params.x == 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x == 1\n | ^",
            ],
        ),
        (
            "/spec/validations/0/messageExpression",
            json!("authorizer.path('/').check('get').reason()"),
            vec![
                "spec.validations[0].messageExpression: Invalid value: \"authorizer.path('/').check('get').reason()\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer' (in container '')\n | authorizer.path('/').check('get').reason()\n | ^",
            ],
        ),
        (
            "/spec/variables",
            json!([{ "name": "a", "expression": "variables.b" }, { "name": "for", "expression": "1" }]),
            vec![
                "spec.variables[0].expression: Invalid value: \"variables.b\": compilation failed: ERROR: <input>:1:10: undefined field 'b'\n | variables.b\n | .........^",
                "spec.variables[1].name: Invalid value: \"for\": must be a valid CEL identifier",
            ],
        ),
        (
            "/spec/paramKind",
            json!({ "apiVersion": "a/b/c", "kind": "" }),
            vec![
                "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                "spec.paramKind.kind: Required value",
            ],
        ),
        (
            "/spec/auditAnnotations",
            json!([{ "key": "a b", "valueExpression": "'x'" }, { "key": "c", "valueExpression": "1" }, { "key": "c", "valueExpression": "null" }]),
            vec![
                "spec.auditAnnotations[0].key: Invalid value: \"p.example.com/a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                "spec.auditAnnotations[1].valueExpression: Invalid value: \"1\": must evaluate to one of [string null_type] but got int",
                "spec.auditAnnotations[2].key: Duplicate value: \"c\"",
            ],
        ),
        (
            "/spec/variables",
            json!(vec![json!({ "name": "a", "expression": "1" }); 5000]),
            vec![
                "spec: Forbidden: all expressions of a policy together must not be longer than 200000 characters, where each counts for 40 at least",
            ],
        ),
        (
            "/spec/matchConditions",
            json!([{ "name": "m", "expression": "variables.x == 1" }]),
            vec![
                "spec.matchConditions[0].expression: Invalid value: \"variables.x == 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'variables' (in container '')\n | variables.x == 1\n | ^",
            ],
        ),
    ] {
        assert_eq!(errors::<Policy>(with(good.clone(), pointer, value)), expect, "{pointer}");
    }
    let params = with(good, "/spec/paramKind", json!({ "apiVersion": "v1", "kind": "ConfigMap" }));
    let params = with(params, "/spec/variables", json!([{ "name": "max", "expression": "int(params.data.max)" }]));
    let params = with(params, "/spec/validations/0/expression", json!("object.spec.replicas <= variables.max"));
    let message = json!("'at most ' + string(variables.max) + ' in ' + namespaceObject.metadata.name");
    assert_eq!(errors::<Policy>(with(params, "/spec/validations/0/messageExpression", message)), [""; 0]);
}

#[test]
fn what_is_refused_of_a_binding() {
    for (pointer, value, expect) in [
        ("/metadata/labels", json!({}), vec![]),
        ("/spec/policyName", json!(""), vec!["spec.policyName: Required value"]),
        (
            "/spec/validationActions",
            json!([]),
            vec!["spec.validationActions: Required value: at least one validation action is required"],
        ),
        (
            "/spec/validationActions",
            json!(["Deny", "Warn", "Warn", "Stop"]),
            vec![
                "spec.validationActions[2]: Duplicate value: \"Warn\"",
                "spec.validationActions[3]: Unsupported value: \"Stop\": supported values: \"Audit\", \"Deny\", \"Warn\"",
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Warn\",\"Stop\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
            ],
        ),
        (
            "/spec/paramRef",
            json!({}),
            vec![
                "spec.paramRef: Required value: one of name or selector must be specified",
                "spec.paramRef.parameterNotFoundAction: Required value",
            ],
        ),
        (
            "/spec/paramRef",
            json!({ "name": "a", "selector": {}, "parameterNotFoundAction": "Wait" }),
            vec![
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.parameterNotFoundAction: Unsupported value: \"Wait\": supported values: \"Deny\", \"Allow\"",
            ],
        ),
        (
            "/spec/matchResources",
            json!({ "matchPolicy": "Some" }),
            vec![
                "spec.matchResouces.matchPolicy: Unsupported value: \"Some\": supported values: \"Equivalent\", \"Exact\"",
            ],
        ),
    ] {
        assert_eq!(errors::<Binding>(with(binding(), pointer, value)), expect, "{pointer}");
    }
}
