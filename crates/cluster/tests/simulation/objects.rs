//! The objects of the story, and what is asked of them.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use crate::world::NAMESPACE;

/// The Deployment.
pub(crate) const WEB: &str = "web";
/// So many pods it may have too many, and so many too few.
pub(crate) const SURGE: usize = 2;
pub(crate) const UNAVAILABLE: usize = 1;
/// The StatefulSet.
pub(crate) const DB: &str = "db";
/// The DaemonSet.
pub(crate) const AGENT: &str = "agent";
/// The ResourceQuota.
pub(crate) const QUOTA: &str = "quota";
/// The label by which a pod names its gang.
pub(crate) const GANG: &str = "scheduling.x-k8s.io/pod-group";

pub(crate) const GPU: &str = "nvidia.com/gpu";

pub(crate) fn template(app: &str, image: usize) -> Value {
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": { "containers": [{
            "name": "main", "image": image.to_string(), "ports": [{ "containerPort": 80 }],
            "resources": { "requests": { "cpu": "100m" } },
        }] },
    })
}

pub(crate) fn namespace() -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } })
}

pub(crate) fn quota(pods: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": QUOTA, "namespace": NAMESPACE },
        "spec": { "hard": { "pods": pods.to_string() } },
    })
}

pub(crate) fn node(name: &str, gpus: usize) -> Value {
    let mut offers = json!({ "cpu": "8", "memory": "32Gi", "pods": "20" });
    if gpus > 0 {
        offers[GPU] = json!(gpus.to_string());
    }
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": { "kwok.x-k8s.io/node": "fake" },
            "labels": { "kubernetes.io/hostname": name },
        },
        "status": { "capacity": offers, "allocatable": offers },
    })
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "clusterIP": "None", "selector": { "app": name }, "ports": [{ "port": 80 }] },
    })
}

pub(crate) fn deployment(replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": WEB, "namespace": NAMESPACE },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": WEB } }, "template": template(WEB, 0),
            "strategy": { "rollingUpdate": { "maxSurge": SURGE, "maxUnavailable": UNAVAILABLE } },
        },
    })
}

pub(crate) fn stateful_set(replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": DB, "namespace": NAMESPACE },
        "spec": {
            "replicas": replicas, "serviceName": DB, "selector": { "matchLabels": { "app": DB } },
            "template": template(DB, 0),
        },
    })
}

pub(crate) fn daemon_set() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": AGENT, "namespace": NAMESPACE },
        "spec": {
            "selector": { "matchLabels": { "app": AGENT } }, "template": template(AGENT, 0),
            "updateStrategy": { "rollingUpdate": { "maxUnavailable": UNAVAILABLE } },
        },
    })
}

/// A change of the image of any of them.
pub(crate) fn with_image(app: &str, image: usize) -> Value {
    json!({ "spec": { "template": template(app, image) } })
}

pub(crate) fn job(name: &str, completions: usize, parallelism: usize) -> Value {
    let mut template = template(name, 0);
    template["spec"]["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "completionMode": "Indexed", "completions": completions, "parallelism": parallelism, "template": template,
        },
    })
}

pub(crate) fn gang(name: &str, members: usize) -> Value {
    json!({
        "apiVersion": "scheduling.x-k8s.io/v1alpha1", "kind": "PodGroup",
        "metadata": { "name": name, "namespace": NAMESPACE }, "spec": { "minMember": members },
    })
}

pub(crate) fn member(gang: &str, number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("{gang}-{number}"), "namespace": NAMESPACE, "labels": { GANG: gang } },
        "spec": { "containers": [{ "name": "main", "image": "0", "resources": { "limits": { GPU: "1" } } }] },
    })
}

/// Kind and name of the controller of a pod.
pub(crate) fn owner(pod: &Pod) -> Option<(&str, &str)> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| (owner.kind.as_str(), owner.name.as_str()))
}

/// The images are numbers that only grow.
pub(crate) fn image(pod: &Pod) -> usize {
    let image = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.as_deref());
    image.and_then(|image| image.parse().ok()).unwrap_or_default()
}

pub(crate) fn ordinal(name: &str) -> Option<usize> {
    name.rsplit_once('-')?.1.parse().ok()
}

/// Its index in an indexed Job.
pub(crate) fn index(pod: &Pod) -> Option<&str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get("batch.kubernetes.io/job-completion-index").map(String::as_str)
}

/// The node that a pod of the DaemonSet is made for.
pub(crate) fn made_for(pod: &Pod) -> Option<&str> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let field = terms.first()?.match_fields.as_ref()?.first()?;
    field.values.as_ref()?.first().map(String::as_str)
}

/// The gang that it names.
pub(crate) fn gang_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(GANG).map(String::as_str)
}

pub(crate) fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed")) && pod.metadata.deletion_timestamp.is_none()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

pub(crate) fn gpus(pod: &Pod) -> f64 {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let limits = containers.iter().filter_map(|container| container.resources.as_ref()?.limits.as_ref());
    limits.filter_map(|limits| limits.get(GPU)).map(amount).sum()
}

pub(crate) fn amount(quantity: &Quantity) -> f64 {
    quantity.0.parse().unwrap_or_default()
}
