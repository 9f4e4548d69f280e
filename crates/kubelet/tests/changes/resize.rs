//! Resources of containers that change while they run.

use serde_json::{Value, json};

use crate::{Node, condition, one};

async fn start(resources: Value, policy: &Value) -> Node {
    let node = Node::start().await;
    // What there is to give is known then.
    node.api.until("nodes", "", "n1", |node| node.is_some_and(|node| node["status"]["capacity"]["cpu"] == "8")).await;
    let mut spec = one();
    spec["containers"][0]["resources"] = resources;
    spec["containers"][0]["resizePolicy"] = policy.clone();
    node.create("web", spec);
    node.until_ready("web").await;
    node
}

fn set(node: &Node, resources: &Value) {
    let mut pod = node.api.get("pods", "default", "web").unwrap();
    pod["spec"]["containers"][0]["resources"] = resources.clone();
    node.api.put("pods", pod);
}

fn has(resources: &Value) -> impl Fn(&Value) -> bool {
    move |pod| pod["status"]["containerStatuses"][0]["resources"] == *resources
}

fn quota(node: &Node) -> Option<i64> {
    let containers = node.runtime.containers();
    node.runtime.config(&containers.last().unwrap().id).unwrap().resources.cpu_quota_us
}

#[tokio::test]
async fn a_container_is_resized_while_it_runs() {
    let node = start(json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}), &Value::Null).await;
    assert_eq!(quota(&node), Some(20_000));
    let more = json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}});
    set(&node, &more);
    let pod = node.until("web", has(&more)).await;
    assert_eq!(quota(&node), Some(30_000));
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(pod["status"]["containerStatuses"][0]["allocatedResources"], json!({"cpu": "150m"}));
    let updates = node.runtime.calls().iter().filter(|call| *call == "update web/a").count();
    assert_eq!(updates, 1, "{:?}", node.runtime.calls());
}

#[tokio::test]
async fn what_the_node_cannot_give_is_said_and_not_done() {
    let few = json!({"requests": {"cpu": "1"}});
    let node = start(few.clone(), &Value::Null).await;
    set(&node, &json!({"requests": {"cpu": "100"}}));
    let pod = node.until("web", |pod| condition(pod, "PodResizePending") == "True").await;
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let pending = conditions.iter().find(|condition| condition["type"] == "PodResizePending").unwrap();
    let message = "Node didn't have enough capacity: cpu, requested: 100000, capacity: 8000";
    assert_eq!((&pending["reason"], &pending["message"]), (&json!("Infeasible"), &json!(message)));
    assert!(has(&few)(&pod));
    // A crash does not give it what the node does not have.
    assert!(node.runtime.exit("web", "a", 1));
    let restarted =
        |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1 && condition(pod, "Ready") == "True";
    let pod = node.until("web", restarted).await;
    assert!(has(&few)(&pod), "{pod:#}");
    set(&node, &few);
    node.until("web", |pod| condition(pod, "PodResizePending").is_empty()).await;
    assert!(!node.runtime.calls().iter().any(|call| call.starts_with("update")));
}

#[tokio::test]
async fn a_container_is_restarted_where_its_policy_asks_for_it() {
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let node = start(json!({"limits": {"memory": "64Mi"}}), &policy).await;
    let more = json!({"limits": {"memory": "128Mi"}});
    set(&node, &more);
    let restarted = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1 && has(&more)(pod);
    node.until("web", restarted).await;
    node.events("web", "Killing: Container a resize requires restart").await;
}
