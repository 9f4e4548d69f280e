//! Tables for the RoleBasedGroup's plan: a group and its workloads in, what is applied out.

use std::collections::BTreeMap;

use serde_json::from_value;

use super::*;

fn object(spec: &Value) -> RoleBasedGroup {
    let metadata = json!({ "name": "chat", "namespace": "ns", "uid": "rbg", "generation": 3 });
    from_value(json!({ "metadata": metadata, "spec": spec })).expect("object")
}

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("time")
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

fn planned(roles: &[&str], ready: &[&str], snapshot: Snapshot) -> Plan {
    let spec = json!({ "roles": roles.iter().map(|line| role(line)).collect::<Vec<_>>() });
    plan_of(&object(&spec), ready, snapshot)
}

fn plan_of(object: &RoleBasedGroup, ready: &[&str], mut snapshot: Snapshot) -> Plan {
    let owner = Owner::of(object);
    let group = Group { owner: &owner, object };
    for line in ready {
        let words: Vec<_> = line.split(' ').collect();
        let replicas = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(1);
        let role = group.roles().into_iter().find(|role| role.name() == words[0]).expect("a role");
        let state = State {
            workload: role.workload().expect("a workload"),
            uid: words[0].to_owned(),
            created: "2026-01-01T00:00:00Z".parse().expect("time"),
            replicas: role.replicas(),
            ready: replicas,
            updated: replicas,
            settled: true,
        };
        snapshot.workloads.insert(words[0].to_owned(), state);
    }
    plan::plan(&snapshot, group, now())
}

/// What is applied in short, without the ConfigMap and services, then the reason of the condition Ready.
fn check(roles: &[&str], ready: &[&str], expect: &str) {
    let plan = planned(roles, ready, Snapshot::default());
    let applied =
        plan.apply.iter().filter(|object| !["ConfigMap", "Service"].iter().any(|kind| object["kind"] == *kind));
    let created = applied.chain(&plan.create);
    let mut words: Vec<_> = created.map(|object| object["metadata"]["name"].as_str().unwrap_or_default()).collect();
    words.push(&plan.status.conditions.as_ref().expect("conditions")[0].reason);
    assert_eq!(words.join(" "), expect, "{roles:?} {ready:?}");
}

#[test]
fn roles_start_in_the_order_of_their_dependencies() {
    let roles = ["router Deployment after=decode,prefill", "decode StatefulSet after=prefill", "prefill StatefulSet 2"];
    check(&roles, &[], "chat-prefill RoleNotReady");
    check(&roles, &["prefill 1"], "chat-prefill RoleNotReady");
    check(&roles, &["prefill 2"], "chat-prefill chat-decode RoleNotReady");
    check(&roles, &["prefill 2", "decode"], "chat-prefill chat-decode chat-router RoleNotReady");
    check(&roles, &["prefill 2", "decode", "router"], "chat-prefill chat-decode chat-router AllRolesReady");
    // What runs is not taken away because something it depends on fails.
    check(&roles, &["prefill 1", "decode", "router"], "chat-prefill chat-decode chat-router RoleNotReady");
}

#[test]
fn what_cannot_be_is_said() {
    let message = |roles: &[&str]| {
        let plan = planned(roles, &[], Snapshot::default());
        assert!(plan.apply.is_empty());
        let message = plan.status.conditions.as_ref().expect("conditions")[0].message.clone();
        assert_eq!(plan.events[0].1, "InvalidRoleDependency");
        message
    };
    assert_eq!(message(&["a Deployment after=a"]), "role \"a\" depends on itself: a -> a");
    assert_eq!(message(&["a Deployment after=b", "b Deployment after=a"]), "role \"a\" depends on itself: a -> b -> a");
    assert_eq!(message(&["a Deployment after=c"]), "role \"a\" depends on \"c\", which is no role of the group");
    assert_eq!(message(&["a Deployment", "a Deployment"]), "role \"a\" is there twice");
    check(&["a Pod"], &[], "FailedReconcileWorkload");
}

#[test]
fn what_is_asked_for_and_not_done_is_said() {
    let mut with_runtime = role("a StatefulSet");
    with_runtime["engineRuntimes"] = json!([{ "profileName": "p" }]);
    let spec = json!({ "roles": [with_runtime], "coordination": [{ "name": "c", "roles": ["a"] }] });
    let plan = plan_of(&object(&spec), &[], Snapshot::default());
    let ignored: Vec<_> = plan.events.iter().filter(|event| event.1 == "NotSupported").collect();
    assert_eq!((ignored.len(), plan.apply.last().map(|it| &it["kind"])), (2, Some(&json!("StatefulSet"))));
}

#[test]
fn pods_know_their_group() {
    let plan = planned(&["decode StatefulSet 2", "web Deployment"], &[], Snapshot::default());
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
    assert_eq!(template["metadata"]["labels"]["rbg.workloads.x-k8s.io/role-name"], "decode");
    assert_eq!(
        (&set["spec"]["serviceName"], &set["metadata"]["name"]),
        (&json!("s-chat-decode"), &json!("chat-decode"))
    );
    let config = plan.apply[0]["data"]["config.yaml"].as_str().expect("a file");
    let expect = "group:\n  name: \"chat\"\n  roles:\n  - \"decode\"\n  size: 1\nroles:\n  \"decode\":\n    instances:\n    \
                  - address: \"chat-decode-0.s-chat-decode\"\n    - address: \"chat-decode-1.s-chat-decode\"\n    size: 2\n";
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

    check(&["a Deployment adapted"], &[], "chat-a chat-a RoleNotReady");
    let adapted = |asked| Snapshot {
        adapters: BTreeMap::from([(
            "a".to_owned(),
            (asked, RoleBasedGroupScalingAdapterStatus { replicas: Some(1), ..Default::default() }),
        )]),
        ..Snapshot::default()
    };
    assert_eq!(planned(&["a Deployment adapted"], &["a"], adapted(Some(3))).scale, [(0, 3)]);
    let plan = planned(&["a Deployment 3 adapted"], &["a 3"], adapted(Some(3)));
    assert_eq!(
        (plan.scale.len(), plan.adapters[0].1.phase.as_deref(), plan.adapters[0].1.replicas),
        (0, Some("Bound"), Some(3))
    );
}

#[test]
fn a_gang_has_those_that_have_started() {
    let roles = [role("decode LeaderWorkerSet 2"), role("a Deployment 3 after=decode")];
    let gang = |spec: Value, annotations: Value, ready: &[&str]| {
        let mut object = object(&spec);
        object.metadata.annotations = from_value(annotations).expect("annotations");
        let plan = plan_of(&object, ready, Snapshot::default());
        let gang = plan.apply.iter().find(|object| object["kind"] == "PodGroup").expect("a gang");
        (gang["apiVersion"].as_str().unwrap_or_default().to_owned(), gang["spec"].clone())
    };
    let plugins = |members, seconds| {
        let spec = json!({ "minMember": members, "scheduleTimeoutSeconds": seconds });
        ("scheduling.x-k8s.io/v1alpha1".to_owned(), spec)
    };
    let spec = json!({ "roles": roles, "podGroupPolicy": { "kubeScheduling": {} } });
    assert_eq!(gang(spec.clone(), json!({}), &[]), plugins(8, 60));
    assert_eq!(gang(spec, json!({}), &["decode 2"]), plugins(11, 60));
    let later = |more: Value| {
        let mut annotations = json!({ "rbg.workloads.x-k8s.io/group-gang-scheduling": "true" });
        annotations.as_object_mut().expect("members").extend(more.as_object().expect("members").clone());
        gang(json!({ "roles": roles }), annotations, &[])
    };
    assert_eq!(later(json!({ "rbg.workloads.x-k8s.io/group-gang-scheduling-timeout": "9" })), plugins(8, 9));
    let (api_version, spec) = later(json!({ "rbg.workloads.x-k8s.io/group-gang-scheduling-volcano-queue": "q" }));
    assert_eq!(
        (api_version.as_str(), spec),
        ("scheduling.volcano.sh/v1beta1", json!({ "queue": "q", "minMember": 8 }))
    );
}

#[test]
fn both_versions_are_read() {
    let template = json!({ "spec": { "containers": [{ "name": "c" }] } });
    let patched = json!({ "templateRef": { "name": "base", "patch": { "spec": { "hostNetwork": true } } } });
    let kind = |role: Value| {
        let mut role = role;
        role["name"] = "a".into();
        let spec = json!({ "roles": [role], "roleTemplates": [{ "name": "base", "template": template }] });
        let plan = plan_of(&object(&spec), &[], Snapshot::default());
        let last = plan.apply.last().expect("something").clone();
        assert!(last["metadata"]["name"].as_str().unwrap_or_default().contains("chat"));
        last
    };
    assert_eq!(kind(json!({ "standalonePattern": { "template": template } }))["kind"], "StatefulSet");
    let set = kind(json!({ "standalonePattern": patched }));
    assert_eq!(set["spec"]["template"]["spec"]["hostNetwork"], true);
    let annotation = |value: &str| json!({ "rbg.workloads.x-k8s.io/role-workload-type": value });
    let role = json!({ "standalonePattern": patched, "annotations": annotation("apps/v1/Deployment") });
    assert_eq!(kind(role)["kind"], "Deployment");
    let pattern = json!({ "size": 3, "template": template, "restartPolicy": { "type": "None" } });
    let role = json!({
        "leaderWorkerPattern": pattern, "annotations": annotation("workloads.x-k8s.io/v1alpha2/RoleInstanceSet"),
    });
    let set = kind(role);
    assert_eq!((&set["kind"], &set["spec"]["leaderWorkerTemplate"]["size"]), (&json!("LeaderWorkerSet"), &json!(3)));
    assert_eq!(set["spec"]["leaderWorkerTemplate"]["restartPolicy"], "None");
    // What there is no workload for leaves the ConfigMap alone.
    assert_eq!(kind(json!({ "customComponentsPattern": { "components": [] } }))["kind"], "ConfigMap");
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
    let restart = |roles: &[&str], ready: &[&str], since: Option<&str>| {
        let pods = vec![pod("a-0", "a", 1), pod("b-0", "b", 0)];
        let spec = json!({ "roles": roles.iter().map(|line| role(line)).collect::<Vec<_>>() });
        let mut object = object(&spec);
        if let Some(since) = since {
            let condition = json!({
                "type": "RestartInProgress", "status": "True", "lastTransitionTime": since, "reason": "", "message": "",
            });
            object.status = from_value(json!({ "conditions": [condition], "roleStatuses": [] })).expect("a status");
        }
        let plan = plan_of(&object, ready, Snapshot { pods, ..Snapshot::default() });
        let deleted: Vec<_> = plan.restart.iter().map(|(name, _)| name.as_str()).collect();
        (deleted.join(" "), plan.apply.len())
    };
    let (together, both) = (["a StatefulSet together", "b StatefulSet after=a"], ["a", "b"]);
    assert_eq!(restart(&together, &both, None), ("chat-a chat-b".to_owned(), 0));
    assert_eq!(restart(&["a StatefulSet", "b StatefulSet together"], &both, None).0, "");
    // What is from before goes, and then all start in their order, once.
    assert_eq!(restart(&together, &["b"], Some("2026-01-01T00:59:59Z")), ("chat-b".to_owned(), 0));
    assert_eq!(restart(&together, &[], Some("2026-01-01T00:59:59Z")), (String::new(), 3));
    assert_eq!(restart(&together, &both, Some("2025-12-31T00:00:00Z")).0, "");
}

#[test]
fn what_is_of_no_use_any_more_goes() {
    let spec = json!({ "roles": [role("a StatefulSet adapted"), role("b Deployment"), role("c Pod")] });
    let object = object(&spec);
    let owner = Owner::of(&object);
    let wanted = |kind, name| plan::is_wanted(Group { owner: &owner, object: &object }, kind, name);
    for (kind, name) in [
        ("StatefulSet", "chat-a"),
        ("Deployment", "chat-b"),
        ("Deployment", "chat-c"),
        ("Service", "s-chat-a"),
        ("RoleBasedGroupScalingAdapter", "chat-a"),
    ] {
        assert!(wanted(kind, name), "{kind} {name}");
    }
    for (kind, name) in [
        ("StatefulSet", "chat-b"),
        ("Deployment", "chat-x"),
        ("Service", "s-chat-b"),
        ("RoleBasedGroupScalingAdapter", "chat-b"),
        ("PodGroup", "chat"),
    ] {
        assert!(!wanted(kind, name), "{kind} {name}");
    }
}
