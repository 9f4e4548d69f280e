//! Whether a pod fits its node beside those that run there (upstream: `generalFilter` in
//! `pkg/kubelet/lifecycle/predicate.go`, which asks what the scheduler's plugins ask). Not every pod comes from the scheduler:
//! whoever sets `nodeName` has asked nobody.
//!
//! Upstream a critical pod that lacks nothing but resources makes room for itself: the kubelet evicts others for it
//! (`CriticalPodAdmissionHandler` in `pkg/kubelet/preemption/preemption.go`). Here it fails like any other; for pods that it
//! places the scheduler preempts.

use k8s_openapi::api::core::v1::{Node, PodSpec};
use machinery::placement::{NO_FREE_PORTS, UNWANTED_NODE, ports_conflict, taints, tolerates, wants_node};
use machinery::resources::{Resources, insufficient};

use crate::allocation::Allocation;
use crate::types::failure::Failure;

/// The reason of a pod whose node is not one that it asks for.
const NODE_AFFINITY: &str = "NodeAffinity";

/// Whether a pod that asks for `wanted` fits `node`, beside pods that have `others`. Of a node that is not known only its ports
/// are. The first objection in upstream's order counts.
pub(crate) fn fits(
    spec: &PodSpec,
    node: Option<&Node>,
    wanted: &Allocation,
    others: &Allocation,
) -> Result<(), Failure> {
    if let Some(node) = node {
        resources(node, wanted, others)?;
        if !wants_node(spec, node) {
            return Err(failed(NODE_AFFINITY, UNWANTED_NODE));
        }
    }
    if ports_conflict(&wanted.host_ports, &others.host_ports) {
        return Err(failed("NodePorts", NO_FREE_PORTS));
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let mut taints = node.into_iter().flat_map(taints).filter(|taint| taint.effect == "NoExecute");
    if taints.any(|taint| !tolerates(tolerations, taint)) {
        return Err(failed("TaintToleration", "node(s) had taints that the pod didn't tolerate"));
    }
    Ok(())
}

/// Whether the objection is to the labels of the node, which somebody may have changed just now.
pub(crate) fn is_about_labels(failure: &Failure) -> bool {
    failure.reason == NODE_AFFINITY
}

fn resources(node: &Node, wanted: &Allocation, others: &Allocation) -> Result<(), Failure> {
    let status = node.status.as_ref();
    // Until the runtime has answered once, nothing is known.
    let Some(offered) = status.and_then(|status| status.allocatable.as_ref()).map(Resources::from_list) else {
        return Ok(());
    };
    // What the node does not know is the cluster's, and for others to count (upstream: `removeMissingExtendedResources`).
    let counts = |name: &str| !name.contains('/') || offered.extended.contains_key(name);
    match insufficient(&wanted.requests, &others.requests, &offered, counts).first() {
        Some(lack) => Err(Failure::rejected(
            format!("OutOf{}", lack.resource),
            format!(
                "Node didn't have enough resource: {}, requested: {}, used: {}, capacity: {}",
                lack.resource, lack.requested, lack.used, lack.capacity
            ),
        )),
        None => Ok(()),
    }
}

fn failed(predicate: &'static str, why: &str) -> Failure {
    Failure::rejected(predicate, format!("Predicate {predicate} failed: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"zone": "a"}},
            "spec": {"taints": [{"key": "k", "effect": "NoExecute"}, {"key": "l", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3", "x.y/gpu": "1"}},
        }))
        .unwrap()
    }

    /// A pod that tolerates the node, with these requests and what else its specification says.
    fn spec(requests: &Value, more: &Value) -> PodSpec {
        let mut spec = json!({"containers": [{"name": "c", "resources": {"requests": requests}}],
            "tolerations": [{"key": "k", "operator": "Exists"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn with_port(port: i32) -> Value {
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": port}]}]})
    }

    #[test]
    fn upstreams_reasons_and_messages() {
        let mut others = Allocation::of(&spec(&json!({}), &with_port(8080)));
        others.requests.milli_cpu = 1500;
        others.requests.extended.insert("x.y/gpu".to_owned(), 1);
        let check = |requests: Value, more: Value, expect: Option<(&str, &str)>| {
            let spec = spec(&requests, &more);
            let found = fits(&spec, Some(&node()), &Allocation::of(&spec), &others).err();
            let found = found.as_ref().map(|failure| (failure.reason.as_ref(), failure.message.as_str()));
            assert_eq!(found, expect, "{requests} {more}");
        };
        check(json!({"cpu": "500m", "memory": "1Gi"}), json!({}), None);
        check(
            json!({"cpu": "501m", "memory": "2Gi"}),
            with_zone("b"),
            Some(("OutOfcpu", "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000")),
        );
        check(
            json!({"memory": "2Gi"}),
            json!({}),
            Some((
                "OutOfmemory",
                "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824",
            )),
        );
        check(
            json!({"x.y/gpu": "1"}),
            json!({}),
            Some(("OutOfx.y/gpu", "Node didn't have enough resource: x.y/gpu, requested: 1, used: 1, capacity: 1")),
        );
        // Nobody has told the node of these.
        check(json!({"other.y/gpu": "9"}), json!({}), None);
        let affinity = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        check(json!({}), with_zone("b"), Some(("NodeAffinity", affinity)));
        check(json!({}), with_zone("a"), None);
        let ports = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        check(json!({}), with_port(8080), Some(("NodePorts", ports)));
        check(json!({}), with_port(8081), None);
        let taint = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        check(json!({}), json!({"tolerations": []}), Some(("TaintToleration", taint)));
    }

    fn with_zone(zone: &str) -> Value {
        json!({"nodeSelector": {"zone": zone}})
    }

    #[test]
    fn a_node_takes_so_many_pods() {
        let spec = spec(&json!({}), &json!({}));
        let check = |pods: i64, expect: Option<&str>| {
            let mut others = Allocation::default();
            others.requests.pods = pods;
            let found = fits(&spec, Some(&node()), &Allocation::of(&spec), &others).err();
            assert_eq!(found.as_ref().map(|failure| failure.reason.as_ref()), expect, "{pods}");
        };
        check(2, None);
        check(3, Some("OutOfpods"));
    }

    #[test]
    fn of_an_unknown_node_the_ports_are_known() {
        let spec = spec(&json!({"cpu": "100"}), &with_port(80));
        let wanted = Allocation::of(&spec);
        assert_eq!(fits(&spec, None, &wanted, &Allocation::default()), Ok(()));
        assert!(fits(&spec, None, &wanted, &wanted).is_err());
    }
}
