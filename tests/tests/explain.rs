//! `coracle explain`: what objects wait for, and who may do what.

use std::time::{Duration, Instant};

use serde_json::Value;

use coracle_tests::{BUSYBOX, Cluster, WAIT_TIMEOUT};

/// Asks until the answer has this part: controllers and the kubelet need a while.
#[track_caller]
fn told(cluster: &Cluster, arguments: &[&str], part: &str) -> String {
    let start = Instant::now();
    loop {
        let text = cluster.coracle(&[&["explain"], arguments].concat()).ok();
        if text.contains(part) {
            return text;
        }
        assert!(start.elapsed() < WAIT_TIMEOUT, "{part:?} is missing in\n{text}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn objects_say_what_they_wait_for() {
    let cluster = Cluster::start();
    // A container that ends with a failure, again and again.
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: crash}}, spec: {{terminationGracePeriodSeconds: 0, containers: \
         [{{name: c, image: '{BUSYBOX}', command: [sh, -c, 'exit 3']}}]}}}}"
    ));
    let text = told(&cluster, &["pod/crash"], "starts c again; waits for the end of its back-off");
    assert!(text.contains("with the exit code 3") && text.contains(", until 2"), "{text}");
    // An image that nobody has.
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: missing}, spec: {containers: [{name: c, image: 'coracle.test/none:1', \
         imagePullPolicy: Never}]}}",
    );
    told(&cluster, &["pod", "missing"], "You build or load coracle.test/none:1");

    // A quota with room for one of two pods.
    cluster.kubectl(&["create", "namespace", "small"]).ok();
    cluster.kubectl(&["create", "quota", "tight", "--hard=pods=1", "-n", "small"]).ok();
    cluster
        .kubectl(&[
            "create",
            "deployment",
            "web",
            "--image",
            BUSYBOX,
            "--replicas=2",
            "-n",
            "small",
            "--",
            "sleep",
            "1d",
        ])
        .ok();
    let text =
        told(&cluster, &["deploy/web", "-n", "small"], "waits for room in the ResourceQuota tight (pods 1 of 1)");
    assert!(text.contains("exceeded quota: tight"), "{text}");

    // A pod behind a service that never becomes ready.
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: slow, labels: {{app: slow}}}}, spec: {{terminationGracePeriodSeconds: 0, \
         containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, 1d], readinessProbe: {{exec: {{command: ['false']}}}}}}]}}}}"
    ));
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: slow}, spec: {selector: {app: slow}, ports: [{port: 80}]}}",
    );
    told(&cluster, &["svc/slow"], "makes slow a ready endpoint; waits for this: its container c runs and is not ready");
    told(&cluster, &["pod/slow"], "asks the readiness probe of c again every 10s; waits for `false` to succeed 1 time");

    // Something that a finalizer keeps.
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept, finalizers: [example.com/later]}}");
    cluster.kubectl(&["delete", "configmap", "kept", "--wait=false"]).ok();
    let text = cluster.coracle(&["explain", "cm/kept", "-o", "json"]).ok();
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    let who = answer["next"][0]["who"].as_str().unwrap_or_default();
    assert!(who.contains("example.com/later, which kubectl"), "{text}");
    cluster.kubectl(&["patch", "configmap", "kept", "--type=merge", "-p", "{\"metadata\":{\"finalizers\":null}}"]).ok();

    assert!(cluster.coracle(&["explain", "thing/x"]).fails().contains("no kind thing; see: kubectl api-resources"));
    assert!(
        cluster
            .coracle(&["explain", "deploy/none"])
            .fails()
            .contains("there is no deployment none in the namespace default")
    );
}

#[test]
fn access_names_the_binding_or_says_that_there_is_none() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "serviceaccount", "robot"]).ok();
    let ask = ["access", "serviceaccount/robot", "list", "pods"];
    let text = told(&cluster, &ask, "no right to do that: nothing allows it");
    assert!(text.contains("--clusterrole=view --serviceaccount=default:robot"), "{text}");
    cluster.kubectl(&["create", "rolebinding", "look", "--clusterrole=view", "--serviceaccount=default:robot"]).ok();
    told(&cluster, &ask, "the RoleBinding look gives the ClusterRole view to the ServiceAccount robot");
    told(&cluster, &["access", "serviceaccount/robot", "delete", "pods"], "nothing allows it");
    told(&cluster, &["access", "jane", "get", "nodes", "--group", "system:masters"], "may do everything");
}
