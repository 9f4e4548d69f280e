//! The walkthrough's section on CustomResourceDefinitions: a kind of one's own, used like any other.

use std::path::Path;

use coracle_tests::{Background, Cluster};

/// As the walkthrough has it: from before every version needed a schema.
const WITHOUT_SCHEMA: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: podgroups.scheduling.sigs.k8s.io
spec:
  group: scheduling.sigs.k8s.io
  names:
    kind: PodGroup
    plural: podgroups
  scope: Namespaced
  versions:
  - name: v1alpha1
    served: true
    storage: true
";

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/crd").join(name).to_string_lossy().into_owned()
}

#[test]
fn custom_resource_definitions() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();

    let refused = cluster.kubectl_with_input(&["apply", "-f", "-"], WITHOUT_SCHEMA).fails();
    for part in [
        "The CustomResourceDefinition \"podgroups.scheduling.sigs.k8s.io\" is invalid",
        "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation",
    ] {
        assert!(refused.contains(part), "{part} is missing in {refused}");
    }
    // What kubectl remembers of earlier answers would only be refused by the server.
    let cache = format!("--cache-dir={}", cluster.home().join("unused").display());
    let gone = cluster.kubectl(&["get", "podgroups", &cache]).fails();
    assert!(gone.contains("doesn't have a resource type \"podgroups\""), "{gone}");

    // At once, without a pause for anything to settle.
    kubectl(&["apply", "-f", &example("podgroups.yaml")]);
    kubectl(&["apply", "-f", &example("training.yaml")]);
    kubectl(&["wait", "--for=condition=Established", "crd/podgroups.scheduling.sigs.k8s.io", "--timeout=1s"]);
    let listed = kubectl(&["get", "podgroups"]);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "MINMEMBER", "PHASE", "AGE"], "{listed}");
    assert_eq!(rows[1][..2], ["training", "4"], "{listed}");
    for name in ["pg", "podgroup", "podgroups.scheduling.sigs.k8s.io", "podgroups.v1alpha1.scheduling.sigs.k8s.io"] {
        assert!(kubectl(&["get", name, "training"]).contains("training"));
    }
    assert!(kubectl(&["api-resources"]).contains("scheduling.sigs.k8s.io/v1alpha1"));
    let explained = kubectl(&["explain", "podgroup.spec"]);
    assert!(explained.contains("How many pods there must be room for."), "{explained}");
    assert!(kubectl(&["describe", "podgroup", "training"]).contains("Schedule Timeout Seconds:  60"));
    assert_eq!(cluster.field("podgroup/training", "{.spec.scheduleTimeoutSeconds}"), "60");

    // What is wrong is said, by the name of the field.
    let manifest = std::fs::read_to_string(example("training.yaml")).expect("the example");
    let wrong = cluster.kubectl_with_input(&["apply", "-f", "-"], &manifest.replace("minMember: 4", "minMember: 0"));
    assert!(
        wrong
            .fails()
            .contains("spec.minMember: Invalid value: 0: spec.minMember in body should be greater than or equal to 1")
    );
    let typo = cluster
        .kubectl_with_input(&["apply", "-f", "-"], &manifest.replace("minMember: 4", "minMember: 4\n  minMembers: 5"));
    assert!(typo.fails().contains("unknown field \"spec.minMembers\""));

    // Changes, by all that kubectl has.
    let watch = Background::start(cluster.kubectl_command(&["get", "podgroups", "-w"]));
    watch.line(|line| line.starts_with("training"));
    kubectl(&["patch", "podgroup", "training", "--type=merge", "-p", r#"{"spec":{"minMember":3}}"#]);
    watch.line(|line| line.split_whitespace().nth(1) == Some("3"));
    cluster.apply(&manifest.replace("minMember: 4", "minMember: 5"));
    assert_eq!(cluster.field("podgroup/training", "{.spec.minMember}"), "5");
    assert!(
        cluster
            .kubectl_with_input(&["apply", "-f", "-"], &manifest.replace("minMember: 4", "minMember: 5"))
            .ok()
            .contains("unchanged")
    );
    kubectl(&[
        "patch",
        "podgroup",
        "training",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"phase":"Waiting"}}"#,
    ]);
    watch.line(|line| line.contains("Waiting"));
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &example("training.yaml")]);
    assert_eq!(cluster.field("podgroup/training", "{.spec.minMember}{.status.phase}"), "4Waiting");

    // They outlive a restart, and go with their definition.
    cluster.coracle(&["stop"]).ok();
    cluster.coracle(&["start"]).ok();
    assert_eq!(cluster.field("podgroup/training", "{.status.phase}"), "Waiting");
    kubectl(&["delete", "crd", "podgroups.scheduling.sigs.k8s.io", "--timeout=30s"]);
    // What kubectl remembers of earlier answers would only be refused by the server.
    let cache = format!("--cache-dir={}", cluster.home().join("unused").display());
    let gone = cluster.kubectl(&["get", "podgroups", &cache]).fails();
    assert!(gone.contains("doesn't have a resource type \"podgroups\""), "{gone}");
}

#[test]
fn addons() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let coracle = |arguments: &[&str]| cluster.coracle(arguments).ok();
    let status = |name: &str| {
        let list = cluster.coracle(&["addons", "list"]).ok();
        let row = list.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        row.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(status("rbg"), "disabled");
    coracle(&["addons", "enable", "rbg", "lws", "gang"]);
    assert_eq!(status("rbg"), "enabled");
    cluster.apply(
        "
apiVersion: workloads.x-k8s.io/v1alpha1
kind: RoleBasedGroup
metadata:
  name: shop
spec:
  roles:
  - name: web
    replicas: 1
    template:
      spec:
        containers:
        - name: main
          image: nginx:latest
",
    );
    let rows = kubectl(&["get", "rbg", "-n", "default"]);
    let rows: Vec<Vec<&str>> = rows.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows[0].as_slice(), rows[1][0]), (["NAME", "READY", "AGE"].as_slice(), "shop"));
    assert!(kubectl(&["get", "rolebasedgroup", "-n", "default"]).contains("shop"));
    // What only the older version has is kept.
    assert_eq!(
        cluster.field("rbg/shop", "{.apiVersion}{.spec.roles[0].workload.kind}"),
        "workloads.x-k8s.io/v1alpha2StatefulSet"
    );
    for kind in ["leaderworkersets", "podgroups.scheduling.x-k8s.io", "queues.scheduling.volcano.sh"] {
        kubectl(&["get", kind]);
    }
    coracle(&["addons", "disable", "rbg"]);
    cluster.wait("its kinds are gone", || (cluster.kubectl(&["get", "rbg"]).code != 0).then_some(()));
    assert_eq!(status("rbg"), "disabled");
    assert!(cluster.coracle(&["addons", "enable", "nothing"]).fails().contains("there is no addon nothing"));
}
