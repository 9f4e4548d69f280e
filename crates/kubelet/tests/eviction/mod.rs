//! Pods that use more than they may, pods on a machine that runs out of something, and pods that are not admitted.

use std::time::Duration;

use coracle_kubelet::{Amount, FileSystem, Measurement};
use runtime::{DiskUsage, Image};
use serde_json::{Value, json};

use crate::{Node, condition, one, state};

const MI: u64 = 1 << 20;
const GI: u64 = 1 << 30;

fn memory(available: u64) -> Measurement {
    Measurement { memory: Some(Amount { available, capacity: 16 * GI }), ..Measurement::default() }
}

fn disk(available: u64) -> Measurement {
    let bytes = Amount { available, capacity: 500 * GI };
    let disk = Some(FileSystem { device: 1, bytes, inodes: None });
    Measurement { node_fs: disk, image_fs: disk, ..Measurement::default() }
}

impl Node {
    /// Waits until the pod is `Failed` for this reason with this message.
    async fn until_failed(&self, name: &str, reason: &str, message: &str) -> Value {
        let pod = self.until(name, |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!((&pod["status"]["reason"], &pod["status"]["message"]), (&json!(reason), &json!(message)));
        pod
    }

    async fn until_node(&self, type_: &str, status: &str) {
        let is = |node: Option<&Value>| node.is_some_and(|node| condition(node, type_) == status);
        self.api.until("nodes", "", "n1", is).await;
    }

    fn calls(&self, call: &str) -> usize {
        self.runtime.calls().iter().filter(|known| *known == call).count()
    }
}

#[tokio::test]
async fn a_volume_over_its_limit() {
    let node = Node::start().await;
    let mut spec = one();
    spec["volumes"] = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    node.create("big", spec.clone());
    node.create("small", spec.clone());
    spec["priority"] = json!(2_000_001_000);
    node.create("critical", spec);
    for name in ["big", "small", "critical"] {
        node.until_ready(name).await;
    }
    let volume = |uid: &str| node.state.path().join(format!("pods/{uid}/volumes/kubernetes.io~empty-dir/v"));
    std::fs::write(volume("uid-small").join("x"), vec![1; 512 << 10]).unwrap();
    std::fs::write(volume("uid-critical").join("x"), vec![1; 2 << 20]).unwrap();
    std::fs::write(volume("uid-big").join("x"), vec![1; 2 << 20]).unwrap();
    let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
    let pod = node.until_failed("big", "Evicted", message).await;
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!(
        (&target["status"], &target["reason"], &target["message"]),
        (&json!("True"), &json!("TerminationByKubelet"), &json!(message))
    );
    node.events("big", &format!("Evicted: {message}")).await;
    // What it used is given back, and its containers are ended without their 30 seconds.
    while node.calls("remove big/a") == 0 || volume("uid-big").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.calls("stop big/a"), 1);
    for name in ["small", "critical"] {
        assert_eq!(node.api.get("pods", "default", name).unwrap()["status"]["phase"], "Running", "{name}");
    }
}

#[tokio::test]
async fn a_container_over_its_limit() {
    let node = Node::start().await;
    let mut spec = one();
    spec["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "10Mi"}});
    node.create("web", spec);
    node.until_ready("web").await;
    let usage = DiskUsage { writable_layer_bytes: 8 * MI, log_bytes: 3 * MI, ..DiskUsage::default() };
    node.runtime.set_usage("web", "a", 0, usage);
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ";
    node.until_failed("web", "Evicted", message).await;
}

#[tokio::test]
async fn a_machine_without_memory() {
    let mut node = Node::new();
    node.pressure_transition_period = Duration::from_secs(3600);
    node.up();
    for (name, used) in [("large", 300), ("small", 200)] {
        node.create(name, one());
        node.until_ready(name).await;
        node.runtime.set_usage(name, "a", used * MI, DiskUsage::default());
    }
    node.until_node("MemoryPressure", "False").await;
    node.machine.set(memory(50 * MI));
    let message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container a was \
                   using 300Mi, request is 0, has larger consumption of memory. ";
    node.until_failed("large", "Evicted", message).await;
    node.until_node("MemoryPressure", "True").await;
    node.events("n1", "EvictionThresholdMet: Attempting to reclaim memory").await;
    node.events("n1", "NodeHasInsufficientMemory").await;
    node.create("new", one());
    let message = "Pod was rejected: The node had condition: [MemoryPressure]. ";
    let rejected = node.until_failed("new", "Evicted", message).await;
    assert!(rejected["status"]["containerStatuses"].is_null() && node.calls("run new") == 0);
    // Nothing came back by the eviction: others have taken it, and the next pod stays.
    let mut asked = one();
    asked["containers"][0]["resources"] = json!({"requests": {"memory": "1Mi"}});
    node.create("burstable", asked);
    node.until_ready("burstable").await;
    let small = node.api.get("pods", "default", "small").unwrap();
    assert_eq!(small["status"]["phase"], "Running");
}

#[tokio::test]
async fn a_full_disk() {
    let node = Node::start().await;
    node.runtime.lose_image("pulled:1");
    let mut spec = one();
    spec["containers"][0]["image"] = json!("pulled:1");
    node.create("web", spec);
    node.until_ready("web").await;
    let pulled = std::fs::read_to_string(node.state.path().join("pulled-images.json")).unwrap();
    assert_eq!(pulled, r#"{"sha256:pulled:1":["pulled:1"]}"#);
    assert!(node.runtime.exit("web", "a", 1));
    let is_back =
        |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1 && condition(pod, "Ready") == "True";
    node.until("web", is_back).await;
    let image = |id: &str, tag: &str| Image {
        id: id.to_owned(),
        repo_tags: vec![tag.to_owned()],
        size: GI,
        ..Image::default()
    };
    node.runtime.set_images(vec![image("sha256:pulled:1", "pulled:1"), image("sha256:users", "users:1")]);
    node.machine.set(disk(GI - MI));
    node.until_node("DiskPressure", "True").await;
    // Containers that were replaced go first. The pod uses too little to help, so it stays, and so do images in use and
    // those of the user.
    while node.calls("remove web/a") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.create("new", one());
    let message = "Pod was rejected: The node had condition: [DiskPressure]. ";
    node.until_failed("new", "Evicted", message).await;
    assert_eq!(node.api.get("pods", "default", "web").unwrap()["status"]["phase"], "Running");
    assert!(!node.runtime.calls().iter().any(|call| call.starts_with("remove image")), "{:?}", node.runtime.calls());
    let layer = DiskUsage { writable_layer_bytes: 2 * GI, ..DiskUsage::default() };
    node.runtime.set_usage("web", "a", 0, layer);
    // Pods that could not help are counted again once much less is left.
    node.machine.set(disk(GI - 100 * MI));
    let message = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 924Mi. Container a \
                   was using 2Gi, request is 0, has larger consumption of ephemeral-storage. ";
    node.until_failed("web", "Evicted", message).await;
    node.machine.set(disk(8 * GI));
    node.until_node("DiskPressure", "False").await;
    node.create("later", one());
    node.until_ready("later").await;
}

/// The pod fills the disk of the store, which takes no status then, and is evicted: its container is removed.
async fn evicted_unheard(node: &Node) {
    let layer = DiskUsage { writable_layer_bytes: 2 * GI, ..DiskUsage::default() };
    node.runtime.set_usage("web", "a", 0, layer);
    node.api.set_full(true);
    node.machine.set(disk(GI - MI));
    while node.calls("remove web/a") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The store takes no status on a disk that a pod has filled, so the disk is freed without.
#[tokio::test]
async fn a_pod_that_fills_the_disk_of_the_store() {
    let node = Node::start().await;
    node.create("web", one());
    node.until_ready("web").await;
    evicted_unheard(&node).await;
    assert_eq!(node.api.get("pods", "default", "web").unwrap()["status"]["phase"], "Running");
    node.machine.set(disk(8 * GI));
    node.api.set_full(false);
    let message = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 1023Mi. Container a \
                   was using 2Gi, request is 0, has larger consumption of ephemeral-storage. ";
    let pod = node.until_failed("web", "Evicted", message).await;
    // How it ended is known though the container was gone when the API could be told.
    let ended = &state(&pod, 0)["terminated"];
    assert!(ended["exitCode"].is_number() && ended["reason"] != "ContainerStatusUnknown", "{pod:#}");
}

/// What the runtime had of the pod is gone, and the API says that it runs.
#[tokio::test]
async fn an_eviction_that_the_api_was_not_told_of_holds_after_a_restart() {
    let mut node = Node::start().await;
    let mut spec = one();
    spec["restartPolicy"] = json!("Never");
    node.create("web", spec);
    node.until_ready("web").await;
    evicted_unheard(&node).await;
    node.down().await;
    node.machine.set(disk(8 * GI));
    node.api.set_full(false);
    node.up();
    let message = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 1023Mi. Container a \
                   was using 2Gi, request is 0, has larger consumption of ephemeral-storage. ";
    let pod = node.until_failed("web", "Evicted", message).await;
    assert_eq!(condition(&pod, "DisruptionTarget"), "True");
    assert_eq!(node.calls("start web/a"), 1, "{:?}", node.runtime.calls());
}

#[tokio::test]
async fn what_cannot_be_enforced_is_refused() {
    let node = Node::start().await;
    // What the runtime can do is known then.
    node.api.until("nodes", "", "n1", |node| node.is_some_and(|node| node["status"]["capacity"]["cpu"] == "8")).await;
    let mut spec = one();
    spec["securityContext"] = json!({"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]});
    node.create("unsafe", spec);
    let message = "Pod was rejected: forbidden sysctl: sysctl \"kernel.msgmax\" not allowlisted \
                   (coracle start --allowed-unsafe-sysctls kernel.msgmax allows it)";
    node.until_failed("unsafe", "SysctlForbidden", message).await;
    node.events("unsafe", "SysctlForbidden: forbidden sysctl: sysctl \"kernel.msgmax\" not allowlisted").await;
    let mut spec = one();
    spec["hostUsers"] = json!(false);
    node.create("users", spec);
    node.events("users", "FailedCreatePodSandBox: Failed to create pod sandbox: hostUsers: false cannot").await;
    assert_eq!((node.calls("run unsafe"), node.calls("run users")), (0, 0));
    let mut spec = one();
    spec["securityContext"] = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}});
    node.create("armored", spec);
    let message = "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host";
    node.until_failed("armored", "AppArmor", message).await;
}

#[tokio::test]
async fn rejected_pods_are_not_replaced_without_end() {
    let node = Node::start().await;
    let create = |name: &str| {
        let mut spec = one();
        spec["nodeName"] = json!("n1");
        spec["securityContext"] = json!({"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]});
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true});
        let metadata = json!({"name": name, "namespace": "default", "uid": name, "ownerReferences": [owner]});
        node.api.put("pods", json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}));
    };
    create("first");
    node.until("first", |pod| pod["status"]["reason"] == "SysctlForbidden").await;
    create("second");
    // People are told at once, its controller only later.
    node.events("second", "SysctlForbidden").await;
    assert!(node.api.get("pods", "default", "second").unwrap()["status"].is_null());
    // It goes at once all the same.
    node.delete("second");
    node.until_gone("second").await;
    assert_eq!(node.calls("run second"), 0);
}

#[tokio::test]
async fn every_container_has_a_limit_of_processes() {
    let node = Node::start().await;
    node.create("web", one());
    node.until_ready("web").await;
    let id = &node.runtime.containers()[0].id;
    assert_eq!(node.runtime.config(id).unwrap().resources.pids_limit, Some(4096));
}
