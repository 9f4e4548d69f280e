//! The objects that a RoleBasedGroup is made of, as they are applied. Names, labels and environment are the published ones.

use serde_json::{Map, Value, json};

use super::role::{Role, Workload, group_size, patched, ports, service_name};
use crate::owner::Owner;

const NAME: &str = "rolebasedgroup.workloads.x-k8s.io/name";
const ROLE: &str = "rolebasedgroup.workloads.x-k8s.io/role";
const GROUP_KEY: &str = "rolebasedgroup.workloads.x-k8s.io/group-unique-key";
const ROLE_SIZE: &str = "rolebasedgroup.workloads.x-k8s.io/role-size";
/// The label of a Pod with the name of its gang.
const POD_GROUP: &str = "pod-group.scheduling.sigs.k8s.io/name";
/// The same for Volcano, as an annotation.
const VOLCANO_GROUP: &str = "scheduling.k8s.io/group-name";
const CONFIG_VOLUME: &str = "rbg-cluster-config";

/// The label by which everything of a group is found.
pub(crate) const GROUP_LABEL: &str = NAME;
/// The label with the role of a Pod or workload.
pub(crate) const ROLE_LABEL: &str = ROLE;

/// The name of a role's workload.
pub(crate) fn workload_name(owner: &Owner, role: Role<'_>) -> String {
    format!("{}-{}", owner.name(), role.name())
}

fn labels(owner: &Owner, role: Role<'_>) -> Map<String, Value> {
    let key = machinery::hash::fnv32a(format!("{}/{}", owner.key.namespace, owner.name()).as_bytes());
    let mut labels = Map::new();
    labels.insert(NAME.to_owned(), owner.name().into());
    labels.insert(ROLE.to_owned(), role.name().into());
    labels.insert(GROUP_KEY.to_owned(), format!("{key:08x}").into());
    labels
}

fn child<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    let slot = &mut value[key];
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(members) => members,
        _ => unreachable!("it has just been made one"),
    }
}

/// A Pod template that knows its group: labels, environment, the file with everybody's addresses, the gang.
fn template(owner: &Owner, spec: &Value, role: Role<'_>, workload: Workload) -> Result<Value, String> {
    let mut template = role.template(spec)?;
    let metadata = child(&mut template, "metadata");
    let mut metadata_value = Value::Object(std::mem::take(metadata));
    child(&mut metadata_value, "labels").extend(labels(owner, role));
    if spec["podGroupPolicy"]["kubeScheduling"].is_object() {
        child(&mut metadata_value, "labels").insert(POD_GROUP.to_owned(), owner.name().into());
    } else if spec["podGroupPolicy"]["volcanoScheduling"].is_object() {
        child(&mut metadata_value, "annotations").insert(VOLCANO_GROUP.to_owned(), owner.name().into());
    }
    template["metadata"] = metadata_value;
    let mut variables = vec![
        json!({ "name": "GROUP_NAME", "value": owner.name() }),
        json!({ "name": "RBG_GROUP_NAME", "value": owner.name() }),
        json!({ "name": "RBG_ROLE_NAME", "value": role.name() }),
        json!({ "name": "ROLE_NAME", "value": role.name() }),
    ];
    if workload != Workload::Deployment {
        let index = json!({ "fieldRef": { "fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']" } });
        variables.push(json!({ "name": "RBG_ROLE_INDEX", "valueFrom": index }));
        variables.push(json!({ "name": "ROLE_INDEX", "valueFrom": index }));
    }
    let body = &mut template["spec"];
    for container in body["containers"].as_array_mut().into_iter().flatten() {
        append(container, "env", &variables);
        append(
            container,
            "volumeMounts",
            &[json!({ "name": CONFIG_VOLUME, "mountPath": "/etc/rbg", "readOnly": true })],
        );
    }
    let items = json!([{ "key": "config.yaml", "path": "config.yaml" }]);
    append(body, "volumes", &[json!({ "name": CONFIG_VOLUME, "configMap": { "name": owner.name(), "items": items } })]);
    Ok(template)
}

/// Appends items to a list, except those whose names are there already.
fn append(object: &mut Value, field: &str, items: &[Value]) {
    let mut list = object[field].as_array().cloned().unwrap_or_default();
    for item in items {
        if !list.iter().any(|known| known["name"] == item["name"]) {
            list.push(item.clone());
        }
    }
    object[field] = list.into();
}

/// The workload of a role.
///
/// # Errors
/// What is wrong with the role.
pub(crate) fn workload(owner: &Owner, spec: &Value, role: Role<'_>) -> Result<Value, String> {
    let kind = role.workload()?;
    let template = template(owner, spec, role, kind)?;
    let (labels, rolling) = (labels(owner, role), &role.0["rolloutStrategy"]["rollingUpdate"]);
    let mut own_labels = role.0["labels"].as_object().cloned().unwrap_or_default();
    own_labels.extend(labels.clone());
    let mut annotations = role.0["annotations"].as_object().cloned().unwrap_or_default();
    annotations.insert(ROLE_SIZE.to_owned(), role.replicas().to_string().into());
    let metadata = json!({
        "name": workload_name(owner, role), "namespace": owner.key.namespace, "labels": own_labels,
        "annotations": annotations, "ownerReferences": [owner.controller],
    });
    let mut update = Map::new();
    let mut take = |fields: &[&str]| {
        for field in fields {
            if !rolling[*field].is_null() {
                update.insert((*field).to_owned(), rolling[*field].clone());
            }
        }
        Value::Object(std::mem::take(&mut update))
    };
    let selector = json!({ "matchLabels": labels });
    Ok(match kind {
        Workload::Deployment => json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {
                "replicas": role.replicas(), "selector": selector, "template": template,
                "minReadySeconds": role.0["minReadySeconds"].as_i64().unwrap_or_default(),
                "strategy": { "type": "RollingUpdate", "rollingUpdate": take(&["maxUnavailable", "maxSurge"]) },
            },
        }),
        Workload::StatefulSet => json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata,
            "spec": {
                "replicas": role.replicas(), "selector": selector, "template": template,
                "serviceName": service_name(owner.name(), role.name()), "podManagementPolicy": "Parallel",
                "minReadySeconds": role.0["minReadySeconds"].as_i64().unwrap_or_default(),
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": take(&["maxUnavailable", "partition"]) },
            },
        }),
        Workload::LeaderWorkerSet => {
            let pattern = role.leader_worker();
            let differ = |now: &str, later: &str| {
                let patch = if pattern[now].is_object() { &pattern[now] } else { &pattern[later] };
                patched(&template, patch).map_err(|error| format!("role {:?}: {now}: {error}", role.name()))
            };
            let policy = if role.0["restartPolicy"] == "None" { "None" } else { "RecreateGroupOnPodRestart" };
            json!({
                "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": metadata,
                "spec": {
                    "replicas": role.replicas(), "startupPolicy": "LeaderCreated",
                    "rolloutStrategy": {
                        "type": "RollingUpdate",
                        "rollingUpdateConfiguration": take(&["maxUnavailable", "maxSurge", "partition"]),
                    },
                    "leaderWorkerTemplate": {
                        "size": role.size(), "restartPolicy": policy,
                        "leaderTemplate": differ("patchLeaderTemplate", "leaderTemplatePatch")?,
                        "workerTemplate": differ("patchWorkerTemplate", "workerTemplatePatch")?,
                    },
                },
            })
        }
    })
}

/// The headless service of a role whose Pods have names.
pub(crate) fn service(owner: &Owner, role: Role<'_>) -> Value {
    let mut spec = json!({ "clusterIP": "None", "selector": labels(owner, role), "publishNotReadyAddresses": true });
    if let ports @ Value::Array(_) = ports(role) {
        spec["ports"] = ports;
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": service_name(owner.name(), role.name()), "namespace": owner.key.namespace,
            "labels": labels(owner, role), "ownerReferences": [owner.controller],
        },
        "spec": spec,
    })
}

/// The ConfigMap with everybody's addresses.
pub(crate) fn config_map(owner: &Owner, spec: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": owner.name(), "namespace": owner.key.namespace, "labels": { NAME: owner.name() },
            "ownerReferences": [owner.controller],
        },
        "data": { "config.yaml": super::role::config(owner.name(), spec) },
    })
}

/// The gang of all Pods of the group, if it is to be one.
pub(crate) fn pod_group(owner: &Owner, spec: &Value) -> Option<Value> {
    let metadata =
        json!({ "name": owner.name(), "namespace": owner.key.namespace, "ownerReferences": [owner.controller] });
    let policy = &spec["podGroupPolicy"];
    if let Some(gang) = policy["kubeScheduling"].as_object() {
        let timeout = gang.get("scheduleTimeoutSeconds").and_then(Value::as_i64).filter(|seconds| *seconds > 0);
        return Some(json!({
            "apiVersion": "scheduling.x-k8s.io/v1alpha1", "kind": "PodGroup", "metadata": metadata,
            "spec": { "minMember": group_size(spec), "scheduleTimeoutSeconds": timeout.unwrap_or(60) },
        }));
    }
    let gang = policy["volcanoScheduling"].as_object()?;
    let mut wish = gang.clone();
    wish.insert("minMember".to_owned(), group_size(spec).into());
    Some(json!({
        "apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "PodGroup", "metadata": metadata, "spec": wish,
    }))
}

/// What an autoscaler scales in place of a role.
pub(crate) fn adapter(owner: &Owner, api_version: &str, role: Role<'_>) -> Value {
    json!({
        "apiVersion": api_version, "kind": "RoleBasedGroupScalingAdapter",
        "metadata": {
            "name": workload_name(owner, role), "namespace": owner.key.namespace,
            "labels": { NAME: owner.name(), ROLE: role.name() }, "ownerReferences": [owner.controller],
        },
        "spec": { "scaleTargetRef": { "name": owner.name(), "role": role.name() } },
    })
}

/// The selector of a role's Pods, as text.
pub(crate) fn selector_text(owner: &Owner, role: Role<'_>) -> String {
    format!("{NAME}={},{ROLE}={}", owner.name(), role.name())
}
