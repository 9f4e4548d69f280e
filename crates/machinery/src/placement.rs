//! Whether a node is one that a pod may run on: node selectors, node affinity, taints and tolerations, ports of the host.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// The field of a node that a term may select it by: its name.
pub const NAME_FIELD: &str = "metadata.name";

/// Why a node is not one that a pod's selector and required affinity ask for (upstream: `ErrReasonPod` in
/// `pkg/scheduler/framework/plugins/nodeaffinity/node_affinity.go`).
pub const UNWANTED_NODE: &str = "node(s) didn't match Pod's node affinity/selector";

/// Why a node has no place for a pod that wants ports of the host (upstream: `ErrReason` in
/// `pkg/scheduler/framework/plugins/nodeports/node_ports.go`).
pub const NO_FREE_PORTS: &str = "node(s) didn't have free ports for the requested pod ports";

/// Whether `node` is one that the pod's selector and required affinity ask for.
pub fn wants_node(pod: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    pod.node_selector.iter().flatten().all(has) && required.is_none_or(|required| selects(required, node))
}

/// Whether `selector` selects `node`: its terms are alternatives.
pub fn selects(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_selects(term, node))
}

/// Whether `node` meets all demands of `term`. A term without demands selects nothing.
pub fn term_selects(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    expressions.iter().all(|demand| meets(demand, labels.get(&demand.key).map(String::as_str)))
        && fields.iter().all(|demand| demand.key == NAME_FIELD && meets(demand, node.metadata.name.as_deref()))
}

fn meets(demand: &NodeSelectorRequirement, actual: Option<&str>) -> bool {
    let values = demand.values.as_deref().unwrap_or_default();
    let listed = || values.iter().any(|value| Some(value.as_str()) == actual);
    let compare = |holds: fn(i64, i64) -> bool| {
        let wanted = values.first().and_then(|value| value.parse().ok());
        let actual = actual.and_then(|value| value.parse().ok());
        matches!((actual, wanted), (Some(actual), Some(wanted)) if holds(actual, wanted))
    };
    match demand.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => compare(|actual, wanted| actual > wanted),
        "Lt" => compare(|actual, wanted| actual < wanted),
        _ => false,
    }
}

/// The taints of a node.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whether a pod with these tolerations puts up with `taint`.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| is_for(toleration, taint))
}

/// Whether a toleration is one of `taint`. Upstream: an empty key with `Exists` tolerates every key, an empty effect every
/// effect.
pub fn is_for(toleration: &Toleration, taint: &Taint) -> bool {
    if given(toleration.effect.as_ref()).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    let operator = given(toleration.operator.as_ref());
    match given(toleration.key.as_ref()) {
        None => return operator == Some("Exists"),
        Some(key) if key != taint.key => return false,
        Some(_) => {}
    }
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let actual = taint.value.as_deref().unwrap_or_default();
    match operator {
        Some("Exists") => true,
        None | Some("Equal") => wanted == actual,
        Some(operator @ ("Lt" | "Gt")) => match (actual.parse::<i64>(), wanted.parse::<i64>()) {
            (Ok(actual), Ok(wanted)) if operator == "Lt" => actual < wanted,
            (Ok(actual), Ok(wanted)) => actual > wanted,
            _ => false,
        },
        Some(_) => false,
    }
}

/// A port of the host that a container wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The host's address; `0.0.0.0` stands for all of them.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port, 1 to 65535.
    pub port: i32,
}

impl HostPort {
    /// Whether only one of the two can be had on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == any || other.address == any)
    }
}

/// The ports of the host that a pod wants. Only sidecars among its init containers hold theirs while it runs.
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|port| *port > 0)?;
            Some(HostPort {
                address: given(port.host_ip.as_ref()).unwrap_or("0.0.0.0").to_owned(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: number,
            })
        })
        .collect()
}

/// Whether a port that is wanted cannot be had beside those that are held.
pub fn ports_conflict(wanted: &[HostPort], held: &[HostPort]) -> bool {
    wanted.iter().any(|wanted| held.iter().any(|held| held.conflicts(wanted)))
}

/// A field's text, where there is any.
fn given(field: Option<&String>) -> Option<&str> {
    field.map(String::as_str).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn node() -> Node {
        from_value(json!({ "metadata": { "name": "n1", "labels": { "zone": "a", "size": "5" } } })).unwrap()
    }

    #[test]
    fn nodes_are_wanted() {
        let term = |demands: Value| {
            json!({ "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [demands] },
        } } })
        };
        let labels = |key: &str, operator: &str, values: &[&str]| {
            term(json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }))
        };
        let name = |value: &str| {
            term(json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [value] }] }))
        };
        for (spec, expect) in [
            (json!({}), true),
            (json!({ "nodeSelector": { "zone": "a" } }), true),
            (json!({ "nodeSelector": { "zone": "b" } }), false),
            (labels("zone", "In", &["b", "a"]), true),
            (labels("zone", "NotIn", &["a"]), false),
            (labels("size", "Gt", &["4"]), true),
            (labels("size", "Lt", &["4"]), false),
            (labels("gpu", "Exists", &[]), false),
            (labels("gpu", "DoesNotExist", &[]), true),
            (term(json!({})), false),
            (name("n1"), true),
            (name("n2"), false),
        ] {
            let mut pod = spec.clone();
            pod["containers"] = json!([]);
            assert_eq!(wants_node(&from_value(pod).unwrap(), &node()), expect, "{spec}");
        }
    }

    #[test]
    fn taints_are_tolerated() {
        let taint: Taint = from_value(json!({ "key": "k", "value": "v", "effect": "NoSchedule" })).unwrap();
        for (toleration, expect) in [
            (json!({ "operator": "Exists" }), true),
            (json!({ "key": "k", "operator": "Exists" }), true),
            (json!({ "key": "k", "value": "v" }), true),
            (json!({ "key": "k", "value": "w" }), false),
            (json!({ "key": "k", "operator": "Exists", "effect": "NoExecute" }), false),
            (json!({ "key": "x", "operator": "Exists" }), false),
            (json!({ "operator": "Equal", "value": "v" }), false),
            (json!({ "key": "k", "operator": "Gt", "value": "3" }), false),
        ] {
            let toleration: Toleration = from_value(toleration).unwrap();
            assert_eq!(tolerates(std::slice::from_ref(&toleration), &taint), expect, "{toleration:?}");
        }
    }
}
