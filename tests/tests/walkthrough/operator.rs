//! Section Operator: `examples/operator-rust` watches, reconciles and heals; from the host and in the cluster.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use coracle_tests::{BUSYBOX, Background, Cluster, example, run};

fn folder() -> PathBuf {
    PathBuf::from(example("operator-rust"))
}

/// The operator's program, which whoever runs these tests has built.
fn program() -> PathBuf {
    env::var_os("CORACLE_OPERATOR").map_or_else(|| PathBuf::from("operator-rust"), PathBuf::from)
}

/// Makes a site, changes it, disturbs what it owns, deletes it.
fn lifecycle(cluster: &Cluster) {
    let site = folder().join("site.yaml");
    cluster.kubectl(&["apply", "-f", &site.to_string_lossy()]).ok();
    cluster.wait_for("website/hello", "{.status.ready}", "2/2");
    assert!(cluster.kubectl(&["get", "site"]).ok().contains("2/2"));
    let ip = cluster.field("service/hello", "{.spec.clusterIP}");
    let page = cluster.wait("the page is served", || coracle_tests::http_get(&format!("{ip}:80"), "/"));
    assert!(page.contains("Hello from an operator"), "{page}");

    cluster.kubectl(&["scale", "deployment/hello", "--replicas=5"]).ok();
    cluster.wait_for("deployment/hello", "{.spec.replicas}", "2");
    cluster.kubectl(&["patch", "website/hello", "--type=merge", "-p", r#"{"spec":{"replicas":3}}"#]).ok();
    cluster.wait_for("website/hello", "{.status.ready}", "3/3");
    // One event that counts: several of one reason are a series.
    cluster.wait("the operator tells of it", || {
        let events = cluster.kubectl(&["get", "events", "--field-selector=reason=Serving"]).stdout;
        events.contains("website/hello").then_some(())
    });

    cluster.kubectl(&["delete", "website/hello"]).ok();
    cluster.wait_for("deployment/hello", "{.metadata.name}", "");
    cluster.wait_for("configmap/hello", "{.metadata.name}", "");
}

fn define(cluster: &Cluster) {
    let definition = run(&program().to_string_lossy(), &["crd"]).ok();
    cluster.kubectl_with_input(&["apply", "-f", "-"], &definition).ok();
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/websites.example.coracle.dev"]).ok();
}

#[test]
fn from_the_host() {
    let cluster = Cluster::start();
    define(&cluster);
    let mut command = Command::new(program());
    command.env("KUBECONFIG", cluster.kubeconfig()).env("WEBSITE_IMAGE", BUSYBOX);
    let _operator = Background::start(command);
    lifecycle(&cluster);
}

#[test]
fn in_the_cluster() {
    let cluster = Cluster::start();
    define(&cluster);
    let image = image(&cluster);
    let manifest = fs::read_to_string(folder().join("operator.yaml")).expect("the example");
    cluster.apply(&manifest.replace("website-operator:1", &image));
    cluster.kubectl(&["set", "env", "deployment/website-operator", &format!("WEBSITE_IMAGE={BUSYBOX}")]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/website-operator", "--timeout=60s"]).ok();
    lifecycle(&cluster);
    // What it was not given it may not do.
    let account = "--as=system:serviceaccount:default:website-operator";
    assert_eq!(cluster.kubectl(&["auth", "can-i", "delete", "deployments", account]).stdout, "no\n");
    run("docker", &["rmi", "--force", &image]).ok();
}

/// An image with the program, the libraries it is linked to, and nothing else.
fn image(cluster: &Cluster) -> String {
    let name = format!("coracle.test/operator-{}:1", cluster.profile);
    coracle_tests::image_of(&program(), "operator-rust", &cluster.home().join("image"), &name);
    name
}
