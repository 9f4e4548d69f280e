//! A whole kubelet, on a runtime and an API server in memory.

mod admission;
mod changes;
mod common;
mod eviction;
mod pauses;

use std::sync::Arc;
use std::time::Duration;

use common::Api;
use coracle_kubelet::test_runtime::{Pull, TestMachine, TestRuntime};
use coracle_kubelet::{self as kubelet, Config, Deps, Handle};
use informer::{Informers, Reconciles};
use serde_json::{Value, json};
use streaming::{LogOptions, NodeMetrics, PodRef};
use tokio_util::sync::CancellationToken;

struct Node {
    api: Api,
    runtime: TestRuntime,
    /// Under no pressure, until it is told.
    machine: TestMachine,
    state: tempfile::TempDir,
    sync_period: Duration,
    pressure_transition_period: Duration,
    kubelet: Option<Handle>,
    reconciles: Reconciles,
}

impl Node {
    async fn start() -> Self {
        let mut node = Self::new();
        node.up();
        node
    }

    fn new() -> Self {
        Self {
            api: Api::new(),
            runtime: TestRuntime::default(),
            machine: TestMachine::default(),
            state: tempfile::tempdir().unwrap(),
            // What changes is told; nothing here waits to be found.
            sync_period: Duration::from_secs(3600),
            pressure_transition_period: Duration::from_millis(100),
            kubelet: None,
            reconciles: Reconciles::default(),
        }
    }

    fn up(&mut self) {
        let client = self.api.client();
        let mut config = Config::new("n1", "127.0.0.1".parse().unwrap(), self.state.path());
        config.relist_period = Duration::from_secs(3600);
        config.sync_period = self.sync_period;
        config.runtime_status_period = Duration::from_millis(10);
        config.runtime_status_timeout = Duration::from_millis(100);
        config.eviction_monitoring_period = Duration::from_millis(10);
        config.eviction_pressure_transition_period = self.pressure_transition_period;
        config.volume_stats_period = Duration::from_millis(20);
        let informers = Informers::new(client.clone(), CancellationToken::new());
        self.reconciles = informers.reconciles().clone();
        let (runtime, measures) = (Arc::new(self.runtime.clone()), Arc::new(self.machine.clone()));
        let deps = Deps { informers, client, runtime, measures };
        self.kubelet = Some(kubelet::start(config, deps).unwrap());
    }

    async fn down(&mut self) {
        self.kubelet.take().unwrap().shutdown().await;
    }

    fn create(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        let metadata = json!({"name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1});
        self.api.put("pods", json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}));
    }

    async fn until(&self, name: &str, check: impl Fn(&Value) -> bool) -> Value {
        let check = |pod: Option<&Value>| pod.is_some_and(&check);
        self.api.until("pods", "default", name, check).await.unwrap()
    }

    async fn until_ready(&self, name: &str) -> Value {
        self.until(name, |pod| condition(pod, "Ready") == "True").await
    }

    async fn until_gone(&self, name: &str) {
        self.api.until("pods", "default", name, |pod| pod.is_none()).await;
    }

    fn delete(&self, name: &str) {
        let mut pod = self.api.get("pods", "default", name).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        self.api.put("pods", pod);
    }

    /// `REASON: MESSAGE` of the pod's events, once the one is there that starts with `last`.
    async fn events(&self, name: &str, last: &str) -> Vec<String> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let events = self.api.list("events");
            let of_pod = events.iter().filter(|event| event["involvedObject"]["name"] == name);
            let text = |event: &Value| {
                let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
                format!("{}: {}", text("reason"), text("message"))
            };
            let texts: Vec<String> = of_pod.map(text).collect();
            if texts.iter().any(|text| text.starts_with(last)) {
                return texts;
            }
            assert!(tokio::time::Instant::now() < deadline, "no {last} in {texts:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn condition(pod: &Value, kind: &str) -> String {
    let conditions = pod["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let condition = conditions.find(|condition| condition["type"] == kind);
    condition.map_or_else(String::new, |condition| condition["status"].as_str().unwrap().to_owned())
}

fn state(pod: &Value, index: usize) -> &Value {
    &pod["status"]["containerStatuses"][index]["state"]
}

fn one() -> Value {
    json!({"restartPolicy": "Always", "containers": [{"name": "a", "image": "nginx:1"}]})
}

#[tokio::test]
async fn each_sync_tells_what_woke_it_what_it_did_and_why_not_more() {
    let node = Node::start().await;
    let revision = {
        node.create("web", one());
        node.until_ready("web").await;
        node.delete("web");
        node.api.get("pods", "default", "web").unwrap()["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    };
    node.until_gone("web").await;
    let syncs = || node.reconciles.latest("kubelet");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while syncs().last().is_none_or(|last| last.reason.as_deref() != Some("nothing of the pod is left")) {
        assert!(tokio::time::Instant::now() < deadline, "{syncs:#?}", syncs = syncs());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let texts: Vec<String> = syncs().iter().map(ToString::to_string).collect();
    let has = |starts: &str, contains: &str| {
        let found = texts.iter().any(|text| text.starts_with(starts) && text.contains(contains));
        assert!(found, "no sync {starts} ... {contains}: {texts:#?}");
    };
    assert!(syncs().iter().all(|sync| sync.key == "default/web"));
    has("woken by Pod default/web @", "set up the volumes");
    has("woken by the sandbox was created", "");
    has("woken by ", "start container a");
    has("woken by ", "patch the status");
    has("woken by ", "(the pod is as it should be)");
    has(&format!("woken by Pod default/web @{revision}"), "begin to stop container a");
}

#[tokio::test]
async fn a_pod_from_creation_to_deletion() {
    let node = Node::start().await;
    node.create("web", one());
    let pod = node.until_ready("web").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["podIP"], "10.244.0.1");
    assert_eq!(pod["status"]["hostIP"], "127.0.0.1");
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    let events = node.events("web", "Started").await;
    assert_eq!(
        events,
        [
            "Pulled: Container image \"nginx:1\" already present on machine and can be accessed by the pod",
            "Created: Container created",
            "Started: Container started",
        ]
    );
    let container = node.runtime.containers().remove(0);
    let config = node.runtime.config(&container.id).unwrap();
    assert!(config.mounts.iter().any(|mount| mount.container_path.ends_with("etc/hosts")));

    node.delete("web");
    node.until_gone("web").await;
    let calls = ["run web", "start web/a", "stop web/a"];
    assert!(node.runtime.calls().starts_with(&calls.map(str::to_owned)));
    node.events("web", "Killing: Stopping container a").await;
    let status_writes = node.api.writes();
    let status_writes = status_writes.iter().filter(|write| *write == "patch pods/web status");
    // Pending, running, ended.
    assert!(status_writes.count() <= 4, "{:?}", node.api.writes());
    node.kubelet.unwrap().shutdown().await;
}

#[tokio::test]
async fn the_node_is_ready_and_has_a_lease() {
    let node = Node::start().await;
    let ready = |node: Option<&Value>| node.is_some_and(|node| condition(node, "Ready") == "True");
    let object = node.api.until("nodes", "", "n1", ready).await.unwrap();
    assert_eq!(object["status"]["capacity"]["cpu"], "8");
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    node.api.until("leases", "kube-node-lease", "n1", |lease| lease.is_some()).await;
    // The runtime goes away and comes back.
    node.runtime.set_down(true);
    let down = |node: Option<&Value>| node.is_some_and(|node| condition(node, "Ready") == "False");
    node.api.until("nodes", "", "n1", down).await;
    node.runtime.set_down(false);
    node.api.until("nodes", "", "n1", ready).await;
}

#[tokio::test]
async fn what_runs_is_adopted_after_a_restart() {
    let mut node = Node::start().await;
    node.create("web", one());
    node.create("old", one());
    node.until_ready("web").await;
    node.until_ready("old").await;
    node.down().await;
    let before: Vec<String> = node.runtime.containers().into_iter().map(|container| container.id).collect();
    assert_eq!(before.len(), 2);
    // One is deleted while nobody looks.
    node.api.delete("pods", "default", "old");
    node.up();
    node.create("new", one());
    node.until_ready("new").await;
    let calls = node.runtime.calls();
    assert_eq!(calls.iter().filter(|call| *call == "start web/a").count(), 1);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !node.runtime.calls().contains(&"remove old".to_owned()) {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(node.runtime.containers().iter().any(|container| before.contains(&container.id)));
}

#[tokio::test]
async fn a_crash_is_restarted_at_once_and_then_waits() {
    let node = Node::start().await;
    node.create("web", one());
    node.until_ready("web").await;
    assert!(node.runtime.exit("web", "a", 1));
    let count = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_i64();
    let pod = node.until("web", |pod| count(pod) == Some(1) && condition(pod, "Ready") == "True").await;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 1);
    assert!(node.runtime.exit("web", "a", 2));
    let waits = |pod: &Value| state(pod, 0)["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = node.until("web", waits).await;
    assert_eq!(
        state(&pod, 0)["waiting"]["message"],
        "back-off 10s restarting failed container=a pod=web_default(uid-web)"
    );
    node.events("web", "BackOff: Back-off restarting failed container a in pod web_default(uid-web)").await;
    // The log of the instance before, and of the last one.
    let api = node.kubelet.as_ref().unwrap().node_api();
    let pod = PodRef { namespace: "default".to_owned(), name: "web".to_owned(), uid: "uid-web".to_owned() };
    for previous in [false, true] {
        let options = LogOptions { previous, ..LogOptions::default() };
        let mut log = api.logs(&pod, "a", options).await.unwrap();
        let line = futures::StreamExt::next(&mut log).await.unwrap().unwrap();
        assert_eq!(line, "a attempt 1\n");
    }
}

#[tokio::test]
async fn what_the_node_tells_of_its_pods() {
    let node = Node::start().await;
    let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    node.create("web", json!({"containers": [{"name": "a", "image": "nginx:1", "readinessProbe": probe}]}));
    node.until_ready("web").await;
    let api = node.kubelet.as_ref().unwrap().node_api();
    let found = api.pod("default", "web").unwrap();
    assert_eq!((found.pod.uid.as_str(), found.containers), ("uid-web", vec!["a".to_owned()]));
    assert_eq!((api.pod("default", "other"), api.pod("other", "web")), (None, None));
    let (bound, running) = (api.pods().unwrap(), api.running_pods().unwrap());
    assert_eq!((bound.len(), &bound[0]["spec"]["containers"][0]["name"]), (1, &json!("a")));
    let main = json!([{"name": "a", "image": "nginx:1", "resources": {}}]);
    assert_eq!((running.len(), &running[0]["spec"]["containers"]), (1, &main));
    assert_eq!(api.configuration().unwrap()["enableServer"], false);
    for (which, expect) in [
        (NodeMetrics::Kubelet, "kubelet_running_pods 1\n"),
        (NodeMetrics::Cadvisor, "container_threads{container=\"a\",image=\"nginx:1\","),
        (
            NodeMetrics::Resource,
            "container_memory_working_set_bytes{container=\"a\",namespace=\"default\",pod=\"web\"}",
        ),
        (NodeMetrics::Probes, "pod_uid=\"uid-web\",probe_type=\"Readiness\",result=\"successful\"} "),
    ] {
        let text = api.metrics(which).await.unwrap();
        assert!(text.contains(expect), "{expect}\nnot in\n{text}");
    }
    node.delete("web");
    node.until_gone("web").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !api.metrics(NodeMetrics::Probes).await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the counts go with the pod");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled() {
    let node = Node::start().await;
    node.runtime.lose_image("nope:1");
    node.runtime.fail_pulls("nope:1", Pull::NotFound);
    node.create("web", json!({"containers": [{"name": "a", "image": "nope:1"}]}));
    let pod = node.until("web", |pod| state(pod, 0)["waiting"]["reason"] == "ErrImagePull").await;
    assert_eq!(pod["status"]["phase"], "Pending");
    let events = node.events("web", "Failed: Error: ErrImagePull").await;
    assert_eq!(events[0], "Pulling: Pulling image \"nope:1\"");
    assert!(events[1].starts_with("Failed: Failed to pull image \"nope:1\": manifest for nope:1 not found"));
    node.delete("web");
    node.until_gone("web").await;
}

#[tokio::test]
async fn without_a_registry_the_local_image_serves() {
    let node = Node::start().await;
    let spec = json!({"containers": [{"name": "a", "image": "nginx:latest", "imagePullPolicy": "Always"}]});
    node.create("online", spec.clone());
    node.until_ready("online").await;
    let events = node.events("online", "Started").await;
    assert_eq!(events[0], "Pulling: Pulling image \"nginx:latest\"");
    assert!(events[1].starts_with("Pulled: Successfully pulled image \"nginx:latest\" in "), "{events:?}");

    node.runtime.fail_pulls("nginx:latest", Pull::Offline);
    // The second does not try for long what has just failed.
    for (name, event) in [("first", 1), ("second", 0)] {
        node.create(name, spec.clone());
        node.until_ready(name).await;
        let events = node.events(name, "Started").await;
        let expect = "Pulled: Registry of image \"nginx:latest\" is out of reach";
        assert!(events[event].starts_with(expect), "{events:?}");
    }
}

#[tokio::test]
async fn a_config_map_is_waited_for_and_followed() {
    let node = Node::start().await;
    node.create(
        "web",
        json!({
        "containers": [{"name": "a", "image": "nginx:1", "volumeMounts": [{"name": "v", "mountPath": "/etc/app"}]}],
        "volumes": [{"name": "v", "configMap": {"name": "cm"}}]}),
    );
    node.events("web", "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" not found").await;
    let config_map = |value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "default"},
            "data": {"key": value}})
    };
    node.api.put("configmaps", config_map("1"));
    node.until_ready("web").await;
    let container = node.runtime.containers().remove(0);
    let mounts = node.runtime.config(&container.id).unwrap().mounts;
    let mount = mounts.iter().find(|mount| mount.container_path.ends_with("app")).unwrap();
    let file = mount.host_path.join("key");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    node.api.put("configmaps", config_map("2"));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while std::fs::read_to_string(&file).unwrap() != "2" {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.delete("web");
    node.until_gone("web").await;
    assert!(!mount.host_path.exists());
}

#[tokio::test]
async fn a_missing_reference_in_the_environment() {
    let node = Node::start().await;
    node.create(
        "web",
        json!({"containers": [{"name": "a", "image": "nginx:1",
        "env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}),
    );
    let waits = |pod: &Value| state(pod, 0)["waiting"]["reason"] == "CreateContainerConfigError";
    let pod = node.until("web", waits).await;
    assert_eq!(state(&pod, 0)["waiting"]["message"], "secret \"s\" not found");
    node.events("web", "Failed: Error: secret \"s\" not found").await;
    node.api.put(
        "secrets",
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"k": "aHVzaA=="},
        "metadata": {"name": "s", "namespace": "default"}}),
    );
    node.until_ready("web").await;
    let container = node.runtime.containers().remove(0);
    let env = node.runtime.config(&container.id).unwrap().env;
    assert!(env.contains(&("V".to_owned(), "hush".to_owned())));
}

#[tokio::test]
async fn a_pod_that_runs_to_its_end() {
    let node = Node::start().await;
    node.create(
        "job",
        json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "x:1"}],
        "initContainers": [{"name": "i", "image": "x:1"}]}),
    );
    let running = |pod: &Value| !pod["status"]["initContainerStatuses"][0]["state"]["running"].is_null();
    node.until("job", running).await;
    assert!(node.runtime.exit("job", "i", 0));
    node.until_ready("job").await;
    assert!(node.runtime.exit("job", "a", 0));
    let pod = node.until("job", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(state(&pod, 0)["terminated"]["reason"], "Completed");
    assert_eq!(node.runtime.containers().len(), 2, "kept for their logs");
    node.delete("job");
    node.until_gone("job").await;
}

#[tokio::test]
async fn a_probe_that_fails_restarts_its_container() {
    let node = Node::start().await;
    node.runtime.set_command("check", 1, "unwell");
    node.create(
        "web",
        json!({"containers": [{"name": "a", "image": "x:1",
        "livenessProbe": {"exec": {"command": ["check"]}, "failureThreshold": 1, "periodSeconds": 1}}]}),
    );
    node.events("web", "Unhealthy: Liveness probe failed: unwell").await;
    node.events("web", "Killing: Container a failed liveness probe, will be restarted").await;
    let count = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_i64();
    node.until("web", |pod| count(pod) >= Some(1)).await;
}

#[tokio::test]
async fn a_sandbox_that_dies_is_replaced() {
    let node = Node::start().await;
    node.create("web", one());
    node.until_ready("web").await;
    node.runtime.kill_sandbox("web");
    let moved = |pod: &Value| pod["status"]["podIP"] != "10.244.0.1" && condition(pod, "Ready") == "True";
    let pod = node.until("web", moved).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
    node.events("web", "SandboxChanged").await;
}

#[tokio::test]
async fn hooks_run() {
    let node = Node::start().await;
    node.create(
        "web",
        json!({"containers": [{"name": "a", "image": "x:1", "lifecycle": {
        "postStart": {"exec": {"command": ["hello"]}}, "preStop": {"exec": {"command": ["bye"]}}}}]}),
    );
    node.until_ready("web").await;
    node.delete("web");
    node.until_gone("web").await;
    let calls = node.runtime.calls();
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    let expect = ["run web", "start web/a", "exec web/hello", "exec web/bye", "stop web/a"];
    assert_eq!(calls[..5], expect);
}

fn with_deadline(seconds: u64) -> Value {
    json!({"restartPolicy": "Never", "activeDeadlineSeconds": seconds, "containers": [{"name": "a", "image": "x:1"}]})
}

fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

const EXCEEDED: [&str; 3] =
    ["Failed", "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"];

fn end_of(pod: &Value) -> [&str; 3] {
    ["phase", "reason", "message"].map(|field| pod["status"][field].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_deadline_fails_a_pod_whose_process_exits_with_success() {
    let node = Node::start().await;
    node.create("job", with_deadline(2));
    node.until_ready("job").await;
    let pod = node.until("job", is_over).await;
    assert_eq!(end_of(&pod), EXCEEDED);
    assert_eq!(state(&pod, 0)["terminated"]["exitCode"], 0);
    node.events("job", "DeadlineExceeded: Pod was active on the node longer than the specified deadline").await;
}

#[tokio::test]
async fn a_deadline_holds_while_the_kubelet_is_away() {
    let mut node = Node::start().await;
    node.create("late", with_deadline(3));
    node.create("in-time", with_deadline(3));
    let pods = [node.until_ready("late").await, node.until_ready("in-time").await];
    node.down().await;
    assert!(node.runtime.exit("in-time", "a", 0));
    let start = |pod: &Value| -> jiff::Timestamp { pod["status"]["startTime"].as_str().unwrap().parse().unwrap() };
    let deadline = pods.iter().map(start).max().unwrap() + jiff::SignedDuration::from_secs(4);
    while jiff::Timestamp::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(node.runtime.exit("late", "a", 0));
    node.up();
    let pod = node.until("late", is_over).await;
    assert_eq!(end_of(&pod), EXCEEDED);
    let pod = node.until("in-time", is_over).await;
    assert_eq!(end_of(&pod), ["Succeeded", "", ""]);
}

/// The files of a container are its own to fill: a hundred gigabytes of them cost the kubelet 4,096 bytes.
#[tokio::test]
async fn a_termination_log_without_end() {
    let node = Node::start().await;
    node.create("web", json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "x:1"}]}));
    node.until_ready("web").await;
    let log = node.state.path().join("pods/uid-web/containers/a/0");
    let log = std::fs::OpenOptions::new().write(true).open(log).unwrap();
    let (length, last) = (8 << 40, b"goodbye");
    log.set_len(length).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&log, last, length - last.len() as u64).unwrap();
    assert!(node.runtime.exit("web", "a", 1));
    let pod = node.until("web", |pod| pod["status"]["phase"] == "Failed").await;
    let message = state(&pod, 0)["terminated"]["message"].as_str().unwrap();
    assert_eq!(message.len(), 4096);
    assert!(message.ends_with("\0goodbye"));
}

#[tokio::test]
async fn a_seccomp_profile_comes_from_its_folder() {
    let node = Node::start().await;
    let spec = json!({"containers": [{"name": "a", "image": "x:1", "securityContext": {
        "seccompProfile": {"type": "Localhost", "localhostProfile": "dev/zero"}}}]});
    node.create("web", spec);
    let pod = node.until("web", |pod| state(pod, 0)["waiting"]["reason"] == "CreateContainerError").await;
    let path = node.state.path().join("seccomp/dev/zero").display().to_string();
    let message = format!("cannot load seccomp profile \"{path}\": open {path}: no such file or directory");
    assert_eq!(state(&pod, 0)["waiting"]["message"], message.as_str());
    let event = format!("Failed: Error: {message}");
    node.events("web", &event).await;
}

/// Waits until the node's Ready condition has this status, and answers its message.
async fn node_ready(node: &Node, status: &str) -> String {
    let ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default()
    };
    let found =
        node.api.until("nodes", "", "n1", |node| node.is_some_and(|node| ready(node)["status"] == status)).await;
    ready(&found.unwrap())["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_runtime_that_never_answered_is_told_of_too() {
    let mut node = Node::new();
    node.runtime.set_silent(true);
    node.up();
    let is_told = |node: &Value| node["status"].to_string().contains("container runtime is down: it has not answered");
    node.api.until("nodes", "", "n1", |node| node.is_some_and(is_told)).await;
    node.runtime.set_silent(false);
    node_ready(&node, "True").await;
    // What was not known of the machine is told as soon as it is.
    node.api.until("nodes", "", "n1", |node| node.is_some_and(|node| node["status"]["capacity"]["cpu"] != "0")).await;
}

#[tokio::test]
async fn a_runtime_that_hangs_leaves_the_node_not_ready_until_it_answers() {
    let node = Node::start().await;
    node_ready(&node, "True").await;
    node.runtime.set_silent(true);
    let why = node_ready(&node, "False").await;
    assert!(why.starts_with("container runtime is down: it has not answered"), "{why}");
    node.runtime.set_silent(false);
    node_ready(&node, "True").await;

    // It answers, but nothing that it starts comes back. Pods are looked after all the same: so it shows that it recovers.
    node.runtime.set_stuck(Some("starting containers has not come back for 120 s (6 under way)"));
    let why = node_ready(&node, "False").await;
    assert_eq!(why, "container runtime is down: starting containers has not come back for 120 s (6 under way)");
    node.create("web", one());
    node.until_ready("web").await;
    node.runtime.set_stuck(None);
    node_ready(&node, "True").await;
}
