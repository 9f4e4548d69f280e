//! What others change while a kubelet runs: it follows, or puts it right.

mod node;
mod resize;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Node, one, state};

fn config_map(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "default"},
        "data": {"key": value}})
}

/// A pod that sees `volume` as `/v`, and has these volumes too.
fn with_volume(mut volume: Value, more: &[Value]) -> Value {
    volume["name"] = json!("v");
    let volumes: Vec<Value> = std::iter::once(volume).chain(more.iter().cloned()).collect();
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    json!({"containers": [{"name": "a", "image": "x:1", "volumeMounts": mounts}], "volumes": volumes})
}

/// The file `name` of the volume of the pod `pod`, which runs.
fn file(node: &Node, pod: &str, name: &str) -> PathBuf {
    let containers = node.runtime.containers();
    let container = containers.iter().find(|container| container.pod.name == pod).unwrap();
    let mounts = node.runtime.config(&container.id).unwrap().mounts;
    mounts.iter().find(|mount| mount.container_path == Path::new("/v")).unwrap().host_path.join(name)
}

async fn until_reads(path: &Path, expect: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text == expect {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{} reads {text:?}", path.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_change_while_volumes_are_being_written_is_not_lost() {
    let node = Node::start().await;
    node.api.put("configmaps", config_map("1"));
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Bound"},
        "metadata": {"name": "c", "namespace": "default", "uid": "c"}, "spec": {"volumeName": "pv"}});
    node.api.put("persistentvolumeclaims", claim);
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
        "spec": {"claimRef": {"uid": "c"}, "local": {"path": node.state.path()}}});
    node.api.put("persistentvolumes", volume);
    let source = || json!({"configMap": {"name": "cm"}});
    node.create("quick", with_volume(source(), &[]));
    node.create("slow", with_volume(source(), &[json!({"name": "w", "persistentVolumeClaim": {"claimName": "c"}})]));
    node.until_ready("quick").await;
    node.until_ready("slow").await;
    let (quick, slow) = (file(&node, "quick", "key"), file(&node, "slow", "key"));

    // It has read the object, and waits for its volume, as the next change comes.
    node.api.hold("persistentvolumes");
    node.api.put("configmaps", config_map("2"));
    node.api.until_awaited().await;
    node.api.put("configmaps", config_map("3"));
    until_reads(&quick, "3").await;
    node.api.let_go();
    until_reads(&slow, "3").await;
}

#[tokio::test]
async fn a_pod_is_looked_at_now_and_then() {
    let mut node = Node::start().await;
    node.api.put("configmaps", config_map("1"));
    node.create("web", with_volume(json!({"configMap": {"name": "cm"}}), &[]));
    node.until_ready("web").await;
    node.down().await;
    node.sync_period = Duration::from_millis(20);
    node.up();
    let path = file(&node, "web", "key");
    // Twice, so that it is not what is done at the start.
    for _ in 0..2 {
        std::fs::write(&path, "changed by somebody else").unwrap();
        until_reads(&path, "1").await;
    }
}

#[tokio::test]
async fn a_token_is_renewed_in_a_pod_where_nothing_happens() {
    let node = Node::start().await;
    let token = json!({"serviceAccountToken": {"path": "token"}});
    node.create("web", with_volume(json!({"projected": {"sources": [token]}}), &[]));
    node.until_ready("web").await;
    let path = file(&node, "web", "token");
    until_reads(&path, "token 3").await;
}

#[tokio::test]
async fn an_ephemeral_container_may_refer_to_what_the_pod_did_not() {
    let node = Node::start().await;
    node.create("web", one());
    let mut pod = node.until_ready("web").await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"k": "aHVzaA=="},
        "metadata": {"name": "s", "namespace": "default"}});
    node.api.put("secrets", secret);
    pod["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "x:1",
        "env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]);
    node.api.put("pods", pod);
    let runs = |pod: &Value| !pod["status"]["ephemeralContainerStatuses"][0]["state"]["running"].is_null();
    node.until("web", runs).await;
    let events = node.events("web", "Started").await;
    assert!(!events.iter().any(|event| event.starts_with("Failed")), "{events:?}");
}

#[tokio::test]
async fn a_container_is_restarted_although_its_volume_cannot_be_brought_up_to_date() {
    let node = Node::start().await;
    node.api.put("configmaps", config_map("1"));
    node.create("web", with_volume(json!({"configMap": {"name": "cm"}}), &[]));
    node.until_ready("web").await;
    node.api.delete("configmaps", "default", "cm");
    node.events("web", "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" not found").await;
    assert!(node.runtime.exit("web", "a", 1));
    let restarted =
        |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1 && !state(pod, 0)["running"].is_null();
    node.until("web", restarted).await;
    until_reads(&file(&node, "web", "key"), "1").await;
}
