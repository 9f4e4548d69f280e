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

#[test]
fn where_a_pod_would_go_is_told_and_nothing_happens() {
    let cluster = Cluster::start();
    cluster.coracle(&["node", "add", "one", "--fake", "--gpu", "1", "--label", "rack=a"]).ok();
    cluster.coracle(&["node", "add", "two", "--fake", "--gpu", "2", "--label", "rack=b"]).ok();
    for node in ["one", "two"] {
        cluster.wait_for(&format!("node/{node}"), "{.status.conditions[?(@.type=='Ready')].status}", "True");
    }
    cluster.apply("{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: urgent}, value: 1000}");
    let pod = |name: &str, gpus: u8, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, image: '{BUSYBOX}', \
             resources: {{limits: {{nvidia.com/gpu: {gpus}}}}}}}]{more}}}}}"
        )
    };
    let file = cluster.home().join("what-if.yaml");
    let schedule = |manifest: &str, more: &[&str]| {
        std::fs::write(&file, manifest).expect("a file");
        let path = file.to_str().expect("a path");
        cluster.coracle(&[&["schedule", "--dry-run", "-f", path], more].concat())
    };
    // The scheduler hears of the nodes, and that they are Ready, a moment later than kubectl.
    let json = |manifest: &str, feasible: u8| -> Value {
        cluster.wait("the scheduler knows all nodes", || {
            let answer: Value = serde_json::from_str(&schedule(manifest, &["-o", "json"]).ok()).expect("JSON");
            (answer["nodes"] == 3 && answer["feasible"] == feasible).then_some(answer)
        })
    };

    let answer = json(&pod("a", 1, ""), 2);
    assert!(answer["scored"][0]["scores"].as_array().is_some_and(|scores| !scores.is_empty()), "{answer}");
    assert_eq!(answer["node"], answer["scored"][0]["node"], "{answer}");
    assert_eq!(answer["refused"][0]["plugin"], "NodeResourcesFit", "{answer}");
    assert_eq!(answer["refused"][0]["nodes"][0], *cluster.profile, "{answer}");
    // What the API server makes of it counts, and so does a template.
    let deployment = format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: d}}, spec: {{template: {{spec: {{nodeSelector: {{rack: a}}, \
         containers: [{{name: c, image: '{BUSYBOX}'}}]}}}}}}}}"
    );
    let text = schedule(&deployment, &[]).ok();
    assert!(text.contains("Node:       one\n") && text.contains("2 by NodeAffinity: node(s) didn't match"), "{text}");
    assert!(text.starts_with("Pod:        default/d-"), "{text}");

    // One is there, the other is not: nothing was taken, so the same room is found again and again.
    cluster.apply(&pod("low", 2, ""));
    cluster.wait_for("pod/low", "{.spec.nodeName}", "two");
    let full = json(&pod("low", 2, ""), 0);
    assert_eq!((&full["node"], &full["nominated"]), (&Value::Null, &Value::Null), "{full}");
    assert!(full["message"].as_str().is_some_and(|text| text.starts_with("0/3 nodes are available: ")), "{full}");
    let urgent = json(&pod("high", 2, ", priorityClassName: urgent"), 0);
    assert_eq!((&urgent["nominated"], &urgent["victims"][0]), (&"two".into(), &"default/low".into()), "{urgent}");
    let text = schedule(&pod("high", 2, ", priorityClassName: urgent"), &[]).ok();
    assert!(text.contains("Preempts:   default/low, to make room on two\n"), "{text}");

    assert_eq!(cluster.kubectl(&["get", "pods", "-o", "name"]).ok(), "pod/low\n");
    assert_eq!(cluster.field("pod/low", "{.metadata.deletionTimestamp}"), "");
    let decisions = cluster.kubectl(&["get", "decisions", "-o", "name"]).ok();
    assert!(decisions.contains("/low") && !decisions.contains("/high"), "{decisions}");

    for (manifest, why) in [
        ("{apiVersion: v1, kind: Service, metadata: {name: s}}", "it holds no pod: it has Service; expected a Pod"),
        (&*pod("A", 1, ""), "Pod \"A\" is invalid"),
        (&*pod("a", 1, ", priorityClassName: none"), "no PriorityClass with name none was found"),
        (&*pod("a", 1, ", nodeName: one"), "leave out spec.nodeName"),
        (&*pod("a", 1, ", schedulerName: mine"), "no scheduler of this cluster is called mine"),
        (&*pod("a, namespace: nowhere", 1, ""), "create it with: kubectl create namespace nowhere"),
    ] {
        let said = schedule(manifest, &[]).fails();
        assert!(said.contains(why) && said.trim_end().lines().count() == 1, "{manifest}: {said}");
    }
    assert!(cluster.coracle(&["schedule", "-f", "x"]).fails().contains("--dry-run"));
    assert!(cluster.coracle(&["schedule", "--dry-run", "-f", "/none"]).fails().contains("cannot read /none"));

    // Who may create pods may ask; who may only look may not.
    cluster.kubectl(&["create", "rolebinding", "edit", "--clusterrole=edit", "--user=ed"]).ok();
    cluster.kubectl(&["create", "rolebinding", "view", "--clusterrole=view", "--user=vi"]).ok();
    for (user, may) in [("ed", "yes"), ("vi", "no")] {
        let ask = ["auth", "can-i", "create", "schedulingreviews.explain.coracle.dev", "--as", user];
        assert_eq!(cluster.kubectl(&ask).stdout.trim(), may, "{user}");
    }
}
