//! Clusters, nodes and pods for tests, from as little as a test wants to say.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::framework::Filtering;
use crate::plugins::ROWS;
use crate::profile::Profile;
use crate::schedule::{Decision, Trace, Unschedulable, schedule};
use crate::types::{Candidate, NodeInfo};

/// A node with 2 CPUs, 4 GiB, 10 pods and a GPU, or what `status` says of `allocatable`.
pub(crate) fn node(name: &str, spec: &Value, labels: &Value) -> Arc<Node> {
    sized_node(name, spec, labels, &json!({ "cpu": "2", "memory": "4Gi", "pods": "10", "nvidia.com/gpu": "1" }))
}

/// A node that offers this.
pub(crate) fn sized_node(name: &str, spec: &Value, labels: &Value, offered: &Value) -> Arc<Node> {
    let mut labels = labels.clone();
    labels["kubernetes.io/hostname"] = name.into();
    let node = json!({
        "metadata": { "name": name, "labels": labels }, "spec": spec, "status": { "allocatable": offered },
    });
    Arc::new(serde_json::from_value(node).expect("a node"))
}

/// A pod in the namespace `n`.
pub(crate) fn pod(name: &str, labels: &Value, spec: &Value) -> Candidate {
    pod_with(json!({ "name": name, "labels": labels }), spec)
}

/// A pod with this metadata.
pub(crate) fn pod_with(mut meta: Value, spec: &Value) -> Candidate {
    let mut spec = spec.clone();
    if spec.get("containers").is_none() {
        spec["containers"] = json!([]);
    }
    if meta.get("namespace").is_none() {
        meta["namespace"] = "n".into();
    }
    meta["uid"] = meta["name"].clone();
    let pod = json!({ "metadata": meta, "spec": spec });
    Candidate::new(Arc::new(serde_json::from_value(pod).expect("a pod")))
}

/// A specification that asks for this.
pub(crate) fn asks(requests: Value) -> Value {
    json!({ "containers": [{ "name": "c", "image": "i", "resources": { "requests": requests } }] })
}

/// A cluster of these nodes, with pods on them by the nodes' names.
pub(crate) fn cache(nodes: &[Arc<Node>], pods: &[(&str, &Candidate)]) -> Cache {
    let mut cache = Cache::default();
    for node in nodes {
        cache.set_node(Arc::clone(node));
    }
    for (node, pod) in pods {
        cache.set_pod(node, &pod.pod);
    }
    cache
}

/// The reasons for which the plugin `name` refuses each node; empty where it does not.
pub(crate) fn reasons(name: &str, cache: &Cache, pod: &Candidate) -> Vec<String> {
    let row = ROWS.iter().find(|row| row.name == name).expect("a plugin of that name");
    let plugin = (row.new)(&Value::Null).expect("defaults");
    let nodes: Vec<&NodeInfo> = cache.nodes().collect();
    match plugin.filter(pod, cache) {
        Filtering::Skip => vec![String::new(); nodes.len()],
        Filtering::Refuse(refusal) => vec![refusal.reasons.join(", "); nodes.len()],
        Filtering::Each(check) => {
            let reasons = nodes.iter().map(|node| check.check(node).err().map(|it| it.reasons.join(", ")));
            reasons.map(Option::unwrap_or_default).collect()
        }
    }
}

/// The scores that the plugin `name` gives each node; none where it has no opinion.
pub(crate) fn scores(name: &str, args: &Value, cache: &Cache, pod: &Candidate) -> Vec<i64> {
    let row = ROWS.iter().find(|row| row.name == name).expect("a plugin of that name");
    let plugin = (row.new)(args).expect("arguments");
    let nodes: Vec<&NodeInfo> = cache.nodes().collect();
    plugin.score(pod, cache, &nodes).unwrap_or_default()
}

/// The decision by the default profile.
pub(crate) fn decide(cache: &Cache, pod: &Candidate) -> Result<Decision, Box<Unschedulable>> {
    schedule(cache, &Profile::default(), pod, &mut 0, &mut Trace::default())
}
