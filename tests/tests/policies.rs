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

#[test]
fn what_an_expression_cannot_mean_is_shown_in_the_status() {
    let cluster = Cluster::start();
    let mut doubtful: Value = serde_json::from_str(&policy(Value::Null, "2")).expect("JSON");
    doubtful["spec"]["validations"][0]["expression"] = "object.spec.replica <= variables.max".into();
    cluster.apply(&doubtful.to_string());
    let warnings = cluster.wait("type checking", || {
        let policy = cluster.get(&["validatingadmissionpolicy", "replicas.example.com"]);
        policy["status"]["typeChecking"]["expressionWarnings"].as_array().cloned()
    });
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
    let warning = warnings[0]["warning"].as_str().unwrap_or_default();
    assert!(warning.contains("apps/v1, Kind=Deployment") && warning.contains("undefined field 'replica'"), "{warning}");
    // Upstream accepts nothing that is known to be a condition only when it is evaluated.
    doubtful["spec"]["validations"][0]["expression"] = "object.spec.paused".into();
    let refused = cluster.kubectl_with_input(&["apply", "-f", "-"], &doubtful.to_string()).fails();
    assert!(refused.contains("must evaluate to bool but got dyn"), "{refused}");
}

/// A policy that changes objects of a resource, and its binding.
fn mutating(name: &str, resource: &str, mutation: &Value, spec: Value, binding: Value) -> String {
    let mut policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": { "name": name },
        "spec": {
            "matchConstraints": { "resourceRules": [{
                "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource],
            }] },
            "mutations": [mutation],
            "reinvocationPolicy": "IfNeeded",
        },
    });
    let mut bound = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": { "name": name },
        "spec": { "policyName": name },
    });
    for (object, more) in [(&mut policy, spec), (&mut bound, binding)] {
        let fields = more.as_object().cloned().unwrap_or_default();
        for (field, value) in fields {
            object["spec"][field] = value;
        }
    }
    format!("{policy}\n---\n{bound}")
}

#[test]
fn policies_change_what_is_written() {
    let cluster = Cluster::start();
    let sidecar = json!({ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression":
        "Object{spec: Object.spec{initContainers: [Object.spec.initContainers{
            name: 'mesh', image: params.data.image, restartPolicy: 'Always'}]}}" } });
    let params = json!({ "apiVersion": "v1", "kind": "ConfigMap" });
    let binding = json!({
        "paramRef": { "name": "mesh", "namespace": "default", "parameterNotFoundAction": "Deny" },
        "matchResources": { "objectSelector": { "matchLabels": { "mesh": "yes" } } },
    });
    cluster.apply(&mutating("mesh.example.com", "pods", &sidecar, json!({ "paramKind": params }), binding));
    let run = |labels: &str| {
        cluster.kubectl(&["run", "web", "--image=nginx:latest", labels, "--dry-run=server", "-o", "json"])
    };
    let refused = run("--labels=mesh=yes").fails();
    let why = "policy 'mesh.example.com' with binding 'mesh.example.com' denied request: failed to configure binding: no params found";
    assert!(refused.contains(why), "{refused}");
    cluster.kubectl(&["create", "configmap", "mesh", "--from-literal=image=nginx:mesh"]).ok();
    let pod: Value = serde_json::from_str(&run("--labels=mesh=yes").ok()).expect("JSON");
    let container = &pod["spec"]["initContainers"][0];
    assert_eq!((&container["name"], &container["image"]), (&json!("mesh"), &json!("nginx:mesh")), "{pod}");
    let pod: Value = serde_json::from_str(&run("--labels=mesh=no").ok()).expect("JSON");
    assert!(pod["spec"]["initContainers"].is_null(), "the binding selects no others: {pod}");

    let label = json!({ "patchType": "JSONPatch", "jsonPatch": { "expression":
        "[JSONPatch{op: 'add', path: '/metadata/labels', value: {}},
          JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/team'), value: object.data.team}]" } });
    cluster.apply(&mutating("team.example.com", "configmaps", &label, json!({}), json!({})));
    cluster.kubectl(&["create", "configmap", "a", "--from-literal=team=red"]).ok();
    assert_eq!(cluster.field("configmap/a", r"{.metadata.labels.example\.com/team}"), "red");
    let refused = cluster.kubectl(&["create", "configmap", "b"]).fails();
    assert!(refused.contains("policy 'team.example.com'") && refused.contains("no such key: data"), "{refused}");
    let ignore = json!({ "failurePolicy": "Ignore" });
    cluster.apply(&mutating("team.example.com", "configmaps", &label, ignore, json!({})));
    cluster.kubectl(&["create", "configmap", "b"]).ok();

    let shown = cluster.kubectl(&["get", "mutatingadmissionpolicies"]).ok();
    let header: Vec<&str> = shown.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, ["NAME", "MUTATIONS", "PARAMKIND", "AGE"]);
    let explained = cluster.kubectl(&["explain", "mutatingadmissionpolicy.spec.mutations.patchType"]).ok();
    assert!(explained.contains("patchType"), "{explained}");
}
