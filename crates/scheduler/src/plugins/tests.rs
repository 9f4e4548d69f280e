//! One table for each plugin: a pod's specification, a node, and the verdict.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::framework::{NodeInfo, PodInfo};

fn pod(spec: &Value) -> PodInfo {
    let mut spec = spec.clone();
    if spec.get("containers").is_none() {
        spec["containers"] = json!([]);
    }
    let pod = json!({ "metadata": { "name": "p", "uid": "p" }, "spec": spec });
    PodInfo::new(Arc::new(serde_json::from_value(pod).expect("a pod")))
}

fn node(spec: &Value, labels: &Value) -> NodeInfo {
    let node = json!({
        "metadata": { "name": "n", "labels": labels },
        "spec": spec,
        "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "2", "nvidia.com/gpu": "1" } },
    });
    NodeInfo::new(Arc::new(serde_json::from_value(node).expect("a node")))
}

/// Checks that the filter `name` refuses with these reasons; with none, that it lets the pod in.
#[track_caller]
fn check(name: &str, pod_spec: &Value, node: &NodeInfo, reasons: &[&str]) {
    let filter = filter(name).expect("a filter of that name");
    let refused = filter.filter(&pod(pod_spec), node).err();
    let actual: Vec<String> = refused.into_iter().flat_map(|refusal| refusal.reasons).map(String::from).collect();
    assert_eq!(actual, reasons, "{pod_spec}");
}

#[track_caller]
fn score(name: &str, pod_spec: &Value, nodes: &[NodeInfo]) -> Vec<i64> {
    let plugin = SCORES.iter().find(|plugin| plugin.name() == name).expect("a score of that name");
    let pod = pod(pod_spec);
    let mut scores: Vec<i64> = nodes.iter().map(|node| plugin.score(&pod, node)).collect();
    plugin.normalize(&mut scores);
    scores
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = FILTERS.iter().map(|filter| filter.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FILTERS.len());
}

#[test]
fn node_name() {
    let node = node(&json!({}), &json!({}));
    let check = |spec: Value, reasons: &[&str]| check("NodeName", &spec, &node, reasons);
    check(json!({}), &[]);
    check(json!({ "nodeName": "n" }), &[]);
    check(json!({ "nodeName": "m" }), &["node(s) didn't match the requested node name"]);
}

#[test]
fn node_unschedulable() {
    let cordoned = node(&json!({ "unschedulable": true }), &json!({}));
    let check = |spec: Value, reasons: &[&str]| check("NodeUnschedulable", &spec, &cordoned, reasons);
    check(json!({}), &["node(s) were unschedulable"]);
    let toleration = json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule" });
    check(json!({ "tolerations": [toleration] }), &[]);
}

#[test]
fn taint_toleration() {
    let tainted = node(&json!({ "taints": [{ "key": "gpu", "value": "a100", "effect": "NoSchedule" }] }), &json!({}));
    let refused: &[&str] = &["node(s) had untolerated taint(s)"];
    let check = |toleration: Value, reasons: &[&str]| {
        check("TaintToleration", &json!({ "tolerations": [toleration] }), &tainted, reasons);
    };
    check(json!({ "key": "gpu", "value": "a100", "effect": "NoSchedule" }), &[]);
    check(json!({ "key": "gpu", "operator": "Exists" }), &[]);
    check(json!({ "operator": "Exists" }), &[]);
    check(json!({ "key": "gpu", "operator": "Equal", "value": "a100" }), &[]);
    check(json!({ "key": "gpu", "operator": "Equal", "value": "v100" }), refused);
    check(json!({ "key": "gpu", "operator": "Exists", "effect": "NoExecute" }), refused);
    check(json!({ "key": "cpu", "operator": "Exists" }), refused);
    check(json!({ "value": "a100" }), refused);

    let soft = node(&json!({ "taints": [{ "key": "slow", "effect": "PreferNoSchedule" }] }), &json!({}));
    let clean = node(&json!({}), &json!({}));
    self::check("TaintToleration", &json!({}), &soft, &[]);
    assert_eq!(score("TaintToleration", &json!({}), &[soft.clone(), clean.clone()]), [0, 100]);
    let patient = json!({ "tolerations": [{ "operator": "Exists" }] });
    assert_eq!(score("TaintToleration", &patient, &[soft, clean]), [100, 100]);
}

#[test]
fn node_affinity() {
    let node = node(&json!({}), &json!({ "zone": "a", "cores": "8" }));
    let refused: &[&str] = &["node(s) didn't match Pod's node affinity/selector"];
    let selector = |selector: Value, reasons: &[&str]| {
        check("NodeAffinity", &json!({ "nodeSelector": selector }), &node, reasons);
    };
    selector(json!({ "zone": "a" }), &[]);
    selector(json!({ "zone": "b" }), refused);
    selector(json!({ "zone": "a", "disk": "ssd" }), refused);

    let terms = |terms: Value, reasons: &[&str]| {
        let required = json!({ "nodeSelectorTerms": terms });
        let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } });
        check("NodeAffinity", &json!({ "affinity": affinity }), &node, reasons);
    };
    let label = |key: &str, operator: &str, values: Value| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
    terms(json!([label("zone", "In", json!(["a", "b"]))]), &[]);
    terms(json!([label("zone", "NotIn", json!(["a"]))]), refused);
    terms(json!([label("disk", "NotIn", json!(["a"]))]), &[]);
    terms(json!([label("zone", "Exists", json!([]))]), &[]);
    terms(json!([label("zone", "DoesNotExist", json!([]))]), refused);
    terms(json!([label("cores", "Gt", json!(["4"]))]), &[]);
    terms(json!([label("cores", "Lt", json!(["8"]))]), refused);
    terms(json!([label("zone", "Gt", json!(["4"]))]), refused);
    terms(json!([label("zone", "In", json!(["b"])), label("cores", "Exists", json!([]))]), &[]);
    terms(json!([{}]), refused);
    let field = |name: &str| json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] });
    terms(json!([field("n")]), &[]);
    terms(json!([field("m")]), refused);
}

#[test]
fn node_affinity_preferences() {
    let fast = node(&json!({}), &json!({ "disk": "ssd" }));
    let slow = node(&json!({}), &json!({}));
    let preference =
        json!({ "weight": 7, "preference": { "matchExpressions": [{ "key": "disk", "operator": "Exists" }] } });
    let affinity = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [preference] } });
    let spec = json!({ "affinity": affinity });
    assert_eq!(score("NodeAffinity", &spec, &[fast, slow]), [100, 0]);
}

#[test]
fn node_ports() {
    let port = |port: i32, address: &str, protocol: &str| {
        json!({ "containers": [{ "name": "c", "ports": [
            { "containerPort": 80, "hostPort": port, "hostIP": address, "protocol": protocol }] }] })
    };
    let mut node = node(&json!({}), &json!({}));
    node.add(&pod(&port(8080, "127.0.0.1", "TCP")));
    let refused: &[&str] = &["node(s) didn't have free ports for the requested pod ports"];
    let check = |spec: Value, reasons: &[&str]| check("NodePorts", &spec, &node, reasons);
    check(port(8080, "127.0.0.1", "TCP"), refused);
    check(port(8080, "", "TCP"), refused);
    check(port(8080, "127.0.0.2", "TCP"), &[]);
    check(port(8080, "127.0.0.1", "UDP"), &[]);
    check(port(8081, "127.0.0.1", "TCP"), &[]);
    check(json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 8080 }] }] }), &[]);
}

#[test]
fn node_resources_fit() {
    let mut node = node(&json!({}), &json!({}));
    let asks = |requests: Value| json!({ "containers": [{ "name": "c", "resources": { "requests": requests } }] });
    let check = |node: &NodeInfo, requests: Value, reasons: &[&str]| {
        check("NodeResourcesFit", &asks(requests), node, reasons);
    };
    check(&node, json!({ "cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1" }), &[]);
    check(
        &node,
        json!({ "cpu": "2001m", "memory": "5Gi", "nvidia.com/gpu": "2", "example.com/fpga": "1" }),
        &["Insufficient cpu", "Insufficient memory", "Insufficient example.com/fpga", "Insufficient nvidia.com/gpu"],
    );
    node.add(&pod(&asks(json!({ "cpu": "1500m" }))));
    check(&node, json!({ "cpu": "500m" }), &[]);
    check(&node, json!({ "cpu": "501m" }), &["Insufficient cpu"]);
    node.add(&pod(&asks(json!({}))));
    check(&node, json!({}), &["Too many pods"]);
}

#[test]
fn scores_prefer_room_and_balance() {
    let empty = node(&json!({}), &json!({}));
    let mut half = empty.clone();
    let asks = |cpu: &str, memory: &str| json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": memory } } }] });
    half.add(&pod(&asks("1", "0")));
    let fit = score("NodeResourcesFit", &asks("1", "1Gi"), &[empty.clone(), half.clone()]);
    assert_eq!(fit, [62, 35]);
    let balance = score("NodeResourcesBalancedAllocation", &asks("1", "2Gi"), &[empty, half]);
    assert_eq!(balance, [100, 75]);
}
