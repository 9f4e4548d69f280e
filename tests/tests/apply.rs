//! Server-side apply, and what admission does to what is applied: quotas, limits and webhooks.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coracle_tests::Cluster;
use coracle_tests::webhook::Webhook;
use serde_json::json;

fn deployment(replicas: u32, image: &str) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "main", "image": image, "imagePullPolicy": "IfNotPresent" }] },
            },
        },
    })
    .to_string()
}

#[test]
fn server_side_apply_conflicts_and_forces() {
    let cluster = Cluster::start();
    let apply = |more: &[&str], manifest: &str| {
        let arguments = [&["apply", "--server-side", "-f", "-"], more].concat();
        cluster.kubectl_with_input(&arguments, manifest)
    };
    let made = apply(&[], &deployment(0, "nginx:latest")).ok();
    assert_eq!(made.trim(), "deployment.apps/web serverside-applied");
    let version = cluster.field("deployment/web", "{.metadata.resourceVersion}");
    let shown = cluster.kubectl(&["get", "deployment", "web", "-o", "yaml", "--show-managed-fields"]).ok();
    assert!(shown.contains("operation: Apply") && shown.contains("f:replicas: {}"), "{shown}");

    // Somebody else scales; then the number is theirs.
    cluster.kubectl(&["scale", "deployment/web", "--replicas=1"]).ok();
    assert_ne!(cluster.field("deployment/web", "{.metadata.resourceVersion}"), version);
    let refused = apply(&[], &deployment(0, "nginx:latest")).fails();
    assert!(
        refused.contains("Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"),
        "{refused}"
    );
    let dry = cluster
        .kubectl_with_input(&["diff", "--server-side", "--force-conflicts", "-f", "-"], &deployment(0, "nginx:latest"));
    assert_eq!(dry.code, 1, "there is a difference");
    apply(&["--force-conflicts"], &deployment(0, "nginx:latest")).ok();
    assert_eq!(cluster.field("deployment/web", "{.spec.replicas}"), "0");

    // Two managers, each with fields of its own.
    let label = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "labels": { "team": "a" } } });
    apply(&["--field-manager=labeller"], &label.to_string()).ok();
    apply(&[], &deployment(0, "nginx:latest")).ok();
    assert_eq!(cluster.field("deployment/web", "{.metadata.labels.team}"), "a");

    // From the client's side to the server's, without a conflict.
    let map = |value: &str| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" }, "data": { "a": value } })
            .to_string()
    };
    cluster.apply(&map("1"));
    apply(&[], &map("2")).ok();
    assert_eq!(cluster.field("configmap/m", "{.data.a}"), "2");
}

#[test]
fn quotas_and_limits_are_kept() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "quota", "q", "--hard=count/configmaps=3,pods=1,limits.cpu=1"]).ok();
    cluster.wait_for("resourcequota/q", "{.status.hard.pods}", "1");
    let before: u32 = cluster.field("resourcequota/q", "{.status.used.count/configmaps}").parse().expect("a number");
    for number in before..3 {
        cluster.kubectl(&["create", "configmap", &format!("c{number}")]).ok();
    }
    let refused = cluster.kubectl(&["create", "configmap", "more"]).fails();
    assert!(
        refused.contains("configmaps \"more\" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=3, limited: count/configmaps=3"),
        "{refused}"
    );
    cluster.kubectl(&["delete", "configmap", "c2"]).ok();
    cluster.kubectl(&["create", "configmap", "more"]).ok();

    let run = |name: &str| cluster.kubectl(&["run", name, "--image=nginx:latest", "--image-pull-policy=IfNotPresent"]);
    assert!(run("a").fails().contains("failed quota: q: must specify limits.cpu for: a"));
    let limits = json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "l" },
        "spec": { "limits": [{ "type": "Container", "default": { "cpu": "500m" }, "max": { "cpu": "1" } }] },
    });
    cluster.apply(&limits.to_string());
    run("a").ok();
    assert_eq!(cluster.field("pod/a", "{.spec.containers[0].resources.limits.cpu}"), "500m");
    assert!(
        run("b").fails().contains("exceeded quota: q, requested: limits.cpu=500m,pods=1")
            || run("b").fails().contains("requested: pods=1, used: pods=1, limited: pods=1")
    );
    let listed = cluster.kubectl(&["get", "quota", "q"]).ok();
    assert!(listed.contains("limits.cpu: 500m/1") && listed.contains("pods: 1/1"), "{listed}");
    // A replica set that may not make its pods says so.
    cluster.kubectl(&["create", "deployment", "web", "--image=nginx:latest"]).ok();
    let path = "{.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
    cluster.wait("the deployment says why", || {
        cluster.field("deployment/web", path).contains("exceeded quota: q").then_some(())
    });
    cluster.kubectl(&["delete", "pod", "a", "--now"]).ok();
    cluster.wait_for("deployment/web", "{.status.replicas}", "1");
}

fn configuration(hook: &Webhook, kind: &str, operation: &str, resources: &str) -> String {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": "hook" },
        "webhooks": [{
            "name": "hook.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": hook.client_config("hook"),
            "rules": [{ "operations": [operation], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resources] }],
        }],
    })
    .to_string()
}

#[test]
fn webhooks_change_and_refuse() {
    let cluster = Cluster::start();
    let labeller = Webhook::start(|_| {
        let patch = json!([{ "op": "add", "path": "/metadata/labels", "value": { "hooked": "yes" } }]).to_string();
        json!({ "allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(patch), "warnings": ["was labelled"] })
    });
    cluster.apply(&configuration(&labeller, "MutatingWebhookConfiguration", "CREATE", "configmaps"));
    let ran = cluster.kubectl(&["create", "configmap", "a"]);
    assert!(ran.stderr.contains("Warning: was labelled"), "{}", ran.stderr);
    assert_eq!(cluster.field("configmap/a", "{.metadata.labels.hooked}"), "yes");

    let guard = Webhook::start(|request| {
        let bad = request["object"]["metadata"]["name"] == "bad";
        json!({ "allowed": !bad, "status": { "message": "no bad names here", "code": 403, "reason": "Forbidden" } })
    });
    cluster.apply(&configuration(&guard, "ValidatingWebhookConfiguration", "CREATE", "secrets"));
    let refused = cluster.kubectl(&["create", "secret", "generic", "bad"]).fails();
    assert!(
        refused.contains("admission webhook \"hook.example.com\" denied the request: no bad names here"),
        "{refused}"
    );
    cluster.kubectl(&["create", "secret", "generic", "good"]).ok();

    // One that is down refuses what it is about, says so, and can be removed.
    let gone = guard.gone();
    cluster.apply(&configuration(&gone, "ValidatingWebhookConfiguration", "CREATE", "secrets"));
    let refused = cluster.kubectl(&["create", "secret", "generic", "other"]).fails();
    assert!(refused.contains("failed calling webhook \"hook.example.com\": failed to call webhook: Post \"https://127.0.0.1:1/hook?timeout=10s\": dial tcp 127.0.0.1:1: connect: connection refused"), "{refused}");
    cluster.kubectl(&["create", "configmap", "b"]).ok();
    cluster.kubectl(&["delete", "validatingwebhookconfiguration", "hook"]).ok();
    cluster.kubectl(&["create", "secret", "generic", "other"]).ok();
}

#[test]
fn a_webhook_forbids_exec() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "deployment", "web", "--image=nginx:latest"]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    // What the controller notes in it with its status is no change of the Deployment.
    assert_eq!(cluster.field("deployment/web", "{.metadata.annotations.deployment\\.kubernetes\\.io/revision}"), "1");
    assert_eq!(cluster.field("deployment/web", "{.metadata.generation}"), "1");
    let exec = |words: &[&str]| cluster.kubectl(&[&["exec", "deployment/web", "--"], words].concat());
    assert_eq!(exec(&["echo", "hello"]).ok(), "hello\n");

    let guard = Webhook::start(|request| {
        let shell = request["object"]["command"][0] == "sh";
        json!({ "allowed": !shell, "status": { "message": "no shells in here", "code": 403, "reason": "Forbidden" } })
    });
    cluster.apply(&configuration(&guard, "ValidatingWebhookConfiguration", "CONNECT", "pods/exec"));
    let refused = exec(&["sh", "-c", "echo hello"]).fails();
    let why = "admission webhook \"hook.example.com\" denied the request: no shells in here";
    assert!(refused.contains(why), "{refused}");
    assert_eq!(exec(&["echo", "hello"]).ok(), "hello\n");

    // One that is down lets nothing pass.
    cluster.apply(&configuration(&guard.gone(), "ValidatingWebhookConfiguration", "CONNECT", "pods/*"));
    let refused = exec(&["echo", "hello"]).fails();
    assert!(refused.contains("failed calling webhook \"hook.example.com\""), "{refused}");
}
