//! Tables for the disruption plan: a budget and its Pods in, its status out.

use serde_json::{Value, from_value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("time")
}

fn pod(line: &str) -> Arc<Pod> {
    let words: Vec<_> = line.split(' ').collect();
    let deleted = words.contains(&"deleting").then_some("2026-01-01T00:59:59Z");
    let ready = if words.contains(&"ready") { "True" } else { "False" };
    let pod = json!({
        "metadata": { "name": words[0], "deletionTimestamp": deleted },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
    });
    Arc::new(from_value(pod).expect("pod"))
}

fn planned(spec: Value, status: Value, pods: &[&str], scale: Result<i32, &str>) -> plan::Plan {
    let budget =
        json!({ "metadata": { "name": "b", "namespace": "ns", "generation": 3 }, "spec": spec, "status": status });
    let scales = scale.map(|size| BTreeMap::from([("owner".to_owned(), size)])).map_err(str::to_owned);
    let snapshot = Snapshot { pods: pods.iter().map(|line| pod(line)).collect(), scales, unmanaged: Vec::new() };
    plan::plan(&snapshot, &from_value(budget).expect("budget"), now())
}

/// Allowed, healthy, desired and expected, and the condition's reason.
fn check(spec: Value, pods: &[&str], scale: i32, expect: (i32, i32, i32, i32, &str)) {
    let status = planned(spec.clone(), json!({}), pods, Ok(scale)).status;
    let number = |value: Option<i32>| value.expect("a number");
    let reason = status.conditions.expect("conditions")[0].reason.clone();
    let found = (
        number(status.disruptions_allowed),
        number(status.current_healthy),
        number(status.desired_healthy),
        number(status.expected_pods),
        reason.as_str(),
    );
    assert_eq!(found, expect, "{spec} {pods:?}");
    assert_eq!(status.observed_generation, Some(3));
}

#[test]
fn what_is_allowed() {
    let three = ["a ready", "b ready", "c ready"];
    check(json!({ "minAvailable": 2 }), &three, 0, (1, 3, 2, 3, "SufficientPods"));
    check(json!({ "minAvailable": 2 }), &["a ready", "b ready", "c"], 0, (0, 2, 2, 3, "InsufficientPods"));
    check(
        json!({ "minAvailable": 2 }),
        &["a ready", "b ready", "c ready deleting"],
        0,
        (0, 2, 2, 3, "InsufficientPods"),
    );
    check(json!({ "minAvailable": "50%" }), &three, 3, (1, 3, 2, 3, "SufficientPods"));
    check(json!({ "maxUnavailable": 1 }), &three, 3, (1, 3, 2, 3, "SufficientPods"));
    check(json!({ "maxUnavailable": 1 }), &three, 4, (0, 3, 3, 4, "InsufficientPods"));
    check(json!({ "maxUnavailable": "34%" }), &three, 3, (2, 3, 1, 3, "SufficientPods"));
    check(json!({ "maxUnavailable": 5 }), &three, 3, (3, 3, 0, 3, "SufficientPods"));
    check(json!({ "minAvailable": 0 }), &[], 0, (0, 0, 0, 0, "InsufficientPods"));
}

#[test]
fn evicted_pods_are_not_counted_until_they_are_gone() {
    let status = json!({ "disruptedPods": { "a": "2026-01-01T00:59:30Z", "gone": "2026-01-01T00:59:30Z" } });
    let plan = planned(json!({ "minAvailable": 1 }), status, &["a ready", "b ready", "c ready"], Ok(0));
    assert_eq!((plan.status.current_healthy, plan.status.disruptions_allowed), (Some(2), Some(1)));
    assert_eq!(plan.status.disrupted_pods.map(|pods| pods.into_keys().collect::<Vec<_>>()), Some(vec!["a".to_owned()]));
    assert_eq!(plan.requeue_after.map(|wait| wait.as_secs()), Some(90));
    let late = json!({ "disruptedPods": { "a": "2026-01-01T00:58:00Z" } });
    let plan = planned(json!({ "minAvailable": 1 }), late, &["a ready", "b ready"], Ok(0));
    assert_eq!((plan.status.current_healthy, plan.events[0].1), (Some(2), "NotDeleted"));
}

#[test]
fn without_a_scale_nothing_may_go() {
    let plan = planned(json!({ "maxUnavailable": 1 }), json!({}), &["a ready"], Err("no scale"));
    let condition = plan.status.conditions.expect("conditions").remove(0);
    assert_eq!((plan.status.disruptions_allowed, condition.reason.as_str()), (Some(0), "SyncFailed"));
    assert_eq!((condition.message.as_str(), plan.events[0].1), ("no scale", "CalculateExpectedPodCountFailed"));
}
