//! Pods that do not fit the node, or not beside those that run there.

use serde_json::{Value, json};

use crate::{Node, one};

impl Node {
    /// Waits until the pod has failed for this reason, and nothing of it was made.
    async fn until_rejected(&self, name: &str, reason: &str, message: &str) {
        let pod = self.until(name, |pod| pod["status"]["phase"] == "Failed").await;
        let message = format!("Pod was rejected: {message}");
        assert_eq!((&pod["status"]["reason"], &pod["status"]["message"]), (&json!(reason), &json!(message)));
        let run = format!("run {name}");
        assert!(!self.runtime.calls().contains(&run), "{:?}", self.runtime.calls());
    }

    async fn until_it_has_processors(&self) {
        let has = |node: Option<&Value>| node.is_some_and(|node| node["status"]["allocatable"]["cpu"] == "8");
        self.api.until("nodes", "", "n1", has).await;
    }
}

fn with_port() -> Value {
    let mut spec = one();
    spec["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}]);
    spec
}

fn with_cpu(cpu: &str) -> Value {
    let mut spec = one();
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    spec
}

const PORTS: &str = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";

#[tokio::test]
async fn a_port_of_the_host_is_had_once() {
    let node = Node::start().await;
    node.create("first", with_port());
    node.until_ready("first").await;
    node.create("second", with_port());
    node.until_rejected("second", "NodePorts", PORTS).await;
    node.events("second", &format!("NodePorts: {PORTS}")).await;
    // It is free once nothing of the pod runs.
    node.delete("first");
    node.until_gone("first").await;
    node.create("third", with_port());
    node.until_ready("third").await;
}

#[tokio::test]
async fn a_pod_asks_for_what_the_node_has() {
    let node = Node::start().await;
    node.until_it_has_processors().await;
    node.create("web", with_cpu("5"));
    node.until_ready("web").await;
    node.create("large", with_cpu("4"));
    let message = "Node didn't have enough resource: cpu, requested: 4000, used: 5000, capacity: 8000";
    node.until_rejected("large", "OutOfcpu", message).await;
    node.create("small", with_cpu("3"));
    node.until_ready("small").await;
}

#[tokio::test]
async fn a_pod_runs_on_a_node_of_its_choice() {
    let node = Node::start().await;
    node.until_it_has_processors().await;
    let mut spec = one();
    spec["nodeSelector"] = json!({"zone": "a"});
    node.create("picky", spec.clone());
    let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    node.until_rejected("picky", "NodeAffinity", message).await;
    let mut labelled = node.api.get("nodes", "", "n1").unwrap();
    labelled["metadata"]["labels"]["zone"] = json!("a");
    node.api.put("nodes", labelled);
    // Whether the kubelet has seen that yet or not.
    node.create("content", spec);
    node.until_ready("content").await;
}

#[tokio::test]
async fn who_ran_before_a_restart_goes_before_who_came_meanwhile() {
    let mut node = Node::start().await;
    node.until_it_has_processors().await;
    let mut spec = with_port();
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "6"}});
    node.create("old", spec);
    node.until_ready("old").await;
    node.down().await;
    node.create("a-new", with_port());
    node.create("b-new", with_cpu("4"));
    let mut unlabelled = node.api.get("pods", "default", "old").unwrap();
    unlabelled["spec"]["nodeSelector"] = json!({"zone": "none"});
    node.api.put("pods", unlabelled);
    node.up();
    node.until_rejected("a-new", "NodePorts", PORTS).await;
    let message = "Node didn't have enough resource: cpu, requested: 4000, used: 6000, capacity: 8000";
    node.until_rejected("b-new", "OutOfcpu", message).await;
    let old = node.api.get("pods", "default", "old").unwrap();
    assert_eq!(old["status"]["phase"], "Running");
    assert_eq!(old["status"]["containerStatuses"][0]["restartCount"], 0);
}
