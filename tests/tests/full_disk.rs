//! A cluster whose disk is full: what it says, what still works, and that it goes on by itself.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use coracle_tests::{BUSYBOX, Cluster, run};

/// A file system in memory, unmounted in the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let disk = Self(tempfile::tempdir().expect("a temporary folder"));
        run("mount", &["-t", "tmpfs", "-o", "size=160m", "none", &disk.path()]).ok();
        disk
    }

    fn path(&self) -> String {
        self.0.path().display().to_string()
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.path()]);
    }
}

/// Fills the file system of a file to the last byte.
fn fill(path: &Path) {
    let mut file = File::options().create(true).append(true).open(path).expect("a file");
    for size in [1 << 20, 1 << 12] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
}

#[test]
fn a_full_disk_is_said_and_got_over() {
    // Before the cluster, so that it goes after it.
    let disk = SmallDisk::mount();
    let cluster = Cluster::new();
    symlink(disk.path(), cluster.home().join("home")).expect("a link");
    cluster.coracle(&["start"]).ok();
    let large = cluster.home().join("large");
    fs::write(&large, "x".repeat(700_000)).expect("a file");
    let large = format!("--from-file={}", large.display());
    let mut number = 0;
    let mut create = || {
        number += 1;
        cluster.kubectl(&["create", "configmap", &format!("large-{number}"), &large])
    };
    for _ in 0..5 {
        create().ok();
    }
    assert_eq!(cluster.kubectl(&["get", "--raw", "/readyz"]).ok(), "ok");
    assert!(cluster.coracle(&["status"]).ok().contains("store:      Writable"));
    // Each start serves DNS on another port.
    let dns = || {
        let ports = ["-n", "kube-system", "get", "endpointslice", "kube-dns", "-o", "jsonpath={.ports[*].port}"];
        cluster.kubectl(&ports).ok()
    };
    let dns_before = dns();
    let pid = cluster.pid();

    fill(&disk.filler());
    let refused = cluster.wait("writes are refused with the reason", || {
        let tried = create();
        // The write that found it out has an error of its own.
        tried.stderr.contains("the disk of the store is full").then_some(tried)
    });
    let refused = refused.fails();
    assert!(refused.contains("only deletes are accepted; free some space"), "{refused}");
    // Whatever it is that is ready, or is not, it is alive, and says why.
    let ready = cluster.kubectl(&["get", "--raw", "/readyz"]).fails();
    assert!(ready.contains("[-]etcd-readiness failed: the disk is full"), "{ready}");
    assert_eq!(cluster.kubectl(&["get", "--raw", "/livez"]).ok(), "ok");
    let status = cluster.coracle(&["status"]).ok();
    assert!(status.contains("store:      the disk is full, only deletes are accepted"), "{status}");
    let condition = |field: &str| format!("{{.status.conditions[?(@.type==\"StoreReadOnly\")].{field}}}");
    let node = format!("node/{}", cluster.profile);
    cluster.wait_for(&node, &condition("reason"), "DiskFull");
    // Reads and deletes go on.
    assert!(cluster.kubectl(&["get", "configmap", "large-1", "-o", "name"]).ok().contains("large-1"));
    cluster.kubectl(&["delete", "configmap", "large-1"]).ok();

    // It starts, too, when somebody has taken what was kept back, and shows what it has.
    cluster.coracle(&["stop"]).ok();
    // What it had open and had removed is given back when it has ended.
    cluster.wait("the process has ended", || (!Path::new("/proc").join(&pid).exists()).then_some(()));
    fill(&disk.filler());
    let started = cluster.coracle(&["start"]).fails();
    assert!(started.contains("runs, but is not ready: the store cannot write"), "{started}");
    let restarted = cluster.pid();
    assert_ne!(restarted, pid);
    assert!(cluster.kubectl(&["get", "configmap", "large-2", "-o", "name"]).ok().contains("large-2"));
    let refused = create().fails();
    assert!(refused.contains("the store cannot write"), "{refused}");
    assert!(cluster.coracle(&["status"]).ok().contains("No space left on device"));

    fs::remove_file(disk.filler()).expect("removed");
    cluster.wait("writes are taken again", || (create().code == 0).then_some(()));
    assert_eq!(cluster.kubectl(&["get", "--raw", "/readyz"]).ok(), "ok");
    assert!(cluster.coracle(&["status"]).ok().contains("store:      Writable"));
    cluster.wait_for(&node, &condition("reason"), "Writable");
    assert_eq!(cluster.pid(), restarted, "without a restart");
    // What the start could not write is written now: where the DNS server of this start is, for one.
    cluster.wait("the endpoints of the cluster DNS are written", || (dns() != dns_before).then_some(()));
    cluster.kubectl(&["delete", "configmap", "large-2"]).ok();
    let kept = cluster.kubectl(&["get", "configmap", "-o", "name"]).ok();
    assert!(!kept.contains("large-1\n") && !kept.contains("large-2\n") && kept.contains("large-3\n"), "{kept}");
}

#[test]
fn a_pod_that_fills_the_disk_is_evicted_before_the_store_suffers() {
    let disk = SmallDisk::mount();
    let cluster = Cluster::new();
    symlink(disk.path(), cluster.home().join("home")).expect("a link");
    cluster.coracle(&["start"]).ok();
    let script = "i=0; while head -c 1000000 /dev/zero >/v/$i; do i=$((i+1)); sleep 0.1; done; sleep 3600";
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: greedy}}, spec: {{restartPolicy: Never, containers: [{{name: c, image: \
         '{BUSYBOX}', command: [sh, -c, '{script}'], volumeMounts: [{{name: v, mountPath: /v}}]}}], volumes: [{{name: v, \
         emptyDir: {{}}}}]}}}}"
    ));
    cluster.wait_for("pod/greedy", "{.status.phase} {.status.reason}", "Failed Evicted");
    let message = cluster.field("pod/greedy", "{.status.message}");
    assert!(message.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: "), "{message}");
    let node = format!("node/{}", cluster.profile);
    let condition = |type_: &str| format!("{{.status.conditions[?(@.type==\"{type_}\")].status}}");
    cluster.wait_for(&node, &condition("DiskPressure"), "True");
    // It is there once writes have been refused.
    assert_eq!(cluster.field(&node, &condition("StoreReadOnly")), "");
    cluster.wait_for(&node, "{.spec.taints[*].key}", "node.kubernetes.io/disk-pressure");
    cluster.wait("what it took is given back", || {
        let free = run("df", &["--output=avail", &disk.path()]).ok();
        let kibibytes: u64 = free.split_whitespace().last().and_then(|free| free.parse().ok()).expect("a number");
        (kibibytes > 64 << 10).then_some(())
    });
    cluster.kubectl(&["create", "configmap", "after"]).ok();
}
