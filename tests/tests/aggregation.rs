//! The aggregation layer: `examples/sample-apiserver` behind an APIService, by kubectl.

use std::env;
use std::fs;
use std::path::PathBuf;

use coracle_tests::{Background, Cluster, example, run};

const API_SERVICE: &str = "apiservice/v1.wardle.example.coracle.dev";

/// The server's program, which whoever runs these tests has built.
fn program() -> PathBuf {
    env::var_os("CORACLE_SAMPLE_APISERVER").map_or_else(|| PathBuf::from("sample-apiserver"), PathBuf::from)
}

/// An image with the program, the libraries it is linked to, and nothing else.
fn image(cluster: &Cluster) -> String {
    let name = format!("coracle.test/sample-apiserver-{}:1", cluster.profile);
    coracle_tests::image_of(&program(), "sample-apiserver", &cluster.home().join("image"), &name);
    name
}

#[test]
fn another_server_answers_for_a_version() {
    let cluster = Cluster::start();
    let image = image(&cluster);
    let folder = PathBuf::from(example("sample-apiserver"));
    let manifest = fs::read_to_string(folder.join("sample-apiserver.yaml")).expect("the example");
    cluster.apply(&manifest.replace("sample-apiserver:1", &image));
    cluster.kubectl(&["wait", "--for=condition=Available", "--timeout=60s", API_SERVICE]).ok();
    let services = cluster.kubectl(&["get", "apiservices"]).ok();
    let row = |name: &str| {
        let row = services.lines().find(|line| line.split_whitespace().next() == Some(name));
        row.map(|row| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!(row("NAME"), ["NAME", "SERVICE", "AVAILABLE", "AGE"], "{services}");
    assert_eq!(row("v1.apps")[1..3], ["Local", "True"], "{services}");
    assert_eq!(row("v1.wardle.example.coracle.dev")[1..3], ["default/sample-apiserver", "True"], "{services}");

    let watch = Background::start(cluster.kubectl_command(&["get", "flunders", "--watch", "-o", "name"]));
    let flunder = folder.join("flunder.yaml");
    cluster.kubectl(&["create", "-f", &flunder.to_string_lossy()]).ok();
    watch.line(|line| line.contains("flunder.wardle.example.coracle.dev/first"));
    assert_eq!(cluster.kubectl(&["get", "fl", "-o", "name"]).ok(), "flunder.wardle.example.coracle.dev/first\n");
    assert_eq!(cluster.field("flunder/first", "{.spec.reference}"), "none");
    let resources = cluster.kubectl(&["api-resources", "--api-group=wardle.example.coracle.dev"]).ok();
    assert!(resources.contains("flunders") && resources.contains("Flunder"), "{resources}");
    let explained = cluster.kubectl(&["explain", "flunder.spec"]).ok();
    assert!(explained.contains("What the Flunder is to be."), "{explained}");
    let refused = cluster.kubectl(&["get", "flunders", "--as=jane"]).fails();
    assert!(refused.contains("(Forbidden)") && refused.contains("flunders.wardle.example.coracle.dev"), "{refused}");

    // A version that nobody can be asked about may have objects in any namespace.
    cluster.kubectl(&["create", "namespace", "going"]).ok();
    cluster.kubectl(&["scale", "deployment/sample-apiserver", "--replicas=0"]).ok();
    cluster.kubectl(&["wait", "--for=condition=Available=False", "--timeout=60s", API_SERVICE]).ok();
    let refused = cluster.kubectl(&["get", "--raw", "/apis/wardle.example.coracle.dev/v1/flunders"]).fails();
    assert!(refused.contains("the server is currently unable to handle the request"), "{refused}");
    cluster.kubectl(&["delete", "namespace", "going", "--wait=false"]).ok();
    let failing = r#"{.status.conditions[?(@.type=="NamespaceDeletionDiscoveryFailure")].status}"#;
    cluster.wait_for("namespace/going", failing, "True");
    // Others do not mind.
    cluster.kubectl(&["create", "configmap", "other"]).ok();
    cluster.kubectl(&["delete", API_SERVICE]).ok();
    cluster.kubectl(&["wait", "--for=delete", "--timeout=60s", "namespace/going"]).ok();
    run("docker", &["rmi", "--force", &image]).ok();
}

/// A manifest like metrics-server's takes the place of the metrics that are built in, until it is deleted.
#[test]
fn a_metrics_server_of_somebody_else_goes_before_the_built_in_one() {
    let cluster = Cluster::start();
    let nodes = "/apis/metrics.k8s.io/v1beta1/nodes";
    let until_answered = || {
        cluster.wait("metrics are served", || (cluster.kubectl(&["get", "--raw", nodes]).code == 0).then_some(()));
    };
    until_answered();
    let api_service = "
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata:
  name: v1beta1.metrics.k8s.io
  labels: {k8s-app: metrics-server}
spec:
  group: metrics.k8s.io
  groupPriorityMinimum: 100
  insecureSkipTLSVerify: true
  service: {name: metrics-server, namespace: kube-system}
  version: v1beta1
  versionPriority: 100
";
    cluster.kubectl_with_input(&["create", "-f", "-"], api_service).ok();
    let name = "apiservice/v1beta1.metrics.k8s.io";
    let reason = r#"{.status.conditions[?(@.type=="Available")].reason}"#;
    cluster.wait_for(name, reason, "ServiceNotFound");
    let refused = cluster.kubectl(&["get", "--raw", nodes]).fails();
    assert!(refused.contains("the server is currently unable to handle the request"), "{refused}");
    cluster.kubectl(&["delete", name]).ok();
    until_answered();
}
