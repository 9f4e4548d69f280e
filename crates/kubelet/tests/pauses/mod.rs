//! A kubelet that is paused: its pod workers begin nothing, all else goes on.

use std::time::Duration;

use informer::{Component, Step};
use serde_json::Value;

use super::{Node, condition, one, state};

const LONG: Duration = Duration::from_secs(20);

fn kubelet(node: &Node) -> Component {
    let components = node.reconciles.components();
    components.into_iter().find(|component| component.name() == "kubelet").expect("it reports")
}

async fn until_waiting(component: &Component, key: &str) {
    let deadline = tokio::time::Instant::now() + LONG;
    while component.next().is_none_or(|(next, _)| next != key) {
        assert!(tokio::time::Instant::now() < deadline, "{key} does not wait: {:?}", component.next());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn pods_wait_until_they_are_let_through() {
    let mut node = Node::start().await;
    node.create("old", one());
    node.until_ready("old").await;
    let component = kubelet(&node);
    let pause = component.pause().expect("it can be paused");
    pause.pause();
    let calls = node.runtime.calls().len();
    node.create("web", one());
    until_waiting(&component, "default/web").await;
    // The node goes on to tell how it is, and pods can be looked into.
    for (is_down, ready) in [(true, "False"), (false, "True")] {
        node.runtime.set_down(is_down);
        let told = |node: Option<&Value>| node.is_some_and(|node| condition(node, "Ready") == ready);
        node.api.until("nodes", "", "n1", told).await;
    }
    let api = node.kubelet.as_ref().unwrap().node_api();
    assert_eq!(api.pod("default", "old").unwrap().containers, ["a"]);
    assert_eq!(node.runtime.calls().len(), calls, "nothing of it is made");

    let Step::Done(done) = pause.step(LONG, LONG).await else { panic!("a sync waits") };
    let texts: Vec<String> = done.iter().map(ToString::to_string).collect();
    assert!(matches!(&texts[..], [text] if text.starts_with("woken by Pod default/web @")), "{texts:?}");

    // A container that ends meanwhile is started again later, and nothing is forgotten.
    assert!(node.runtime.exit("old", "a", 1));
    pause.resume();
    node.until_ready("web").await;
    node.until("old", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert!(!state(&node.until_ready("old").await, 0)["running"].is_null());

    pause.pause();
    node.delete("web");
    until_waiting(&component, "default/web").await;
    // It ends while it is paused, and the next one takes over.
    node.down().await;
    node.up();
    node.until_gone("web").await;
    node.down().await;
}
