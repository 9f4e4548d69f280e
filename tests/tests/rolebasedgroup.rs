//! The walkthrough's section on RoleBasedGroup, and what it stands on: LeaderWorkerSets, gangs. What is wrong is said.

use std::collections::BTreeMap;

use coracle_tests::{BUSYBOX, Background, Cluster};
use serde_json::{Value, json};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/rbg/rbg.yaml");
const OF_LWS: &str = "leaderworkerset.sigs.k8s.io/name=x";
const OF_RBG: &str = "rolebasedgroup.workloads.x-k8s.io/name=shop";

fn with_addons(addons: &[&str]) -> Cluster {
    let cluster = Cluster::start();
    cluster.coracle(&[&["addons", "enable"], addons].concat()).ok();
    cluster
}

/// A template whose container runs until there is a file, so that a test can end it.
fn template(container: Value) -> Value {
    let mut main = json!({
        "name": "main", "image": BUSYBOX, "command": ["sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.1; done"],
    });
    main.as_object_mut().expect("members").extend(container.as_object().expect("members").clone());
    json!({ "spec": { "terminationGracePeriodSeconds": 1, "containers": [main] } })
}

fn end_container(cluster: &Cluster, pod: &str) {
    cluster.kubectl(&["exec", pod, "--", "touch", "/tmp/end"]).ok();
}

/// The UIDs of all objects of a kind with this label, by name.
fn uids(cluster: &Cluster, kind: &str, selector: &str) -> BTreeMap<String, String> {
    let path = r#"jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{"\n"}{end}"#;
    let lines = cluster.kubectl(&["get", kind, "-l", selector, "-o", path]).ok();
    let pairs = lines.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, uid)| (name.to_owned(), uid.to_owned())).collect()
}

fn wait_for_condition(cluster: &Cluster, object: &str, condition: &str) {
    cluster.kubectl(&["wait", &format!("--for=condition={condition}"), object, "--timeout=60s"]).ok();
}

#[track_caller]
fn row(cluster: &Cluster, arguments: &[&str], header: &[&str], expected: &[&str]) {
    let table = cluster.kubectl(arguments).ok();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], header, "{table}");
    assert_eq!(rows[1][..expected.len()], *expected, "{table}");
}

#[test]
fn leader_worker_set() {
    let cluster = with_addons(&["lws"]);
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let spec = json!({ "replicas": 2, "leaderWorkerTemplate": { "size": 3, "workerTemplate": template(json!({})) } });
    let set = |name: &str, spec: &Value| {
        let kind = json!({ "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet" });
        let mut set = kind;
        set["metadata"] = json!({ "name": name });
        set["spec"] = spec.clone();
        set.to_string()
    };
    cluster.apply(&set("x", &spec));
    wait_for_condition(&cluster, "lws/x", "Available");
    row(&cluster, &["get", "lws"], &["NAME", "READY", "DESIRED", "UP-TO-DATE", "AGE"], &["x", "2", "2", "2"]);
    let names = ["x-0", "x-0-1", "x-0-2", "x-1", "x-1-1", "x-1-2"];
    assert_eq!(cluster.pods(OF_LWS), names);

    // Pods know their group, and find their leader.
    let words =
        kubectl(&["exec", "x-1-2", "--", "sh", "-c", "echo $LWS_LEADER_ADDRESS $LWS_GROUP_SIZE $LWS_WORKER_INDEX"]);
    assert_eq!(words.trim(), "x-1.x.default 3 2");
    let found = kubectl(&["exec", "x-1-2", "--", "nslookup", "x-1.x.default.svc.cluster.local"]);
    assert!(found.contains(&cluster.field("pod/x-1", "{.status.podIP}")), "{found}");
    let pod = |name: &str| cluster.get(&["pod", name])["metadata"].clone();
    let (leader, worker) = (pod("x-1"), pod("x-1-2"));
    let key = "leaderworkerset.sigs.k8s.io/group-key";
    assert_eq!(leader["labels"][key], worker["labels"][key]);
    assert_eq!(worker["labels"]["leaderworkerset.sigs.k8s.io/group-index"], "1");
    assert_eq!(worker["labels"]["leaderworkerset.sigs.k8s.io/worker-index"], "2");
    assert_eq!(worker["annotations"]["leaderworkerset.sigs.k8s.io/leader-name"], "x-1");
    assert_eq!(worker["annotations"]["leaderworkerset.sigs.k8s.io/size"], "3");

    // One that fails takes its group with it, and no other.
    let before = uids(&cluster, "pods", OF_LWS);
    end_container(&cluster, "x-1-1");
    cluster.wait("the group has started anew", || {
        let after = uids(&cluster, "pods", OF_LWS);
        let is_new = |name: &&str| after.get(*name).is_some_and(|uid| before[*name] != *uid);
        (names[3..].iter().all(is_new) && after.len() == 6).then_some(())
    });
    wait_for_condition(&cluster, "lws/x", "Available");
    let after = uids(&cluster, "pods", OF_LWS);
    assert!(names[..3].iter().all(|name| before[*name] == after[*name]), "{before:?} {after:?}");
    assert!(kubectl(&["describe", "lws", "x"]).contains("RecreateGroup"));

    // An update goes from the last group to the first.
    let leaders = format!("{OF_LWS},leaderworkerset.sigs.k8s.io/worker-index=0");
    let columns = "custom-columns=NAME:.metadata.name,UID:.metadata.uid";
    let watch = ["get", "pods", "-l", &leaders, "--watch", "--no-headers", "-o", columns];
    let watch = Background::start(cluster.kubectl_command(&watch));
    let mut changed = spec.clone();
    changed["leaderWorkerTemplate"]["workerTemplate"]["metadata"] = json!({ "annotations": { "round": "two" } });
    cluster.apply(&set("x", &changed));
    let mut seen: Vec<String> = after.into_values().collect();
    for expected in ["x-1", "x-0"] {
        let line = watch.line(|line| !seen.iter().any(|uid| line.contains(uid)));
        let mut words = line.split_whitespace().map(str::to_owned);
        assert_eq!(words.next().as_deref(), Some(expected));
        seen.extend(words);
    }
    cluster.wait_for("lws/x", "{.status.updatedReplicas}{.status.readyReplicas}", "22");
    let rounds = kubectl(&["get", "pods", "-l", OF_LWS, "-o", "jsonpath={.items[*].metadata.annotations.round}"]);
    assert_eq!(rounds, ["two"; 6].join(" "));

    // Its scale is the number of groups.
    kubectl(&["scale", "lws/x", "--replicas=3"]);
    cluster.wait_for("lws/x", "{.status.readyReplicas}", "3");
    let scale = cluster.get(&["lws", "x", "--subresource=scale"]);
    assert_eq!(scale["status"]["selector"], leaders.as_str());
    kubectl(&["scale", "lws/x", "--replicas=1"]);
    cluster.wait("two groups are gone", || (cluster.pods(OF_LWS) == names[..3]).then_some(()));

    // What is wrong is said: by the API where it can be, else in an event.
    let mut wrong = spec.clone();
    wrong["leaderWorkerTemplate"]["size"] = 0.into();
    let refused = cluster.kubectl_with_input(&["apply", "-f", "-"], &set("wrong", &wrong)).fails();
    assert!(refused.contains("spec.leaderWorkerTemplate.size: Invalid value: 0"), "{refused}");
    let mut wrong = spec;
    wrong["leaderWorkerTemplate"]["workerTemplate"]["spec"]["restartPolicy"] = "Never".into();
    cluster.apply(&set("wrong", &wrong));
    cluster.wait("what is wrong is an event", || {
        let described = kubectl(&["describe", "lws", "wrong"]);
        described.contains("spec.template.spec.restartPolicy: Unsupported value: \"Never\"").then_some(())
    });

    kubectl(&["delete", "lws", "--all"]);
    let left = ["get", "pods,statefulsets,controllerrevisions", "-o", "name"];
    cluster.wait("all is gone", || kubectl(&left).is_empty().then_some(()));
}

#[test]
fn role_based_group() {
    let cluster = with_addons(&["rbg", "lws"]);
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let patch = |patch: Value| kubectl(&["patch", "rbg", "shop", "--type=json", "-p", &patch.to_string()]);
    kubectl(&["apply", "-f", EXAMPLE]);
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
    kubectl(&["delete", "-f", EXAMPLE]);
    let all = "pods,statefulsets,deployments,replicasets,services,configmaps,rbgsa";
    let left = ["get", all, "-l", OF_RBG, "-o", "name"];
    cluster.wait("all is gone", || kubectl(&left).is_empty().then_some(()));
}

#[test]
fn role_based_group_set() {
    let cluster = with_addons(&["rbg"]);
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
fn group(name: &str, mut spec: Value, roles: Vec<Value>) -> String {
    spec["roles"] = roles.into();
    let metadata = json!({ "name": name });
    json!({ "apiVersion": "workloads.x-k8s.io/v1alpha1", "kind": "RoleBasedGroup", "metadata": metadata, "spec": spec })
        .to_string()
}

fn role(name: &str, kind: &str, replicas: i32, container: Value) -> Value {
    let workload = json!({ "apiVersion": "apps/v1", "kind": kind });
    json!({ "name": name, "replicas": replicas, "workload": workload, "template": template(container) })
}

#[test]
fn gangs_and_what_cannot_be() {
    let cluster = with_addons(&["rbg", "gang"]);
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let node = |name: &str| cluster.coracle(&["node", "add", name, "--fake", "--gpu", "1", "--count", "2"]).ok();
    node("first");

    // Four workers, room for two: none starts, until there is room for all.
    let gpu = || json!({ "resources": { "limits": { "nvidia.com/gpu": 1 } } });
    let gang = json!({ "podGroupPolicy": { "kubeScheduling": { "scheduleTimeoutSeconds": 5 } } });
    let workers = vec![role("a", "StatefulSet", 2, gpu()), role("b", "Deployment", 2, gpu())];
    cluster.apply(&group("gang", gang, workers));
    cluster.wait_for("podgroup.scheduling.x-k8s.io/gang", "{.spec.minMember}", "4");
    let of_gang = "pod-group.scheduling.sigs.k8s.io/name=gang";
    let refused = r#"jsonpath={.items[*].status.conditions[?(@.type=="PodScheduled")].reason}"#;
    cluster.wait("all are refused", || {
        let reasons = kubectl(&["get", "pods", "-l", of_gang, "-o", refused]);
        (reasons == ["Unschedulable"; 4].join(" ")).then_some(())
    });
    let nodes = "jsonpath={.items[*].spec.nodeName}";
    assert_eq!(kubectl(&["get", "pods", "-l", of_gang, "-o", nodes]), "");
    row(&cluster, &["get", "rbg", "gang"], &["NAME", "READY", "AGE"], &["gang", "False"]);
    node("second");
    wait_for_condition(&cluster, "rbg/gang", "Ready");
    assert_eq!(kubectl(&["get", "pods", "-l", of_gang, "-o", nodes]).split_whitespace().count(), 4);
    kubectl(&["delete", "rbg", "gang"]);

    // Roles of a gang wait for each other too. This one is Volcano's, and written in v1alpha2.
    let mut second = json!({ "name": "second", "dependencies": ["first"] });
    let mut first = json!({ "name": "first" });
    for role in [&mut first, &mut second] {
        role["standalonePattern"] = json!({ "template": template(gpu()) });
    }
    let annotations = json!({
        "rbg.workloads.x-k8s.io/group-gang-scheduling": "true",
        "rbg.workloads.x-k8s.io/group-gang-scheduling-volcano-queue": "default",
    });
    let mut volcano: Value = serde_json::from_str(&group("volcano", json!({}), vec![first, second])).expect("JSON");
    volcano["apiVersion"] = "workloads.x-k8s.io/v1alpha2".into();
    volcano["metadata"]["annotations"] = annotations;
    cluster.apply(&volcano.to_string());
    wait_for_condition(&cluster, "rbg/volcano", "Ready");
    assert_eq!(cluster.field("podgroup.scheduling.volcano.sh/volcano", "{.spec.minMember}"), "2");
    kubectl(&["delete", "rbg", "volcano"]);
    let gangs = ["get", "podgroups.scheduling.x-k8s.io,podgroups.scheduling.volcano.sh", "-o", "name"];
    cluster.wait("their PodGroups are gone", || kubectl(&gangs).is_empty().then_some(()));

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
    kubectl(&["apply", "-f", EXAMPLE]);
    cluster.wait_for("deployment/shop-deployment", "{.status.readyReplicas}", "2");
    let words =
        "Cannot apply LeaderWorkerSet shop-lws: the cluster has no LeaderWorkerSet of leaderworkerset.x-k8s.io/v1";
    cluster.wait("it says what is missing", || kubectl(&["describe", "rbg/shop"]).contains(words).then_some(()));
    cluster.coracle(&["addons", "enable", "lws"]).ok();
    wait_for_condition(&cluster, "rbg/shop", "Ready");
}
