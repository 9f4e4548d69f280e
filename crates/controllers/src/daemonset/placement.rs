//! On which nodes a DaemonSet's Pods belong, and how a Pod is tied to its node.

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use machinery::placement::{NAME_FIELD, taints, tolerates, wants_node};

use crate::{meta, pods};

/// What a Pod of the set does on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It belongs there.
    Run,
    /// It would not be put there now, but one that is there may stay.
    Stay,
    /// It has no business there.
    No,
}

/// What a Pod with the set's specification, `spec`, does on `node`. `spec` has the tolerations already.
pub fn place(spec: &PodSpec, node: &Node) -> Place {
    let bound = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if bound.is_some_and(|name| name != meta::name(node)) || !wants_node(spec, node) {
        return Place::No;
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let repelled_by =
        |effect: &str| taints(node).iter().any(|taint| taint.effect == effect && !tolerates(tolerations, taint));
    match (repelled_by("NoExecute"), repelled_by("NoSchedule")) {
        (true, _) => Place::No,
        (false, true) => Place::Stay,
        (false, false) => Place::Run,
    }
}

/// Adds the tolerations that every Pod of a DaemonSet has: it stays on its node, whatever state that is in.
pub fn add_tolerations(spec: &mut PodSpec) {
    let mut wanted = vec![("not-ready", "NoExecute"), ("unreachable", "NoExecute")];
    wanted.extend(["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"].map(|key| (key, "NoSchedule")));
    if spec.host_network == Some(true) {
        wanted.push(("network-unavailable", "NoSchedule"));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in wanted {
        let toleration = Toleration {
            key: Some(format!("node.kubernetes.io/{key}")),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// Ties a Pod to the node called `node`. Upstream: this takes the place of all terms that the template has, of which the
/// node has met one.
pub(crate) fn tie(spec: &mut PodSpec, node: &str) {
    let by_name = NodeSelectorRequirement {
        key: NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![by_name]), ..NodeSelectorTerm::default() };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a Pod runs on or is tied to.
pub fn target(pod: &Pod) -> Option<&str> {
    if let Some(name) = pods::node_name(pod) {
        return Some(name);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let by_name = |demand: &&NodeSelectorRequirement| demand.key == NAME_FIELD && demand.operator == "In";
    let demand = terms.iter().flat_map(|term| term.match_fields.iter().flatten()).find(by_name)?;
    demand.values.as_ref()?.first().map(String::as_str)
}
