//! Tables for roles and bindings.

use serde_json::{Value, json};

use super::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use crate::testing::{CREATED, check_defaults, errors, row, update_errors, with};

fn rules(rule: Value) -> Value {
    json!({ "metadata": { "name": "a" }, "rules": [rule] })
}

#[test]
fn rules_are_about_resources_or_paths() {
    let pods = json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] });
    let check = |rule: Value, expect: &[&str]| assert_eq!(errors::<ClusterRole>(rules(rule)), expect);
    check(pods.clone(), &[]);
    check(json!({ "verbs": ["get"], "nonResourceURLs": ["/metrics"] }), &[]);
    check(
        with(pods.clone(), "/verbs", json!([])),
        &["rules[0].verbs: Required value: verbs must contain at least one value"],
    );
    check(
        with(pods.clone(), "/apiGroups", Value::Null),
        &["rules[0].apiGroups: Required value: resource rules must supply at least one api group"],
    );
    check(
        with(pods.clone(), "/resources", Value::Null),
        &["rules[0].resources: Required value: resource rules must supply at least one resource"],
    );
    check(
        with(pods.clone(), "/nonResourceURLs", json!(["/x"])),
        &[
            r#"rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs"#,
        ],
    );
    assert_eq!(
        errors::<Role>(rules(json!({ "verbs": ["get"], "nonResourceURLs": ["/x"] }))),
        [r#"rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs"#]
    );
    let gathers = json!({ "metadata": { "name": "a" }, "aggregationRule": {} });
    assert_eq!(
        errors::<ClusterRole>(gathers),
        ["aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if \
         aggregationRule is non-nil"]
    );
}

fn binding() -> Value {
    json!({
        "metadata": { "name": "b", "creationTimestamp": CREATED },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
        "subjects": [
            { "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane" },
            { "kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "devs" },
            { "kind": "ServiceAccount", "namespace": "x", "name": "robot" },
        ],
    })
}

#[test]
fn bindings() {
    assert_eq!(errors::<RoleBinding>(binding()), [""; 0]);
    assert_eq!(errors::<ClusterRoleBinding>(binding()), [""; 0]);
    let check = |pointer: &str, value: Value, expect: &[&str]| {
        assert_eq!(errors::<ClusterRoleBinding>(with(binding(), pointer, value)), expect);
    };
    check(
        "/roleRef/kind",
        "Role".into(),
        &[r#"roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole""#],
    );
    check("/roleRef/name", "a/b".into(), &[r#"roleRef.name: Invalid value: "a/b": may not contain '/'"#]);
    check("/roleRef/name", "".into(), &["roleRef.name: Required value"]);
    check(
        "/subjects/0/kind",
        "Robot".into(),
        &[r#"subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group""#],
    );
    check("/subjects/2/namespace", Value::Null, &["subjects[2].namespace: Required value"]);
    check(
        "/subjects/2/apiGroup",
        "x".into(),
        &[r#"subjects[2].apiGroup: Unsupported value: "x": supported values: """#],
    );
    let other = with(binding(), "/roleRef/name", "edit".into());
    assert_eq!(
        update_errors::<RoleBinding>(binding(), other),
        [
            r#"roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"ClusterRole","Name":"edit"}: cannot change roleRef"#
        ]
    );
    let short = json!({ "metadata": {}, "roleRef": { "apiGroup": "", "kind": "Role", "name": "a" },
        "subjects": [{ "kind": "User", "name": "jane" }, { "kind": "ServiceAccount", "name": "robot" }] });
    check_defaults::<RoleBinding>(
        short,
        &json!({
            "metadata": {},
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "a" },
            "subjects": [
                { "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane" },
                { "kind": "ServiceAccount", "name": "robot" },
            ],
        }),
    );
}

#[test]
fn tables() {
    assert_eq!(row::<RoleBinding>(binding()), ["b", "ClusterRole/view", "10m", "jane", "devs", "x/robot"]);
    let role = json!({ "metadata": { "name": "a", "creationTimestamp": CREATED } });
    assert_eq!(row::<ClusterRole>(role), ["a", CREATED]);
}
