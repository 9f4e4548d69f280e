//! Section 安装 (installation): the cluster is started, and looked at for the first time.

use coracle_tests::Cluster;

/// Starting, `kubectl cluster-info`, `kubectl get nodes`; with the newest kubectl and the oldest.
#[test]
fn installation() {
    let cluster = Cluster::new();
    let started = cluster.coracle(&["start"]);
    let told = format!("kubectl now uses the context \"{}\"", cluster.profile);
    assert!(started.stderr.contains(&told), "{started}");
    started.ok();
    assert_eq!(cluster.kubectl(&["config", "current-context"]).ok().trim(), cluster.profile);
    check(&cluster);
    check(&cluster.with_oldest_kubectl());
}

fn check(cluster: &Cluster) {
    let info = cluster.kubectl(&["cluster-info"]).ok();
    for part in ["Kubernetes control plane", "is running at", "https://127.0.0.1:"] {
        assert!(info.contains(part), "{part} is missing in {info}");
    }
    let nodes = cluster.kubectl(&["get", "nodes"]).ok();
    let rows: Vec<Vec<&str>> = nodes.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 2, "{nodes}");
    assert_eq!(rows[0], ["NAME", "STATUS", "ROLES", "AGE", "VERSION"], "{nodes}");
    assert_eq!(rows[1][..3], [cluster.profile.as_str(), "Ready", "control-plane"], "{nodes}");
    assert!(rows[1][4].starts_with("v1.36"), "{nodes}");
}
