//! A HorizontalPodAutoscaler: its metrics, the arithmetic, and what holds the number.

use controllers::preview::{DOWN_WINDOW, TOLERANCE};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus,
};
use machinery::phase::ConditionStatus;
use machinery::quantity::Quantity;

use crate::explanation::{Explanation, Step};
use crate::words::{ago, count, list, reason_and_message};

const CONTROLLER: &str = "The autoscaler's controller";

pub(crate) fn explain(out: &mut Explanation, autoscaler: &HorizontalPodAutoscaler, now: Timestamp) {
    let spec = &autoscaler.spec;
    let status = autoscaler.status.clone().unwrap_or_default();
    let target = format!("{} {}", spec.scale_target_ref.kind, spec.scale_target_ref.name);
    let least = spec.min_replicas.unwrap_or(1);
    out.wants(format!("the {target} to have {least} to {} replicas", spec.max_replicas));
    let asked = match status.desired_replicas {
        0 => "no number asked for yet".to_owned(),
        number => format!("{number} asked for"),
    };
    out.has(format!("{} now; {asked}", count(status.current_replicas.unwrap_or(0), "replica")));
    if let Some(time) = &status.last_scale_time {
        out.has(format!("changed the number last {}", ago(time, now)));
    }
    for metric in spec.metrics.iter().flatten() {
        let current = status.current_metrics.iter().flatten().find(|current| is_of(metric, current));
        arithmetic(out, spec, &status, metric, current);
    }
    if spec.metrics.iter().flatten().count() > 1 {
        out.why("of several metrics the highest number counts");
    }
    windows(out, spec);
    verdict(out, spec, &status, &target);
}

/// Name and target of a metric of a specification.
fn described(metric: &MetricSpec) -> Option<(String, &MetricTarget)> {
    if let Some(it) = &metric.resource {
        return Some((format!("{} of the pods", it.name), &it.target));
    }
    if let Some(it) = &metric.container_resource {
        return Some((format!("{} of the containers {}", it.name, it.container), &it.target));
    }
    if let Some(it) = &metric.pods {
        return Some((format!("{} of the pods", it.metric.name), &it.target));
    }
    if let Some(it) = &metric.object {
        let of = &it.described_object;
        return Some((format!("{} of {} {}", it.metric.name, of.kind, of.name), &it.target));
    }
    metric.external.as_ref().map(|it| (format!("{} from outside", it.metric.name), &it.target))
}

/// Name and value of a metric of a status.
fn measured(metric: &MetricStatus) -> Option<(String, &MetricValueStatus)> {
    if let Some(it) = &metric.resource {
        return Some((format!("{} of the pods", it.name), &it.current));
    }
    if let Some(it) = &metric.container_resource {
        return Some((format!("{} of the containers {}", it.name, it.container), &it.current));
    }
    if let Some(it) = &metric.pods {
        return Some((format!("{} of the pods", it.metric.name), &it.current));
    }
    if let Some(it) = &metric.object {
        let of = &it.described_object;
        return Some((format!("{} of {} {}", it.metric.name, of.kind, of.name), &it.current));
    }
    metric.external.as_ref().map(|it| (format!("{} from outside", it.metric.name), &it.current))
}

fn is_of(spec: &MetricSpec, status: &MetricStatus) -> bool {
    spec.type_ == status.type_ && described(spec).map(|it| it.0) == measured(status).map(|it| it.0)
}

fn number(text: &str) -> Option<f64> {
    text.parse::<Quantity>().ok().map(|quantity| quantity.as_f64())
}

/// What the formula makes of a metric: ceil(replicas × value ÷ target), unless that is within the tolerance.
fn arithmetic(
    out: &mut Explanation,
    spec: &HorizontalPodAutoscalerSpec,
    status: &HorizontalPodAutoscalerStatus,
    metric: &MetricSpec,
    current: Option<&MetricStatus>,
) {
    let Some((what, target)) = described(metric) else { return };
    let value = current.and_then(measured).map(|it| it.1);
    let (wanted, there, goal, actual) = if let Some(percent) = target.average_utilization {
        let actual = value.and_then(|value| value.average_utilization);
        (
            format!("{percent}% of their requests"),
            actual.map(|it| format!("{it}%")),
            f64::from(percent),
            actual.map(f64::from),
        )
    } else if let Some(average) = &target.average_value {
        let actual = value.and_then(|value| value.average_value.as_ref());
        let Some(goal) = number(&average.0) else { return };
        (
            format!("{} for each pod", average.0),
            actual.map(|it| it.0.clone()),
            goal,
            actual.and_then(|it| number(&it.0)),
        )
    } else if let Some(whole) = &target.value {
        let actual = value.and_then(|value| value.value.as_ref());
        let Some(goal) = number(&whole.0) else { return };
        (whole.0.clone(), actual.map(|it| it.0.clone()), goal, actual.and_then(|it| number(&it.0)))
    } else {
        return;
    };
    out.wants(format!("{what} at {wanted}"));
    let (Some(there), Some(actual)) = (there, actual) else {
        out.has(format!("no reading of {what}"));
        return;
    };
    out.has(format!("{what} at {there}"));
    let replicas = status.current_replicas.unwrap_or(0);
    if goal <= 0.0 || replicas == 0 {
        return;
    }
    let ratio = actual / goal;
    let (up, down) = (tolerance(spec, true), tolerance(spec, false));
    let result = if ratio > 1.0 + up || ratio < 1.0 - down {
        format!("ceil({replicas} × {ratio:.2}) = {}", (f64::from(replicas) * ratio).ceil())
    } else {
        let allowed = if ratio >= 1.0 { up } else { down };
        format!("which is within the tolerance of {allowed}, so {replicas} stay")
    };
    out.why(format!(
        "{what}: {there} ÷ {} = {ratio:.2}, {result} (if each of the pods is ready and has a reading)",
        wanted.split(' ').next().unwrap_or_default()
    ));
}

fn rules(spec: &HorizontalPodAutoscalerSpec, up: bool) -> Option<&HPAScalingRules> {
    let behavior = spec.behavior.as_ref()?;
    if up { behavior.scale_up.as_ref() } else { behavior.scale_down.as_ref() }
}

fn tolerance(spec: &HorizontalPodAutoscalerSpec, up: bool) -> f64 {
    let own = rules(spec, up).and_then(|rules| rules.tolerance.as_ref()).and_then(|it| number(&it.0));
    own.unwrap_or(TOLERANCE)
}

fn windows(out: &mut Explanation, spec: &HorizontalPodAutoscalerSpec) {
    for (up, what, default) in [(false, "lower", DOWN_WINDOW), (true, "higher", 0)] {
        let rules = rules(spec, up);
        if rules.is_some_and(|rules| rules.select_policy.as_deref() == Some("Disabled")) {
            out.wants(format!("never a {what} number (selectPolicy Disabled)"));
            continue;
        }
        let window = rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(default);
        if window > 0 {
            out.wants(format!(
                "a {what} number only once it was asked for throughout {window}s (stabilization window)"
            ));
        }
        let policies: Vec<String> = rules
            .iter()
            .flat_map(|rules| rules.policies.iter().flatten())
            .map(|policy| {
                format!(
                    "{}{} in {}s",
                    policy.value,
                    if policy.type_ == "Percent" { "%" } else { " pods" },
                    policy.period_seconds
                )
            })
            .collect();
        if !policies.is_empty() {
            out.wants(format!("a {what} number by no more than {}", list(&policies)));
        }
    }
}

fn verdict(
    out: &mut Explanation,
    spec: &HorizontalPodAutoscalerSpec,
    status: &HorizontalPodAutoscalerStatus,
    target: &str,
) {
    let mut held = None;
    for condition in status.conditions.iter().flatten() {
        let text = reason_and_message(condition.reason.as_ref(), condition.message.as_ref());
        let is_true = condition.status == ConditionStatus::True;
        match (condition.type_.as_str(), is_true) {
            ("AbleToScale" | "ScalingActive", false) => {
                held = held.or(Some(format!("an end of {}", condition.reason.as_deref().unwrap_or("the failure"))));
                out.why(text);
            }
            ("AbleToScale", true) if condition.reason.as_deref().is_some_and(|it| it.contains("Stabilized")) => {
                held = held.or(Some("the end of the stabilization window".to_owned()));
                out.why(text);
            }
            ("ScalingLimited", true) => out.why(text),
            _ => {}
        }
    }
    let (current, desired) = (status.current_replicas.unwrap_or(0), status.desired_replicas);
    let step = if current == desired || held.is_some() {
        Step::new(CONTROLLER, "reads the metrics again and computes the number anew")
    } else {
        Step::new(CONTROLLER, format!("scales the {target} from {current} to {desired}"))
    };
    out.next(match held {
        Some(what) => step.waits_for(what),
        None => step,
    });
    if spec.metrics.iter().flatten().next().is_none() {
        out.why("it has no metrics");
    }
}
