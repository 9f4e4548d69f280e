//! The objects that a RoleBasedGroup is made of, as they are applied. Names, labels and environment are the published ones.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::role::{Gang, Group, Role, Workload, patched};

const NAME: &str = "rolebasedgroup.workloads.x-k8s.io/name";
const ROLE: &str = "rolebasedgroup.workloads.x-k8s.io/role";
const GROUP_KEY: &str = "rolebasedgroup.workloads.x-k8s.io/group-unique-key";
const ROLE_SIZE: &str = "rolebasedgroup.workloads.x-k8s.io/role-size";
/// The same labels as v1alpha2 has them. Selectors take the former ones, which must not change.
const LATER: [(&str, &str); 3] = [
    (NAME, "rbg.workloads.x-k8s.io/group-name"),
    (ROLE, "rbg.workloads.x-k8s.io/role-name"),
    (GROUP_KEY, "rbg.workloads.x-k8s.io/group-uid"),
];
const LATER_ROLE_SIZE: &str = "rbg.workloads.x-k8s.io/role-size";
/// A template with one of these keeps out of its group's exclusive topology.
const NOT_EXCLUSIVE: [&str; 2] =
    ["rolebasedgroup.workloads.x-k8s.io/disable-exclusive-topology", "rbg.workloads.x-k8s.io/role-disable-exclusive"];
/// The label of a Pod with the name of its gang.
const POD_GROUP: &str = "pod-group.scheduling.sigs.k8s.io/name";
/// The same for Volcano, as an annotation.
const VOLCANO_GROUP: &str = "scheduling.k8s.io/group-name";
const CONFIG_VOLUME: &str = "rbg-cluster-config";

/// The label by which everything of a group is found.
pub(crate) const GROUP_LABEL: &str = NAME;
/// The label with the role of a Pod or workload.
pub(crate) const ROLE_LABEL: &str = ROLE;

/// By these a role's Pods are selected.
fn selector(group: Group<'_>, role: Role<'_>) -> Map<String, Value> {
    let key = machinery::hash::fnv32a(format!("{}/{}", group.namespace(), group.name()).as_bytes());
    let labels = [(NAME, group.name().to_owned()), (ROLE, role.name().to_owned()), (GROUP_KEY, format!("{key:08x}"))];
    labels.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
}

/// All labels of what a role is made of.
fn labels(group: Group<'_>, role: Role<'_>) -> Map<String, Value> {
    let mut labels = selector(group, role);
    for (label, later) in LATER {
        let value = labels.get(label).cloned().unwrap_or_default();
        labels.insert(later.to_owned(), value);
    }
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
fn template(group: Group<'_>, role: Role<'_>, workload: Workload) -> Result<Value, String> {
    let mut template = role.template(group.spec())?;
    let metadata = child(&mut template, "metadata");
    let mut metadata_value = Value::Object(std::mem::take(metadata));
    child(&mut metadata_value, "labels").extend(labels(group, role));
    match group.gang() {
        Some(Gang::Plugins(_)) => {
            child(&mut metadata_value, "labels").insert(POD_GROUP.to_owned(), group.name().into())
        }
        Some(Gang::Volcano(_)) => {
            child(&mut metadata_value, "annotations").insert(VOLCANO_GROUP.to_owned(), group.name().into())
        }
        None => None,
    };
    let alone = NOT_EXCLUSIVE.iter().all(|key| metadata_value["annotations"][*key] != "true");
    template["metadata"] = metadata_value;
    let plain = [
        ("GROUP_NAME", group.name()),
        ("RBG_GROUP_NAME", group.name()),
        ("RBG_ROLE_NAME", role.name()),
        ("ROLE_NAME", role.name()),
    ];
    let mut variables: Vec<_> = plain.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    if workload.names_pods() {
        let index = json!({ "fieldRef": { "fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']" } });
        variables.extend(["RBG_ROLE_INDEX", "ROLE_INDEX"].map(|name| json!({ "name": name, "valueFrom": index })));
    }
    if workload == Workload::LeaderWorkerSet {
        // What v1alpha2 calls them; the LeaderWorkerSet's own come first in the environment.
        for name in ["LEADER_ADDRESS", "GROUP_SIZE", "WORKER_INDEX"] {
            variables.push(json!({ "name": format!("RBG_LWP_{name}"), "value": format!("$(LWS_{name})") }));
        }
    }
    if let Some(topology) = group.exclusive_topology().filter(|_| alone) {
        let key = selector(group, role).remove(GROUP_KEY).unwrap_or_default();
        keep_apart(child(&mut template["spec"], "affinity"), &key, topology);
    }
    let body = &mut template["spec"];
    for list in ["initContainers", "containers"] {
        for container in body[list].as_array_mut().into_iter().flatten() {
            append(container, "env", &variables);
            let mount = json!({ "name": CONFIG_VOLUME, "mountPath": "/etc/rbg", "readOnly": true });
            append(container, "volumeMounts", &[mount]);
        }
    }
    let items = json!([{ "key": "config.yaml", "path": "config.yaml" }]);
    append(body, "volumes", &[json!({ "name": CONFIG_VOLUME, "configMap": { "name": group.name(), "items": items } })]);
    Ok(template)
}

/// Ties Pods to the topology domain of their group, and keeps those of other groups out of it.
fn keep_apart(affinity: &mut Map<String, Value>, key: &Value, topology: &str) {
    let term = |demands: Value| json!({ "labelSelector": { "matchExpressions": demands }, "topologyKey": topology });
    let near = term(json!([{ "key": GROUP_KEY, "operator": "In", "values": [key] }]));
    let others =
        json!([{ "key": GROUP_KEY, "operator": "Exists" }, { "key": GROUP_KEY, "operator": "NotIn", "values": [key] }]);
    let mut affinity_value = Value::Object(std::mem::take(affinity));
    for (field, term) in [("podAffinity", near), ("podAntiAffinity", term(others))] {
        let terms = &mut affinity_value[field]["requiredDuringSchedulingIgnoredDuringExecution"];
        let mut list = terms.as_array().cloned().unwrap_or_default();
        list.push(term);
        *terms = list.into();
    }
    if let Value::Object(members) = affinity_value {
        *affinity = members;
    }
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
pub(crate) fn workload(group: Group<'_>, role: Role<'_>) -> Result<Value, String> {
    let kind = role.workload()?;
    let template = template(group, role, kind)?;
    let rolling = json!(role.rolling_update());
    let members = |map: &Option<BTreeMap<String, String>>| -> Map<String, Value> {
        map.iter().flatten().map(|(key, value)| (key.clone(), value.as_str().into())).collect()
    };
    let mut own_labels = members(&role.0.base.labels);
    own_labels.extend(labels(group, role));
    let mut annotations = members(&role.0.base.annotations);
    for key in [ROLE_SIZE, LATER_ROLE_SIZE] {
        annotations.insert(key.to_owned(), role.replicas().to_string().into());
    }
    let metadata = json!({
        "name": role.workload_name(group), "namespace": group.namespace(), "labels": own_labels,
        "annotations": annotations, "ownerReferences": [group.owner.controller],
    });
    let take = |fields: &[&str]| {
        let named = fields.iter().filter(|field| !rolling[**field].is_null());
        let mut taken: Map<String, Value> = named.map(|field| ((*field).to_owned(), rolling[*field].clone())).collect();
        if let Some(partition) = taken.get_mut("partition") {
            // Workloads take a number only.
            *partition = role.partition().into();
        }
        Value::Object(taken)
    };
    let selector = json!({ "matchLabels": selector(group, role) });
    let spec = match kind {
        Workload::Deployment => json!({
            "replicas": role.replicas(), "selector": selector, "template": template,
            "minReadySeconds": role.0.base.min_ready_seconds,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": take(&["maxUnavailable", "maxSurge"]) },
        }),
        Workload::StatefulSet => json!({
            "replicas": role.replicas(), "selector": selector, "template": template,
            "serviceName": role.service_name(group),
            "podManagementPolicy": role.0.pod_management_policy,
            "minReadySeconds": role.0.base.min_ready_seconds,
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": take(&["maxUnavailable", "partition"]) },
        }),
        Workload::LeaderWorkerSet => {
            let [of_leader, of_worker] = role.leader_and_worker_patches();
            let differ = |field: &str, patch| {
                patched(&template, patch).map_err(|error| format!("role {:?}: {field}: {error}", role.name()))
            };
            let policy = if role.recreates_instance() { "RecreateGroupOnPodRestart" } else { "None" };
            json!({
                "replicas": role.replicas(), "startupPolicy": "LeaderCreated",
                "rolloutStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdateConfiguration": take(&["maxUnavailable", "maxSurge", "partition"]),
                },
                "leaderWorkerTemplate": {
                    "size": role.size(), "restartPolicy": policy,
                    "leaderTemplate": differ("patchLeaderTemplate", of_leader)?,
                    "workerTemplate": differ("patchWorkerTemplate", of_worker)?,
                },
            })
        }
    };
    Ok(json!({ "apiVersion": kind.api_version(), "kind": kind.kind(), "metadata": metadata, "spec": spec }))
}

/// The headless service of a role whose Pods have names.
pub(crate) fn service(group: Group<'_>, role: Role<'_>) -> Value {
    let mut spec = json!({ "clusterIP": "None", "selector": selector(group, role), "publishNotReadyAddresses": true });
    if !role.ports().is_empty() {
        spec["ports"] = role.ports().into();
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": role.service_name(group), "namespace": group.namespace(),
            "labels": labels(group, role), "ownerReferences": [group.owner.controller],
        },
        "spec": spec,
    })
}

fn metadata(group: Group<'_>) -> Value {
    json!({
        "name": group.name(), "namespace": group.namespace(), "labels": { NAME: group.name() },
        "ownerReferences": [group.owner.controller],
    })
}

/// The ConfigMap with everybody's addresses.
pub(crate) fn config_map(group: Group<'_>) -> Value {
    let data = json!({ "config.yaml": group.config() });
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(group), "data": data })
}

/// The gang of the Pods of the group, if it is to be one.
///
/// Upstream's has all Pods of the group as members, so that roles which wait for others wait for ever. Here it has `members`,
/// those of the roles that have started, and grows with them.
pub(crate) fn pod_group(group: Group<'_>, members: i32) -> Option<Value> {
    let (api_version, mut spec) = match group.gang()? {
        Gang::Plugins(seconds) => ("scheduling.x-k8s.io/v1alpha1", json!({ "scheduleTimeoutSeconds": seconds })),
        Gang::Volcano(spec) => ("scheduling.volcano.sh/v1beta1", json!(spec)),
    };
    spec["minMember"] = members.into();
    Some(json!({ "apiVersion": api_version, "kind": "PodGroup", "metadata": metadata(group), "spec": spec }))
}

/// What an autoscaler scales in place of a role: at first it asks for what there is.
pub(crate) fn adapter(group: Group<'_>, api_version: &str, role: Role<'_>) -> Value {
    json!({
        "apiVersion": api_version, "kind": "RoleBasedGroupScalingAdapter",
        "metadata": {
            "name": role.workload_name(group), "namespace": group.namespace(),
            "labels": labels(group, role), "ownerReferences": [group.owner.controller],
        },
        "spec": { "replicas": role.replicas(), "scaleTargetRef": { "name": group.name(), "role": role.name() } },
    })
}

/// The selector of a role's Pods, as text: of those that stand for an instance each.
pub(crate) fn selector_text(group: Group<'_>, role: Role<'_>) -> String {
    let leaders = if role.workload() == Ok(Workload::LeaderWorkerSet) {
        ",leaderworkerset.sigs.k8s.io/worker-index=0"
    } else {
        ""
    };
    format!("{NAME}={},{ROLE}={}{leaders}", group.name(), role.name())
}
