//! What others change of the Node object.

use serde_json::{Value, json};

use crate::{Node, condition, one};

#[tokio::test]
async fn what_others_change_of_the_node_is_put_right() {
    let node = Node::start().await;
    let until = async |check: &dyn Fn(&Value) -> bool| {
        node.api.until("nodes", "", "n1", |node| node.is_some_and(check)).await.unwrap()
    };
    let change = |change: &dyn Fn(&mut Value)| {
        let mut object = node.api.get("nodes", "", "n1").unwrap();
        change(&mut object);
        node.api.put("nodes", object);
    };
    let is_ready = |node: &Value| condition(node, "Ready") == "True";
    let set_ready = |status: &'static str| {
        move |node: &mut Value| {
            let conditions = node["status"]["conditions"].as_array_mut().unwrap();
            let ready = conditions.iter_mut().find(|condition| condition["type"] == "Ready").unwrap();
            ready["status"] = json!(status);
        }
    };
    until(&is_ready).await;
    for status in ["Unknown", "False"] {
        change(&set_ready(status));
        until(&is_ready).await;
    }
    change(&|node| {
        node["status"]["conditions"].as_array_mut().unwrap().retain(|known| known["type"] != "DiskPressure");
    });
    until(&|node| !condition(node, "DiskPressure").is_empty()).await;
    change(&|node| node["metadata"]["labels"]["kubernetes.io/hostname"] = json!("other"));
    until(&|node| node["metadata"]["labels"]["kubernetes.io/hostname"] == "n1").await;
    change(&|node| node["status"]["capacity"]["cpu"] = json!("1000"));
    until(&|node| node["status"]["capacity"]["cpu"] == "8").await;
    // What is announced by others can be had by pods, as long as it is.
    change(&|node| node["status"]["capacity"]["example.com/dongle"] = json!("4"));
    let object = until(&|node| node["status"]["allocatable"]["example.com/dongle"] == "4").await;
    assert_eq!(object["status"]["capacity"]["example.com/dongle"], "4");
    change(&|node| drop(node["status"]["capacity"].as_object_mut().unwrap().remove("example.com/dongle")));
    until(&|node| node["status"]["allocatable"]["example.com/dongle"].is_null()).await;
    // A node that is deleted comes back.
    node.api.delete("nodes", "", "n1");
    until(&is_ready).await;
}

#[tokio::test]
async fn a_node_at_rest_is_not_written() {
    let node = Node::start().await;
    let is_ready = |node: Option<&Value>| node.is_some_and(|node| condition(node, "Ready") == "True");
    node.api.until("nodes", "", "n1", is_ready).await;
    let writes = |node: &Node| node.api.writes().iter().filter(|write| write.contains("nodes")).count();
    let before = writes(&node);
    // The answers to its own writes come back by the watch. A pod passes through all that runs here meanwhile.
    node.create("web", one());
    node.until_ready("web").await;
    assert_eq!(writes(&node), before, "{:?}", node.api.writes());
}
