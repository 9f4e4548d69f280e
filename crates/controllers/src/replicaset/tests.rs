//! Tables for the ReplicaSet's plan: objects in, actions out.

use std::collections::BTreeSet;

use serde_json::{Value, from_value, json};

use super::plan::{Counts, plan, status};
use super::*;
use crate::expectations::Pending;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("time")
}

fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
    from_value(json!({
        "metadata": { "name": "web", "namespace": "ns", "uid": "rs", "generation": 3 },
        "spec": {
            "replicas": replicas, "minReadySeconds": min_ready,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web", "tier": "front" }, "annotations": { "a": "b" }, "finalizers": ["x/y"] },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
    }))
    .expect("replica set")
}

/// A running, ready Pod of the set; `change` makes it something else.
fn pod_with(name: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "app": "web", "tier": "front" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true }],
        },
        "spec": { "nodeName": "n1", "containers": [] },
        "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
        },
    });
    change(&mut pod);
    Arc::new(from_value(pod).expect("pod"))
}

fn pod(name: &str) -> Arc<Pod> {
    pod_with(name, |_| {})
}

fn deleting(pod: &mut Value) {
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:59:59Z");
}

fn unready(pod: &mut Value) {
    pod["status"]["conditions"][0]["status"] = json!("False");
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| meta::name(&**pod)).collect()
}

fn decide(rs: &ReplicaSet, pods: Vec<Arc<Pod>>, pending: Pending) -> Plan {
    let selector = selector(rs).expect("selector");
    let related = pods.clone();
    plan(&Snapshot { pods, related, pending }, rs, &selector, now())
}

fn noted(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

#[test]
fn creates_what_is_missing_and_deletes_what_is_too_much() {
    let finished = |name| pod_with(name, |pod| pod["status"]["phase"] = json!("Failed"));
    type Case = (i32, Vec<Arc<Pod>>, usize, Vec<&'static str>);
    let table: [Case; 6] = [
        (3, vec![], 3, vec![]),
        (3, vec![pod("a")], 2, vec![]),
        (2, vec![pod("a"), pod("b")], 0, vec![]),
        (2, vec![pod("a"), finished("b"), pod_with("c", deleting)], 1, vec![]),
        (1, vec![pod("a"), pod_with("b", unready)], 0, vec!["b"]),
        (0, vec![pod("a"), pod("b")], 0, vec!["a", "b"]),
    ];
    for (replicas, pods, create, delete) in table {
        let plan = decide(&set(replicas, 0), pods.clone(), Pending::default());
        assert_eq!((plan.create, names(&plan.delete)), (create, delete), "{replicas} of {:?}", names(&pods));
        assert_eq!(plan.counts.replicas, replicas);
    }
    assert_eq!(decide(&set(5_000, 0), vec![], Pending::default()).create, plan::BURST);
}

#[test]
fn what_is_not_shown_yet_counts() {
    let created = || Pending { present: noted("b"), ..Pending::default() };
    let plan = decide(&set(3, 0), vec![pod("a")], created());
    assert_eq!((plan.create, plan.counts.replicas), (1, 3));
    let plan = decide(&set(3, 0), vec![pod("a"), pod("b")], created());
    assert_eq!(plan.create, 1, "it is shown now: not counted twice");
    let plan = decide(&set(1, 0), vec![pod("a")], created());
    assert_eq!(names(&plan.delete), Vec::<&str>::new(), "the new one may be the one to go: wait for it");

    let deleted = Pending { gone: noted("a"), ..Pending::default() };
    let plan = decide(&set(2, 0), vec![pod("a"), pod("b")], deleted);
    assert_eq!((plan.create, plan.counts.terminating, plan.counts.ready), (1, 1, 1));
}

#[test]
fn a_wrong_status_is_put_right() {
    let check = |wrong: Value, expected: Value| {
        let mut rs = set(1, 0);
        rs.status = from_value(wrong.clone()).expect("a status");
        let plan = decide(&rs, vec![pod("a"), pod_with("b", deleting)], Pending::default());
        let right = status(&rs, &plan.counts, None, now());
        let patch = meta::status_patch(&rs.status.clone().unwrap_or_default(), &right).expect("JSON");
        assert_eq!(patch.unwrap_or_default(), expected, "{wrong}");
    };
    let mut right = json!({
        "replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1, "terminatingReplicas": 1,
        "observedGeneration": 3,
    });
    check(right.clone(), Value::Null);
    check(json!({ "replicas": 0 }), json!({ "status": right }));
    right["terminatingReplicas"] = json!(3);
    check(right.clone(), json!({ "status": { "terminatingReplicas": 1 } }));
    right["conditions"] =
        json!([{ "type": "ReplicaFailure", "status": "True" }, { "type": "Theirs", "status": "True" }]);
    let conditions = json!([{ "type": "Theirs", "status": "True" }]);
    check(right, json!({ "status": { "terminatingReplicas": 1, "conditions": conditions } }));
}

#[test]
fn a_set_being_deleted_is_left_alone() {
    let mut rs = set(3, 0);
    rs.metadata.deletion_timestamp = Some(meta::seconds(now()));
    let plan = decide(&rs, vec![pod("a")], Pending::default());
    assert_eq!((plan.create, plan.delete.len(), plan.counts.replicas), (0, 0, 1));
}

#[test]
fn adopts_orphans_and_releases_strangers() {
    let orphan = |name: &str, app: &str, phase: &str| {
        pod_with(name, |pod| {
            pod["metadata"]["ownerReferences"] = json!([]);
            pod["metadata"]["labels"]["app"] = json!(app);
            pod["status"]["phase"] = json!(phase);
        })
    };
    let stranger = pod_with("stranger", |pod| pod["metadata"]["labels"] = json!({ "app": "other" }));
    let pods = vec![
        orphan("orphan", "web", "Running"),
        orphan("finished", "web", "Failed"),
        orphan("other", "other", "Running"),
        stranger,
    ];
    let plan = decide(&set(2, 0), pods, Pending::default());
    assert_eq!(names(&plan.adopt), ["orphan"]);
    assert_eq!(names(&plan.release), ["stranger"]);
    assert_eq!(plan.create, 1);
}

#[test]
fn counts_what_is_ready_and_for_how_long() {
    let ready_at = |name: &str, at: &str| {
        let at = at.to_owned();
        pod_with(name, |pod| pod["status"]["conditions"][0]["lastTransitionTime"] = json!(at))
    };
    let unlabeled = pod_with("d", |pod| pod["metadata"]["labels"] = json!({ "app": "web" }));
    let pods = vec![
        ready_at("a", "2026-01-01T00:59:50Z"),
        ready_at("b", "2026-01-01T00:59:40Z"),
        pod_with("c", unready),
        unlabeled,
        pod_with("e", deleting),
    ];
    let plan = decide(&set(4, 20), pods, Pending::default());
    let expect = Counts { replicas: 4, fully_labeled: 3, ready: 3, available: 2, terminating: 1 };
    assert_eq!(plan.counts, expect);
    assert_eq!(plan.requeue_after, Some(std::time::Duration::from_secs(10)));
}

#[test]
fn the_least_useful_pods_go_first() {
    let pods = vec![
        pod_with("g-doubled-old", |pod| pod["metadata"]["creationTimestamp"] = json!("2025-01-01T00:00:00Z")),
        pod("z-alone-on-n2"),
        pod_with("d-cheap", |pod| {
            pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"] = json!("-5");
        }),
        pod_with("c-unready", unready),
        pod_with("b-pending", |pod| pod["status"]["phase"] = json!("Pending")),
        pod_with("a-unassigned", |pod| pod["spec"]["nodeName"] = Value::Null),
        pod_with("f-restarted", |pod| {
            pod["status"]["containerStatuses"] =
                json!([{ "name": "c", "ready": true, "restartCount": 3, "image": "", "imageID": "" }]);
        }),
        pod_with("e-ready-lately", |pod| {
            pod["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-01-01T00:59:58Z");
        }),
    ];
    let mut pods = pods;
    pods[1] = pod_with("z-alone-on-n2", |pod| pod["spec"]["nodeName"] = json!("n2"));
    let expect = [
        "a-unassigned",
        "b-pending",
        "c-unready",
        "d-cheap",
        "e-ready-lately",
        "f-restarted",
        "g-doubled-old",
        "z-alone-on-n2",
    ];
    for count in 0..pods.len() {
        let plan = decide(&set(i32::try_from(pods.len() - count).expect("few"), 0), pods.clone(), Pending::default());
        assert_eq!(names(&plan.delete), expect[..count]);
    }
}

#[test]
fn the_status_says_what_failed_until_it_is_well() {
    let counts = Counts { replicas: 1, ..Counts::default() };
    let failure = |message: &str| Failure { reason: "FailedCreate", message: message.to_owned() };
    let mut rs = set(2, 0);
    rs.status = Some(status(&rs, &counts, Some(&failure("first")), now()));
    let second = status(&rs, &counts, Some(&failure("second")), now());
    assert_eq!(Some(&second), rs.status.as_ref(), "the first message stands");
    let condition = second.conditions.as_deref().unwrap_or_default();
    assert_eq!(condition[0].message.as_deref(), Some("first"));
    assert_eq!(second.observed_generation, Some(3));
    assert_eq!(status(&rs, &counts, None, now()).conditions, None);
}

#[test]
fn pods_are_made_from_the_template() {
    let rs = set(1, 0);
    let pod = plan::pod(&rs, &Owner::of(&rs));
    let expect = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "web-", "namespace": "ns",
            "labels": { "app": "web", "tier": "front" }, "annotations": { "a": "b" }, "finalizers": ["x/y"],
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    assert_eq!(serde_json::to_value(&pod).expect("pod"), expect);
}
