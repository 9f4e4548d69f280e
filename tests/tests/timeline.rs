//! What happened, and because of what, as the program tells it of a cluster that did it.

use std::time::Instant;

use serde_json::Value;

use coracle_tests::{BUSYBOX, Background, Cluster, WAIT_TIMEOUT};

fn entries(cluster: &Cluster, arguments: &[&str]) -> Vec<Value> {
    let story = cluster.coracle(&[&["timeline"], arguments, &["-o", "json"]].concat()).ok();
    let story: Value = serde_json::from_str(&story).expect("JSON");
    story["entries"].as_array().expect("entries").clone()
}

/// The first entry that is so. What follows from a write may take a moment.
#[track_caller]
fn find(cluster: &Cluster, object: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let told = entries(cluster, &[object]);
        if let Some(found) = told.iter().find(|entry| is_so(entry)) {
            return found.clone();
        }
        assert!(start.elapsed() < WAIT_TIMEOUT, "{what} is missing in {told:#?}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Whether an entry is about an object of a kind, and says this of it.
fn is(entry: &Value, kind: &str, what: &str) -> bool {
    entry["object"]["kind"] == kind && entry["what"] == what
}

fn did(entry: &Value, component: &str, beginning: &str) -> bool {
    entry["component"] == component && entry["text"].as_str().is_some_and(|text| text.starts_with(beginning))
}

#[test]
fn one_story_from_the_apply_to_the_rules_in_force() {
    let cluster = Cluster::start();
    let why = cluster.coracle(&["timeline", "deployment/web"]).fails();
    assert!(
        why.contains("there is no deployment/web in what is remembered") && why.trim().lines().count() == 1,
        "{why}"
    );
    assert!(cluster.coracle(&["timeline", "nonsense/web"]).fails().contains("kubectl api-resources"));

    cluster.kubectl(&["create", "deployment", "web", "--image", BUSYBOX, "--port=80", "--", "sleep", "1d"]).ok();
    cluster.kubectl(&["expose", "deployment", "web", "--port=80"]).ok();
    cluster.kubectl(&["wait", "--for=condition=available", "deployment/web", "--timeout=60s"]).ok();
    cluster.kubectl(&["create", "configmap", "other"]).ok();

    let web = "deployment/web";
    let deployment = find(&cluster, web, "the Deployment", |entry| is(entry, "Deployment", "Created"));
    assert_eq!(deployment["author"]["verb"], "create");
    assert!(deployment["author"]["program"].as_str().is_some_and(|program| program.starts_with("kubectl")));
    assert!(
        deployment["author"]["user"].as_str().is_some_and(|user| !user.is_empty()) && deployment["because"].is_null()
    );
    let replicas = find(&cluster, web, "the ReplicaSet", |entry| is(entry, "ReplicaSet", "Created"));
    assert_eq!(
        (&replicas["component"], &replicas["because"][0]["revision"]),
        (&"deployment".into(), &deployment["revision"])
    );
    let pod = find(&cluster, web, "the Pod", |entry| is(entry, "Pod", "Created"));
    assert_eq!((&pod["component"], &pod["because"][0]["revision"]), (&"replicaset".into(), &replicas["revision"]));
    let bound =
        find(&cluster, web, "the binding", |entry| is(entry, "Pod", "Changed") && entry["author"]["verb"] == "bind");
    assert_eq!(bound["author"]["user"], "system:kube-scheduler");
    assert!(bound["changes"].as_array().is_some_and(|all| all.iter().any(|one| one["path"] == "spec.nodeName")));
    let started = find(&cluster, web, "the container", |entry| did(entry, "kubelet", "start"));
    let running = find(&cluster, web, "the status", |entry| {
        let changes = entry["changes"].as_array();
        changes.is_some_and(|all| all.iter().any(|one| one["path"] == "status.phase" && one["to"] == "Running"))
    });
    assert_eq!(running["author"]["subresource"], "status");
    let slice = find(&cluster, web, "the EndpointSlice", |entry| entry["object"]["kind"] == "EndpointSlice");
    let rules = find(&cluster, web, "the rules", |entry| entry["component"] == "kube-proxy");
    let at = |entry: &Value| entry["timeMicros"].as_i64().expect("a time");
    let order = [&deployment, &replicas, &pod, &bound, &started, &running].map(at);
    assert!(order.is_sorted(), "{order:?}");
    assert!(at(&slice) <= at(&rules) + 1_000);
    let told = entries(&cluster, &[web]);
    assert!(told.iter().all(|entry| entry["object"]["name"] != "other"), "{told:#?}");
    assert!(entries(&cluster, &["--since", "1h"]).iter().any(|entry| entry["object"]["name"] == "other"));

    // The story of a pod begins with what led to it.
    let name = pod["object"]["name"].as_str().expect("a name");
    let of_pod = entries(&cluster, &[&format!("pod/{name}")]);
    assert_eq!((&of_pod[0]["object"]["name"], &of_pod[0]["isCause"]), (&"web".into(), &true.into()), "{of_pod:#?}");

    // For people, as it happens, and for tracers.
    let text = cluster.coracle(&["timeline", web]).ok();
    let line = format!("created Pod {name}");
    assert!(text.starts_with("TIME ") && text.contains(&line) && text.contains("  ← ReplicaSet web-"), "{text}");
    let trace: Value = serde_json::from_str(&cluster.coracle(&["timeline", web, "-o", "otlp"]).ok()).expect("JSON");
    let services = trace["resourceSpans"].as_array().expect("services");
    assert!(services.iter().any(|one| one["resource"]["attributes"][0]["value"]["stringValue"] == "kube-proxy"));
    let followed = Background::start(cluster.coracle_command(&["timeline", web, "--follow"]));
    followed.line(|told| told.contains(&line));
    cluster.kubectl(&["scale", web, "--replicas=0"]).ok();
    followed.line(|told| told.contains("spec.replicas: 1 → 0"));

    // Who deleted it is known, and it is all there after a restart but for what was never written.
    cluster.kubectl(&["delete", "configmap", "other"]).ok();
    let gone = find(&cluster, "configmap/other", "the deletion", |entry| is(entry, "ConfigMap", "Deleted"));
    assert_eq!(gone["author"]["verb"], "delete");
    assert!(gone["author"]["program"].as_str().is_some_and(|program| program.starts_with("kubectl")), "{gone}");
    let denied = cluster.kubectl(&["auth", "can-i", "create", "timelinereviews.timeline.coracle.dev", "--as=jane"]);
    assert!(denied.stdout.starts_with("no"), "{denied}");
    cluster.coracle(&["stop"]).ok();
    cluster.coracle(&["start"]).ok();
    let again = find(&cluster, "configmap/other", "the deletion", |entry| is(entry, "ConfigMap", "Deleted"));
    assert_eq!(again["author"], gone["author"]);
}

#[test]
fn attempts_in_vain_are_told_with_their_reasons() {
    let cluster = Cluster::start();
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: picky}}, spec: {{nodeSelector: {{disk: fast}}, terminationGracePeriodSeconds: 0, \
         containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, 1d]}}]}}}}"
    ));
    let vain = find(&cluster, "pod/picky", "the attempt", |entry| did(entry, "kube-scheduler", "no node, attempt"));
    assert!(vain["text"].as_str().is_some_and(|text| text.contains("didn't match Pod's node affinity")), "{vain}");
    cluster.kubectl(&["taint", "node", &cluster.profile, "own=yes:NoSchedule"]).ok();
    cluster.kubectl(&["label", "node", &cluster.profile, "disk=fast"]).ok();
    find(&cluster, "pod/picky", "the second attempt", |entry| {
        did(entry, "kube-scheduler", "no node")
            && entry["text"].as_str().is_some_and(|text| text.contains("untolerated taint"))
    });
    cluster.kubectl(&["taint", "node", &cluster.profile, "own-"]).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/picky", "--timeout=60s"]).ok();
    let explained = cluster.coracle(&["explain", "pod/picky"]).ok();
    let (_, earlier) = explained.split_once("Earlier attempts:").expect("they are told");
    assert!(earlier.contains("node affinity") && earlier.contains("untolerated taint"), "{earlier}");
    let chosen = entries(&cluster, &["pod/picky"]);
    assert!(chosen.iter().any(|entry| entry["author"]["verb"] == "bind"), "{chosen:#?}");
    assert!(!chosen.iter().any(|entry| did(entry, "kube-scheduler", "no node, attempt 1: chose")), "{chosen:#?}");
}
