//! Section 层级与命名空间 (hierarchy and namespaces): cluster, namespace, workload, pod; and how they are deleted.
//!
//! What it says of RoleBasedGroups is in [`role_based_group`](crate::role_based_group).

use coracle_tests::{Cluster, example, http_get, run};

use crate::first_application::{deployed, node_port};

/// What lies in what, and who belongs to whom.
#[test]
fn objects_and_namespaces() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let namespaces = kubectl(&["get", "namespaces", "-o", "name"]);
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert!(namespaces.contains(&format!("namespace/{name}\n")), "{namespaces}");
    }
    // What names no namespace is in `default`; the same name elsewhere is something else.
    kubectl(&["create", "namespace", "rbgs-test"]);
    kubectl(&["apply", "-f", &example("nginx/deployment.yaml")]);
    kubectl(&["apply", "-n", "rbgs-test", "-f", &example("nginx/deployment.yaml")]);
    assert_eq!(cluster.field("deployment/nginx", "{.metadata.namespace}"), "default");
    assert_eq!(kubectl(&["get", "deployments", "-A", "-o", "name"]).matches("deployment.apps/nginx").count(), 2);
    assert!(kubectl(&["get", "deployment", "-n", "rbgs-test"]).contains("nginx"));
    // Some kinds are in none.
    let wide = kubectl(&["api-resources", "--namespaced=false", "-o", "name"]);
    for kind in ["nodes", "namespaces", "persistentvolumes", "customresourcedefinitions.apiextensions.k8s.io"] {
        assert!(wide.lines().any(|line| line == kind), "{kind} is missing in {wide}");
    }
    // Deployment → ReplicaSet → Pods, in one namespace; and they go from the top down.
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]);
    let pod = cluster.pods("app=nginx").remove(0);
    let owner = "{.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}";
    let set = cluster.field(&format!("pod/{pod}"), owner);
    assert!(set.starts_with("ReplicaSet/nginx-"), "{set}");
    assert_eq!(cluster.field(&set, owner), "Deployment/nginx");
    kubectl(&["delete", "namespace", "rbgs-test", "--timeout=60s"]);
    assert_eq!(kubectl(&["get", "pods", "-A", "-l", "app=nginx", "-o", "name"]).lines().count(), 2);
    kubectl(&["delete", "deployment", "nginx"]);
    cluster.wait("all are gone", || kubectl(&["get", "replicasets,pods", "-o", "name"]).is_empty().then_some(()));
}

/// The Service, then the whole cluster: nothing of it is left behind.
#[test]
fn deletion() {
    let _port = node_port();
    let cluster = deployed();
    cluster.kubectl(&["apply", "-f", &example("nginx/service.yaml")]).ok();
    cluster.wait("the node port answers", || http_get("localhost:30080", "/"));
    let deleted = cluster.kubectl(&["delete", "svc", "nginx-svc"]).ok();
    assert!(deleted.starts_with("service \"nginx-svc\" deleted"), "{deleted}");
    cluster.wait("the node port is closed", || http_get("localhost:30080", "/").is_none().then_some(()));
    assert!(!cluster.kubectl(&["get", "svc"]).ok().contains("nginx-svc"));

    // With pods that still run.
    cluster.coracle(&["delete"]).ok();
    let profile = &cluster.profile;
    let label = format!("label=io.coracle.profile={profile}");
    assert_eq!(run("docker", &["ps", "-aq", "--filter", &label]).ok(), "");
    assert_eq!(run("docker", &["network", "ls", "-q", "--filter", &label]).ok(), "");
    let rules = run("nft", &["list", "ruleset"]).ok();
    assert!(!rules.contains(profile), "{rules}");
    let contexts = cluster.kubectl(&["config", "get-contexts", "-o", "name"]).ok();
    assert!(!contexts.contains(profile), "{contexts}");
    assert!(!cluster.home().join("home").join(profile).exists());
}
