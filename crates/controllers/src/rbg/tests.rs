//! Tables for the RoleBasedGroup's plan: a group and its workloads in, what is applied out.

use serde_json::from_value;

use super::*;

fn owner() -> Owner {
    let metadata = json!({ "name": "chat", "namespace": "ns", "uid": "rbg" });
    let object = json!({ "apiVersion": "workloads.x-k8s.io/v1alpha1", "kind": KIND, "metadata": metadata });
    Owner::of_dynamic(&from_value(object).expect("object"), &resource())
}

/// A role from a line such as `router Deployment 2 after=prefill,decode adapted`.
fn role(line: &str) -> Value {
    let words: Vec<_> = line.split(' ').collect();
    let value = |prefix: &str| words.iter().find_map(|word| word.strip_prefix(prefix));
    let after: Vec<_> = value("after=").map(|names| names.split(',').collect()).unwrap_or_default();
    let mut role = json!({
        "name": words[0], "workload": { "apiVersion": "apps/v1", "kind": words[1] },
        "replicas": words.get(2).and_then(|word| word.parse::<i64>().ok()).unwrap_or(1), "dependencies": after,
        "template": { "spec": { "containers": [{ "name": "c" }] } },
    });
    if words.contains(&"adapted") {
        role["scalingAdapter"] = json!({ "enable": true });
    }
    if words.contains(&"together") {
        role["restartPolicy"] = json!("RecreateRBGOnPodRestart");
    }
    if words[1] == "LeaderWorkerSet" {
        role["leaderWorkerSet"] = json!({ "size": 4, "patchWorkerTemplate": { "spec": { "hostNetwork": true } } });
    }
    role
}

fn planned(roles: &[&str], ready: &[&str], snapshot: Snapshot) -> plan::Plan {
    let spec = json!({ "roles": roles.iter().map(|line| role(line)).collect::<Vec<_>>() });
    let mut snapshot = snapshot;
    for line in ready {
        let words: Vec<_> = line.split(' ').collect();
        let count = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(1);
        let state = State { replicas: count, ready: count, updated: count, settled: true };
        snapshot.workloads.insert(words[0].to_owned(), state);
    }
    let now = "2026-01-01T01:00:00Z".parse().expect("time");
    plan::plan(&snapshot, &owner(), 3, &spec, &Value::Null, now)
}

/// What is applied in short, without the ConfigMap and services, then the reason of the condition Ready.
fn check(roles: &[&str], ready: &[&str], expect: &str) {
    let plan = planned(roles, ready, Snapshot::default());
    let applied =
        plan.apply.iter().filter(|object| !["ConfigMap", "Service"].iter().any(|kind| object["kind"] == *kind));
    let mut words: Vec<_> = applied.map(|object| object["metadata"]["name"].as_str().unwrap_or_default()).collect();
    words.push(plan.status["conditions"][0]["reason"].as_str().unwrap_or_default());
    assert_eq!(words.join(" "), expect, "{roles:?} {ready:?}");
}

#[test]
fn roles_start_in_the_order_of_their_dependencies() {
    let roles = ["router Deployment after=decode,prefill", "decode StatefulSet after=prefill", "prefill StatefulSet 2"];
    check(&roles, &[], "chat-prefill RolesNotReady");
    check(&roles, &["prefill 1"], "chat-prefill RolesNotReady");
    check(&roles, &["prefill 2"], "chat-prefill chat-decode RolesNotReady");
    check(&roles, &["prefill 2", "decode"], "chat-prefill chat-decode chat-router RolesNotReady");
    check(&roles, &["prefill 2", "decode", "router"], "chat-prefill chat-decode chat-router AllRolesReady");
    // What runs is not taken away because something it depends on fails.
    check(&roles, &["prefill 1", "decode", "router"], "chat-prefill chat-decode chat-router RolesNotReady");
}

#[test]
fn what_cannot_be_is_said() {
    let message = |roles: &[&str]| {
        let plan = planned(roles, &[], Snapshot::default());
        assert!(plan.apply.is_empty());
        let message = plan.status["conditions"][0]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(plan.events[0].1, "InvalidRoleDependency");
        message
    };
    assert_eq!(message(&["a Deployment after=a"]), "role \"a\" depends on itself: a -> a");
    assert_eq!(message(&["a Deployment after=b", "b Deployment after=a"]), "role \"a\" depends on itself: a -> b -> a");
    assert_eq!(message(&["a Deployment after=c"]), "role \"a\" depends on \"c\", which is no role of the group");
    assert_eq!(message(&["a Deployment", "a Deployment"]), "role \"a\" is there twice");
    check(&["a Pod"], &[], "InvalidRole");
}

#[test]
fn pods_know_their_group() {
    let plan = planned(&["decode StatefulSet 2"], &[], Snapshot::default());
    let set = plan.apply.iter().find(|object| object["kind"] == "StatefulSet").expect("a set");
    let template = &set["spec"]["template"];
    let names = |list: &Value| {
        list.as_array()
            .into_iter()
            .flatten()
            .map(|one| one["name"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let container = &template["spec"]["containers"][0];
    let expect = ["GROUP_NAME", "RBG_GROUP_NAME", "RBG_ROLE_NAME", "ROLE_NAME", "RBG_ROLE_INDEX", "ROLE_INDEX"];
    assert_eq!(names(&container["env"]), expect);
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/etc/rbg");
    assert_eq!(template["metadata"]["labels"][make::GROUP_LABEL], "chat");
    assert_eq!((&set["spec"]["serviceName"], &set["metadata"]["name"]), (&json!("chat-decode"), &json!("chat-decode")));
    let config = plan.apply[0]["data"]["config.yaml"].as_str().expect("a file");
    let expect = "group:\n  name: \"chat\"\n  roles:\n  - \"decode\"\n  size: 1\nroles:\n  \"decode\":\n    instances:\n    \
                  - address: \"chat-decode-0.chat-decode\"\n    - address: \"chat-decode-1.chat-decode\"\n    size: 2\n";
    assert_eq!(config, expect);
}

#[test]
fn leaders_and_workers_gangs_and_adapters() {
    let plan = planned(&["decode LeaderWorkerSet 2"], &[], Snapshot::default());
    let set = plan.apply.iter().find(|object| object["kind"] == "LeaderWorkerSet").expect("a set");
    let template = &set["spec"]["leaderWorkerTemplate"];
    assert_eq!((&template["size"], &template["restartPolicy"]), (&json!(4), &json!("RecreateGroupOnPodRestart")));
    assert_eq!(template["workerTemplate"]["spec"]["hostNetwork"], true);
    assert_eq!(template["leaderTemplate"]["spec"]["hostNetwork"], Value::Null);
    let spec = json!({ "roles": [role("decode LeaderWorkerSet 2"), role("a Deployment 3")], "podGroupPolicy": { "kubeScheduling": {} } });
    let gang = make::pod_group(&owner(), &spec).expect("a gang");
    assert_eq!(gang["spec"], json!({ "minMember": 11, "scheduleTimeoutSeconds": 60 }));

    check(&["a Deployment adapted"], &[], "chat-a chat-a RolesNotReady");
    let adapted = |asked| Snapshot {
        adapters: BTreeMap::from([("a".to_owned(), (asked, json!({ "replicas": 1 })))]),
        ..Snapshot::default()
    };
    assert_eq!(planned(&["a Deployment adapted"], &["a"], adapted(Some(3))).scale, [(0, 3)]);
    let plan = planned(&["a Deployment 3 adapted"], &["a 3"], adapted(Some(3)));
    assert_eq!(
        (plan.scale.len(), &plan.adapters[0].1["phase"], &plan.adapters[0].1["replicas"]),
        (0, &json!("Bound"), &json!(3))
    );
}

#[test]
fn a_group_may_start_anew_as_one() {
    let pod = |name: &str, role: &str, restarts: i32| {
        let status = json!({ "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": restarts });
        let pod = json!({
            "metadata": { "name": name, "labels": { make::ROLE_LABEL: role } },
            "status": { "containerStatuses": [status] },
        });
        Arc::new(from_value::<Pod>(pod).expect("pod"))
    };
    let restart = |roles: &[&str]| {
        let pods = vec![pod("a-0", "a", 1), pod("b-0", "b", 0)];
        planned(roles, &[], Snapshot { pods, ..Snapshot::default() }).restart.len()
    };
    assert_eq!(restart(&["a StatefulSet together", "b StatefulSet"]), 2);
    assert_eq!(restart(&["a StatefulSet", "b StatefulSet together"]), 0);
}
