//! Section RoleBasedGroup: where it lives, the workloads that it makes of its roles, and what it says of itself.
//!
//! What it stands on is in [`leader_worker_set`](crate::leader_worker_set) and [`gang_scheduling`](crate::gang_scheduling).

use std::collections::BTreeMap;

use coracle_tests::{BUSYBOX, Cluster, example};
use serde_json::{Value, json};

const OF_RBG: &str = "rolebasedgroup.workloads.x-k8s.io/name=shop";

/// A template whose container runs until there is a file, so that a test can end it.
pub(crate) fn template(container: Value) -> Value {
    let mut main = json!({
        "name": "main", "image": BUSYBOX, "command": ["sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.1; done"],
    });
    main.as_object_mut().expect("members").extend(container.as_object().expect("members").clone());
    json!({ "spec": { "terminationGracePeriodSeconds": 1, "containers": [main] } })
}

pub(crate) fn end_container(cluster: &Cluster, pod: &str) {
    cluster.kubectl(&["exec", pod, "--", "touch", "/tmp/end"]).ok();
}

/// The UIDs of all objects of a kind with this label, by name.
pub(crate) fn uids(cluster: &Cluster, kind: &str, selector: &str) -> BTreeMap<String, String> {
    let path = r#"jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{"\n"}{end}"#;
    let lines = cluster.kubectl(&["get", kind, "-l", selector, "-o", path]).ok();
    let pairs = lines.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, uid)| (name.to_owned(), uid.to_owned())).collect()
}

pub(crate) fn wait_for_condition(cluster: &Cluster, object: &str, condition: &str) {
    cluster.kubectl(&["wait", &format!("--for=condition={condition}"), object, "--timeout=60s"]).ok();
}

#[track_caller]
pub(crate) fn row(cluster: &Cluster, arguments: &[&str], header: &[&str], expected: &[&str]) {
    let table = cluster.kubectl(arguments).ok();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], header, "{table}");
    assert_eq!(rows[1][..expected.len()], *expected, "{table}");
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
    let refused = cluster.coracle(&["addons", "disable", "rbg"]).fails();
    assert!(refused.contains("1 rolebasedgroups.workloads.x-k8s.io"), "{refused}");
    assert_eq!(status("rbg"), "enabled");
    coracle(&["addons", "disable", "rbg", "--yes"]);
    cluster.wait("its kinds are gone", || (cluster.kubectl(&["get", "rbg"]).code != 0).then_some(()));
    assert_eq!(status("rbg"), "disabled");
    // Without objects nobody is asked.
    coracle(&["addons", "disable", "lws"]);
    assert!(cluster.coracle(&["addons", "enable", "nothing"]).fails().contains("there is no addon nothing"));
}

#[test]
fn role_based_group() {
    let cluster = Cluster::start_with(&["rbg", "lws"]);
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let patch = |patch: Value| kubectl(&["patch", "rbg", "shop", "--type=json", "-p", &patch.to_string()]);
    kubectl(&["apply", "-f", &example("rbg/rbg.yaml")]);
    wait_for_condition(&cluster, "rbg/shop", "Ready");
    for kind in ["rbg", "rolebasedgroup"] {
        row(&cluster, &["get", kind, "-n", "default"], &["NAME", "READY", "AGE"], &["shop", "True"]);
    }
    for workload in ["statefulset/shop-sts", "deployment/shop-deployment", "lws/shop-lws"] {
        let owner = cluster.field(workload, "{.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}");
        assert_eq!(owner, "RoleBasedGroup/shop");
    }
    let pods = cluster.pods(OF_RBG);
    assert_eq!(
        (pods.len(), &pods[2..]),
        (5, ["shop-lws-0", "shop-lws-0-1", "shop-sts-0"].map(str::to_owned).as_slice())
    );

    // A role starts once what it depends on is ready.
    let ready = cluster.field("pod/shop-sts-0", "{.status.conditions[?(@.type==\"Ready\")].lastTransitionTime}");
    assert!(cluster.field("deployment/shop-deployment", "{.metadata.creationTimestamp}") >= ready);
    let described = kubectl(&["describe", "rbg/shop"]);
    for part in [
        "Reason:                AllRolesReady",
        "Creating StatefulSet shop-sts of role \"sts\"",
        "Dependencies of role \"deployment\" are not ready: sts",
        "Creating Deployment shop-deployment of role \"deployment\"",
        "All roles are ready",
    ] {
        assert!(described.contains(part), "{part:?} is missing in\n{described}");
    }

    // Pods know where the others are.
    let web = ["exec", "deployment/shop-deployment", "--"];
    let config = kubectl(&[&web[..], &["cat", "/etc/rbg/config.yaml"]].concat());
    assert!(config.contains("- address: \"shop-sts-0.s-shop-sts\"\n      ports:\n        \"http\": 8080"), "{config}");
    assert_eq!(
        kubectl(&[&web[..], &["wget", "-qO-", "http://shop-sts-0.s-shop-sts:8080/"]].concat()).trim(),
        "shop-sts-0"
    );
    let words = "echo $RBG_GROUP_NAME $RBG_ROLE_NAME $RBG_LWP_WORKER_INDEX $RBG_LWP_LEADER_ADDRESS";
    let words = kubectl(&["exec", "shop-lws-0-1", "--", "sh", "-c", words]);
    assert_eq!(words.trim(), "shop lws 1 shop-lws-0.shop-lws.default");
    assert_eq!(cluster.field("pod/shop-lws-0-1", "{.metadata.labels.part}"), "worker");

    // Either version shows it.
    for version in ["v1alpha1", "v1alpha2"] {
        let name = format!("rolebasedgroups.{version}.workloads.x-k8s.io/shop");
        let shown = cluster.field(&name, "{.apiVersion} {.spec.roles[1].workload.kind}");
        assert_eq!(shown, format!("workloads.x-k8s.io/{version} Deployment"));
    }

    // A role is updated as its workload is, and the others are left alone.
    let before = uids(&cluster, "pods", &format!("{OF_RBG},rolebasedgroup.workloads.x-k8s.io/role!=deployment"));
    patch(
        json!([{ "op": "add", "path": "/spec/roles/1/template/metadata", "value": { "annotations": { "round": "two" } } }]),
    );
    cluster.wait_for("deployment/shop-deployment", "{.spec.template.metadata.annotations.round}", "two");
    kubectl(&["rollout", "status", "deployment/shop-deployment", "--timeout=60s"]);
    assert_eq!(before, uids(&cluster, "pods", &format!("{OF_RBG},rolebasedgroup.workloads.x-k8s.io/role!=deployment")));

    // Autoscalers scale a role through its adapter.
    patch(json!([{ "op": "add", "path": "/spec/roles/1/scalingAdapter", "value": { "enable": true } }]));
    cluster.wait_for("rbgsa/shop-deployment", "{.status.phase} {.spec.replicas} {.status.readyReplicas}", "Bound 2 2");
    kubectl(&["scale", "rbgsa/shop-deployment", "--replicas=3"]);
    cluster.wait_for("deployment/shop-deployment", "{.status.readyReplicas}", "3");
    assert_eq!(cluster.field("rbg/shop", "{.spec.roles[1].replicas}"), "3");
    cluster.wait_for("rbgsa/shop-deployment", "{.status.replicas} {.status.readyReplicas}", "3 3");

    // What belongs to it comes back.
    kubectl(&["delete", "configmap/shop", "service/s-shop-sts", "lws/shop-lws"]);
    cluster.wait("it is there again", || {
        let all = kubectl(&[
            "get",
            "configmap/shop",
            "service/s-shop-sts",
            "lws/shop-lws",
            "--ignore-not-found",
            "-o",
            "name",
        ]);
        (all.lines().count() == 3).then_some(())
    });
    wait_for_condition(&cluster, "rbg/shop", "Ready");

    // A group that is to start anew as one does, in the order of its dependencies.
    patch(json!([{ "op": "add", "path": "/spec/roles/2/restartPolicy", "value": "RecreateRBGOnPodRestart" }]));
    cluster.wait_for("lws/shop-lws", "{.spec.leaderWorkerTemplate.restartPolicy}", "None");
    cluster.wait_for("rbg/shop", "{.status.observedGeneration}", &cluster.field("rbg/shop", "{.metadata.generation}"));
    cluster.wait_for("lws/shop-lws", "{.status.updatedReplicas}{.status.readyReplicas}", "11");
    let before = uids(&cluster, "statefulsets,deployments,lws", OF_RBG);
    kubectl(&["exec", "shop-lws-0-1", "--", "touch", "/tmp/end"]);
    wait_for_condition(&cluster, "rbg/shop", "RestartInProgress");
    wait_for_condition(&cluster, "rbg/shop", "RestartInProgress=false");
    let after = uids(&cluster, "statefulsets,deployments,lws", OF_RBG);
    assert!(before.iter().all(|(name, uid)| after[name] != *uid), "{before:?} {after:?}");
    assert!(kubectl(&["describe", "rbg/shop"]).contains("Pod shop-lws-0-1 restarted: the group starts anew"));

    // A role goes with all that is its, and the group with everything.
    patch(json!([{ "op": "remove", "path": "/spec/roles/2" }]));
    let lws = ["get", "lws,services,pods", "-l", "rolebasedgroup.workloads.x-k8s.io/role=lws", "-o", "name"];
    cluster.wait("the role is gone", || kubectl(&lws).is_empty().then_some(()));
    kubectl(&["delete", "-f", &example("rbg/rbg.yaml")]);
    let all = "pods,statefulsets,deployments,replicasets,services,configmaps,rbgsa";
    let left = ["get", all, "-l", OF_RBG, "-o", "name"];
    cluster.wait("all is gone", || kubectl(&left).is_empty().then_some(()));
}

#[test]
fn role_based_group_set() {
    let cluster = Cluster::start_with(&["rbg"]);
    let set = |replicas: i32, image: &str| {
        let template = json!({ "roles": [role("web", "Deployment", 1, json!({ "image": image }))] });
        let spec = json!({ "replicas": replicas, "template": template });
        let kind = json!({ "apiVersion": "workloads.x-k8s.io/v1alpha1", "kind": "RoleBasedGroupSet" });
        let mut set = kind;
        set["metadata"] = json!({ "name": "fleet" });
        set["spec"] = spec;
        set.to_string()
    };
    let groups = || cluster.field("rbg", "{.items[*].metadata.name}");
    cluster.apply(&set(2, BUSYBOX));
    wait_for_condition(&cluster, "rbgs/fleet", "Ready");
    row(&cluster, &["get", "rbgs"], &["NAME", "DESIRED", "READY", "AGE"], &["fleet", "2", "2"]);
    assert_eq!(groups(), "fleet-0 fleet-1");
    cluster.kubectl(&["scale", "rbgs/fleet", "--replicas=1"]).ok();
    cluster.wait("there is one group", || (groups() == "fleet-0").then_some(()));
    // The example's image under another name.
    cluster.apply(&set(1, &BUSYBOX.replace("coracle.test/", "docker.io/coracle.test/")));
    let image = "{.spec.template.spec.containers[0].image}";
    cluster.wait("its group is updated", || {
        cluster.field("deployment/fleet-0-web", image).starts_with("docker.io/").then_some(())
    });
    cluster.kubectl(&["delete", "rbgs", "fleet"]).ok();
    cluster.wait("its groups are gone", || groups().is_empty().then_some(()));
}

/// A group of v1alpha1.
pub(crate) fn group(name: &str, mut spec: Value, roles: Vec<Value>) -> String {
    spec["roles"] = roles.into();
    let metadata = json!({ "name": name });
    json!({ "apiVersion": "workloads.x-k8s.io/v1alpha1", "kind": "RoleBasedGroup", "metadata": metadata, "spec": spec })
        .to_string()
}

pub(crate) fn role(name: &str, kind: &str, replicas: i32, container: Value) -> Value {
    let workload = json!({ "apiVersion": "apps/v1", "kind": kind });
    json!({ "name": name, "replicas": replicas, "workload": workload, "template": template(container) })
}

#[test]
fn what_cannot_be() {
    let cluster = Cluster::start_with(&["rbg"]);
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    // What is wrong is said in the condition and in an event.
    let after = |name: &str, other: &str| {
        let mut role = role(name, "Deployment", 1, json!({}));
        role["dependencies"] = json!([other]);
        role
    };
    let wrong = |name: &str, roles: Vec<Value>, reason: &str, words: &str| {
        cluster.apply(&group(name, json!({}), roles));
        cluster.wait(&format!("{name} says {words}"), || {
            let condition = "{.status.conditions[?(@.type==\"Ready\")].reason}";
            let told = cluster.field(&format!("rbg/{name}"), condition) == reason;
            let described = cluster.kubectl(&["describe", "rbg", name]).ok();
            let event = described.split("\nEvents:").nth(1).is_some_and(|events| events.contains(words));
            (told && event).then_some(())
        });
    };
    wrong("itself", vec![after("a", "a")], "InvalidRoleDependency", "role \"a\" depends on itself: a -> a");
    wrong("circle", vec![after("a", "b"), after("b", "a")], "InvalidRoleDependency", "depends on itself: a -> b -> a");
    wrong("nobody", vec![after("a", "z")], "InvalidRoleDependency", "depends on \"z\", which is no role of the group");
    let unknown = role("a", "Widget", 1, json!({}));
    wrong("unknown", vec![unknown], "FailedReconcileWorkload", "workload Widget is not supported");
    let empty = role("a", "Deployment", 1, json!({ "name": "No_Name" }));
    wrong("empty", vec![empty], "RoleNotReady", "spec.template.spec.containers[0].name: Invalid value");
    let refused = |group: &str, words: &str| {
        let refused = cluster.kubectl_with_input(&["apply", "-f", "-"], group).fails();
        assert!(refused.contains(words), "{refused}");
    };
    refused(&group("twice", json!({}), vec![after("a", "a"), after("a", "a")]), "spec.roles[1]: Duplicate value");
    let mut both = after("a", "a");
    both["templateRef"] = json!({ "name": "base" });
    refused(
        &group("both", json!({}), vec![both]),
        "spec.roles[0]: Invalid value: template and templateRef are mutually",
    );

    // Without LeaderWorkerSets the other roles run, and all of them once there are any.
    kubectl(&["apply", "-f", &example("rbg/rbg.yaml")]);
    cluster.wait_for("deployment/shop-deployment", "{.status.readyReplicas}", "2");
    let words =
        "Cannot apply LeaderWorkerSet shop-lws: the cluster has no LeaderWorkerSet of leaderworkerset.x-k8s.io/v1";
    cluster.wait("it says what is missing", || kubectl(&["describe", "rbg/shop"]).contains(words).then_some(()));
    cluster.coracle(&["addons", "enable", "lws"]).ok();
    wait_for_condition(&cluster, "rbg/shop", "Ready");
}
