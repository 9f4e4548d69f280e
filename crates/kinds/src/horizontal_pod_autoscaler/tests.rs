//! Tables: defaults, validation, cells and the way through v1.

use registry::kind::{AlternateVersion, Kind};
use serde_json::{Value, json};

use super::{HorizontalPodAutoscaler, HorizontalPodAutoscalerV1};
use crate::testing::{CREATED, check_defaults, defaulted, errors, object, row, update_errors, with};

fn autoscaler(metrics: &Value) -> Value {
    json!({
        "metadata": {"name": "x", "namespace": "default", "creationTimestamp": CREATED},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": metrics,
        },
    })
}

fn cpu(percent: i32) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

fn pods(average: &str) -> Value {
    let target = json!({"type": "AverageValue", "averageValue": average});
    json!({"type": "Pods", "pods": {"metric": {"name": "queue_length"}, "target": target}})
}

fn external(target: &Value) -> Value {
    let metric = json!({"name": "q", "selector": {"matchLabels": {"a": "b"}}});
    json!({"type": "External", "external": {"metric": metric, "target": target}})
}

#[test]
fn defaults() {
    let value = with(with(autoscaler(&json!([])), "/spec/minReplicas", Value::Null), "/spec/metrics", Value::Null);
    check_defaults::<HorizontalPodAutoscaler>(value, &autoscaler(&json!([cpu(80)])));
    let behavior = json!({"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 5}]}});
    let value = serde_json::to_value(
        defaulted::<HorizontalPodAutoscaler>(with(autoscaler(&json!([cpu(50)])), "/spec/behavior", behavior)).spec,
    )
    .expect("JSON");
    let expect = json!({
        "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 5}]},
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ],
        },
    });
    assert_eq!(value["behavior"], expect);
}

#[test]
fn validation() {
    let good = || autoscaler(&json!([cpu(50)]));
    let check = |value: Value, expect: &[&str]| {
        assert_eq!(errors::<HorizontalPodAutoscaler>(value.clone()), expect, "{value}");
    };
    check(good(), &[]);
    check(
        with(good(), "/spec/maxReplicas", json!(0)),
        &[
            "spec.maxReplicas: Required value: must be set and greater than 0",
            "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
        ],
    );
    check(
        with(good(), "/spec/minReplicas", json!(0)),
        &[
            "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
        ],
    );
    let queue = autoscaler(&json!([external(&json!({"type": "Value", "value": "5"}))]));
    check(with(queue, "/spec/minReplicas", json!(0)), &[]);
    check(with(good(), "/spec/scaleTargetRef/name", json!("")), &["spec.scaleTargetRef.name: Required value"]);
    check(
        autoscaler(&json!([{"type": "", "resource": cpu(50)["resource"]}])),
        &[
            "spec.metrics[0].type: Required value: must specify a metric source type",
            "spec.metrics[0].type: Unsupported value: \"\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
        ],
    );
    check(
        autoscaler(&json!([{"type": "Pods"}])),
        &["spec.metrics[0].pods: Required value: must populate information for the given metric source"],
    );
    check(
        autoscaler(&json!([{"type": "Resource", "resource": cpu(50)["resource"], "pods": pods("1")["pods"]}])),
        &["spec.metrics[0].pods: Forbidden: must populate the given metric source only"],
    );
    check(
        autoscaler(&json!([pods("0")])),
        &[
            "spec.metrics[0].pods.target.averageValue: Invalid value: \"0\": must be positive",
            "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
        ],
    );
    check(
        autoscaler(&json!([external(&json!({"type": "Value", "value": "5", "averageValue": "1"}))])),
        &[
            "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target",
        ],
    );
    let policies = json!({"scaleUp": {
        "stabilizationWindowSeconds": 3601,
        "policies": [{"type": "Some", "value": 0, "periodSeconds": 1801}],
    }});
    check(
        with(good(), "/spec/behavior", policies),
        &[
            "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"Some\": supported values: \"Percent\", \"Pods\"",
            "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
            "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        ],
    );
}

#[test]
fn cells() {
    let check = |metrics: Value, status: Value, expect: &str| {
        let value = with(autoscaler(&metrics), "/status", status);
        assert_eq!(row::<HorizontalPodAutoscaler>(value)[2], expect, "{metrics}");
    };
    let status = |metric: Value| json!({"currentReplicas": 3, "desiredReplicas": 3, "currentMetrics": [metric]});
    check(json!([cpu(50)]), Value::Null, "cpu: <unknown>/50%");
    let current = json!({"averageUtilization": 12, "averageValue": "12m"});
    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "current": current}});
    check(json!([cpu(50)]), status(metric), "cpu: 12%/50%");
    let metric =
        json!({"type": "Pods", "pods": {"metric": {"name": "queue_length"}, "current": {"averageValue": "7"}}});
    check(json!([pods("10")]), status(metric), "7/10");
    let average = external(&json!({"type": "AverageValue", "averageValue": "5"}));
    check(json!([average, pods("1"), cpu(1)]), Value::Null, "<unknown>/5 (avg), <unknown>/1 + 1 more...");
    let cells = row::<HorizontalPodAutoscaler>(with(
        autoscaler(&json!([cpu(50)])),
        "/status",
        json!({"currentReplicas": 3, "desiredReplicas": 3}),
    ));
    let expect = json!(["x", "Deployment/web", "cpu: <unknown>/50%", "1", 10, 3, "10m"]);
    assert_eq!(Value::Array(cells), expect);
}

#[test]
fn through_v1_and_back() {
    let check = |value: Value| {
        let stored = object::<HorizontalPodAutoscaler>(value);
        let old = HorizontalPodAutoscalerV1::from_stored(stored.clone());
        let back = HorizontalPodAutoscalerV1::to_stored(old.clone());
        assert_eq!(back.metadata, stored.metadata);
        assert_eq!(back.status, stored.status);
        let metrics = |object: &super::Object| {
            let mut metrics = object.spec.metrics.clone().unwrap_or_default();
            metrics.sort_by_key(|metric| metric.type_.clone());
            metrics
        };
        assert_eq!(metrics(&back), metrics(&stored));
        assert_eq!(back.spec.behavior, stored.spec.behavior);
        old
    };
    let status = json!({
        "currentReplicas": 3,
        "desiredReplicas": 4,
        "conditions": [{"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "m"}],
        "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12, "averageValue": "12m"}}},
            {"type": "External", "external": {"metric": {"name": "q"}, "current": {"averageValue": "3"}}},
        ],
    });
    let target = |kind: &str| {
        let target = json!({"type": kind, (if kind == "Value" { "value" } else { "averageValue" }): "3"});
        let described = json!({"kind": "Service", "name": "s"});
        json!({"type": "Object", "object": {"describedObject": described, "metric": {"name": "m"}, "target": target}})
    };
    let behavior = json!({"scaleUp": {
        "stabilizationWindowSeconds": 5,
        "selectPolicy": "Min",
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
    }});
    let memory = json!({"type": "AverageValue", "averageValue": "1Gi"});
    let container = json!({"name": "memory", "container": "c", "target": memory});
    let metrics = json!([
        cpu(50),
        pods("10"),
        target("Value"),
        target("AverageValue"),
        external(&json!({"type": "AverageValue", "averageValue": "5"})),
        {"type": "ContainerResource", "containerResource": container},
    ]);
    let value = with(with(autoscaler(&metrics), "/status", status), "/spec/behavior", behavior);
    let old = check(with(value, "/metadata/annotations", json!({"mine": "stays"})));
    assert_eq!(old.spec.target_cpu_utilization_percentage, Some(50));
    assert_eq!(old.status.as_ref().and_then(|status| status.current_cpu_utilization_percentage), Some(12));
    let annotations = old.metadata.annotations.unwrap_or_default();
    let read = |name: &str| -> Value {
        serde_json::from_str(&annotations[&format!("autoscaling.alpha.kubernetes.io/{name}")]).expect("JSON")
    };
    assert_eq!(
        read("metrics")[0],
        json!({"type": "Pods", "pods": {"metricName": "queue_length", "targetAverageValue": "10"}})
    );
    assert_eq!(read("behavior")["ScaleUp"]["Policies"][0]["PeriodSeconds"], 15);
    assert_eq!(read("conditions")[0]["reason"], "ReadyForNewScale");
    assert_eq!(annotations["mine"], "stays");

    let plain =
        check(with(autoscaler(&json!([cpu(70)])), "/status", json!({"currentReplicas": 0, "desiredReplicas": 0})));
    assert_eq!(plain.metadata.annotations, None);
}

#[test]
fn the_target_says_its_group() {
    let old = autoscaler(&json!([cpu(50)]));
    let core = with(old.clone(), "/spec/scaleTargetRef/apiVersion", json!("v1"));
    let expect = ["spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group"];
    let created = HorizontalPodAutoscaler::validate_create(&defaulted::<HorizontalPodAutoscaler>(core.clone()));
    assert_eq!(created.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    assert_eq!(update_errors::<HorizontalPodAutoscaler>(old, core.clone()), expect);
    assert_eq!(update_errors::<HorizontalPodAutoscaler>(core.clone(), core), [""; 0], "what it was before");
}
