//! Section 调度器 (scheduler): filtering, scoring, binding, on fake nodes; and what else decides.

use coracle_tests::{Cluster, example};
use serde_json::{Value, json};

/// A cluster with a GPU node that is tainted, two plain ones in different zones, and its own that takes nothing.
pub(crate) fn with_nodes() -> Cluster {
    let cluster = Cluster::start();
    let add = |arguments: &[&str]| {
        let mut all = vec!["node", "add"];
        all.extend(arguments);
        cluster.coracle(&all).ok();
    };
    add(&[
        "gpu",
        "--fake",
        "--gpu",
        "2",
        "--cpu",
        "8",
        "--label",
        "zone=a",
        "--taint",
        "nvidia.com/gpu=yes:NoSchedule",
    ]);
    add(&["plain", "--fake", "--cpu", "2", "--memory", "4Gi", "--label", "zone=b", "--count", "2"]);
    cluster.kubectl(&["cordon", &cluster.profile]).ok();
    for node in ["gpu", "plain-0", "plain-1"] {
        cluster.kubectl(&["wait", "--for=condition=Ready", &format!("node/{node}"), "--timeout=30s"]).ok();
    }
    cluster
}

pub(crate) fn pod(name: &str, spec: Value) -> String {
    labelled(name, json!({}), spec)
}

pub(crate) fn labelled(name: &str, labels: Value, mut spec: Value) -> String {
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "c", "image": "x" }]);
    }
    let meta = json!({ "name": name, "labels": labels });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec }).to_string()
}

pub(crate) fn asks(resource: &str, amount: &str) -> Value {
    json!([{ "name": "c", "image": "x", "resources": { "requests": { resource: amount }, "limits": { resource: amount } } }])
}

pub(crate) fn node_of(cluster: &Cluster, pod: &str) -> String {
    cluster.wait_for(&format!("pod/{pod}"), "{.status.phase}", "Running");
    cluster.field(&format!("pod/{pod}"), "{.spec.nodeName}")
}

/// The pod's condition, once it says that no node will do.
pub(crate) fn refused(cluster: &Cluster, pod: &str) -> String {
    let path = "{.status.conditions[?(@.type=='PodScheduled')].message}";
    cluster.wait("the pod is refused", || Some(cluster.field(&format!("pod/{pod}"), path)).filter(|it| !it.is_empty()))
}

/// Pending → a node is assigned → its kubelet starts the containers.
#[test]
fn from_pending_to_running() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["cordon", &cluster.profile]);
    kubectl(&["apply", "-f", &example("nginx/deployment.yaml")]);
    let name = cluster.wait("there are pods", || cluster.pods("app=nginx").into_iter().next());
    let message = refused(&cluster, &name);
    assert!(message.contains("0/1 nodes are available: 1 node(s) were unschedulable."), "{message}");
    let row = kubectl(&["get", "pod", &name, "--no-headers", "-o", "wide"]);
    assert_eq!(row.split_whitespace().nth(2), Some("Pending"), "{row}");
    kubectl(&["uncordon", &cluster.profile]);
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]);
    assert_eq!(cluster.field(&format!("pod/{name}"), "{.spec.nodeName}"), cluster.profile);
    let events = cluster.wait("all is told", || {
        let events = kubectl(&["events", "--for", &format!("pod/{name}"), "--no-headers"]);
        events.contains("Started").then_some(events)
    });
    let position = |word: &str| events.find(word).unwrap_or_else(|| panic!("{word} is missing in {events}"));
    assert!(position("FailedScheduling") < position("Successfully assigned"), "{events}");
    assert!(position("Successfully assigned") < position("Started"), "{events}");
    let scheduled = format!("Successfully assigned default/{name} to {}", cluster.profile);
    assert!(events.contains(&scheduled), "{events}");
}

#[test]
fn filtering() {
    let cluster = with_nodes();
    let toleration = json!([{ "key": "nvidia.com/gpu", "operator": "Exists" }]);
    cluster.apply(&pod("trainer", json!({ "containers": asks("nvidia.com/gpu", "1"), "tolerations": toleration })));
    assert_eq!(node_of(&cluster, "trainer"), "gpu");

    // Each demand, and what is said where it is not met.
    cluster.apply(&pod("untolerated", json!({ "containers": asks("nvidia.com/gpu", "1") })));
    let message = refused(&cluster, "untolerated");
    for part in [
        "0/4 nodes are available: ",
        "1 node(s) had untolerated taint(s)",
        "1 node(s) were unschedulable",
        "2 Insufficient nvidia.com/gpu",
        "preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.",
    ] {
        assert!(message.contains(part), "{part:?} is missing in {message}");
    }
    let described = cluster.kubectl(&["describe", "pod", "untolerated"]).ok();
    assert!(described.contains("FailedScheduling"), "{described}");

    cluster.apply(&pod("elsewhere", json!({ "nodeSelector": { "zone": "c" } })));
    assert!(refused(&cluster, "elsewhere").contains("node(s) didn't match Pod's node affinity/selector"));
    // What helps it is seen at once, and only a back-off later.
    cluster.kubectl(&["label", "node", "plain-0", "zone=c", "--overwrite"]).ok();
    assert_eq!(node_of(&cluster, "elsewhere"), "plain-0");

    // A node that is not ready.
    let silent =
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "silent", "labels": { "zone": "d" } } });
    cluster.apply(&silent.to_string());
    let status = json!({ "status": {
        "allocatable": { "cpu": "4", "memory": "4Gi", "pods": "10" },
        "conditions": [{ "type": "Ready", "status": "False", "reason": "KubeletNotReady" }],
    } });
    let status = ["patch", "node", "silent", "--subresource=status", "--type=merge", "-p", &status.to_string()];
    cluster.kubectl(&status).ok();
    assert!(cluster.kubectl(&["get", "node", "silent"]).ok().contains("NotReady"));
    let effects = "{.spec.taints[?(@.key=='node.kubernetes.io/not-ready')].effect}";
    cluster.wait_for("node/silent", effects, "NoSchedule NoExecute");
    cluster.apply(&pod("early", json!({ "nodeSelector": { "zone": "d" } })));
    let message = refused(&cluster, "early");
    assert!(message.contains("2 node(s) had untolerated taint(s)"), "{message}");
    cluster.kubectl(&["delete", "node", "silent"]).ok();

    let port =
        json!({ "containers": [{ "name": "c", "image": "x", "ports": [{ "containerPort": 80, "hostPort": 8080 }] }] });
    for name in ["port-0", "port-1", "port-2"] {
        cluster.apply(&pod(name, port.clone()));
    }
    let first = [node_of(&cluster, "port-0"), node_of(&cluster, "port-1")];
    assert_ne!(first[0], first[1]);
    assert!(refused(&cluster, "port-2").contains("2 node(s) didn't have free ports for the requested pod ports"));

    let term = json!({ "labelSelector": { "matchLabels": { "app": "far" } }, "topologyKey": "kubernetes.io/hostname" });
    let far =
        json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } });
    for name in ["far-0", "far-1", "far-2"] {
        cluster.apply(&labelled(name, json!({ "app": "far" }), far.clone()));
    }
    assert_ne!(node_of(&cluster, "far-0"), node_of(&cluster, "far-1"));
    assert!(refused(&cluster, "far-2").contains("2 node(s) didn't match pod anti-affinity rules"));
}

#[test]
fn scoring() {
    let cluster = with_nodes();
    let scores = |name: &str, plugin: &str| -> Vec<(String, i64)> {
        let text = cluster.coracle(&["explain", "pod", name, "-o", "json"]).ok();
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let decision = &answer["decision"];
        let nodes = decision["scored"].as_array().cloned().unwrap_or_default();
        let score = |node: &Value| {
            let scores = node["scores"].as_array().cloned().unwrap_or_default();
            scores.iter().find(|score| score["plugin"] == plugin).and_then(|score| score["score"].as_i64())
        };
        nodes
            .iter()
            .map(|node| (node["node"].as_str().unwrap_or_default().to_owned(), score(node).unwrap_or(-1)))
            .collect()
    };
    let scored = |name: &str, plugin: &str, best: &str, other: &str| {
        assert_eq!(node_of(&cluster, name), best);
        let scores = scores(name, plugin);
        assert_eq!(scores.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), [best, other], "best first");
        assert!(scores[0].1 > scores[1].1, "{plugin}: {scores:?}");
    };
    // A preference for a node, not a requirement.
    cluster.kubectl(&["label", "node", "plain-1", "disk=ssd"]).ok();
    let term = json!({ "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["ssd"] }] });
    let preferred = json!([{ "weight": 100, "preference": term }]);
    let spec =
        json!({ "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": preferred } } });
    cluster.apply(&pod("preferring", spec));
    scored("preferring", "NodeAffinity", "plain-1", "plain-0");
    // The one that has more left.
    cluster.apply(&pod("large", json!({ "containers": asks("cpu", "1500m"), "nodeSelector": { "disk": "ssd" } })));
    assert_eq!(node_of(&cluster, "large"), "plain-1");
    cluster.apply(&pod("small", json!({ "containers": asks("cpu", "100m") })));
    scored("small", "NodeResourcesFit", "plain-0", "plain-1");
    // Near others, or far from them, where that can be.
    let affinity = |kind: &str| {
        let term =
            json!({ "labelSelector": { "matchLabels": { "app": "db" } }, "topologyKey": "kubernetes.io/hostname" });
        let preferred = json!([{ "weight": 100, "podAffinityTerm": term }]);
        json!({ "affinity": { kind: { "preferredDuringSchedulingIgnoredDuringExecution": preferred } } })
    };
    cluster.apply(&labelled("db", json!({ "app": "db" }), json!({ "nodeSelector": { "disk": "ssd" } })));
    assert_eq!(node_of(&cluster, "db"), "plain-1");
    cluster.apply(&pod("near", affinity("podAffinity")));
    scored("near", "InterPodAffinity", "plain-1", "plain-0");
    cluster.apply(&pod("far", affinity("podAntiAffinity")));
    scored("far", "InterPodAffinity", "plain-0", "plain-1");
}

#[test]
fn explanation() {
    let cluster = with_nodes();
    cluster.apply(&pod("chosen", json!({ "containers": asks("cpu", "1") })));
    let node = node_of(&cluster, "chosen");
    let text = cluster.coracle(&["explain", "pod", "chosen"]).ok();
    assert!(text.contains(&format!("Node:       {node}")), "{text}");
    for part in ["2 would do", "NodeResourcesFit", "1 by TaintToleration: node(s) had untolerated taint(s) (gpu)"] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let answer: Value =
        serde_json::from_str(&cluster.coracle(&["explain", "pod", "chosen", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(answer["decision"]["scored"][0]["node"], node.as_str(), "the winner is first");
    assert!(cluster.kubectl(&["get", "decisions"]).ok().contains("chosen"));

    cluster.apply(&pod("waiting", json!({ "containers": asks("cpu", "64") })));
    refused(&cluster, "waiting");
    let text = cluster.coracle(&["explain", "pod", "waiting"]).ok();
    assert!(text.contains("Waits for:  pods that leave, or a node with more of what is insufficient"), "{text}");
    cluster.apply(&pod("gated", json!({ "schedulingGates": [{ "name": "example.com/later" }] })));
    assert!(cluster.coracle(&["explain", "pod", "gated"]).ok().contains("example.com/later"));
    assert!(cluster.kubectl(&["get", "pod", "gated"]).ok().contains("SchedulingGated"));
    assert!(cluster.coracle(&["explain", "pod", "absent"]).fails().contains("no pod absent"));
}

#[test]
fn preemption() {
    let cluster = with_nodes();
    for (name, value) in [("low", 1), ("high", 1_000)] {
        cluster.kubectl(&["create", "priorityclass", name, &format!("--value={value}")]).ok();
    }
    for name in ["low-0", "low-1"] {
        cluster.apply(&pod(name, json!({ "containers": asks("cpu", "2"), "priorityClassName": "low" })));
        node_of(&cluster, name);
    }
    cluster.apply(&pod("high", json!({ "containers": asks("cpu", "2"), "priorityClassName": "high" })));
    node_of(&cluster, "high");
    let left = cluster.kubectl(&["get", "pods", "-o", "name"]).ok();
    assert_eq!(left.lines().filter(|line| line.contains("low")).count(), 1, "one had to go: {left}");
    let events = cluster.kubectl(&["get", "events", "--field-selector=reason=Preempted"]).ok();
    assert!(events.contains("Preempted by pod"), "{events}");
}

/// The last of the three steps, by hand: what a scheduler of one's own does.
#[test]
fn binding() {
    let cluster = with_nodes();
    cluster.apply(&pod("mine", json!({ "schedulerName": "my-scheduler" })));
    let binding = |node: &str| {
        let body = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "mine" },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let path = "/api/v1/namespaces/default/pods/mine/binding";
        cluster.kubectl_with_input(&["create", "--raw", path, "-f", "-"], &body.to_string())
    };
    // Nobody else touches it: it waits, and without a complaint.
    cluster.apply(&pod("other", json!({})));
    node_of(&cluster, "other");
    assert_eq!(cluster.field("pod/mine", "{.status.phase}{.spec.nodeName}"), "Pending");
    binding("plain-1").ok();
    assert_eq!(node_of(&cluster, "mine"), "plain-1");
    let scheduled = "{.status.conditions[?(@.type=='PodScheduled')].status}";
    assert_eq!(cluster.field("pod/mine", scheduled), "True");
    let again = binding("plain-0").fails();
    assert!(again.contains("pod mine is already assigned to node \"plain-1\""), "{again}");
}
