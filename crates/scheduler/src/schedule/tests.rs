//! Decisions and the words in which they are refused.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn node(name: &str, cpu: &str, spec: &Value) -> NodeInfo {
    let node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": spec,
        "status": { "allocatable": { "cpu": cpu, "memory": "8Gi", "pods": "110" } },
    });
    NodeInfo::new(Arc::new(serde_json::from_value(node).expect("a node")))
}

fn pod(cpu: &str) -> PodInfo {
    let pod = json!({
        "metadata": { "name": "p", "uid": "p" },
        "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] },
    });
    PodInfo::new(Arc::new(serde_json::from_value(pod).expect("a pod")))
}

#[test]
fn the_refusal_reads_as_upstreams() {
    let tainted = json!({ "taints": [{ "key": "a", "value": "b", "effect": "NoSchedule" }] });
    let check = |nodes: &[NodeInfo], cpu: &str, expected: &str| {
        let refused = schedule(nodes.iter(), &pod(cpu)).expect_err("no node will do");
        assert_eq!(refused.to_string(), expected);
    };
    check(&[], "1", "no nodes available to schedule pods");
    check(
        &[node("a", "4", &json!({})), node("b", "4", &tainted), node("c", "4", &tainted)],
        "8",
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). \
         preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
    );
    let mut full = node("a", "4", &json!({}));
    full.add(&pod("3"));
    check(
        &[full, node("b", "1", &json!({ "unschedulable": true }))],
        "2",
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. \
         preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, \
         1 Preemption is not helpful for scheduling.",
    );
}

#[test]
fn the_emptier_node_wins() {
    let mut busy = node("a", "4", &json!({}));
    busy.add(&pod("2"));
    let idle = node("b", "4", &json!({}));
    let decision = schedule([&busy, &idle].into_iter(), &pod("1")).expect("both will do");
    assert_eq!((decision.node.as_str(), decision.feasible), ("b", 2));
}

#[test]
fn equal_nodes_share_the_pods_and_the_answer_is_stable() {
    let nodes: Vec<NodeInfo> = ["a", "b", "c", "d"].iter().map(|name| node(name, "4", &json!({}))).collect();
    let mut chosen = BTreeSet::new();
    for uid in 0..64 {
        let mut pod = (*pod("1").pod).clone();
        pod.metadata.uid = Some(uid.to_string());
        let pod = PodInfo::new(Arc::new(pod));
        let decision = schedule(nodes.iter(), &pod).expect("all will do");
        assert_eq!(schedule(nodes.iter(), &pod).as_ref(), Ok(&decision));
        chosen.insert(decision.node);
    }
    assert_eq!(chosen.len(), 4);
}
