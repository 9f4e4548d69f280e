//! Whole clusters, kept and put back, as the same one and as another.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use coracle_tests::{BUSYBOX, Cluster, run};

/// A StatefulSet that counts in a volume of its own and, faster than anybody copies, in two files of an `emptyDir`: the second
/// one is never ahead of the first.
fn counter() -> String {
    let count = "n=$(cat /data/n || echo 0); while true; do n=$((n+1)); echo $n >/data/.n; mv /data/.n /data/n; echo $n >/tmp2/a; echo $n >/tmp2/b; done";
    serde_json::json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "db" },
        "spec": {
            "serviceName": "db", "replicas": 2, "selector": { "matchLabels": { "app": "db" } },
            "template": {
                "metadata": { "labels": { "app": "db" } },
                "spec": {
                    "terminationGracePeriodSeconds": 0, "volumes": [{ "name": "tmp", "emptyDir": {} }],
                    "containers": [{
                        "name": "c", "image": BUSYBOX, "command": ["sh", "-c", count],
                        "volumeMounts": [{ "name": "data", "mountPath": "/data" }, { "name": "tmp", "mountPath": "/tmp2" }],
                    }],
                },
            },
            "volumeClaimTemplates": [{
                "metadata": { "name": "data" },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
            }],
        },
    })
    .to_string()
}

fn listed(cluster: &Cluster) -> Vec<Value> {
    let list = cluster.coracle(&["snapshot", "list", "-o", "json"]).ok();
    serde_json::from_str(&list).expect("JSON")
}

fn count(cluster: &Cluster, pod: &str, file: &str) -> u64 {
    cluster.wait("the counter is there", || {
        let read = cluster.kubectl(&["--context", &cluster.profile, "exec", pod, "--", "cat", file]);
        read.stdout.trim().parse().ok()
    })
}

#[test]
fn a_cluster_is_put_back_and_copied_with_its_volumes() {
    let cluster = Cluster::new();
    cluster.coracle(&["start", "--nodes", "2"]).ok();
    cluster.apply(&counter());
    cluster.kubectl(&["create", "service", "clusterip", "web", "--tcp=80"]).ok();
    cluster.kubectl(&["create", "secret", "generic", "s", "--from-literal=word=hunter2"]).ok();
    let token = "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: token, annotations: {kubernetes.io/service-account.name: default}}}";
    cluster.apply(token);
    cluster.wait("there is a token", || {
        Some(cluster.field("secret/token", "{.data.token}")).filter(|token| !token.is_empty())
    });
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    let nodes = [0, 1].map(|pod| cluster.field(&format!("pod/db-{pod}"), "{.spec.nodeName}"));
    assert_ne!(nodes[0], nodes[1]);

    let before = count(&cluster, "db-0", "/data/n");
    cluster.coracle(&["snapshot", "save", "one"]).ok();
    let after = count(&cluster, "db-0", "/data/n");
    let saved = &listed(&cluster)[0];
    assert_eq!(
        (&saved["name"], &saved["cluster"], &saved["volumes"]),
        (&"one".into(), &cluster.profile.clone().into(), &true.into())
    );
    assert!(cluster.coracle(&["snapshot", "save", "one"]).fails().contains("there is a snapshot one already"));
    cluster.wait("the pods go on", || (count(&cluster, "db-0", "/data/n") > after).then_some(()));
    assert_eq!(cluster.field("pod/db-0", "{.status.containerStatuses[0].restartCount}"), "0");
    let revision: u64 = saved["revision"].as_str().and_then(|revision| revision.parse().ok()).expect("a revision");

    cluster.kubectl(&["delete", "service", "web"]).ok();
    cluster.kubectl(&["create", "configmap", "later"]).ok();
    cluster.kubectl(&["exec", "db-0", "--", "sh", "-c", "echo 999999999 >/data/n"]).ok();
    let refused = cluster.coracle(&["snapshot", "restore", "one", "--yes"]).fails();
    assert!(refused.contains(&format!("stop it first: coracle stop -p {}", cluster.profile)), "{refused}");
    cluster.coracle(&["stop"]).ok();
    assert!(cluster.coracle(&["snapshot", "restore", "one"]).fails().contains("without a confirmation"));
    assert!(cluster.coracle(&["snapshot", "restore", "two", "--yes"]).fails().contains("there is no snapshot two"));
    cluster.coracle(&["snapshot", "restore", "one", "--yes"]).ok();
    cluster.coracle(&["start"]).ok();
    assert_eq!(cluster.field("service/web", "{.spec.ports[0].port}"), "80");
    assert!(cluster.kubectl(&["get", "configmap", "later"]).fails().contains("not found"));
    let is_between = |cluster: &Cluster| {
        let found = count(cluster, "db-0", "/data/n");
        assert!(found >= before && found < 999_999_999, "{before} {found}");
    };
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    is_between(&cluster);
    // Whoever watched the cluster before it was put back begins anew.
    let watch =
        format!("/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={}&timeoutSeconds=1", revision + 1);
    let told = cluster.kubectl(&["get", "--raw", &watch]);
    assert!(told.stdout.contains("too old resource version") || told.fails().contains("too old resource version"));

    // A copy of what runs, beside it: with nodes, addresses, certificates and tokens of its own.
    let copy = cluster.beside();
    cluster.coracle(&["snapshot", "clone", &copy.profile]).ok();
    assert!(cluster.coracle(&["snapshot", "clone", &copy.profile]).fails().contains("already"));
    assert_eq!(listed(&cluster).len(), 1, "what was saved for the copy is gone");
    copy.coracle(&["start"]).ok();
    let of = |cluster: &Cluster, object: &str, path: &str| {
        let path = format!("-o=jsonpath={path}");
        cluster.kubectl(&["--context", &cluster.profile, "get", object, &path]).ok()
    };
    copy.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    is_between(&copy);
    for (pod, node) in [("pod/db-0", &nodes[0]), ("pod/db-1", &nodes[1])] {
        assert_eq!(of(&copy, pod, "{.spec.nodeName}"), node.replace(&cluster.profile, &copy.profile));
        assert_ne!(of(&copy, pod, "{.status.podIP}"), of(&cluster, pod, "{.status.podIP}"));
    }
    assert_ne!(of(&copy, "service/web", "{.spec.clusterIP}"), of(&cluster, "service/web", "{.spec.clusterIP}"));
    assert_eq!(of(&copy, "secret/s", "{.data.word}"), of(&cluster, "secret/s", "{.data.word}"));
    copy.wait("the token is another one", || {
        let token = of(&copy, "secret/token", "{.data.token}");
        (!token.is_empty() && token != of(&cluster, "secret/token", "{.data.token}")).then_some(())
    });
    // Both go on, each in its own volume.
    let here = count(&cluster, "db-0", "/data/n");
    copy.coracle(&["delete"]).ok();
    cluster.wait("the original goes on", || (count(&cluster, "db-0", "/data/n") > here).then_some(()));
}

/// The files of the counter's `emptyDir` in a snapshot.
fn pair(cluster: &Cluster, name: &str) -> (u64, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = cluster.home().join("home/.snapshots").join(name).join("files.tar");
    run("tar", &["-xf", &archive.display().to_string(), "-C", &folder.path().display().to_string()]).ok();
    let found = run("find", &[&folder.path().display().to_string(), "-path", "*empty-dir/tmp/*", "-type", "f"]).ok();
    let read = |name: &str| {
        let path = found.lines().map(PathBuf::from).find(|path| path.ends_with(name)).expect("the file is there");
        fs::read_to_string(path).expect("readable").trim().parse().unwrap_or(0)
    };
    (read("a"), read("b"))
}

#[test]
fn the_past_the_stopped_and_what_goes_wrong() {
    let cluster = Cluster::start();
    let nothing = cluster.coracle(&["snapshot", "list"]);
    assert!(nothing.stderr.contains("There are no snapshots"), "{nothing}");
    cluster.apply(&counter().replace("\"replicas\":2", "\"replicas\":1"));
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    // Volumes are read while nothing writes: the second file is as far as the first, or one behind.
    for name in ["a", "b", "c"] {
        cluster.coracle(&["snapshot", "save", name]).ok();
        let (first, second) = pair(&cluster, name);
        assert!(first == second || first == second + 1 || first == 0 || second == 0, "{first} {second}");
    }
    cluster.kubectl(&["create", "configmap", "early"]).ok();
    let revision = cluster.field("configmap/early", "{.metadata.resourceVersion}");
    cluster.kubectl(&["delete", "configmap", "early"]).ok();
    cluster.coracle(&["snapshot", "save", "then", "--at", &revision]).ok();
    assert!(cluster.coracle(&["snapshot", "save", "x", "--at", "999999999"]).fails().contains("has not happened"));
    assert!(cluster.coracle(&["snapshot", "save", "../x"]).fails().contains("cannot be a snapshot's name"));
    let denied = cluster.kubectl(&["auth", "can-i", "create", "snapshots.snapshots.coracle.dev", "--as=jane"]);
    assert_eq!(denied.stdout.trim(), "no");

    // A daemon that is killed while it holds the pods: the next one lets them go.
    let containers = cluster.containers();
    run("docker", &["pause", &containers[0]]).ok();
    fs::write(cluster.home().join("home").join(&cluster.profile).join("frozen"), &containers[0]).expect("written");
    run("kill", &["-9", &cluster.pid()]).ok();
    cluster.wait("it is gone", || (cluster.coracle(&["status"]).code == 3).then_some(()));
    // Before, it can be saved as it is.
    cluster.coracle(&["snapshot", "save", "stopped"]).ok();
    cluster.coracle(&["start"]).ok();
    cluster.wait("the pods go on", || {
        let state = run("docker", &["inspect", "-f", "{{.State.Status}}", &containers[0]]).ok();
        (state.trim() == "running").then_some(())
    });

    // What was written then can be had in another cluster, by any client.
    let other = cluster.beside();
    let exported = cluster.coracle(&["snapshot", "export", "then"]).ok();
    other.coracle(&["start"]).ok();
    let applied = other.kubectl_with_input(&["apply", "-f", "-"], &exported).ok();
    assert!(
        applied.contains("configmap/early created") && applied.contains("statefulset.apps/db created"),
        "{applied}"
    );
    other.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    other.coracle(&["stop"]).ok();

    // Or by etcd, whose tools look for a sum of 32 bytes behind the pages.
    let file = cluster.home().join("etcd.db");
    let into = fs::File::create(&file).expect("a file");
    let exported = cluster.coracle_command(&["snapshot", "export", "then", "--format", "etcd"]).stdout(into).status();
    assert!(exported.expect("it runs").success());
    assert_eq!(fs::metadata(&file).expect("there").len() % 4096, 32);

    // Damage is found before anything is changed.
    let objects = cluster.home().join("home/.snapshots/then/objects");
    let mut bytes = fs::read(&objects).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&objects, bytes).expect("written");
    let store = cluster.home().join("home").join(&other.profile).join("store");
    let before = fs::metadata(&store).and_then(|store| store.modified()).expect("there");
    let refused = other.coracle(&["snapshot", "restore", "then", "--yes"]).fails();
    assert!(
        refused.contains("the snapshot then is damaged (objects is not what was saved); nothing was changed"),
        "{refused}"
    );
    assert_eq!(fs::metadata(&store).and_then(|store| store.modified()).expect("there"), before);

    // One without volumes puts back the objects, and leaves the volumes as they are.
    cluster.kubectl(&["--context", &cluster.profile, "create", "configmap", "late"]).ok();
    cluster.coracle(&["snapshot", "save", "objects", "--no-volumes"]).ok();
    cluster.kubectl(&["--context", &cluster.profile, "delete", "configmap", "late"]).ok();
    let reached = count(&cluster, "db-0", "/data/n");
    cluster.coracle(&["stop"]).ok();
    cluster.coracle(&["snapshot", "restore", "objects", "--yes"]).ok();
    cluster.coracle(&["start"]).ok();
    cluster.kubectl(&["get", "configmap", "late"]).ok();
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    assert!(count(&cluster, "db-0", "/data/n") >= reached);

    cluster.coracle(&["snapshot", "delete", "then", "stopped", "objects"]).ok();
    let names: Vec<Value> = listed(&cluster).iter().map(|saved| saved["name"].clone()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}
