//! The definitions are the published ones, and take what the project's manifests look like.

use addons::testing::{check_manifest, difference};
use serde_json::{Value, json};

use super::ADDON;

#[test]
fn definitions_have_the_facts_that_they_were_published_with() {
    assert_eq!(difference(&ADDON, include_str!("published.txt")), "");
}

#[test]
fn manifests_are_taken() {
    let check = |version: &str, spec: Value, defaulted: &[(&str, Value)]| {
        check_manifest(&ADDON, "RoleBasedGroup", version, &spec, defaulted);
    };
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "main", "image": "nginx" }] } });
    check(
        "v1alpha1",
        json!({
            "podGroupPolicy": { "kubeScheduling": {} },
            "roles": [{ "name": "web", "replicas": 1, "template": template, "dependencies": ["db"] },
                { "name": "db", "workload": { "apiVersion": "apps/v1", "kind": "Deployment" }, "template": template }],
        }),
        &[
            ("/spec/roles/0/workload/kind", json!("StatefulSet")),
            ("/spec/roles/1/workload/kind", json!("Deployment")),
            ("/spec/roles/1/replicas", json!(1)),
            ("/spec/podGroupPolicy/kubeScheduling/scheduleTimeoutSeconds", json!(60)),
        ],
    );
    check(
        "v1alpha2",
        json!({ "roles": [{ "name": "web", "standalonePattern": { "template": template } }] }),
        &[("/spec/roles/0/podManagementPolicy", json!("Parallel"))],
    );
}
