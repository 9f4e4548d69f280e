//! Policies in the Common Expression Language.

use coracle_tests::Cluster;
use serde_json::{Value, json};

/// A policy that limits the replicas of Deployments to what its parameters say.
fn policy(param_kind: Value, limit: &str) -> String {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": "replicas.example.com" },
        "spec": {
            "failurePolicy": "Fail",
            "paramKind": param_kind,
            "matchConstraints": { "resourceRules": [{
                "operations": ["CREATE", "UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"],
            }] },
            "variables": [{ "name": "max", "expression": limit }],
            "validations": [{
                "expression": "object.spec.replicas <= variables.max",
                "messageExpression": "'at most ' + string(variables.max) + ' replicas'",
                "reason": "Forbidden",
            }],
        },
    })
    .to_string()
}

fn binding(actions: &[&str]) -> String {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "replicas-here" },
        "spec": {
            "policyName": "replicas.example.com",
            "validationActions": actions,
            "paramRef": { "name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny" },
        },
    })
    .to_string()
}

#[test]
fn a_policy_denies_warns_and_is_checked() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "configmap", "limits", "--from-literal=max=2"]).ok();
    cluster.apply(&policy(json!({ "apiVersion": "v1", "kind": "ConfigMap" }), "int(params.data.max)"));
    cluster.apply(&binding(&["Deny"]));
    let create = |name: &str, replicas: &str| {
        cluster.kubectl(&["create", "deployment", name, "--image=nginx:latest", &format!("--replicas={replicas}")])
    };
    let refused = create("web", "3").fails();
    let why = "ValidatingAdmissionPolicy 'replicas.example.com' with binding 'replicas-here' denied request: at most 2 replicas";
    assert!(refused.contains(why), "{refused}");
    create("web", "0").ok();
    // Other parameters, other limits, at once.
    cluster.kubectl(&["patch", "configmap", "limits", "-p", r#"{"data":{"max":"0"}}"#]).ok();
    assert!(create("api", "1").fails().contains("at most 0 replicas"));

    cluster.apply(&binding(&["Warn"]));
    let ran = create("api", "1");
    assert!(ran.stderr.contains("Warning: Validation failed for ValidatingAdmissionPolicy"), "{}", ran.stderr);
    ran.ok();

    let shown = cluster.kubectl(&["get", "validatingadmissionpolicies"]).ok();
    let header: Vec<&str> = shown.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, ["NAME", "VALIDATIONS", "PARAMKIND", "AGE"]);
    assert!(shown.contains("v1/ConfigMap"), "{shown}");
    cluster.wait_for("validatingadmissionpolicy/replicas.example.com", "{.status.observedGeneration}", "1");

    // An expression that makes no sense is refused; one that cannot be true of a Deployment is warned of.
    let kind = json!({ "apiVersion": "v1", "kind": "ConfigMap" });
    let refused = cluster.kubectl_with_input(&["apply", "-f", "-"], &policy(kind.clone(), "nothing.max")).fails();
    assert!(refused.contains("undeclared reference to 'nothing'"), "{refused}");
    let doubtful = policy(kind, "object.spec.replica");
    cluster.apply(&doubtful);
    let warned = cluster.wait("type checking", || {
        let policy = cluster.get(&["validatingadmissionpolicy", "replicas.example.com"]);
        policy["status"]["observedGeneration"].as_i64().filter(|seen| *seen == 2).map(|_| policy)
    });
    assert_eq!(warned["status"]["typeChecking"], json!({}), "a variable that makes no sense may be anything");
    cluster.kubectl(&["delete", "validatingadmissionpolicy", "replicas.example.com"]).ok();
    create("free", "1").ok();
}

#[test]
fn parameters_may_be_custom_resources() {
    let cluster = Cluster::start();
    let schema = json!({
        "type": "object", "properties": { "max": { "type": "integer" } }, "required": ["max"],
    });
    cluster.apply(
        &json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": "limits.example.com" },
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": { "plural": "limits", "singular": "limit", "kind": "Limit" },
                "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
            },
        })
        .to_string(),
    );
    cluster.apply(
        &json!({ "apiVersion": "example.com/v1", "kind": "Limit", "metadata": { "name": "limits" }, "max": 1 })
            .to_string(),
    );
    cluster.apply(&policy(json!({ "apiVersion": "example.com/v1", "kind": "Limit" }), "params.max"));
    cluster.apply(&binding(&["Deny", "Audit"]));
    let refused = cluster.kubectl(&["create", "deployment", "web", "--image=nginx:latest", "--replicas=2"]).fails();
    assert!(refused.contains("denied request: at most 1 replicas"), "{refused}");
    cluster.kubectl(&["create", "deployment", "web", "--image=nginx:latest", "--replicas=1"]).ok();
    let refused = cluster.kubectl(&["scale", "deployment/web", "--replicas=2"]);
    // The policy is about Deployments, and a scale is none.
    refused.ok();
}
