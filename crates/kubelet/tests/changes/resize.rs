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

/// Whoever waits for room counts for what it has, or two that wait would wait for each other for ever.
#[tokio::test]
async fn pods_that_wait_for_room_do_not_wait_for_each_other() {
    let node = start(json!({"requests": {"cpu": "3"}}), &Value::Null).await;
    let mut spec = one();
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "3"}});
    node.create("other", spec);
    node.until_ready("other").await;
    let wants = |name: &str, cpu: &str| {
        let mut pod = node.api.get("pods", "default", name).unwrap();
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        node.api.put("pods", pod);
    };
    let deferred = |used: u32| {
        move |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let pending = conditions.clone().find(|condition| condition["type"] == "PodResizePending");
            let message =
                format!("Node didn't have enough resource: cpu, requested: 6000, used: {used}, capacity: 8000");
            pending.is_some_and(|pending| pending["reason"] == "Deferred" && pending["message"] == message)
        }
    };
    wants("web", "6");
    node.until("web", deferred(3000)).await;
    wants("other", "6");
    node.until("other", deferred(3000)).await;
    // What one of them is content with, the other is not kept from.
    wants("other", "5");
    let pod = node.until("other", has(&json!({"requests": {"cpu": "5"}}))).await;
    assert_eq!(condition(&pod, "PodResizePending"), "");
}

/// A pod that crashes while it is resized, or that is adopted by another kubelet, has what the node has allocated to it.
#[tokio::test]
async fn what_was_not_allocated_is_not_had_after_a_restart() {
    let few = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}});
    let mut node = start(few.clone(), &Value::Null).await;
    set(&node, &json!({"requests": {"cpu": "100"}, "limits": {"cpu": "100"}}));
    node.until("web", |pod| condition(pod, "PodResizePending") == "True").await;
    node.down().await;
    assert!(node.runtime.exit("web", "a", 1));
    node.up();
    let restarted =
        |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1 && condition(pod, "Ready") == "True";
    let pod = node.until("web", restarted).await;
    assert!(has(&few)(&pod), "{pod:#}");
    assert_eq!((quota(&node), condition(&pod, "PodResizePending")), (Some(100_000), "True".to_owned()));
}
