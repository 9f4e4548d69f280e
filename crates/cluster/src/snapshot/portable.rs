//! Objects as another cluster, of whatever make, takes them: what somebody wrote, without what a cluster makes of it by itself.

use std::collections::BTreeSet;

use machinery::well_known::{NODE_LEASES, PROVISIONED_BY, PROVISIONER, SELECTED_NODE, SERVICE_ACCOUNT_TOKEN};
use serde_json::{Map, Value};
use store::Key;

/// Resources whose objects are a cluster's own account of itself.
const ACCOUNTS: [&str; 11] = [
    "core/events",
    "events.k8s.io/events",
    "core/nodes",
    "core/endpoints",
    "discovery.k8s.io/endpointslices",
    "coordination.k8s.io/leases",
    "apps/controllerrevisions",
    "storage.k8s.io/csinodes",
    "storage.k8s.io/volumeattachments",
    "certificates.k8s.io/certificatesigningrequests",
    "networking.k8s.io/ipaddresses",
];
/// Namespaces that every cluster has; those but `default` are its own.
const OWN_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", NODE_LEASES];
/// Labels of what a cluster writes at its start.
const MADE_AT_START: [&str; 3] =
    ["kubernetes.io/bootstrapping", "kube-aggregator.kubernetes.io/automanaged", addons::LABEL];
/// What the server says in an object's metadata. Finalizers are set again by whoever heeds them.
const SERVERS: [&str; 9] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
    "ownerReferences",
    "finalizers",
    "deletionGracePeriodSeconds",
];
const API_ACCESS: &str = "kube-api-access-";

/// The object without what is of one cluster alone; none where there is no more to it than that. `classes` are the cluster's own
/// StorageClasses: another cluster's default takes their place.
pub(super) fn portable(key: &Key, mut object: Value, classes: &BTreeSet<String>) -> Option<Value> {
    if is_own(key, &object) {
        return None;
    }
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    for field in SERVERS {
        metadata.remove(field);
    }
    without(metadata, "labels", |label| label == "kubernetes.io/metadata.name");
    without(metadata, "annotations", |annotation| {
        annotation == SELECTED_NODE
            || annotation == "deployment.kubernetes.io/revision"
            || annotation == "kubectl.kubernetes.io/last-applied-configuration"
            || ["pv.kubernetes.io/", "volume.kubernetes.io/", "volume.beta.kubernetes.io/"]
                .iter()
                .any(|prefix| annotation.starts_with(prefix))
    });
    object.as_object_mut()?.remove("status");
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        clear_spec(&key.resource, spec);
        let own = |spec: &Map<String, Value>| {
            spec.get("storageClassName").and_then(Value::as_str).is_some_and(|class| classes.contains(class))
        };
        let templates = spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten();
        for claim in templates.filter_map(|claim| claim["spec"].as_object_mut()).filter(|claim| own(claim)) {
            claim.remove("storageClassName");
        }
        if &*key.resource == "core/persistentvolumeclaims" && own(spec) {
            spec.remove("storageClassName");
        }
    }
    Some(object)
}

/// Whether an object is a StorageClass of the cluster's own.
pub(super) fn is_own_class(key: &Key, object: &Value) -> bool {
    &*key.resource == "storage.k8s.io/storageclasses" && object["provisioner"] == PROVISIONER
}

/// In which order objects are written: what others need comes first, and what can refuse others comes last.
pub(super) fn rank(key: &Key) -> (u8, &Key) {
    let rank = match &*key.resource {
        "core/namespaces" => 0,
        "apiextensions.k8s.io/customresourcedefinitions" => 1,
        "core/serviceaccounts" | "core/secrets" | "core/configmaps" | "core/persistentvolumeclaims" => 3,
        resource if resource.starts_with("admissionregistration.k8s.io/") => 5,
        "apiregistration.k8s.io/apiservices" => 5,
        _ if key.namespace.is_empty() => 2,
        _ => 4,
    };
    (rank, key)
}

/// Whether a cluster has or makes it by itself.
fn is_own(key: &Key, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let is_owned = metadata["ownerReferences"].as_array().is_some_and(|owners| {
        // Another cluster's controller makes it from what it is owned by.
        owners.iter().any(|owner| owner["controller"] == true)
    });
    let has_label = MADE_AT_START.iter().any(|label| metadata["labels"].get(label).is_some());
    let name = &*key.name;
    is_owned
        || has_label
        || metadata.get("deletionTimestamp").is_some()
        || ACCOUNTS.contains(&&*key.resource)
        || OWN_NAMESPACES.contains(&&*key.namespace)
        || key.resource.starts_with("flowcontrol.apiserver.k8s.io/")
        || match &*key.resource {
            "core/namespaces" => OWN_NAMESPACES.contains(&name) || name == "default",
            "core/services" => &*key.namespace == "default" && name == "kubernetes",
            "core/serviceaccounts" => name == "default",
            "core/configmaps" => name == "kube-root-ca.crt",
            "core/secrets" => object["type"] == SERVICE_ACCOUNT_TOKEN,
            "core/persistentvolumes" => metadata["annotations"].get(PROVISIONED_BY).is_some(),
            "storage.k8s.io/storageclasses" => is_own_class(key, object),
            "networking.k8s.io/ingressclasses" => object["spec"]["controller"] == gateway::INGRESS_CONTROLLER,
            "scheduling.k8s.io/priorityclasses" => name.starts_with("system-"),
            _ => false,
        }
}

/// Removes what the server, a controller or the scheduler has chosen.
fn clear_spec(resource: &str, spec: &mut Map<String, Value>) {
    match resource {
        "core/namespaces" => {
            spec.remove("finalizers");
        }
        "core/services" => {
            if spec.get("clusterIP").is_none_or(|address| address != "None") {
                spec.remove("clusterIP");
                spec.remove("clusterIPs");
            }
            spec.remove("healthCheckNodePort");
        }
        "core/persistentvolumeclaims" => {
            spec.remove("volumeName");
        }
        "core/persistentvolumes" => {
            if let Some(claim) = spec.get_mut("claimRef").and_then(Value::as_object_mut) {
                claim.remove("uid");
                claim.remove("resourceVersion");
            }
        }
        "core/pods" => clear_pod(spec),
        "batch/jobs" if spec.get("manualSelector").is_none_or(|manual| manual != true) => {
            spec.remove("selector");
            if let Some(template) = spec.get_mut("template").and_then(|template| template["metadata"].as_object_mut()) {
                without(template, "labels", |label| {
                    let name = label.strip_prefix("batch.kubernetes.io/").unwrap_or(label);
                    ["controller-uid", "job-name"].contains(&name)
                });
            }
        }
        _ => {}
    }
}

/// Removes where a pod was placed, and the token that it was given.
fn clear_pod(spec: &mut Map<String, Value>) {
    for field in ["nodeName", "priority", "preemptionPolicy", "serviceAccount"] {
        spec.remove(field);
    }
    let keep = |list: Option<&mut Value>, field: &str| {
        if let Some(items) = list.and_then(Value::as_array_mut) {
            items.retain(|item| !item[field].as_str().is_some_and(|name| name.starts_with(API_ACCESS)));
        }
    };
    keep(spec.get_mut("volumes"), "name");
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            keep(container.get_mut("volumeMounts"), "name");
        }
    }
    if let Some(tolerations) = spec.get_mut("tolerations").and_then(Value::as_array_mut) {
        tolerations.retain(|toleration| {
            let key = toleration["key"].as_str().unwrap_or_default();
            let is_default = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"].contains(&key);
            !(is_default && toleration["tolerationSeconds"] == 300)
        });
    }
}

/// Removes what is called so from a map of the metadata, and the map when nothing is left.
fn without(metadata: &mut Map<String, Value>, map: &str, is_meant: impl Fn(&str) -> bool) {
    let Some(entries) = metadata.get_mut(map).and_then(Value::as_object_mut) else { return };
    entries.retain(|name, _| !is_meant(name));
    if entries.is_empty() {
        metadata.remove(map);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(resource: &str, namespace: &str, name: &str) -> Key {
        Key::new(resource, namespace, name)
    }

    #[test]
    fn what_a_cluster_makes_by_itself_stays_there() {
        let plain = || json!({ "metadata": {} });
        for (key, object) in [
            (key("core/namespaces", "", "kube-system"), plain()),
            (key("core/namespaces", "", "default"), plain()),
            (key("core/configmaps", "kube-system", "mine"), plain()),
            (key("core/configmaps", "a", "kube-root-ca.crt"), plain()),
            (key("core/serviceaccounts", "a", "default"), plain()),
            (key("core/services", "default", "kubernetes"), plain()),
            (key("core/nodes", "", "dev"), plain()),
            (key("core/events", "a", "b"), plain()),
            (key("core/secrets", "a", "b"), json!({ "metadata": {}, "type": "kubernetes.io/service-account-token" })),
            (
                key("core/pods", "a", "b"),
                json!({ "metadata": { "ownerReferences": [{ "kind": "Job", "controller": true }] } }),
            ),
            (key("core/pods", "a", "b"), json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })),
            (
                key("rbac.authorization.k8s.io/clusterroles", "", "admin"),
                json!({ "metadata": { "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" } } }),
            ),
            (
                key("core/persistentvolumes", "", "a"),
                json!({ "metadata": { "annotations": { PROVISIONED_BY: PROVISIONER } } }),
            ),
            (
                key("storage.k8s.io/storageclasses", "", "standard"),
                json!({ "metadata": {}, "provisioner": PROVISIONER }),
            ),
            (key("flowcontrol.apiserver.k8s.io/flowschemas", "", "mine"), plain()),
        ] {
            assert_eq!(portable(&key, object, &BTreeSet::new()), None, "{key}");
        }
        for key in [
            key("core/namespaces", "", "mine"),
            key("core/configmaps", "default", "mine"),
            key("core/services", "a", "kubernetes"),
            key("rbac.authorization.k8s.io/clusterroles", "", "mine"),
            key("example.com/widgets", "a", "default"),
        ] {
            assert_eq!(portable(&key, plain(), &BTreeSet::new()), Some(plain()), "{key}");
        }
    }

    #[test]
    fn what_the_servers_say_is_left_out() {
        let check = |resource: &str, object: Value, expected: Value| {
            let own = BTreeSet::from(["standard".to_owned()]);
            assert_eq!(portable(&key(resource, "a", "b"), object, &own), Some(expected), "{resource}");
        };
        check(
            "core/configmaps",
            json!({ "kind": "ConfigMap", "metadata": {
                "name": "b", "namespace": "a", "uid": "1", "resourceVersion": "2", "creationTimestamp": "x", "managedFields": [],
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1" },
                "ownerReferences": [{ "kind": "Widget" }], "finalizers": ["a/b"],
            }, "data": { "a": "b" } }),
            json!({ "kind": "ConfigMap", "metadata": { "name": "b", "namespace": "a", "annotations": { "mine": "1" } }, "data": { "a": "b" } }),
        );
        let service = |spec: Value| json!({ "metadata": {}, "spec": spec });
        check(
            "core/services",
            json!({ "metadata": {}, "spec": { "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "type": "ClusterIP" }, "status": {} }),
            service(json!({ "type": "ClusterIP" })),
        );
        let headless = service(json!({ "clusterIP": "None", "clusterIPs": ["None"] }));
        check("core/services", headless.clone(), headless);
        check(
            "core/persistentvolumeclaims",
            json!({ "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes" } }, "spec": { "volumeName": "x", "storageClassName": "standard" } }),
            service(json!({})),
        );
        let claims = |class: Value| service(json!({ "volumeClaimTemplates": [{ "spec": class }] }));
        let own = claims(json!({ "storageClassName": "standard" }));
        check("apps/statefulsets", own, claims(json!({})));
        let fast = claims(json!({ "storageClassName": "fast" }));
        check("apps/statefulsets", fast.clone(), fast);
        check(
            "core/pods",
            service(json!({
                "nodeName": "dev", "volumes": [{ "name": "kube-api-access-x" }, { "name": "data" }],
                "containers": [{ "name": "a", "volumeMounts": [{ "name": "kube-api-access-x" }, { "name": "data" }] }],
                "tolerations": [{ "key": "node.kubernetes.io/not-ready", "tolerationSeconds": 300 }, { "key": "mine" }],
            })),
            service(json!({
                "volumes": [{ "name": "data" }], "containers": [{ "name": "a", "volumeMounts": [{ "name": "data" }] }],
                "tolerations": [{ "key": "mine" }],
            })),
        );
        let job = |manual: bool| {
            let labels = json!({ "batch.kubernetes.io/controller-uid": "1", "controller-uid": "1", "job-name": "b", "app": "x" });
            service(
                json!({ "manualSelector": manual, "selector": { "a": "b" }, "template": { "metadata": { "labels": labels } } }),
            )
        };
        let bare = json!({ "manualSelector": false, "template": { "metadata": { "labels": { "app": "x" } } } });
        check("batch/jobs", job(false), service(bare));
        check("batch/jobs", job(true), job(true));
    }

    #[test]
    fn what_others_need_comes_first() {
        let mut keys = [
            key("admissionregistration.k8s.io/validatingwebhookconfigurations", "", "a"),
            key("apps/deployments", "a", "a"),
            key("core/configmaps", "a", "a"),
            key("core/namespaces", "", "a"),
            key("apiextensions.k8s.io/customresourcedefinitions", "", "a"),
            key("scheduling.k8s.io/priorityclasses", "", "a"),
        ];
        keys.sort_by(|one, other| rank(one).cmp(&rank(other)));
        let order = keys.each_ref().map(|key| key.resource.rsplit_once('/').map_or("", |(_, resource)| resource));
        let expected = [
            "namespaces",
            "customresourcedefinitions",
            "priorityclasses",
            "configmaps",
            "deployments",
            "validatingwebhookconfigurations",
        ];
        assert_eq!(order, expected);
    }
}
