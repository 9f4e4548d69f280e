//! Pod Security admission, and what it says to whoever labels a namespace.

use std::sync::Arc;

use coracle_kinds::{AdmissionConfig, PodSecurityConfiguration};
use registry::request::{PatchType, WriteOptions};
use registry::{ApiError, Subresource, User};
use serde_json::{Value, json};

use super::{Fixture, deployment, pod};

const BROKEN: &str = "allowPrivilegeEscalation != false (container \"main\" must set \
                      securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"main\" must set \
                      securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"main\" must set \
                      securityContext.runAsNonRoot=true), seccompProfile (pod or container \"main\" must set \
                      securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";

/// A namespace with these labels, without their prefix.
fn namespace(name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), (*value).into())).collect();
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

fn privileged(name: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
    pod
}

/// Creates an object in a namespace; what the client is warned of.
async fn create(fixture: &Fixture, path: &str, namespace: &str, body: Value) -> Result<Vec<String>, ApiError> {
    let written = fixture.create_with(path, namespace, body, &WriteOptions::default()).await?;
    Ok(written.warnings)
}

/// Patches the labels of a namespace; what the client is warned of.
async fn label(fixture: &Fixture, name: &str, labels: Value) -> Result<Vec<String>, ApiError> {
    let target = fixture.target("v1/namespaces", "", name);
    let patch = json!({ "metadata": { "labels": labels } }).to_string();
    let options = WriteOptions::default();
    let written = fixture.registry.patch(&target, None, PatchType::Merge, patch.as_bytes(), &options).await?;
    Ok(written.warnings)
}

/// A fixture with a namespace of these labels, in which pods can be made.
async fn with_namespace(name: &str, labels: &[(&str, &str)]) -> Fixture {
    let fixture = Fixture::open().await;
    fixture.create("v1/namespaces", "", namespace(name, labels)).await.unwrap();
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
    fixture.create("v1/serviceaccounts", name, account).await.unwrap();
    fixture
}

#[tokio::test]
async fn pods_that_violate_what_is_enforced_are_refused() {
    let fixture = with_namespace("n", &[("enforce", "restricted")]).await;
    let error = create(&fixture, "v1/pods", "n", pod("a")).await.unwrap_err();
    assert_eq!(
        (error.code, error.message),
        (403, format!("pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": {BROKEN}"))
    );
    let mut hardened = pod("b");
    hardened["spec"]["securityContext"] =
        json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    hardened["spec"]["containers"][0]["securityContext"] =
        json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    assert_eq!(create(&fixture, "v1/pods", "n", hardened).await.unwrap(), [""; 0]);
    // Templates are enforced when pods are made of them; whoever only enforces is warned of them all the same.
    let expect = format!("would violate PodSecurity \"restricted:latest\": {BROKEN}");
    assert_eq!(create(&fixture, "apps/v1/deployments", "n", deployment("d", json!(1))).await.unwrap(), [expect]);
    // Other namespaces are left alone.
    assert_eq!(create(&fixture, "v1/pods", "default", privileged("a")).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn pods_and_templates_are_warned_of() {
    let fixture =
        with_namespace("n", &[("enforce", "baseline"), ("warn", "restricted"), ("warn-version", "v1.36")]).await;
    let expect = format!("would violate PodSecurity \"restricted:v1.36\": {BROKEN}");
    assert_eq!(create(&fixture, "v1/pods", "n", pod("a")).await.unwrap(), [expect.as_str()]);
    let error = create(&fixture, "v1/pods", "n", privileged("b")).await.unwrap_err();
    assert_eq!(
        error.message,
        "pods \"b\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"main\" must not set \
         securityContext.privileged=true)"
    );
    let template = deployment("w", json!(1))["spec"]["template"].clone();
    let selector = json!({ "matchLabels": { "app": "w" } });
    let mut job = template.clone();
    job["spec"]["restartPolicy"] = "Never".into();
    for (path, kind, content) in [
        ("v1/podtemplates", "PodTemplate", json!({ "template": template })),
        (
            "v1/replicationcontrollers",
            "ReplicationController",
            json!({ "spec": { "selector": { "app": "w" }, "template": template } }),
        ),
        ("apps/v1/replicasets", "ReplicaSet", json!({ "spec": { "selector": selector, "template": template } })),
        ("apps/v1/deployments", "Deployment", json!({ "spec": { "selector": selector, "template": template } })),
        ("apps/v1/daemonsets", "DaemonSet", json!({ "spec": { "selector": selector, "template": template } })),
        (
            "apps/v1/statefulsets",
            "StatefulSet",
            json!({ "spec": { "serviceName": "w", "selector": selector, "template": template } }),
        ),
        ("batch/v1/jobs", "Job", json!({ "spec": { "template": job } })),
        (
            "batch/v1/cronjobs",
            "CronJob",
            json!({ "spec": { "schedule": "* * * * *", "jobTemplate": { "spec": { "template": job } } } }),
        ),
    ] {
        let mut workload = content;
        workload["apiVersion"] = path.rsplit_once('/').unwrap().0.into();
        workload["kind"] = kind.into();
        workload["metadata"] = json!({ "name": "w" });
        let warnings = create(&fixture, path, "n", workload).await.unwrap();
        assert!(warnings.contains(&expect), "{path}: {warnings:?}");
    }
}

#[tokio::test]
async fn updates_are_looked_at_when_they_change_what_runs() {
    let fixture = with_namespace("n", &[]).await;
    create(&fixture, "v1/pods", "n", privileged("a")).await.unwrap();
    label(&fixture, "n", json!({ "pod-security.kubernetes.io/enforce": "baseline" })).await.unwrap();
    let target = fixture.target("v1/pods", "n", "a");
    fixture.merge(&target, json!({ "metadata": { "labels": { "a": "b" } } })).await.unwrap();
    let image = json!([{ "op": "replace", "path": "/spec/containers/0/image", "value": "other" }]);
    let error = fixture.patch(&target, PatchType::Json, image).await.unwrap_err();
    assert!(error.message.contains("violates PodSecurity \"baseline:latest\": privileged"), "{error}");

    create(&fixture, "v1/pods", "n", pod("b")).await.unwrap();
    let target = fixture.target("v1/pods", "n", "b");
    let mut debugged = fixture.get(&target).await.unwrap();
    let debugger = json!({ "name": "e", "image": "i", "securityContext": { "privileged": true } });
    debugged["spec"]["ephemeralContainers"] = json!([debugger]);
    let error = fixture.update_sub(&target, Subresource::EphemeralContainers, &debugged).await.unwrap_err();
    assert!(error.message.contains("container \"e\" must not set securityContext.privileged=true"), "{error}");
    debugged["spec"]["ephemeralContainers"] = json!([{ "name": "e", "image": "i" }]);
    fixture.update_sub(&target, Subresource::EphemeralContainers, &debugged).await.unwrap();
    // What the kubelet tells of a pod is no matter of what it may do.
    let status =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" }, "status": { "phase": "Running" } });
    fixture.update_sub(&fixture.target("v1/pods", "n", "a"), Subresource::Status, &status).await.unwrap();
}

#[tokio::test]
async fn labels_that_are_wrong_are_refused() {
    let fixture = Fixture::open().await;
    let expect = |key: &str, value: &str, why: &str| {
        let label = format!("metadata.labels[pod-security.kubernetes.io/{key}]");
        (422, format!("Namespace \"n\" is invalid: {label}: Invalid value: \"{value}\": {why}"))
    };
    let levels = expect("enforce", "strict", "must be one of privileged, baseline, restricted");
    let error = create(&fixture, "v1/namespaces", "", namespace("n", &[("enforce", "strict")])).await.unwrap_err();
    assert_eq!((error.code, error.message), levels);
    fixture.create("v1/namespaces", "", namespace("n", &[])).await.unwrap();
    let error = label(&fixture, "n", json!({ "pod-security.kubernetes.io/enforce": "strict" })).await.unwrap_err();
    assert_eq!((error.code, error.message), levels);
    let error = label(&fixture, "n", json!({ "pod-security.kubernetes.io/audit-version": "1.2" })).await.unwrap_err();
    assert_eq!((error.code, error.message), expect("audit-version", "1.2", r#"must be "latest" or "v1.x""#));
    label(&fixture, "n", json!({ "pod-security.kubernetes.io/audit": "restricted" })).await.unwrap();
}

#[tokio::test]
async fn whoever_makes_a_namespace_stricter_is_warned_of_its_pods() {
    let fixture = with_namespace("n", &[]).await;
    for name in ["b", "a"] {
        create(&fixture, "v1/pods", "n", privileged(name)).await.unwrap();
    }
    let mut host = pod("c");
    host["spec"]["hostNetwork"] = true.into();
    create(&fixture, "v1/pods", "n", host).await.unwrap();
    create(&fixture, "v1/pods", "n", pod("d")).await.unwrap();
    let enforce = |level: Value| json!({ "pod-security.kubernetes.io/enforce": level });
    assert_eq!(
        label(&fixture, "n", enforce(json!("baseline"))).await.unwrap(),
        [
            "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): privileged",
            "c: host namespaces",
        ]
    );
    assert_eq!(label(&fixture, "n", enforce(json!("baseline"))).await.unwrap(), [""; 0], "nothing changes");
    assert_eq!(label(&fixture, "n", enforce(Value::Null)).await.unwrap(), [""; 0], "everything is allowed again");
    let warn = json!({ "pod-security.kubernetes.io/warn": "restricted" });
    assert_eq!(label(&fixture, "n", warn).await.unwrap(), [""; 0], "nothing is enforced");
    let made = fixture.create("v1/namespaces", "", namespace("m", &[("enforce", "restricted")])).await.unwrap();
    assert_eq!(made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
}

#[tokio::test]
async fn a_configuration_sets_the_defaults_and_exempts() {
    let configuration = PodSecurityConfiguration::read(&json!({
        "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
        "defaults": { "enforce": "baseline" },
        "exemptions": { "usernames": ["ann"], "runtimeClasses": [], "namespaces": ["kube-system"] },
    }));
    let pod_security = Some(configuration.unwrap());
    let fixture = Fixture::with_admission(AdmissionConfig { pod_security, ..AdmissionConfig::default() }).await;

    let error = create(&fixture, "v1/pods", "default", privileged("a")).await.unwrap_err();
    assert!(error.message.contains("violates PodSecurity \"baseline:latest\""), "{error}");
    create(&fixture, "v1/pods", "kube-system", privileged("a")).await.unwrap();
    let options = WriteOptions { user: Arc::new(User::new("ann", &[])), ..WriteOptions::default() };
    fixture.create_with("v1/pods", "default", privileged("c"), &options).await.unwrap();
    label(&fixture, "default", json!({ "pod-security.kubernetes.io/enforce": "privileged" })).await.unwrap();
    create(&fixture, "v1/pods", "default", privileged("d")).await.unwrap();
    // Of what is exempt nobody is warned.
    assert_eq!(
        label(&fixture, "default", json!({ "pod-security.kubernetes.io/enforce": "baseline" })).await.unwrap(),
        [
            "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "c (and 1 other pod): privileged",
        ]
    );
    assert_eq!(
        label(&fixture, "kube-system", json!({ "pod-security.kubernetes.io/enforce": "restricted" })).await.unwrap(),
        [""; 0]
    );
}
