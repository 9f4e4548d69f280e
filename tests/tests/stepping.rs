//! A cluster that is stopped in its parts, and goes on step by step.

use std::time::Instant;

use serde_json::Value;

use coracle_tests::{BUSYBOX, Background, Cluster, WAIT_TIMEOUT};

/// The names of all objects of a kind in the namespace `default`.
fn names(cluster: &Cluster, kind: &str) -> Vec<String> {
    let names = cluster.kubectl(&["get", kind, "-o", "name"]).ok();
    names.lines().map(str::to_owned).collect()
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < WAIT_TIMEOUT, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn a_cluster_goes_on_step_by_step() {
    let cluster = Cluster::start();
    // What is wrong is said with what is right, and nothing changes.
    let why = cluster.coracle(&["pause", "deploymnt"]).fails();
    assert!(why.contains("nothing is called deploymnt; give controllers, scheduler, kubelet, "), "{why}");
    assert!(why.contains(" deployment, ") && why.trim().lines().count() == 1, "{why}");
    let why = cluster.coracle(&["pause", "kube-proxy"]).fails();
    assert!(why.contains("kube-proxy cannot be paused"), "{why}");
    assert!(cluster.coracle(&["pause"]).fails().contains("coracle pause deployment"));
    let why = cluster.coracle(&["step", "deployment"]).fails();
    assert!(why.contains("deployment is not paused"), "{why}");
    assert!(!cluster.coracle(&["status"]).ok().contains("paused"));

    let said = cluster.coracle(&["pause", "controllers"]);
    assert!(said.stderr.contains("Paused controllers; "), "{said}");
    let status = cluster.coracle(&["status"]);
    assert!(status.stderr.contains("PAUSED: controllers; "), "{status}");
    assert!(status.ok().contains("paused:     controllers\n"));
    // Others may not.
    let denied = cluster.kubectl(&[
        "auth",
        "can-i",
        "create",
        "components.stepping.coracle.dev",
        "--subresource=pause",
        "--as=system:serviceaccount:default:default",
    ]);
    assert!(denied.stdout.starts_with("no"), "{denied}");

    cluster.kubectl(&["create", "deployment", "web", "--image", BUSYBOX, "--replicas=2", "--", "sleep", "1d"]).ok();
    until("the Deployment waits in its queue", || {
        let top = cluster.coracle(&["top", "-o", "json"]).ok();
        let top: Value = serde_json::from_str(&top).expect("JSON");
        let components = top["components"].as_array().expect("components");
        components.iter().any(|one| one["name"] == "deployment" && one["next"]["key"] == "default/web")
    });
    assert!(names(&cluster, "replicasets").is_empty() && names(&cluster, "pods").is_empty());
    let table = cluster.kubectl(&["get", "components", "deployment"]).ok();
    assert!(table.contains("default/web"), "{table}");

    // One reconcile of one controller.
    cluster.coracle(&["pause", "kubelet"]).ok();
    cluster.coracle(&["pause", "scheduler"]).ok();
    let step = cluster.coracle(&["step", "deployment"]).ok();
    assert!(step.starts_with("deployment is about to reconcile default/web: it "), "{step}");
    assert!(step.contains("it creates the ReplicaSet web-"), "{step}");
    assert!(step.contains("\ndeployment reconciled default/web in "), "{step}");
    assert!(step.contains("wrote     create ReplicaSet default/web-"), "{step}");
    assert!(names(&cluster, "replicasets").len() == 1 && names(&cluster, "pods").is_empty());
    let step = cluster.coracle(&["step", "replicaset", "-o", "json"]).ok();
    let step: Value = serde_json::from_str(&step).expect("JSON");
    let writes = step["reconciles"][0]["writes"].as_array().expect("writes");
    let created = writes.iter().filter_map(Value::as_str).filter(|write| write.starts_with("create Pod default/web-"));
    assert_eq!((created.count(), names(&cluster, "pods").len()), (2, 2), "{step}");
    assert!(step["plan"][0].as_str().is_some_and(|plan| plan.starts_with("creates 2 more pods")), "{step}");

    // The controllers go on, and nobody else.
    cluster.coracle(&["resume", "controllers"]).ok();
    let why = cluster.coracle(&["status"]).stderr;
    assert!(why.contains("PAUSED: scheduler, kubelet; ") || why.contains("PAUSED: kubelet, scheduler; "), "{why}");
    cluster.kubectl(&["create", "deployment", "more", "--image", BUSYBOX, "--", "sleep", "1d"]).ok();
    until("the controllers go on", || names(&cluster, "pods").len() == 3);
    let step = cluster.coracle(&["step", "scheduler"]).ok();
    assert!(step.starts_with("kube-scheduler is about to reconcile default/"), "{step}");
    assert!(step.contains("\nkube-scheduler reconciled default/"), "{step}");
    let is_running = |pod: &str| cluster.field(pod, "{.status.phase}") == "Running";
    assert!(!names(&cluster, "pods").iter().any(|pod| is_running(pod)));
    cluster.coracle(&["resume", "scheduler"]).ok();
    let scheduled = |pod: &String| !cluster.field(pod, "{.spec.nodeName}").is_empty();
    until("all pods have a node", || names(&cluster, "pods").iter().all(scheduled));
    let step = cluster.coracle(&["step", "kubelet"]).ok();
    assert!(step.contains("kubelet reconciled default/"), "{step}");
    assert_eq!(
        cluster.field(&format!("node/{}", cluster.profile), "{.status.conditions[?(@.type=='Ready')].status}"),
        "True"
    );

    // It goes on by itself, step by step.
    let slow = Background::start(cluster.coracle_command(&["step", "kubelet", "--slow", "1s"]));
    (0..3).for_each(|_| _ = slow.line(|line| line.starts_with("kubelet reconciled default/")));
    drop(slow);
    assert!(cluster.coracle(&["step", "deployment", "--slow", "1s"]).fails().contains("deployment is not paused"));

    let said = cluster.coracle(&["resume"]);
    assert!(said.stderr.contains("Resumed "), "{said}");
    until("all pods run", || names(&cluster, "pods").iter().all(|pod| is_running(pod)));
    assert!(cluster.coracle(&["resume"]).stderr.contains("Nothing of that was paused"));
    assert!(!cluster.coracle(&["status"]).ok().contains("paused"));

    // A start ends every pause.
    cluster.coracle(&["pause", "all"]).ok();
    cluster.coracle(&["stop"]).ok();
    cluster.coracle(&["start"]).ok();
    assert!(!cluster.coracle(&["status"]).ok().contains("paused"));
    let top = cluster.coracle(&["top"]).ok();
    assert!(top.contains("Paused      nothing") && top.contains("COMPONENT"), "{top}");
}
