//! Further nodes on one machine: each runs pods of its own, survives a restart, and goes without a trace.

use coracle_tests::{BUSYBOX, Cluster, run};
use serde_json::Value;

#[test]
fn further_nodes_run_pods_of_their_own() {
    let cluster = Cluster::new();
    cluster.coracle(&["start", "--nodes", "2"]).ok();
    cluster.coracle(&["node", "add", "small", "--cpu", "1", "--memory", "1Gi", "--gpu", "2", "--label", "a=b"]).ok();
    cluster.wait_for("node/small", "{.status.conditions[?(@.type=='Ready')].status}", "True");
    let second = format!("{}-m02", cluster.profile);
    let names = [cluster.profile.as_str(), second.as_str(), "small"];
    let ranges = names.map(|name| cluster.field(&format!("node/{name}"), "{.spec.podCIDR}"));
    let addresses = names.map(|name| cluster.field(&format!("node/{name}"), "{.status.addresses[0].address}"));
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        assert_ne!(ranges[one], ranges[other]);
        assert_ne!(addresses[one], addresses[other]);
    }
    let offers = "{.status.allocatable.cpu} {.status.allocatable.memory} {.status.allocatable.nvidia\\.com/gpu}";
    assert_eq!(cluster.field("node/small", offers), "1 1Gi 2");
    assert_eq!(cluster.field("node/small", "{.metadata.labels.a}"), "b");

    // A pod on each: its address is of the node's range, its log and shell are to be had, and they reach each other.
    let pods = ["on-first", "on-second", "on-small"];
    for (pod, node) in pods.iter().zip(names) {
        let overrides = serde_json::json!({ "spec": { "nodeName": node } }).to_string();
        cluster.kubectl(&["run", pod, "--image=nginx:latest", "--overrides", &overrides]).ok();
    }
    let ips: Vec<String> = pods
        .iter()
        .zip(&ranges)
        .map(|(pod, range)| {
            cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]).ok();
            let ip = cluster.field(&format!("pod/{pod}"), "{.status.podIP}");
            let start = |text: &str| text.rsplit_once('.').map(|(start, _)| start.to_owned());
            assert_eq!(start(&ip), start(range), "{ip} is of {range}");
            ip
        })
        .collect();
    for pod in pods {
        assert_eq!(cluster.kubectl(&["exec", pod, "--", "cat", "/etc/hostname"]).ok().trim(), pod);
        for ip in &ips {
            let url = format!("http://{ip}");
            cluster.wait("the pod answers the other", || {
                let page = cluster.kubectl(&["exec", pod, "--", "curl", "-sf", "-m", "10", &url]).stdout;
                page.contains("Welcome to nginx").then_some(())
            });
        }
    }
    for pod in pods {
        cluster
            .wait("the log shows the visits", || cluster.kubectl(&["logs", pod]).ok().contains("GET / ").then_some(()));
    }

    // After a restart all are there, with the same containers.
    let before = cluster.containers();
    cluster.coracle(&["stop", "--keep-pods"]).ok();
    cluster.coracle(&["start", "--nodes", "2"]).ok();
    cluster.wait("all nodes are Ready", || {
        let nodes = cluster.kubectl(&["get", "nodes", "--no-headers"]).ok();
        (nodes.lines().filter(|line| line.contains(" Ready ")).count() == 3).then_some(())
    });
    assert_eq!(cluster.containers(), before);
    cluster.kubectl(&["exec", "on-small", "--", "true"]).ok();

    // A node that is deleted takes its containers along, and does not come back.
    cluster.coracle(&["node", "delete", "small"]).ok();
    let label = format!("label=io.coracle.profile={}", cluster.profile);
    cluster.wait("its containers are gone", || {
        let all = ["ps", "-aq", "--filter", &label, "--filter", "label=io.coracle.node=small"];
        run("docker", &all).ok().trim().is_empty().then_some(())
    });
    cluster.wait("its folder is gone", || {
        let folder = cluster.home().join("home").join(&cluster.profile).join("nodes").join("small");
        (!folder.exists()).then_some(())
    });
    let nodes: Value = serde_json::from_str(&cluster.kubectl(&["get", "nodes", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(2));
    assert!(cluster.coracle(&["node", "delete", &cluster.profile]).fails().contains("coracle delete"));
}

#[test]
fn what_others_change_of_a_node_is_put_right() {
    let cluster = Cluster::start();
    let node = format!("node/{}", cluster.profile);
    let patch = |patch: &str| {
        cluster.kubectl(&["patch", &node, "--subresource=status", "--type=strategic", "-p", patch]).ok();
    };
    patch(r#"{"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}}"#);
    cluster.wait_for(&node, "{.status.conditions[?(@.type=='Ready')].status}", "True");
    cluster.kubectl(&["label", &node, "kubernetes.io/os=plan9", "--overwrite"]).ok();
    cluster.wait_for(&node, "{.metadata.labels.kubernetes\\.io/os}", "linux");
    // What is announced by others can be had by pods, as long as it is.
    patch(r#"{"status": {"capacity": {"example.com/dongle": "4"}}}"#);
    let allocatable = "{.status.allocatable.example\\.com/dongle}";
    cluster.wait_for(&node, allocatable, "4");
    patch(r#"{"status": {"capacity": {"example.com/dongle": null}}}"#);
    cluster.wait_for(&node, allocatable, "");
}

#[test]
fn fake_nodes_have_daemons_and_can_be_drained() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    cluster.coracle(&["node", "add", "fake", "--fake", "--count", "3"]).ok();
    cluster.apply(&format!(
        "
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec:
  selector: {{matchLabels: {{app: agent}}}}
  template:
    metadata: {{labels: {{app: agent}}}}
    spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, '100000']}}]}}
"
    ));
    kubectl(&["rollout", "status", "daemonset/agent", "--timeout=60s"]);
    cluster.wait_for("daemonset/agent", "{.status.desiredNumberScheduled} {.status.numberReady}", "4 4");
    cluster.coracle(&["node", "add", "late", "--fake", "--taint", "own=yes:NoSchedule"]).ok();
    cluster.coracle(&["node", "add", "later", "--fake"]).ok();
    cluster.wait_for("daemonset/agent", "{.status.desiredNumberScheduled} {.status.numberReady}", "5 5");
    kubectl(&["set", "env", "daemonset/agent", "ROUND=2"]);
    kubectl(&["rollout", "status", "daemonset/agent", "--timeout=60s"]);
    assert_eq!(cluster.field("daemonset/agent", "{.status.updatedNumberScheduled}"), "5");

    // There is nothing to look into, and that is said.
    let on_fake = ["get", "pods", "-l", "app=agent", "--field-selector=spec.nodeName=fake-0", "-o", "name"];
    let pod = kubectl(&on_fake);
    let said = "node \"fake-0\" is a fake node: its pods only seem to run, and have no ";
    let refused = cluster.kubectl(&["logs", pod.trim()]).fails();
    assert!(refused.contains(&format!("{said}logs")), "{refused}");
    cluster.kubectl(&["exec", pod.trim(), "--", "ls"]).fails();

    // Drained, a node keeps its daemon; the others go elsewhere, one after the other as the budget wants it.
    kubectl(&["cordon", &cluster.profile]);
    kubectl(&["create", "deployment", "web", "--image=nginx:latest", "--replicas=6"]);
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    kubectl(&["create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=5"]);
    cluster.wait_for("pdb/web", "{.status.disruptionsAllowed}", "1");
    kubectl(&["drain", "fake-0", "fake-1", "--ignore-daemonsets", "--timeout=60s"]);
    let left = ["get", "pods", "--field-selector=spec.nodeName=fake-0", "-o", "name"];
    let left = kubectl(&left);
    assert!(left.lines().count() == 1 && left.contains("agent"), "{left}");
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    kubectl(&["uncordon", "fake-0", "fake-1", &cluster.profile]);
    assert!(!kubectl(&["get", "nodes"]).contains("SchedulingDisabled"));
}

#[test]
fn pods_of_fake_nodes_go_through_what_is_said_of_them() {
    let cluster = Cluster::start();
    let ready = "pod-ready.stage.kwok.x-k8s.io/delay=3s";
    cluster.coracle(&["node", "add", "slow", "--fake", "--annotation", ready]).ok();
    assert!(cluster.coracle(&["node", "add", "x", "--annotation", "a=b"]).fails().contains("--fake"));
    assert!(cluster.coracle(&["node", "add", "x", "--fake", "--annotation", "a"]).fails().contains("write key=value"));
    assert!(cluster.kubectl(&["get", "node", "slow"]).ok().contains("fake"));
    let pod = |name: &str, annotations: &str| {
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, annotations: {{{annotations}}}}}, spec: {{nodeSelector: \
             {{kubernetes.io/hostname: slow}}, containers: [{{name: c, image: none}}]}}}}"
        ));
    };
    let stage = |stage: &str, value: &str| format!("{stage}: \"{value}\"");
    pod("plain", "kwok.x-k8s.io/usage-cpu: 250m, kwok.x-k8s.io/usage-memory: 64Mi");
    let crashes = [
        stage("pod-ready.stage.kwok.x-k8s.io/delay", "0s"),
        stage("pod-container-failed.stage.kwok.x-k8s.io/exit-code", "137"),
        stage("pod-container-failed.stage.kwok.x-k8s.io/reason", "OOMKilled"),
    ];
    pod("crashing", &crashes.join(", "));
    let reason = "{.status.containerStatuses[0].state.waiting.reason}";
    assert_eq!(cluster.field("pod/plain", reason), "ContainerCreating", "the node speaks for it");
    cluster.wait_for("pod/crashing", reason, "CrashLoopBackOff");
    let ended = "{.status.containerStatuses[0].lastState.terminated.exitCode} {.status.containerStatuses[0].lastState.terminated.reason}";
    assert_eq!(cluster.field("pod/crashing", ended), "137 OOMKilled");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/plain", "--timeout=60s"]).ok();
    let told = cluster.kubectl(&["get", "events", "--field-selector=involvedObject.name=plain,reason=Scheduled"]).ok();
    assert!(told.contains("a fake node: the pod only seems to run"), "{told}");
    let used = cluster.wait("it is told what the pod uses", || {
        let top = cluster.kubectl(&["top", "pod", "plain", "--no-headers"]).stdout;
        top.contains("plain").then_some(top)
    });
    assert!(used.contains("250m") && used.contains("64Mi"), "{used}");
    assert!(cluster.kubectl(&["top", "node", "slow", "--no-headers"]).ok().contains("250m"));
    // What is said later counts from then on.
    cluster.kubectl(&["annotate", "node", "slow", "pod-ready.stage.kwok.x-k8s.io/delay=1h", "--overwrite"]).ok();
    pod("late", "");
    cluster.wait_for("pod/late", reason, "ContainerCreating");
    cluster.kubectl(&["annotate", "node", "slow", "pod-ready.stage.kwok.x-k8s.io/delay-"]).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/late", "--timeout=60s"]).ok();
}
