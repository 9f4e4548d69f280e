//! The objects that a LeaderWorkerSet is made of: a StatefulSet of leaders, one of workers for each, and the services by
//! which they find each other. Names, labels and annotations are the published ones.

use controllers::meta;
use controllers::owner::Owner;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use crate::api::LeaderWorkerSetSpec;
use crate::labels::{
    EXCLUSIVE, GROUP_INDEX, GROUP_KEY, LEADER_NAME, NAME, REPLICAS, REVISION, SIZE, SUBDOMAIN_POLICY,
    SUBGROUP_EXCLUSIVE, SUBGROUP_SIZE, SUBGROUP_TYPE, WORKER_INDEX,
};

/// A label's value.
pub(crate) fn label<'a>(pod: &'a Pod, key: &str) -> &'a str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(key)).map_or("", String::as_str)
}

/// The annotations of a LeaderWorkerSet that its Pods get too.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExclusiveTopology {
    /// The value of [`EXCLUSIVE`].
    pub(crate) exclusive: Option<String>,
    /// The same for subgroups.
    pub(crate) subgroup_exclusive: Option<String>,
}

impl ExclusiveTopology {
    /// Those among these annotations.
    pub(crate) fn of(annotation: impl Fn(&str) -> Option<String>) -> Self {
        Self { exclusive: annotation(EXCLUSIVE), subgroup_exclusive: annotation(SUBGROUP_EXCLUSIVE) }
    }
}

fn add(object: &mut Value, field: &str, entries: &Map<String, Value>) {
    let Some(object) = object.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        let known = metadata.entry(field).or_insert_with(|| json!({}));
        if let Some(known) = known.as_object_mut() {
            known.extend(entries.clone());
        }
    }
}

fn pod_annotations(spec: &LeaderWorkerSetSpec, topology_keys: &ExclusiveTopology) -> Map<String, Value> {
    let mut annotations = Map::new();
    annotations.insert(SIZE.to_owned(), spec.leader_worker_template.size.to_string().into());
    if let Some(key) = &topology_keys.exclusive {
        annotations.insert(EXCLUSIVE.to_owned(), key.clone().into());
    }
    if let Some((type_, size)) = spec.subgroups() {
        annotations.insert(SUBGROUP_TYPE.to_owned(), type_.as_str().into());
        annotations.insert(SUBGROUP_SIZE.to_owned(), size.to_string().into());
        if let Some(key) = &topology_keys.subgroup_exclusive {
            annotations.insert(SUBGROUP_EXCLUSIVE.to_owned(), key.clone().into());
        }
    }
    annotations
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// The StatefulSet of the leaders, as it is applied.
pub(crate) fn leaders(
    owner: &Owner,
    spec: &LeaderWorkerSetSpec,
    topology_keys: &ExclusiveTopology,
    revision: &str,
    (partition, replicas): (i32, i32),
) -> Value {
    let mut template = spec.leader_template().clone();
    add(&mut template, "labels", &object(json!({ WORKER_INDEX: "0", NAME: owner.name(), REVISION: revision })));
    // The partition says which leaders go; the StatefulSet is not to hold back any of them.
    let (unavailable, surge) = spec.bounds();
    let mut annotations = pod_annotations(spec, topology_keys);
    if spec.has_own_subdomains() {
        annotations.insert(SUBDOMAIN_POLICY.to_owned(), "UniquePerReplica".into());
    }
    add(&mut template, "annotations", &annotations);
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {
            "name": owner.name(), "namespace": owner.key.namespace,
            "labels": { NAME: owner.name(), REVISION: revision },
            "annotations": { REPLICAS: spec.replicas.to_string() },
            "ownerReferences": [owner.controller],
        },
        "spec": {
            "serviceName": owner.name(), "replicas": replicas, "podManagementPolicy": "Parallel",
            "template": template,
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": { "maxUnavailable": unavailable + surge, "partition": partition },
            },
            "selector": { "matchLabels": { NAME: owner.name(), WORKER_INDEX: "0" } },
        },
    });
    let template = &spec.leader_worker_template;
    if let Some(claims) = &template.volume_claim_templates {
        set["spec"]["volumeClaimTemplates"] = json!(claims);
    }
    if let Some(retention) = &template.persistent_volume_claim_retention_policy {
        set["spec"]["persistentVolumeClaimRetentionPolicy"] = json!(retention);
    }
    set
}

/// The StatefulSet of the workers of `leader`. It is the leader's, so that a group comes and goes as a whole.
pub(crate) fn workers(
    name: &str,
    spec: &LeaderWorkerSetSpec,
    topology_keys: &ExclusiveTopology,
    leader: &Pod,
    topology: Option<(&str, &str)>,
) -> Value {
    let group = object(json!({
        GROUP_INDEX: label(leader, GROUP_INDEX), NAME: name, GROUP_KEY: label(leader, GROUP_KEY),
    }));
    let mut labels = group.clone();
    labels.insert(REVISION.to_owned(), label(leader, REVISION).into());
    let mut template = spec.leader_worker_template.worker_template.clone();
    add(&mut template, "labels", &labels);
    let mut annotations = pod_annotations(spec, topology_keys);
    annotations.insert(LEADER_NAME.to_owned(), meta::name(leader).into());
    add(&mut template, "annotations", &annotations);
    if let Some((key, value)) = topology
        && let Some(body) = template.get_mut("spec").and_then(Value::as_object_mut)
        && let Some(selector) = body.entry("nodeSelector").or_insert_with(|| json!({})).as_object_mut()
    {
        // Workers follow their leader into its topology domain.
        selector.insert(key.to_owned(), value.into());
    }
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {
            "name": meta::name(leader), "namespace": meta::namespace(leader), "labels": labels,
            "ownerReferences": [meta::controller_ref(leader)],
        },
        "spec": {
            "serviceName": if spec.has_own_subdomains() { meta::name(leader) } else { name },
            "replicas": spec.leader_worker_template.size - 1, "podManagementPolicy": "Parallel", "ordinals": { "start": 1 },
            "template": template, "selector": { "matchLabels": group },
        },
    })
}

/// The headless service called `name`, for the Pods with these labels.
pub(crate) fn service(name: &str, namespace: &str, selector: &Value, owner: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": namespace, "ownerReferences": [owner] },
        "spec": { "clusterIP": "None", "selector": selector, "publishNotReadyAddresses": true },
    })
}
