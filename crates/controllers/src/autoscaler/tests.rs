//! Tables: proposals, stabilisation, limits, conditions.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscaler};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::behavior::{History, Range, plain, with_rules};
use super::plan::{Plan, Snapshot, plan, rescaled, wants_metrics};
use super::readings::{PodReading, Reading};
use super::target::Scale;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

/// A pod that requests a whole core and has been in this state for a while: `ready`, `unready` (it was ready once), `new`
/// (it never was), `pending`, `failed`, `deleted`.
fn pod(name: &str, state: &str) -> Arc<Pod> {
    let (ready, since) = match state {
        "ready" => ("True", 3000),
        "unready" => ("False", 100),
        _ => ("False", 3600),
    };
    let phase = match state {
        "pending" => "Pending",
        "failed" => "Failed",
        _ => "Running",
    };
    let mut pod = json!({
        "metadata": { "name": name, "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1" } } }] },
        "status": {
            "phase": phase,
            "startTime": ago(3600).to_string(),
            "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": ago(since).to_string() }],
        },
    });
    if state == "deleted" {
        pod["metadata"]["deletionTimestamp"] = ago(1).to_string().into();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// `a:ready` and so on.
fn pods(list: &str) -> Vec<Arc<Pod>> {
    list.split_whitespace().filter_map(|word| word.split_once(':')).map(|(name, state)| pod(name, state)).collect()
}

/// `a=500` and so on, in thousandths.
fn readings(list: &str) -> Reading {
    let pods = list.split_whitespace().filter_map(|word| word.split_once('='));
    let reading = |value: &str| PodReading { value: value.parse().unwrap(), time: ago(1), window: 15.0 };
    Reading::Pods(pods.map(|(name, value)| (name.to_owned(), reading(value))).collect())
}

fn autoscaler(metrics: Value) -> HorizontalPodAutoscaler {
    let spec = json!({
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        "minReplicas": 1,
        "maxReplicas": 100,
        "metrics": metrics,
        // Nothing waits here: what is desired for is what is done.
        "behavior": {
            "scaleUp": { "policies": [{ "type": "Pods", "value": 100, "periodSeconds": 1 }] },
            "scaleDown": {
                "stabilizationWindowSeconds": 0,
                "policies": [{ "type": "Pods", "value": 100, "periodSeconds": 1 }],
            },
        },
    });
    serde_json::from_value(json!({ "metadata": { "name": "h", "namespace": "default" }, "spec": spec })).unwrap()
}

fn cpu(percent: i32) -> Value {
    let target = json!({ "type": "Utilization", "averageUtilization": percent });
    json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } })
}

fn queue(average: &str) -> Value {
    let target = json!({ "type": "AverageValue", "averageValue": average });
    json!({ "type": "Pods", "pods": { "metric": { "name": "queue_length" }, "target": target } })
}

fn decide(
    autoscaler: &HorizontalPodAutoscaler,
    scale: &Scale,
    pods: &[Arc<Pod>],
    readings: &[Result<Reading, String>],
) -> Plan {
    let rivals = vec!["default/h".to_owned()];
    let snapshot = Snapshot { autoscaler, scale: Ok(scale), readings, pods, rivals };
    plan(&snapshot, &mut History::default(), now())
}

fn condition<'a>(plan: &'a Plan, type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let mut conditions = plan.status.conditions.iter().flatten();
    let found = conditions.find(|condition| condition.type_ == type_)?;
    let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
    Some((found.status.as_str(), text(&found.reason), text(&found.message)))
}

#[test]
fn proposals_of_one_metric() {
    let check = |metric: Value, current: i32, list: &str, values: &str, expected: i32| {
        let scale = Scale::new(current, current, "app=web");
        let plan = decide(&autoscaler(json!([metric])), &scale, &pods(list), &[Ok(readings(values))]);
        assert_eq!(plan.status.desired_replicas, expected, "{metric} {current} {list} {values}");
    };
    let two = "a:ready b:ready";
    check(cpu(50), 2, two, "a=1000 b=1000", 4);
    check(cpu(50), 2, two, "a=500 b=500", 2);
    check(cpu(50), 2, two, "a=540 b=550", 2);
    check(cpu(50), 2, two, "a=560 b=560", 3);
    check(cpu(50), 2, two, "a=100 b=100", 1);
    // One that starts does nothing yet: it takes a share of the load soon.
    check(cpu(50), 3, "a:ready b:ready c:new", "a=1000 b=1000 c=1000", 4);
    check(cpu(50), 3, "a:ready b:ready c:pending", "a=700 b=700", 3);
    // One that is not measured is taken to be busy on the way down, and idle on the way up.
    check(cpu(50), 3, "a:ready b:ready c:ready", "a=200 b=200", 3);
    check(cpu(50), 3, "a:ready b:ready c:ready", "a=100 b=100", 3);
    check(cpu(90), 3, "a:ready b:ready c:ready", "a=100 b=100", 2);
    check(cpu(50), 3, "a:ready b:ready c:ready", "a=1000 b=1000", 4);
    // Those that go do not count.
    check(cpu(50), 2, "a:ready b:ready c:deleted d:failed", "a=1000 b=1000 c=1 d=1", 4);
    // One that was ready before is measured.
    check(cpu(50), 2, "a:ready b:unready", "a=1000 b=1000", 4);
    check(queue("10"), 1, "a:ready", "a=35000", 4);
    check(queue("10"), 4, "a:ready b:ready c:ready d:ready", "a=0 b=0 c=0 d=4000", 1);
    check(queue("10"), 1, "a:ready", "a=10900", 1);
}

#[test]
fn proposals_of_values() {
    let target = |kind: &str, value: &str| json!({ "type": kind, (if kind == "Value" { "value" } else { "averageValue" }): value });
    let object = |target: Value| {
        let described = json!({ "kind": "Service", "name": "s", "apiVersion": "v1" });
        json!({ "type": "Object", "object": { "describedObject": described, "metric": { "name": "m" }, "target": target } })
    };
    let external =
        |target: Value| json!({ "type": "External", "external": { "metric": { "name": "m" }, "target": target } });
    let check = |metric: Value, current: i32, list: &str, reading: Reading, expected: i32| {
        let mut autoscaler = autoscaler(json!([metric]));
        autoscaler.spec.min_replicas = Some(0);
        let scale = Scale::new(current, current, "app=web");
        let plan = decide(&autoscaler, &scale, &pods(list), &[Ok(reading.clone())]);
        assert_eq!(plan.status.desired_replicas, expected, "{metric} {current} {list} {reading:?}");
    };
    let two = "a:ready b:ready";
    check(object(target("Value", "10")), 2, two, Reading::Object(20_000), 4);
    check(object(target("Value", "10")), 2, "a:ready b:pending", Reading::Object(20_000), 2);
    check(object(target("AverageValue", "10")), 2, two, Reading::Object(45_000), 5);
    check(object(target("AverageValue", "10")), 2, two, Reading::Object(21_000), 2);
    check(external(target("Value", "10")), 2, two, Reading::External(vec![5_000, 5_000]), 2);
    check(external(target("AverageValue", "10")), 2, two, Reading::External(vec![50_000]), 5);
    // To nothing and back.
    check(external(target("Value", "10")), 2, two, Reading::External(vec![0]), 0);
    check(external(target("Value", "10")), 0, "", Reading::External(vec![1_000]), 1);
    check(external(target("AverageValue", "10")), 0, "", Reading::External(vec![25_000]), 3);
    check(external(target("AverageValue", "10")), 0, "", Reading::External(vec![0]), 0);
}

#[test]
fn several_metrics() {
    let check = |readings: &[Result<Reading, String>], desired: i32, reason: &str| {
        let scale = Scale::new(2, 2, "app=web");
        let plan = decide(&autoscaler(json!([cpu(50), queue("10")])), &scale, &pods("a:ready b:ready"), readings);
        assert_eq!(plan.status.desired_replicas, desired, "{readings:?}");
        assert_eq!(condition(&plan, "ScalingActive").unwrap().1, reason, "{readings:?}");
        plan
    };
    let (busy, idle) = (|| Ok(readings("a=1000 b=1000")), || Ok(readings("a=10 b=10")));
    let missing = || Err("no metrics returned from resource metrics API".to_owned());
    let plan = check(&[busy(), Ok(readings("a=35000 b=35000"))], 7, "ValidMetricFound");
    assert_eq!(plan.rescale.unwrap().reason, "pods metric queue_length above target");
    let plan = check(&[busy(), idle()], 4, "ValidMetricFound");
    assert_eq!(plan.rescale.unwrap().reason, "cpu resource utilization (percentage of request) above target");
    // One that cannot be read hinders the way down only.
    check(&[missing(), Ok(readings("a=35000 b=35000"))], 7, "ValidMetricFound");
    check(&[missing(), idle()], 0, "FailedGetResourceMetric");
    let plan = check(&[missing(), missing()], 0, "FailedGetResourceMetric");
    let message = "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API";
    assert_eq!(condition(&plan, "ScalingActive"), Some(("False", "FailedGetResourceMetric", message)));
    let last = plan.events.last().unwrap();
    assert_eq!(last.reason, "FailedComputeMetricsReplicas");
    assert!(last.message.starts_with("invalid metrics (2 invalid out of 2), first error is: failed to get cpu resource metric value: failed to get cpu utilization"), "{}", last.message);
}

#[test]
fn what_is_wrong_is_told() {
    let autoscaler = autoscaler(json!([cpu(50)]));
    let two = pods("a:ready b:ready");
    let failing = |scale: Result<&Scale, &String>, rivals: &[&str]| {
        let rivals = rivals.iter().map(|name| (*name).to_owned()).collect();
        let snapshot = Snapshot { autoscaler: &autoscaler, scale, readings: &[], pods: &two, rivals };
        plan(&snapshot, &mut History::default(), now())
    };
    let plan = failing(Err(&"deployments.apps \"web\" not found".to_owned()), &[]);
    let message = "the HPA controller was unable to get the target's current scale: deployments.apps \"web\" not found";
    assert_eq!(condition(&plan, "AbleToScale"), Some(("False", "FailedGetScale", message)));
    assert_eq!(plan.events[0].reason, "FailedGetScale");

    let plan = failing(Ok(&Scale::new(1, 1, "")), &["h"]);
    let message = "the HPA target's scale is missing a selector";
    assert_eq!(condition(&plan, "ScalingActive"), Some(("False", "InvalidSelector", message)));
    assert_eq!(plan.events[0].reason, "SelectorRequired");
    assert_eq!(plan.status.current_metrics, None);

    let plan = failing(Ok(&Scale::new(1, 1, "app=web")), &["default/h", "default/i"]);
    let message = "pods by selector app=web are controlled by multiple HPAs: [default/h default/i]";
    assert_eq!(condition(&plan, "ScalingActive"), Some(("False", "AmbiguousSelector", message)));

    let plan = failing(Ok(&Scale::new(0, 0, "app=web")), &["h"]);
    let message = "scaling is disabled since the replica count of the target is zero";
    assert_eq!(condition(&plan, "ScalingActive"), Some(("False", "ScalingDisabled", message)));
    assert_eq!(plan.rescale, None);
    assert!(!wants_metrics(&autoscaler, &Scale::new(0, 0, "app=web")));

    let plan = failing(Ok(&Scale::new(200, 200, "app=web")), &["h"]);
    assert_eq!(plan.rescale.unwrap().reason, "Current number of replicas above Spec.MaxReplicas");

    let mut unrequested = (*two[0]).clone();
    unrequested.spec.as_mut().unwrap().containers[0].resources = None;
    let all = vec![Arc::new(unrequested)];
    let plan = decide(&autoscaler, &Scale::new(1, 1, "app=web"), &all, &[Ok(readings("a=1"))]);
    let message = condition(&plan, "ScalingActive").unwrap().2.to_owned();
    assert!(
        message.ends_with("failed to get cpu utilization: missing request for cpu in container c of Pod a"),
        "{message}"
    );
}

#[test]
fn a_rescale_is_told() {
    let scale = Scale::new(2, 2, "app=web");
    let mut plan =
        decide(&autoscaler(json!([cpu(50)])), &scale, &pods("a:ready b:ready"), &[Ok(readings("a=1000 b=1000"))]);
    let rescale = plan.rescale.clone().unwrap();
    let mut failed = plan.clone();
    rescaled(&mut plan, &rescale, Ok(&mut History::default()), true, now());
    let message = "the HPA controller was able to update the target scale to 4";
    assert_eq!(condition(&plan, "AbleToScale"), Some(("True", "SucceededRescale", message)));
    assert_eq!(
        plan.events[0].message,
        "New size: 4; reason: cpu resource utilization (percentage of request) above target"
    );
    assert!(plan.status.last_scale_time.is_some());
    rescaled(&mut failed, &rescale, Err("conflict"), true, now());
    assert_eq!(condition(&failed, "AbleToScale").unwrap().1, "FailedUpdateScale");
    assert_eq!((failed.status.desired_replicas, failed.status.last_scale_time), (2, None));
}

#[test]
fn without_rules_it_goes_down_slowly_and_up_at_most_twofold() {
    let check = |history: &mut History, at: i64, current: i32, desired: i32, expected: (i32, &str, &str)| {
        let time = now() + SignedDuration::from_secs(at);
        history.begin(current, time);
        let normal = plain(Range { current, desired, least: 2, most: 20 }, history, time);
        assert_eq!((normal.replicas, normal.able.0, normal.limit.0), expected, "at {at}: {current} to {desired}");
    };
    let mut history = History::default();
    check(&mut history, 0, 3, 3, (3, "ReadyForNewScale", "DesiredWithinRange"));
    check(&mut history, 15, 3, 15, (6, "ReadyForNewScale", "ScaleUpLimit"));
    check(&mut history, 30, 6, 30, (12, "ReadyForNewScale", "ScaleUpLimit"));
    check(&mut history, 45, 12, 30, (20, "ReadyForNewScale", "TooManyReplicas"));
    check(&mut history, 60, 20, 5, (20, "ScaleDownStabilized", "TooManyReplicas"));
    check(&mut history, 346, 20, 1, (5, "ScaleDownStabilized", "DesiredWithinRange"));
    check(&mut history, 700, 5, 1, (2, "ReadyForNewScale", "TooFewReplicas"));
}

#[test]
fn rules() {
    let rules = |value: Value| -> HPAScalingRules { serde_json::from_value(value).unwrap() };
    let default_up = || {
        rules(json!({ "stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
            { "type": "Pods", "value": 4, "periodSeconds": 15 }, { "type": "Percent", "value": 100, "periodSeconds": 15 },
        ]}))
    };
    let default_down = || {
        rules(json!({ "selectPolicy": "Max", "policies": [{ "type": "Percent", "value": 100, "periodSeconds": 15 }] }))
    };
    let check = |up: HPAScalingRules,
                 down: HPAScalingRules,
                 before: &[(i64, i32)],
                 scaled: &[(i64, i32, i32)],
                 step: (i32, i32),
                 expected: (i32, &str, &str)| {
        let mut history = History::default();
        // Proposals come in through the front door, without any effect of their own.
        let long = rules(json!({ "stabilizationWindowSeconds": 3600 }));
        for (seconds, proposal) in before {
            let range = Range { current: *proposal, desired: *proposal, least: 0, most: 1000 };
            with_rules(range, &long, &long, &mut history, ago(*seconds));
        }
        for (seconds, from, to) in scaled {
            history.scaled(*from, *to, ago(*seconds));
        }
        let (current, desired) = step;
        let range = Range { current, desired, least: 1, most: 100 };
        let normal = with_rules(range, &up, &down, &mut history, now());
        assert_eq!((normal.replicas, normal.able.0, normal.limit.0), expected, "{up:?} {down:?} {step:?}");
    };
    let none: &[(i64, i32)] = &[];
    check(default_up(), default_down(), none, &[], (1, 50), (5, "ReadyForNewScale", "ScaleUpLimit"));
    check(default_up(), default_down(), none, &[], (10, 50), (20, "ReadyForNewScale", "ScaleUpLimit"));
    check(default_up(), default_down(), none, &[(10, 5, 10)], (10, 50), (10, "ReadyForNewScale", "ScaleUpLimit"));
    check(default_up(), default_down(), &[(200, 10)], &[], (10, 2), (10, "ScaleDownStabilized", "DesiredWithinRange"));
    check(default_up(), default_down(), &[(400, 10)], &[], (10, 2), (2, "ReadyForNewScale", "DesiredWithinRange"));
    let slow = || rules(json!({ "stabilizationWindowSeconds": 60 }));
    check(slow(), default_down(), &[(30, 3)], &[], (3, 9), (3, "ScaleUpStabilized", "DesiredWithinRange"));
    let one = rules(
        json!({ "stabilizationWindowSeconds": 0, "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 60 }] }),
    );
    check(default_up(), one.clone(), none, &[], (10, 2), (9, "ReadyForNewScale", "ScaleDownLimit"));
    check(default_up(), one, none, &[(30, 10, 9)], (9, 2), (9, "ReadyForNewScale", "ScaleDownLimit"));
    let least = rules(json!({ "stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
        { "type": "Pods", "value": 4, "periodSeconds": 60 }, { "type": "Percent", "value": 10, "periodSeconds": 60 },
    ]}));
    check(default_up(), least.clone(), none, &[], (20, 2), (18, "ReadyForNewScale", "ScaleDownLimit"));
    check(least, default_down(), none, &[], (20, 90), (22, "ReadyForNewScale", "ScaleUpLimit"));
    let disabled = rules(json!({ "stabilizationWindowSeconds": 0, "selectPolicy": "Disabled", "policies": [
        { "type": "Pods", "value": 4, "periodSeconds": 60 },
    ]}));
    check(default_up(), disabled, none, &[], (20, 2), (20, "ReadyForNewScale", "ScaleDownLimit"));
}

#[test]
fn a_tolerance_of_its_own() {
    let check = |tolerance: &str, used: i64, expected: i32| {
        let mut autoscaler = autoscaler(json!([cpu(50)]));
        let up = autoscaler.spec.behavior.as_mut().and_then(|behavior| behavior.scale_up.as_mut()).unwrap();
        up.tolerance = Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(tolerance.to_owned()));
        let value = HashMap::from([("a".to_owned(), PodReading { value: used, time: ago(1), window: 15.0 })]);
        let plan = decide(&autoscaler, &Scale::new(1, 1, "app=web"), &pods("a:ready"), &[Ok(Reading::Pods(value))]);
        assert_eq!(plan.status.desired_replicas, expected, "{tolerance} {used}");
    };
    check("0", 510, 2);
    check("500m", 740, 1);
    check("500m", 760, 2);
}
