//! Section 部署第一个应用 (the first application): `examples/nginx`, its Service, the way to it, an update and back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle_tests::{Cluster, example, http_get};

/// The node port of the walkthrough is one for the whole machine: whoever holds this may use it.
pub(crate) fn node_port() -> MutexGuard<'static, ()> {
    static NODE_PORT: Mutex<()> = Mutex::new(());
    NODE_PORT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster in which the Deployment of `examples/nginx` runs.
pub(crate) fn deployed() -> Cluster {
    let cluster = Cluster::start();
    let created = cluster.kubectl(&["apply", "-f", &example("nginx/deployment.yaml")]).ok();
    assert_eq!(created, "deployment.apps/nginx created\n");
    rolled_out(&cluster);
    cluster
}

#[track_caller]
fn rolled_out(cluster: &Cluster) {
    let status = cluster.kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]).ok();
    assert!(status.contains("deployment \"nginx\" successfully rolled out"), "{status}");
}

#[test]
fn deployment() {
    let cluster = deployed();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let pods = kubectl(&["get", "pods", "-l", "app=nginx"]);
    let running = pods.lines().skip(1).filter(|line| {
        let row: Vec<&str> = line.split_whitespace().collect();
        row[0].starts_with("nginx-") && row[1..4] == ["1/1", "Running", "0"]
    });
    assert_eq!(running.count(), 2, "{pods}");
    assert!(kubectl(&["get", "pods", "-o", "wide"]).contains(&cluster.profile));
    assert!(kubectl(&["get", "pods", "-o", "yaml"]).contains("kind: Pod"));
    let watch = cluster.kubectl_command(&["get", "pods", "-l", "app=nginx", "-w"]);
    let watch = coracle_tests::Background::start(watch);
    kubectl(&["scale", "deployment/nginx", "--replicas=3"]);
    watch.line(|line| line.contains("ContainerCreating"));
    watch.line(|line| line.contains("1/1") && line.contains("Running") && !pods.contains(&line[..22]));
    cluster.wait_for("deployment/nginx", "{.status.readyReplicas}", "3");
}

#[test]
fn service() {
    let _port = node_port();
    let cluster = deployed();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    assert_eq!(kubectl(&["apply", "-f", &example("nginx/service.yaml")]), "service/nginx-svc created\n");
    let services = kubectl(&["get", "svc"]);
    let row = services.lines().find(|line| line.starts_with("nginx-svc")).unwrap_or_default();
    let row: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((row[1], row[3], row[4]), ("NodePort", "<none>", "80:30080/TCP"), "{services}");

    // By its cluster IP, from the host and from a pod.
    let ip = cluster.field("service/nginx-svc", "{.spec.clusterIP}");
    assert_eq!(row[2], ip);
    cluster.wait("the cluster IP answers the host", || http_get(&format!("{ip}:80"), "/"));
    let pod = cluster.pods("app=nginx").remove(0);
    let from_pod = cluster.wait("the cluster IP answers a pod", || {
        let ran = cluster.kubectl(&["exec", &pod, "--", "curl", "-s", "-m", "5", &format!("http://{ip}")]);
        (ran.code == 0).then_some(ran.stdout)
    });
    assert!(from_pod.contains("Welcome to nginx!"));
    // Also when the service leads back to the pod that asks.
    for _ in 0..8 {
        kubectl(&["exec", &pod, "--", "curl", "-s", "-m", "5", "-o", "/dev/null", &format!("http://{ip}")]);
    }
}

#[test]
fn access() {
    let _port = node_port();
    let cluster = deployed();
    cluster.kubectl(&["apply", "-f", &example("nginx/service.yaml")]).ok();
    let page = cluster.wait("the node port answers", || http_get("localhost:30080", "/"));
    assert!(page.contains("<title>Welcome to nginx!</title>"), "{page}");

    // The browser is opened with its address.
    let url = "http://127.0.0.1:30080\n";
    assert_eq!(cluster.coracle(&["service", "nginx-svc", "--url"]).ok(), url);
    let (folder, visited) = (cluster.home().join("bin"), cluster.home().join("visited"));
    fs::create_dir(&folder).expect("a folder");
    let browser = folder.join("xdg-open");
    fs::write(&browser, format!("#!/bin/sh\necho \"$1\" > {}\n", visited.display())).expect("a program");
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o755)).expect("a program");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = cluster.coracle_command(&["service", "nginx-svc"]);
    let output = command.env("PATH", format!("{}:{path}", folder.display())).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), url);
    assert_eq!(fs::read_to_string(visited).expect("the browser was opened"), url);
}

#[test]
fn rolling_update() {
    let cluster = deployed();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let image = || cluster.field("deployment/nginx", "{.spec.template.spec.containers[0].image}");
    let manifest = fs::read_to_string(example("nginx/deployment.yaml")).expect("the example");
    let applied = cluster.apply(&manifest.replace("nginx:latest", "nginx:1.21.0"));
    assert_eq!(applied, "deployment.apps/nginx configured\n");
    rolled_out(&cluster);
    cluster.wait_for("deployment/nginx", "{.status.replicas}", "2");
    assert_eq!(image(), "nginx:1.21.0");
    let newest = cluster.wait("only new pods are left", || {
        let pods = cluster.pods("app=nginx");
        (pods.len() == 2).then(|| pods[0].clone())
    });
    // Only an image built here says which one it is.
    if cluster.kubectl(&["exec", &newest, "--", "test", "-e", "/etc/image-reference"]).code == 0 {
        assert_eq!(kubectl(&["exec", &newest, "--", "cat", "/etc/image-reference"]).trim(), "nginx:1.21.0");
    }
    assert!(kubectl(&["rollout", "history", "deployment/nginx"]).contains("2         <none>"));

    assert_eq!(kubectl(&["rollout", "undo", "deployment/nginx"]), "deployment.apps/nginx rolled back\n");
    rolled_out(&cluster);
    assert_eq!(image(), "nginx:latest");
    let revision = cluster.field("deployment/nginx", "{.metadata.annotations.deployment\\.kubernetes\\.io/revision}");
    assert_eq!(revision, "3", "revisions move on, never back");
    kubectl(&["rollout", "restart", "deployment/nginx"]);
    rolled_out(&cluster);
}
