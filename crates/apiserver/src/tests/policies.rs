//! Policies that change objects, as clients write and meet them.

use serde_json::{Value, json};

use super::support::Fixture;
use crate::User;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn policy(name: &str, param_kind: Value) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "paramKind": param_kind,
            "matchConstraints": { "resourceRules": [{
                "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
            }] },
            "mutations": [{ "patchType": "ApplyConfiguration", "applyConfiguration": {
                "expression": "Object{metadata: Object.metadata{labels: {'by': request.userInfo.username}}}",
            } }],
            "reinvocationPolicy": "Never",
        },
    })
}

#[tokio::test]
async fn a_policy_changes_what_clients_create() {
    let fixture = Fixture::new().await;
    let made = fixture.json(&format!("POST {POLICIES}"), 201, &policy("p", Value::Null)).await;
    assert_eq!((&made["spec"]["failurePolicy"], &made["metadata"]["generation"]), (&json!("Fail"), &json!(1)));
    let binding = json!({ "metadata": { "name": "b" }, "spec": { "policyName": "p" } });
    fixture.json(&format!("POST {BINDINGS}"), 201, &binding).await;
    let body = json!({ "metadata": { "name": "a" } });
    let made = fixture.json("POST /api/v1/namespaces/default/configmaps", 201, &body).await;
    assert_eq!(made["metadata"]["labels"], json!({ "by": "kubernetes-admin" }));
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let shown = fixture.ask(&format!("GET {POLICIES}"), &table, "").await.json();
    assert_eq!(
        shown["rows"][0]["cells"].as_array().map(|cells| &cells[..3]),
        Some(&[json!("p"), json!(1), json!("<unset>")][..])
    );
    fixture.json(&format!("DELETE {POLICIES}/p"), 200, &Value::Null).await;
    let body = json!({ "metadata": { "name": "b" } });
    let made = fixture.json("POST /api/v1/namespaces/default/configmaps", 201, &body).await;
    assert!(made["metadata"]["labels"].is_null(), "{made}");
}

#[tokio::test]
async fn who_writes_a_policy_must_have_read_its_parameters() {
    let fixture = Fixture::new().await;
    let rules = json!([{ "apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"] }]);
    let role = json!({ "metadata": { "name": "policies" }, "rules": rules });
    fixture.json("POST /apis/rbac.authorization.k8s.io/v1/clusterroles", 201, &role).await;
    let binding = json!({
        "metadata": { "name": "policies" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "policies" },
        "subjects": [{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane" }],
    });
    fixture.json("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", 201, &binding).await;
    let kind = json!({ "apiVersion": "v1", "kind": "Secret" });
    let write = async |path: &str, body: Value| {
        let jane = User::new("jane", &[]);
        let reply = fixture.ask_as(Some(jane), &format!("POST {path}"), &JSON, body.to_string()).await;
        (reply.status.as_u16(), reply.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(write(POLICIES, policy("none", Value::Null)).await.0, 201);
    let (code, why) = write(POLICIES, policy("p", kind.clone())).await;
    assert_eq!(code, 422, "{why}");
    assert!(why.contains("must have \"get\" permission on all objects of the referenced paramKind"), "{why}");
    fixture.json(&format!("POST {POLICIES}"), 201, &policy("p", kind)).await;
    let all = json!({ "selector": {}, "parameterNotFoundAction": "Allow" });
    let one = json!({ "name": "s", "namespace": "kube-system", "parameterNotFoundAction": "Allow" });
    for (reference, verb) in [(all, "list"), (one, "get")] {
        let body = json!({ "metadata": { "name": "b" }, "spec": { "policyName": "p", "paramRef": reference } });
        let (code, why) = write(BINDINGS, body).await;
        assert_eq!(code, 422, "{why}");
        let expect = format!("user jane does not have \"{verb}\" permission on the object referenced by paramRef");
        assert!(why.contains(&expect), "{why}");
    }
}
