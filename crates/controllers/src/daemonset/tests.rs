//! Tables for the DaemonSet's plan: nodes and Pods in, actions out.

use serde_json::{Value, from_value, json};

use super::placement::{Place, place};
use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("time")
}

fn set(update: &Value) -> DaemonSet {
    from_value(json!({
        "metadata": {
            "name": "log", "namespace": "ns", "uid": "set", "generation": 4,
            "annotations": { "deprecated.daemonset.template.generation": "2" },
        },
        "spec": {
            "selector": { "matchLabels": { "app": "log" } }, "updateStrategy": update,
            "template": {
                "metadata": { "labels": { "app": "log" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }], "nodeSelector": { "disk": "ssd" } },
            },
        },
    }))
    .expect("set")
}

fn rolling(unavailable: i32, surge: i32) -> Value {
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": unavailable, "maxSurge": surge } })
}

/// A node from a line such as `a cordoned`: `other` is not selected, `evicting` has a NoExecute taint.
fn node(line: &str) -> Arc<Node> {
    let mut words = line.split(' ');
    let name = words.next().expect("a name");
    let mut taints = Vec::new();
    let mut disk = "ssd";
    for word in words {
        match word {
            "cordoned" => taints.push(json!({ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" })),
            "reserved" => taints.push(json!({ "key": "k", "value": "v", "effect": "NoSchedule" })),
            "evicting" => taints.push(json!({ "key": "k", "effect": "NoExecute" })),
            _ => disk = "none",
        }
    }
    let node = json!({ "metadata": { "name": name, "labels": { "disk": disk } }, "spec": { "taints": taints } });
    Arc::new(from_value(node).expect("node"))
}

/// A Pod from a line such as `p1 a ready old`: its name, its node, its state.
fn pod(line: &str) -> Arc<Pod> {
    let mut words = line.split(' ');
    let (name, node) = (words.next().expect("a name"), words.next().expect("a node"));
    let words: Vec<_> = words.collect();
    let has = |word: &str| words.contains(&word);
    let phase = ["Pending", "Failed", "Succeeded"].into_iter().find(|phase| has(phase)).unwrap_or("Running");
    let pod = json!({
        "metadata": {
            "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "app": "log", "controller-revision-hash": if has("old") { "old" } else { "new" } },
            "deletionTimestamp": has("deleting").then_some("2026-01-01T00:59:59Z"),
        },
        "spec": { "nodeName": node, "containers": [] },
        "status": { "phase": phase, "conditions": [{
            "type": "Ready", "status": if has("ready") { "True" } else { "False" }, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }] },
    });
    Arc::new(from_value(pod).expect("pod"))
}

use k8s_openapi::api::core::v1::Pod;

fn planned(update: &Value, nodes: &[&str], pods: &[&str]) -> Plan {
    let snapshot = Snapshot {
        nodes: nodes.iter().map(|line| node(line)).collect(),
        pods: pods.iter().map(|line| pod(line)).collect(),
        hash: "new".to_owned(),
        failure_backoff: BTreeMap::from([("patient".to_owned(), "2026-01-01T01:00:07Z".parse().expect("time"))]),
    };
    let set = set(update);
    plan::plan(&snapshot, &set, &Owner::of(&set), now())
}

fn check(update: &Value, nodes: &[&str], pods: &[&str], expect: &str) {
    let plan = planned(update, nodes, pods);
    let created = plan.create.iter().map(|pod| format!("+{}", placement::target(pod).expect("a node")));
    let deleted = plan.delete.iter().map(|pod| format!("-{}", meta::name(&**pod)));
    let actions = created.chain(deleted).collect::<Vec<_>>().join(" ");
    assert_eq!(actions, expect, "{update} {nodes:?} {pods:?}");
}

#[test]
fn every_node_that_asks_has_one() {
    let update = rolling(1, 0);
    check(&update, &["a", "b", "c other"], &[], "+a +b");
    check(&update, &["a", "b"], &["p a ready"], "+b");
    check(&update, &["a"], &["p a deleting"], "");
    check(&update, &["a"], &["p a ready", "q a ready"], "-q");
    check(&update, &["a cordoned"], &[], "+a");
    check(&update, &["a reserved"], &[], "");
    check(&update, &["a reserved"], &["p a ready"], "");
    check(&update, &["a evicting"], &["p a ready"], "-p");
    check(&update, &["a other"], &["p a ready", "q a deleting"], "-p");
    check(&update, &["a"], &["p a Failed"], "-p");
    check(&update, &["a"], &["p a Succeeded"], "-p");
    check(&update, &["patient"], &["p patient Failed"], "");
    assert_eq!(planned(&update, &["patient"], &["p patient Failed"]).requeue_after.map(|wait| wait.as_secs()), Some(7));
    // Its node is gone: not this controller's business.
    check(&update, &[], &["p a ready"], "");
}

#[test]
fn updates_keep_to_their_margins() {
    let nodes = ["a", "b", "c"];
    let old = ["p a ready old", "q b ready old", "r c ready old"];
    check(&rolling(1, 0), &nodes, &old, "-p");
    check(&rolling(2, 0), &nodes, &old, "-p -q");
    check(&json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "34%" } }), &nodes, &old, "-p -q");
    check(&rolling(1, 0), &nodes, &["p a ready", "q b ready old", "r c ready old"], "-q");
    check(&rolling(1, 0), &nodes, &["p a", "q b ready old", "r c ready old"], "");
    check(&rolling(1, 0), &nodes, &["p a ready old deleting", "q b ready old", "r c ready old"], "");
    check(&rolling(1, 0), &nodes, &["q b ready old", "r c ready old"], "+a");
    // One that is not available can be replaced at once.
    check(&rolling(1, 0), &nodes, &["p a old", "q b ready old", "r c ready old"], "-p");
    check(&json!({ "type": "OnDelete" }), &nodes, &old, "");
    check(&rolling(0, 1), &nodes, &old, "+a");
    check(&rolling(0, 1), &nodes, &[&old[..], &["s a"]].concat(), "");
    check(&rolling(0, 1), &nodes, &[&old[..], &["s a ready"]].concat(), "-p");
    check(&rolling(0, 1), &nodes, &["p a old", "q b ready old", "r c ready old"], "+a +b");
}

#[test]
fn the_status_counts_nodes() {
    let plan = planned(
        &rolling(1, 0),
        &["a", "b", "c", "d other", "e other"],
        &["p a ready old", "q b", "s d ready", "t e deleting"],
    );
    let expect = json!({
        "desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberMisscheduled": 1, "numberReady": 1,
        "numberAvailable": 1, "numberUnavailable": 2, "updatedNumberScheduled": 1, "observedGeneration": 4,
    });
    assert_eq!(serde_json::to_value(&plan.status).ok(), Some(expect));
}

#[test]
fn pods_are_tied_to_their_node_and_stay_there() {
    let plan = planned(&rolling(1, 0), &["a"], &[]);
    let pod = serde_json::to_value(&plan.create[0]).expect("pod");
    assert_eq!(
        pod["metadata"]["labels"],
        json!({ "app": "log", "controller-revision-hash": "new", "pod-template-generation": "2" })
    );
    assert_eq!(pod["metadata"]["generateName"], "log-");
    let term = json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["a"] }] }]);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    assert_eq!(pod["spec"]["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"], term);
    let tolerated: Vec<_> = pod["spec"]["tolerations"].as_array().expect("a list").iter().map(|t| &t["key"]).collect();
    let expect = ["not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"];
    assert_eq!(tolerated, expect.map(|key| format!("node.kubernetes.io/{key}")).each_ref());
}

#[test]
fn nodes_are_told_apart() {
    let mut spec = set(&rolling(1, 0)).spec.and_then(|spec| spec.template.spec).expect("spec");
    placement::add_tolerations(&mut spec);
    for (line, expect) in [
        ("a", Place::Run),
        ("a cordoned", Place::Run),
        ("a reserved", Place::Stay),
        ("a evicting", Place::No),
        ("a other", Place::No),
    ] {
        assert_eq!(place(&spec, &node(line)), expect, "{line}");
    }
    spec.node_name = Some("b".to_owned());
    assert_eq!(place(&spec, &node("a")), Place::No);
}
