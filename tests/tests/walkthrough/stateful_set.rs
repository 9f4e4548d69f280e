//! Section StatefulSet: stable names, ordered creation, update and deletion, headless DNS, claims; and `examples/redis`, for
//! which all of it is there.

use std::fs;

use coracle_tests::{BUSYBOX, Background, Cluster, example, run};

const MASTER: &str = "redis-0.redis.default.svc.cluster.local";

/// A container that does nothing until it is told to stop, and then stops at once.
fn idle() -> String {
    format!(
        r#"{{"name": "c", "image": "{BUSYBOX}", "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"]}}"#
    )
}

fn manifest(version: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: redis}}
spec: {{clusterIP: None, selector: {{app: redis}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: redis}}
spec:
  replicas: 3
  serviceName: redis
  selector: {{matchLabels: {{app: redis}}}}
  template:
    metadata: {{labels: {{app: redis}}, annotations: {{version: "{version}"}}}}
    spec: {{containers: [{}]}}
"#,
        idle()
    )
}

/// Lines of a watch of pods: the names of those that came or went, in order.
fn watch_pods(cluster: &Cluster, selector: &str) -> Background {
    let columns = "custom-columns=NAME:.metadata.name,GOES:.metadata.deletionTimestamp,READY:.status.conditions[?(@.type==\"Ready\")].status";
    Background::start(cluster.kubectl_command(&["get", "pods", "-l", selector, "-w", "--no-headers", "-o", columns]))
}

#[test]
fn names_and_order() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    cluster.apply(&manifest("1"));
    kubectl(&["rollout", "status", "statefulset/redis", "--timeout=60s"]);
    assert_eq!(cluster.pods("app=redis"), ["redis-0", "redis-1", "redis-2"]);
    // Each was created after the one before was ready.
    let created = |pod: &str| cluster.field(pod, "{.metadata.creationTimestamp}");
    let ready = |pod: &str| cluster.field(pod, "{.status.conditions[?(@.type==\"Ready\")].lastTransitionTime}");
    assert!(ready("pod/redis-0") <= created("pod/redis-1") && ready("pod/redis-1") <= created("pod/redis-2"));
    assert_eq!(kubectl(&["exec", "redis-1", "--", "hostname"]).trim(), "redis-1");
    // Each by a name of its own, of a Service without an address or a port.
    for pod in ["redis-0", "redis-1", "redis-2"] {
        let found = kubectl(&["exec", "redis-1", "--", "nslookup", &format!("{pod}.redis.default.svc.cluster.local")]);
        assert!(found.contains(&cluster.field(&format!("pod/{pod}"), "{.status.podIP}")), "{found}");
    }
    let labels =
        "{.metadata.labels.apps\\.kubernetes\\.io/pod-index} {.metadata.labels.statefulset\\.kubernetes\\.io/pod-name}";
    assert_eq!(cluster.field("pod/redis-2", labels), "2 redis-2");

    // The update goes from the last to the first.
    let events = watch_pods(&cluster, "app=redis");
    cluster.apply(&manifest("2"));
    for name in ["redis-2", "redis-1", "redis-0"] {
        let goes = events.line(|line| !line.split_whitespace().nth(1).unwrap_or("<none>").starts_with('<'));
        assert!(goes.starts_with(name), "{goes} goes, not {name}");
        events.line(|line| line.starts_with(name) && line.split_whitespace().skip(1).eq(["<none>", "True"]));
    }
    kubectl(&["rollout", "status", "statefulset/redis", "--timeout=60s"]);
    let history = kubectl(&["rollout", "history", "statefulset/redis"]);
    assert_eq!(history.lines().filter(|line| line.starts_with(['1', '2'])).count(), 2, "{history}");
    kubectl(&["rollout", "undo", "statefulset/redis"]);
    kubectl(&["rollout", "status", "statefulset/redis", "--timeout=60s"]);
    assert_eq!(cluster.field("pod/redis-0", "{.metadata.annotations.version}"), "1");

    // One that is deleted comes back under its name; scaling down takes the last.
    kubectl(&["delete", "pod", "redis-1"]);
    cluster.wait_for("statefulset/redis", "{.status.readyReplicas}", "3");
    kubectl(&["scale", "statefulset/redis", "--replicas=1"]);
    cluster.wait("only the first is left", || (cluster.pods("app=redis") == ["redis-0"]).then_some(()));
    kubectl(&["delete", "statefulset", "redis"]);
    cluster.wait("the pods go with the set", || cluster.pods("app=redis").is_empty().then_some(()));
}

/// What `redis-cli` of a pod answers; empty while it does not.
fn redis(cluster: &Cluster, pod: &str, arguments: &[&str]) -> String {
    let mut all = vec!["exec", pod, "--", "redis-cli"];
    all.extend(arguments);
    cluster.kubectl(&all).stdout.trim().to_owned()
}

#[track_caller]
fn wait_for_redis(cluster: &Cluster, pod: &str, arguments: &[&str], expected: &str) {
    cluster.wait(&format!("{pod} answers {arguments:?} with {expected}"), || {
        (redis(cluster, pod, arguments) == expected).then_some(())
    });
}

#[track_caller]
fn rolled_out(cluster: &Cluster) {
    cluster.kubectl(&["rollout", "status", "statefulset/redis", "--timeout=120s"]).ok();
}

/// Names of the volumes' directories.
fn directories(cluster: &Cluster) -> Vec<String> {
    let volumes = cluster.home().join("home").join(&cluster.profile).join("volumes");
    let entries = fs::read_dir(volumes).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn redis_with_claims() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["apply", "-f", &example("redis/redis.yaml")]);
    rolled_out(&cluster);
    assert_eq!(cluster.pods("app=redis"), ["redis-0", "redis-1", "redis-2"]);
    for (before, after) in [("redis-0", "redis-1"), ("redis-1", "redis-2")] {
        let ready = "{.status.conditions[?(@.type==\"Ready\")].lastTransitionTime}";
        let ready = cluster.field(&format!("pod/{before}"), ready);
        let created = cluster.field(&format!("pod/{after}"), "{.metadata.creationTimestamp}");
        assert!(created >= ready, "{after} was created at {created}, {before} ready at {ready}");
    }
    for number in 0..3 {
        assert_eq!(cluster.field(&format!("pvc/data-redis-{number}"), "{.status.phase}"), "Bound");
    }

    // Replication, over the name that the master keeps.
    assert_eq!(redis(&cluster, "redis-2", &["-h", MASTER, "set", "greeting", "hello"]), "OK");
    for pod in ["redis-1", "redis-2"] {
        wait_for_redis(&cluster, pod, &["get", "greeting"], "hello");
    }

    // An update goes from the last to the first.
    let columns = "custom-columns=NAME:.metadata.name,UID:.metadata.uid";
    let known = kubectl(&["get", "pods", "-l", "app=redis", "--no-headers", "-o", columns]);
    let watch = ["get", "pods", "-l", "app=redis", "--watch", "--no-headers", "-o", columns];
    let watch = Background::start(cluster.kubectl_command(&watch));
    let template = r#"{"spec":{"template":{"metadata":{"annotations":{"round":"two"}}}}}"#;
    kubectl(&["patch", "statefulset", "redis", "-p", template]);
    let mut seen: Vec<String> = known.lines().map(str::to_owned).collect();
    for expected in ["redis-2", "redis-1", "redis-0"] {
        let line = watch.line(|line| !seen.iter().any(|known| known.trim() == line.trim()));
        assert_eq!(line.split_whitespace().next(), Some(expected));
        seen.push(line);
    }
    rolled_out(&cluster);
    for pod in ["redis-0", "redis-1", "redis-2"] {
        wait_for_redis(&cluster, pod, &["get", "greeting"], "hello");
    }

    // The data outlives a pod, the StatefulSet, and the program.
    kubectl(&["delete", "pod", "redis-0"]);
    rolled_out(&cluster);
    wait_for_redis(&cluster, "redis-0", &["get", "greeting"], "hello");
    kubectl(&["delete", "statefulset", "redis"]);
    cluster.wait("the pods are gone", || cluster.pods("app=redis").is_empty().then_some(()));
    assert_eq!(directories(&cluster).len(), 3);
    kubectl(&["apply", "-f", &example("redis/redis.yaml")]);
    rolled_out(&cluster);
    wait_for_redis(&cluster, "redis-0", &["get", "greeting"], "hello");
    let before = cluster.containers();
    cluster.coracle(&["stop", "--keep-pods"]).ok();
    cluster.coracle(&["start"]).ok();
    wait_for_redis(&cluster, "redis-0", &["set", "farewell", "bye"], "OK");
    run("kill", &["-9", &cluster.pid()]).ok();
    cluster.wait("the daemon is dead", || (cluster.coracle(&["status"]).code == 3).then_some(()));
    cluster.coracle(&["start"]).ok();
    rolled_out(&cluster);
    assert_eq!(cluster.containers(), before, "they were adopted");
    wait_for_redis(&cluster, "redis-2", &["get", "farewell"], "bye");

    // It goes with the claims, and not before: a claim in use waits for its pod.
    kubectl(&["delete", "pvc", "data-redis-2", "--wait=false"]);
    assert!(kubectl(&["get", "pvc", "data-redis-2"]).contains("Terminating"));
    assert_eq!(directories(&cluster).len(), 3);
    kubectl(&["delete", "-f", &example("redis/redis.yaml")]);
    kubectl(&["delete", "pvc", "--all"]);
    cluster.wait("the directories are gone", || directories(&cluster).is_empty().then_some(()));
    cluster.wait("the volumes are gone", || kubectl(&["get", "pv", "-o", "name"]).is_empty().then_some(()));
}
