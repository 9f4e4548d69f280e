//! The walkthrough's section on the scheduler: filters, scores, binding, gangs, on nodes on paper.

use coracle_tests::Cluster;
use serde_json::{Value, json};

/// A cluster with a GPU node that is tainted, two plain ones in different zones, and its own that takes nothing.
fn with_nodes() -> Cluster {
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

fn pod(name: &str, spec: Value) -> String {
    labelled(name, json!({}), spec)
}

fn labelled(name: &str, labels: Value, mut spec: Value) -> String {
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "c", "image": "x" }]);
    }
    let meta = json!({ "name": name, "labels": labels });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec }).to_string()
}

fn asks(resource: &str, amount: &str) -> Value {
    json!([{ "name": "c", "image": "x", "resources": { "requests": { resource: amount }, "limits": { resource: amount } } }])
}

fn node_of(cluster: &Cluster, pod: &str) -> String {
    cluster.wait_for(&format!("pod/{pod}"), "{.status.phase}", "Running");
    cluster.field(&format!("pod/{pod}"), "{.spec.nodeName}")
}

/// The pod's condition, once it says that no node will do.
fn refused(cluster: &Cluster, pod: &str) -> String {
    let path = "{.status.conditions[?(@.type=='PodScheduled')].message}";
    cluster.wait("the pod is refused", || Some(cluster.field(&format!("pod/{pod}"), path)).filter(|it| !it.is_empty()))
}

#[test]
fn a_pod_goes_where_its_demands_are_met_and_says_why_where_they_are_not() {
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
fn decisions_are_explained() {
    let cluster = with_nodes();
    cluster.apply(&pod("chosen", json!({ "containers": asks("cpu", "1") })));
    let node = node_of(&cluster, "chosen");
    let text = cluster.coracle(&["explain", "pod", "chosen"]).ok();
    assert!(text.contains(&format!("Node:       {node}")), "{text}");
    for part in ["2 would do", "NodeResourcesFit", "1 by TaintToleration: node(s) had untolerated taint(s) (gpu)"] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let decision: Value =
        serde_json::from_str(&cluster.coracle(&["explain", "pod", "chosen", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(decision["scored"][0]["node"], node.as_str(), "the winner is first");
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
fn important_pods_displace_others() {
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

const POD_GROUPS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: podgroups.scheduling.x-k8s.io
  annotations:
    api-approved.kubernetes.io: "https://github.com/kubernetes-sigs/scheduler-plugins/pull/50"
spec:
  group: scheduling.x-k8s.io
  scope: Namespaced
  names: { kind: PodGroup, plural: podgroups, singular: podgroup, shortNames: [pg] }
  versions:
  - name: v1alpha1
    served: true
    storage: true
    subresources: { status: {} }
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              minMember: { type: integer }
              scheduleTimeoutSeconds: { type: integer }
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
"#;

/// The walkthrough's story: a model on four cards needs four workers, and there is room for two.
#[test]
fn gang_scheduling() {
    let cluster = with_nodes();
    let toleration = json!([{ "key": "nvidia.com/gpu", "operator": "Exists" }]);
    let worker = json!({ "containers": asks("nvidia.com/gpu", "1"), "tolerations": toleration });
    let workers = |group: &str, labels: Value| {
        for number in 0..4 {
            cluster.apply(&labelled(&format!("{group}-{number}"), labels.clone(), worker.clone()));
        }
    };
    // Without a gang two workers hold the cards, and wait for the others for ever.
    workers("alone", json!({ "app": "alone" }));
    cluster.wait("two run", || {
        let phases =
            cluster.kubectl(&["get", "pods", "-l", "app=alone", "-o", "jsonpath={.items[*].status.phase}"]).ok();
        (phases.matches("Running").count() == 2 && phases.matches("Pending").count() == 2).then_some(())
    });
    cluster.kubectl(&["delete", "pods", "-l", "app=alone"]).ok();

    // With a gang, nobody holds anything until there is room for all.
    cluster.apply(POD_GROUPS);
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/podgroups.scheduling.x-k8s.io"]).ok();
    let group = json!({
        "apiVersion": "scheduling.x-k8s.io/v1alpha1", "kind": "PodGroup", "metadata": { "name": "model" },
        "spec": { "minMember": 4, "scheduleTimeoutSeconds": 2 },
    });
    cluster.apply(&group.to_string());
    workers("model", json!({ "scheduling.x-k8s.io/pod-group": "model" }));
    let message = refused(&cluster, "model-0");
    assert!(message.contains("pod group default/model"), "{message}");
    cluster.wait("the reason is told", || {
        let text = cluster.coracle(&["explain", "pod", "model-3"]);
        text.stdout.contains("2 of 4 pods that it needs find a node").then_some(())
    });
    let selector = "scheduling.x-k8s.io/pod-group=model";
    let nodes = ["get", "pods", "-l", selector, "-o", "jsonpath={.items[*].spec.nodeName}"];
    assert_eq!(cluster.kubectl(&nodes).ok().trim(), "", "nobody holds a card");
    cluster.wait_for("podgroup/model", "{.status.phase}", "Scheduling");
    let events = cluster.wait("it is said that this takes too long", || {
        let events = cluster.kubectl(&["get", "events", "--field-selector=reason=ScheduleTimeout"]).ok();
        events.contains("podgroup/model").then_some(events)
    });
    assert!(events.contains("was not placed within 2 s"), "{events}");

    cluster.coracle(&["node", "add", "gpu-more", "--fake", "--gpu", "2"]).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pods", "-l", selector, "--timeout=60s"]).ok();
    cluster.wait_for("podgroup/model", "{.status.phase}", "Running");
}

/// The same with Volcano's kinds, for pods that ask for its scheduler; and gangs that are as they were after a restart.
#[test]
fn gang_scheduling_for_volcano() {
    let cluster = with_nodes();
    cluster.coracle(&["addons", "enable", "gang"]).ok();
    let toleration = json!([{ "key": "nvidia.com/gpu", "operator": "Exists" }]);
    let gang = |name: &str, members: usize| {
        let group = json!({
            "apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "PodGroup", "metadata": { "name": name },
            "spec": { "minMember": members },
        });
        cluster.apply(&group.to_string());
        for number in 0..members {
            let worker = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": format!("{name}-{number}"), "labels": { "gang": name },
                    "annotations": { "scheduling.k8s.io/group-name": name },
                },
                "spec": {
                    "schedulerName": "volcano", "containers": asks("nvidia.com/gpu", "1"), "tolerations": toleration,
                },
            });
            cluster.apply(&worker.to_string());
        }
    };
    let nodes = |name: &str| {
        let selector = format!("gang={name}");
        cluster.kubectl(&["get", "pods", "-l", &selector, "-o", "jsonpath={.items[*].spec.nodeName}"]).ok()
    };
    gang("large", 4);
    refused(&cluster, "large-3");
    assert_eq!(nodes("large").trim(), "", "nobody holds a card");
    // Nor does anybody get one because the scheduler begins anew.
    cluster.coracle(&["stop"]).ok();
    cluster.coracle(&["start"]).ok();
    cluster.apply(&pod("after", json!({})));
    node_of(&cluster, "after");
    assert_eq!(nodes("large").trim(), "", "nobody holds a card after a restart");
    // Its waiting is in nobody's way.
    gang("small", 2);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pods", "-l", "gang=small", "--timeout=60s"]).ok();
    cluster.coracle(&["node", "add", "gpu-more", "--fake", "--gpu", "4"]).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pods", "-l", "gang=large", "--timeout=60s"]).ok();
}
