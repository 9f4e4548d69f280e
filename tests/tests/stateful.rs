//! Stateful applications: names, order and data of `examples/redis`, and what becomes of volumes.

use std::fs;

use coracle_tests::{BUSYBOX, Background, Cluster, run};

const REDIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/redis/redis.yaml");
const MASTER: &str = "redis-0.redis.default.svc.cluster.local";

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
fn redis_keeps_its_names_and_its_data() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["apply", "-f", REDIS]);
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
    kubectl(&["apply", "-f", REDIS]);
    rolled_out(&cluster);
    wait_for_redis(&cluster, "redis-0", &["get", "greeting"], "hello");
    let before = cluster.containers();
    cluster.coracle(&["stop"]).ok();
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
    kubectl(&["delete", "-f", REDIS]);
    kubectl(&["delete", "pvc", "--all"]);
    cluster.wait("the directories are gone", || directories(&cluster).is_empty().then_some(()));
    cluster.wait("the volumes are gone", || kubectl(&["get", "pv", "-o", "name"]).is_empty().then_some(()));
}

#[test]
fn claims_say_what_they_wait_for() {
    let cluster = Cluster::start();
    let data = tempfile::tempdir().expect("a folder");
    fs::write(data.path().join("file"), "static").expect("a file");
    let classes = cluster.kubectl(&["get", "storageclass"]).ok();
    assert!(classes.contains("standard (default)   coracle.dev/local-path   Delete          Immediate"), "{classes}");

    let claim = |name: &str, class: &str| {
        format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{storageClassName: \
             '{class}', accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}"
        )
    };
    let event = |name: &str| format!("{{.items[?(@.involvedObject.name==\"{name}\")].message}}");
    let told = |name: &str, words: &str| {
        cluster.wait(&format!("{name} is told {words}"), || {
            cluster.field("events", &event(name)).contains(words).then_some(())
        });
    };
    // Nothing can satisfy these.
    cluster.apply(&claim("none", ""));
    told("none", "no persistent volumes available for this claim and no storage class is set");
    cluster.apply(&claim("lost", "no-such-class"));
    told("lost", "storageclass.storage.k8s.io \"no-such-class\" not found");

    // Static binding: the volume comes later, and keeps its data when its claim goes.
    let path = data.path().display();
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: static}}, spec: {{capacity: {{storage: 2Gi}}, \
         accessModes: [ReadWriteOnce], hostPath: {{path: {path}}}}}}}"
    ));
    cluster.wait_for("pvc/none", "{.status.phase} {.spec.volumeName} {.status.capacity.storage}", "Bound static 2Gi");
    cluster.wait_for("pv/static", "{.status.phase}", "Bound");
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: reader}}, spec: {{restartPolicy: Never, containers: [{{name: c, \
         image: '{BUSYBOX}', command: [sh, -c, 'cat /data/file && touch /data/new'], volumeMounts: [{{name: data, \
         mountPath: /data, readOnly: true}}]}}], volumes: [{{name: data, persistentVolumeClaim: {{claimName: none}}}}]}}}}"
    ));
    cluster.wait_for("pod/reader", "{.status.phase}", "Failed");
    let log = cluster.kubectl(&["logs", "reader"]).ok();
    assert!(log.contains("static") && log.contains("Read-only file system"), "{log}");
    cluster.kubectl(&["delete", "pod/reader", "pvc/none"]).ok();
    cluster.wait_for("pv/static", "{.status.phase}", "Released");
    assert!(data.path().join("file").exists());

    // A class that waits for a consumer, and a claim that grows.
    cluster.apply(
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: late}, provisioner: coracle.dev/local-path, \
         volumeBindingMode: WaitForFirstConsumer, allowVolumeExpansion: true}",
    );
    cluster.apply(&claim("late", "late"));
    told("late", "waiting for first consumer to be created before binding");
    cluster
        .kubectl(&["annotate", "pvc", "late", &format!("volume.kubernetes.io/selected-node={}", cluster.profile)])
        .ok();
    cluster.wait_for("pvc/late", "{.status.phase}", "Bound");
    cluster.kubectl(&["patch", "pvc", "late", "-p", r#"{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}"#]).ok();
    cluster.wait_for("pvc/late", "{.status.capacity.storage}", "3Gi");
    let refused = cluster.kubectl(&["patch", "pvc", "late", "-p", r#"{"spec":{"accessModes":["ReadWriteMany"]}}"#]);
    assert!(refused.fails().contains("spec is immutable after creation"));

    // An ephemeral volume lives as long as its pod.
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: short}}, spec: {{terminationGracePeriodSeconds: 1, containers: \
         [{{name: c, image: '{BUSYBOX}', command: [sleep, '3600'], volumeMounts: [{{name: scratch, mountPath: /scratch, \
         subPath: deep/er}}]}}], volumes: [{{name: scratch, ephemeral: {{volumeClaimTemplate: {{spec: {{accessModes: \
         [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}}}}}]}}}}"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/short", "--timeout=60s"]).ok();
    cluster.kubectl(&["exec", "short", "--", "touch", "/scratch/file"]).ok();
    assert_eq!(cluster.field("pvc/short-scratch", "{.status.phase}"), "Bound");
    cluster.kubectl(&["delete", "pod", "short"]).ok();
    cluster
        .wait("its claim is gone", || cluster.field("pvc/short-scratch", "{.metadata.name}").is_empty().then_some(()));
}

/// A claim of a class that waits is made where its pod goes, and from then on holds the pod there.
#[test]
fn a_volume_is_made_where_its_first_pod_goes() {
    let cluster = Cluster::new();
    cluster.coracle(&["start", "--nodes", "2"]).ok();
    let second = format!("{}-m02", cluster.profile);
    cluster.wait_for(&format!("node/{second}"), "{.status.conditions[?(@.type=='Ready')].status}", "True");
    cluster.apply(
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: late}, provisioner: coracle.dev/local-path, \
         volumeBindingMode: WaitForFirstConsumer}",
    );
    cluster.apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {storageClassName: late, \
         accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}",
    );
    let events = "{.items[?(@.involvedObject.name==\"data\")].reason}";
    cluster.wait("the claim says that it waits", || {
        cluster.field("events", events).contains("WaitForFirstConsumer").then_some(())
    });
    assert_eq!(cluster.field("pvc/data", "{.status.phase}"), "Pending");

    let pod = |name: &str, selector: &str, script: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, nodeSelector: \
             {{{selector}}}, containers: [{{name: c, image: '{BUSYBOX}', command: [sh, -c, '{script}'], volumeMounts: \
             [{{name: data, mountPath: /data}}]}}], volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]}}}}"
        )
    };
    let on = |node: &str| format!("kubernetes.io/hostname: {node}");
    cluster.apply(&pod("writer", &on(&second), "echo kept > /data/file"));
    cluster.wait_for("pod/writer", "{.status.phase}", "Succeeded");
    cluster.wait_for("pvc/data", "{.status.phase}", "Bound");
    let selected = "{.metadata.annotations.volume\\.kubernetes\\.io/selected-node}";
    assert_eq!(cluster.field("pvc/data", selected), second);
    let volume = format!("pv/{}", cluster.field("pvc/data", "{.spec.volumeName}"));
    let place = "{.spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values[0]}";
    assert_eq!(cluster.field(&volume, place), second);

    // The next one goes there without being told, and one that wants to go elsewhere is told why it cannot.
    cluster.apply(&pod("reader", "", "cat /data/file"));
    cluster.wait_for("pod/reader", "{.status.phase}", "Succeeded");
    assert_eq!(cluster.field("pod/reader", "{.spec.nodeName}"), second);
    assert_eq!(cluster.kubectl(&["logs", "reader"]).ok(), "kept\n");
    cluster.apply(&pod("elsewhere", &on(&cluster.profile), "true"));
    let told = "{.status.conditions[?(@.type==\"PodScheduled\")].message}";
    cluster.wait("it is told why", || {
        let message = cluster.field("pod/elsewhere", told);
        message.contains("1 node(s) didn't match PersistentVolume's node affinity").then_some(())
    });

    // Each member of a StatefulSet gets a volume of its own, in time.
    cluster.apply(&format!(
        "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: db}}, spec: {{serviceName: db, replicas: 2, selector: \
         {{matchLabels: {{app: db}}}}, template: {{metadata: {{labels: {{app: db}}}}, spec: {{terminationGracePeriodSeconds: \
         0, containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, '3600'], volumeMounts: [{{name: data, mountPath: \
         /data}}]}}]}}}}, volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{storageClassName: late, accessModes: \
         [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}]}}}}"
    ));
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    for number in 0..2 {
        let node = cluster.field(&format!("pod/db-{number}"), "{.spec.nodeName}");
        assert_eq!(cluster.field(&format!("pvc/data-db-{number}"), selected), node);
    }
}
