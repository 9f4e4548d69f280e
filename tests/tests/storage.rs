//! Volumes: claims, what they wait for, and where they are made.

use std::fs;

use coracle_tests::{BUSYBOX, Cluster};

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

/// What somebody mounts in a pod's volume is theirs, whether the pod, its claim or the whole cluster goes.
#[test]
fn what_is_mounted_in_a_volume_outlives_it() {
    let cluster = Cluster::start();
    let theirs = tempfile::tempdir().expect("a folder");
    fs::write(theirs.path().join("file"), "kept").expect("a file");
    cluster.apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], \
         resources: {requests: {storage: 1Gi}}}}",
    );
    let folder = cluster.home().join("home").join(&cluster.profile);
    // Starts a pod with a volume, mounts their folder in it, and answers where.
    let start = |name: &str, volume: &str| {
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, containers: \
             [{{name: c, image: '{BUSYBOX}', command: [sleep, '3600'], volumeMounts: [{{name: v, mountPath: /v}}]}}], \
             volumes: [{{name: v, {volume}}}]}}}}"
        ));
        cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).ok();
        let directory = match volume.starts_with("emptyDir") {
            true => {
                let uid = cluster.field(&format!("pod/{name}"), "{.metadata.uid}");
                folder.join("pods/pods").join(uid).join("volumes/kubernetes.io~empty-dir/v")
            }
            false => {
                let volume = cluster.field("pvc/data", "{.spec.volumeName}");
                cluster.field(&format!("pv/{volume}"), "{.spec.hostPath.path}").into()
            }
        };
        let place = directory.join("m");
        fs::create_dir(&place).expect("a folder");
        let mount = [theirs.path().as_os_str(), place.as_os_str()].map(|path| path.to_str().expect("a path"));
        coracle_tests::run("mount", &["--bind", mount[0], mount[1]]).ok();
        assert!(place.join("file").exists());
        directory
    };
    let gone = |directory: &std::path::Path| {
        cluster.wait("the volume is gone", || (!directory.exists()).then_some(()));
        assert_eq!(fs::read_to_string(theirs.path().join("file")).expect("still there"), "kept");
    };
    let empty = start("empty", "emptyDir: {}");
    cluster.kubectl(&["delete", "pod", "empty"]).ok();
    gone(&empty);
    let claimed = start("claim", "persistentVolumeClaim: {claimName: data}");
    cluster.kubectl(&["delete", "pod/claim", "pvc/data"]).ok();
    gone(&claimed);
    start("last", "emptyDir: {medium: Memory}");
    cluster.coracle(&["delete"]).ok();
    gone(&folder);
}

/// A container that puts a link to `/` where the kubelet has just made the subPath of others gains nothing.
#[test]
fn a_sub_path_is_a_part_of_its_volume_whoever_exchanges_it() {
    let cluster = Cluster::start();
    let victims: Vec<String> = (0..12)
        .map(|n| {
            format!(
                "{{name: v{n}, image: '{BUSYBOX}', command: [sh, -c, 'test -d /part/proc && echo ESCAPED'], \
                 volumeMounts: [{{name: e, mountPath: /part, subPath: part}}]}}"
            )
        })
        .collect();
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{restartPolicy: Never, terminationGracePeriodSeconds: 0, \
         containers: [{{name: attacker, image: '{BUSYBOX}', command: [sh, -c, 'cd /e; n=0; while :; do rm part; \
         sleep 0.03; n=$((n+1)); [ -d part ] && mv part kept$n; ln -sT / part; sleep 0.03; done'], volumeMounts: [{{name: e, \
         mountPath: /e}}]}}, {}], volumes: [{{name: e, emptyDir: {{}}}}]}}}}",
        victims.join(", ")
    ));
    let ended = "{.status.containerStatuses[*].state.terminated.exitCode}";
    cluster.wait("most victims have run", || {
        (cluster.field("pod/p", ended).split_whitespace().count() >= 8).then_some(())
    });
    for n in 0..12 {
        let log = cluster.kubectl(&["logs", "p", "-c", &format!("v{n}")]);
        assert!(!log.stdout.contains("ESCAPED"), "{log}");
    }
    // Nothing of it is left on the machine.
    cluster.kubectl(&["delete", "pod", "p"]).ok();
    let mounts = fs::read_to_string("/proc/self/mounts").expect("readable");
    let home = cluster.home().display().to_string();
    assert!(!mounts.lines().any(|line| line.contains(&home) && line.contains("volume-subpaths")), "{mounts}");
}
