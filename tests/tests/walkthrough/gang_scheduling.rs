//! Section Gang Scheduling: all or nothing, by PodGroups of coscheduling, by Volcano's, and by RoleBasedGroups.

use coracle_tests::Cluster;
use serde_json::{Value, json};

use crate::role_based_group::{group, role, row, template, wait_for_condition};
use crate::scheduler::{asks, labelled, node_of, pod, refused, with_nodes};

/// The story of the section: a model on four cards needs four workers, and there is room for two.
#[test]
fn pod_groups() {
    let cluster = with_nodes();
    let toleration = json!([{ "key": "nvidia.com/gpu", "operator": "Exists" }]);
    let worker = json!({ "containers": asks("nvidia.com/gpu", "1"), "tolerations": toleration });
    let workers = |group: &str, labels: Value| {
        for number in 0..4 {
            cluster.apply(&labelled(&format!("{group}-{number}"), labels.clone(), worker.clone()));
        }
    };
    // Without a gang two workers hold the cards, and wait for the others for ever.
    workers("alone", json!({ "app": "alone" }));
    cluster.wait("two run", || {
        let phases =
            cluster.kubectl(&["get", "pods", "-l", "app=alone", "-o", "jsonpath={.items[*].status.phase}"]).ok();
        (phases.matches("Running").count() == 2 && phases.matches("Pending").count() == 2).then_some(())
    });
    cluster.kubectl(&["delete", "pods", "-l", "app=alone"]).ok();

    // With a gang, nobody holds anything until there is room for all.
    cluster.coracle(&["addons", "enable", "gang"]).ok();
    cluster.wait("the queue of all who name none", || {
        (cluster.kubectl(&["get", "queue.scheduling.volcano.sh/default"]).code == 0).then_some(())
    });
    // That queue is nobody's: nothing is asked.
    cluster.coracle(&["addons", "disable", "gang"]).ok();
    cluster.wait("its kind is gone", || {
        (cluster.kubectl(&["get", "crd", "queues.scheduling.volcano.sh"]).code != 0).then_some(())
    });
    cluster.coracle(&["addons", "enable", "gang"]).ok();
    let group = json!({
        "apiVersion": "scheduling.x-k8s.io/v1alpha1", "kind": "PodGroup", "metadata": { "name": "model" },
        "spec": { "minMember": 4, "scheduleTimeoutSeconds": 2 },
    });
    cluster.apply(&group.to_string());
    workers("model", json!({ "scheduling.x-k8s.io/pod-group": "model" }));
    let message = refused(&cluster, "model-0");
    assert!(message.contains("pod group default/model"), "{message}");
    cluster.wait("the reason is told", || {
        let text = cluster.coracle(&["explain", "pod", "model-3"]);
        text.stdout.contains("2 of 4 pods that it needs find a node").then_some(())
    });
    let selector = "scheduling.x-k8s.io/pod-group=model";
    let nodes = ["get", "pods", "-l", selector, "-o", "jsonpath={.items[*].spec.nodeName}"];
    assert_eq!(cluster.kubectl(&nodes).ok().trim(), "", "nobody holds a card");
    cluster.wait_for("podgroup.scheduling.x-k8s.io/model", "{.status.phase}", "Scheduling");
    let events = cluster.wait("it is said that this takes too long", || {
        let events = cluster.kubectl(&["get", "events", "--field-selector=reason=ScheduleTimeout"]).ok();
        events.contains("podgroup/model").then_some(events)
    });
    assert!(events.contains("was not placed within 2 s"), "{events}");

    cluster.coracle(&["node", "add", "gpu-more", "--fake", "--gpu", "2"]).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pods", "-l", selector, "--timeout=60s"]).ok();
    cluster.wait_for("podgroup.scheduling.x-k8s.io/model", "{.status.phase}", "Running");
}

/// The same with Volcano's kinds, for pods that ask for its scheduler; and gangs that are as they were after a restart.
#[test]
fn volcano() {
    let cluster = with_nodes();
    cluster.coracle(&["addons", "enable", "gang"]).ok();
    let toleration = json!([{ "key": "nvidia.com/gpu", "operator": "Exists" }]);
    let gang = |name: &str, members: usize| {
        let group = json!({
            "apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "PodGroup", "metadata": { "name": name },
            "spec": { "minMember": members },
        });
        cluster.apply(&group.to_string());
        for number in 0..members {
            let worker = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": format!("{name}-{number}"), "labels": { "gang": name },
                    "annotations": { "scheduling.k8s.io/group-name": name },
                },
                "spec": {
                    "schedulerName": "volcano", "containers": asks("nvidia.com/gpu", "1"), "tolerations": toleration,
                },
            });
            cluster.apply(&worker.to_string());
        }
    };
    let nodes = |name: &str| {
        let selector = format!("gang={name}");
        cluster.kubectl(&["get", "pods", "-l", &selector, "-o", "jsonpath={.items[*].spec.nodeName}"]).ok()
    };
    gang("large", 4);
    refused(&cluster, "large-3");
    assert_eq!(nodes("large").trim(), "", "nobody holds a card");
    // Nor does anybody get one because the scheduler begins anew.
    cluster.coracle(&["stop", "--keep-pods"]).ok();
    cluster.coracle(&["start"]).ok();
    cluster.apply(&pod("after", json!({})));
    node_of(&cluster, "after");
    assert_eq!(nodes("large").trim(), "", "nobody holds a card after a restart");
    // Its waiting is in nobody's way.
    gang("small", 2);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pods", "-l", "gang=small", "--timeout=60s"]).ok();
    cluster.coracle(&["node", "add", "gpu-more", "--fake", "--gpu", "4"]).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pods", "-l", "gang=large", "--timeout=60s"]).ok();
}

/// A gang that is more important displaces others, if it is whole then; else nobody goes for it.
#[test]
fn preemption() {
    let cluster = Cluster::start_with(&["gang"]);
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    cluster.coracle(&["node", "add", "gpu", "--fake", "--gpu", "1", "--count", "3"]).ok();
    for (name, value) in [("low", 1), ("high", 1_000)] {
        kubectl(&["create", "priorityclass", name, &format!("--value={value}")]);
    }
    for number in 0..3 {
        let name = format!("low-{number}");
        cluster.apply(&pod(&name, json!({ "containers": asks("nvidia.com/gpu", "1"), "priorityClassName": "low" })));
        node_of(&cluster, &name);
    }
    let gang = |name: &str, members: usize| {
        let group = json!({
            "apiVersion": "scheduling.x-k8s.io/v1alpha1", "kind": "PodGroup", "metadata": { "name": name },
            "spec": { "minMember": members },
        });
        cluster.apply(&group.to_string());
        for number in 0..members {
            let labels = json!({ "gang": name, "scheduling.x-k8s.io/pod-group": name });
            let spec = json!({ "containers": asks("nvidia.com/gpu", "1"), "priorityClassName": "high" });
            cluster.apply(&labelled(&format!("{name}-{number}"), labels, spec));
        }
    };
    let left = || kubectl(&["get", "pods", "-o", "name"]).lines().filter(|name| name.starts_with("pod/low")).count();
    gang("large", 4);
    cluster.wait("it is refused as a whole", || {
        refused(&cluster, "large-3").contains("of 4 pods that it needs find a node").then_some(())
    });
    assert_eq!(left(), 3, "four would not fit, whoever goes");
    gang("small", 2);
    kubectl(&["wait", "--for=condition=Ready", "pods", "-l", "gang=small", "--timeout=60s"]);
    assert_eq!(left(), 1, "two had to go");
    let events = kubectl(&["get", "events", "--field-selector=reason=Preempted", "-o", "name"]);
    assert_eq!(events.lines().count(), 2, "{events}");
}

/// Queues of Volcano share by their weights, and tell what their groups have.
#[test]
fn volcano_queues() {
    let cluster = Cluster::start_with(&["gang"]);
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    cluster.wait_for("queue.scheduling.volcano.sh/default", "{.spec.weight} {.status.state}", "1 Open");
    for (queue, weight) in [("a", 1), ("b", 3)] {
        cluster.apply(
            &json!({
                "apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "Queue", "metadata": { "name": queue },
                "spec": { "weight": weight },
            })
            .to_string(),
        );
        // All are there before there is anything to be had.
        for number in 0..4 {
            let name = format!("{queue}{number}");
            let group = json!({
                "apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "PodGroup", "metadata": { "name": name },
                "spec": { "minMember": 1, "queue": queue },
            });
            cluster.apply(&group.to_string());
            let worker = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": name, "labels": { "queue": queue }, "annotations": { "scheduling.k8s.io/group-name": name },
                },
                "spec": { "schedulerName": "volcano", "containers": asks("nvidia.com/gpu", "1") },
            });
            cluster.apply(&worker.to_string());
            refused(&cluster, &name);
        }
    }
    let running = |queue: &str| {
        let selector = format!("queue={queue}");
        let path = "jsonpath={.items[?(@.spec.nodeName)].metadata.name}";
        let names = kubectl(&["get", "pods", "-l", &selector, "-o", path]);
        names.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    cluster.coracle(&["node", "add", "gpu", "--fake", "--gpu", "4"]).ok();
    cluster.wait("each queue has its share", || (running("a").len() == 1 && running("b").len() == 3).then_some(()));
    let status = r"{.status.state} {.status.running} {.status.allocated.nvidia\.com/gpu}";
    cluster.wait_for("queue.scheduling.volcano.sh/a", status, "Open 1 1");
    cluster.wait_for("queue.scheduling.volcano.sh/b", status, "Open 3 3");
    let waits = ["a0", "a1", "a2", "a3"].into_iter().find(|name| !running("a").contains(&(*name).to_owned()));
    let pod = format!("pod/{}", waits.expect("three wait"));
    let message = "{.status.conditions[?(@.type=='PodScheduled')].message}";
    cluster.wait("it is told why it waits", || {
        let told = "queue a is overused: nvidia.com/gpu 1 in use, 1 deserved by weight 1 of 4 while other queues wait";
        (cluster.field(&pod, message).contains(told)).then_some(())
    });
    // What the other queue wants no longer is free to be had.
    let has = running("b");
    let gives_up: Vec<&str> =
        ["b0", "b1", "b2", "b3"].into_iter().filter(|name| !has.contains(&(*name).to_owned())).collect();
    kubectl(&["delete", "pod", gives_up[0], &has[0], "--now"]);
    cluster.wait("the first queue has more", || (running("a").len() == 2).then_some(()));
    cluster.wait_for("queue.scheduling.volcano.sh/a", status, "Open 2 2");
    cluster.wait_for("queue.scheduling.volcano.sh/b", status, "Open 2 2");
}

/// Those of a RoleBasedGroup, which makes the PodGroup itself.
#[test]
fn role_based_groups() {
    let cluster = Cluster::start_with(&["rbg", "gang"]);
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
}
