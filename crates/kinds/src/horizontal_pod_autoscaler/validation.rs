//! What is wrong with an autoscaler.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler as Object, MetricIdentifier, MetricSpec,
    MetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use machinery::field::{ErrorList, Path};
use machinery::gvk::GroupVersion;
use machinery::validate::path_segment;

use super::super::check::{POSITIVE, Report, label_selector};
use super::super::common::{list, quantity, text};

/// The longest an autoscaler may wait for a recommendation to settle, in seconds.
const LONGEST_WINDOW: i32 = 3600;
/// The longest period of a policy, in seconds.
const LONGEST_PERIOD: i32 = 1800;
const NOT_NEGATIVE: &str = "must be greater than or equal to zero";

/// Validates an autoscaler with its defaults. As upstream since 1.37, nothing at all is a legal least where a metric can tell
/// when somebody is needed again.
pub(super) fn validate(object: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = &object.spec;
    let path = Path::new("spec");
    let least = spec.min_replicas.unwrap_or(1);
    if least < 0 {
        errors.invalid(&path.child("minReplicas"), least, "must be greater than or equal to 0");
    }
    if spec.max_replicas == 0 {
        errors.required(&path.child("maxReplicas"), "must be set and greater than 0");
    } else if spec.max_replicas < 0 {
        errors.invalid(&path.child("maxReplicas"), spec.max_replicas, "must be greater than or equal to 1");
    }
    if spec.max_replicas < least {
        let why = "must be greater than or equal to `minReplicas`";
        errors.invalid(&path.child("maxReplicas"), spec.max_replicas, why);
    }
    reference(&mut errors, &path.child("scaleTargetRef"), &spec.scale_target_ref);
    let metrics = path.child("metrics");
    for (at, metric) in list(&spec.metrics).iter().enumerate() {
        self::metric(&mut errors, &metrics.index(at), metric);
    }
    let knows_need = |metric: &MetricSpec| matches!(&*metric.type_, "Object" | "External");
    if least == 0 && !list(&spec.metrics).iter().any(knows_need) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(&metrics, why);
    }
    if let Some(behavior) = &spec.behavior {
        let path = path.child("behavior");
        for (name, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                self::rules(&mut errors, &path.child(name), rules);
            }
        }
    }
    errors
}

fn reference(errors: &mut ErrorList, path: &Path, reference: &CrossVersionObjectReference) {
    for (name, value) in [("kind", &reference.kind), ("name", &reference.name)] {
        segment(errors, &path.child(name), value, "");
    }
    let version = text(&reference.api_version);
    if let Err(error) = GroupVersion::parse(version) {
        errors.invalid(&path.child("apiVersion"), version, error.to_string());
    }
}

/// Validates that the target of an autoscaler says its group. One that never did may go on (upstream:
/// `pkg/registry/autoscaling/horizontalpodautoscaler/strategy.go`).
pub(super) fn validate_target_group(new: &Object, old: Option<&Object>) -> ErrorList {
    let mut errors = ErrorList::new();
    let version = |object: &'_ Object| text(&object.spec.scale_target_ref.api_version).to_owned();
    let new_version = version(new);
    if !new_version.contains('/') && old.is_none_or(|old| version(old).contains('/')) {
        let path = Path::new("spec").child("scaleTargetRef").child("apiVersion");
        errors.invalid(&path, new_version, "apiVersion must specify API group");
    }
    errors
}

fn segment(errors: &mut ErrorList, path: &Path, value: &str, missing: &str) {
    if value.is_empty() {
        errors.required(path, missing);
    } else {
        errors.messages(path, value, path_segment(value));
    }
}

fn metric(errors: &mut ErrorList, path: &Path, spec: &MetricSpec) {
    let present = [
        ("ContainerResource", "containerResource", spec.container_resource.is_some()),
        ("External", "external", spec.external.is_some()),
        ("Object", "object", spec.object.is_some()),
        ("Pods", "pods", spec.pods.is_some()),
        ("Resource", "resource", spec.resource.is_some()),
    ];
    if spec.type_.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
    }
    let expected = present.iter().find(|(kind, ..)| *kind == spec.type_);
    if expected.is_none() {
        errors.not_supported(&path.child("type"), &spec.type_, &present.map(|(kind, ..)| kind));
    }
    if let Some((_, field, false)) = expected {
        errors.required(&path.child(*field), "must populate information for the given metric source");
    }
    if let Some((_, expected, _)) = expected {
        for (_, field, _) in present.iter().filter(|(_, field, there)| *there && field != expected) {
            errors.forbidden(&path.child(*field), "must populate the given metric source only");
        }
    }
    source(errors, path, spec);
}

fn source(errors: &mut ErrorList, path: &Path, spec: &MetricSpec) {
    const VALUE: &str = "must set either a target value for metric or a per-pod target";
    if let Some(source) = &spec.object {
        let path = path.child("object");
        reference(errors, &path.child("describedObject"), &source.described_object);
        identifier(errors, &path.child("metric"), &source.metric);
        let path = path.child("target");
        target(errors, &path, &source.target);
        if source.target.value.is_none() && source.target.average_value.is_none() {
            errors.required(&path.child("averageValue"), VALUE);
        }
    }
    if let Some(source) = &spec.external {
        let path = path.child("external");
        identifier(errors, &path.child("metric"), &source.metric);
        let path = path.child("target");
        target(errors, &path, &source.target);
        match (&source.target.value, &source.target.average_value) {
            (None, None) => errors.required(&path.child("averageValue"), VALUE),
            (Some(_), Some(_)) => errors
                .forbidden(&path.child("value"), "may not set both a target value for metric and a per-pod target"),
            _ => {}
        }
    }
    if let Some(source) = &spec.pods {
        let path = path.child("pods");
        identifier(errors, &path.child("metric"), &source.metric);
        let path = path.child("target");
        target(errors, &path, &source.target);
        if !source.target.average_value.as_ref().is_some_and(is_positive) {
            errors.required(&path.child("averageValue"), "must specify a positive target averageValue");
        }
    }
    if let Some(source) = &spec.container_resource {
        let path = path.child("containerResource");
        if source.container.is_empty() {
            errors.required(&path.child("container"), "must specify a container");
        }
        resource(errors, &path, &source.name, &source.target);
    }
    if let Some(source) = &spec.resource {
        resource(errors, &path.child("resource"), &source.name, &source.target);
    }
}

fn resource(errors: &mut ErrorList, path: &Path, name: &str, target: &MetricTarget) {
    if name.is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    }
    let path = path.child("target");
    self::target(errors, &path, target);
    match (target.average_utilization, &target.average_value) {
        (None, None) => errors
            .required(&path.child("averageUtilization"), "must set either a target raw value or a target utilization"),
        (Some(_), Some(_)) => errors
            .forbidden(&path.child("averageValue"), "may not set both a target raw value and a target utilization"),
        _ => {}
    }
}

fn identifier(errors: &mut ErrorList, path: &Path, metric: &MetricIdentifier) {
    segment(errors, &path.child("name"), &metric.name, "must specify a metric name");
    label_selector(errors, &path.child("selector"), metric.selector.as_ref());
}

fn target(errors: &mut ErrorList, path: &Path, target: &MetricTarget) {
    if target.type_.is_empty() {
        errors.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(&*target.type_, "Utilization" | "Value" | "AverageValue") {
        errors.invalid(&path.child("type"), &target.type_, "must be either Utilization, Value, or AverageValue");
    }
    for (name, value) in [("value", &target.value), ("averageValue", &target.average_value)] {
        if let Some(value) = value
            && !is_positive(value)
        {
            errors.invalid(&path.child(name), value, "must be positive");
        }
    }
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        errors.invalid(&path.child("averageUtilization"), percent, "must be greater than 0");
    }
}

fn is_positive(value: &Quantity) -> bool {
    quantity(value).is_some_and(|value| !value.is_zero() && !value.is_negative())
}

fn rules(errors: &mut ErrorList, path: &Path, rules: &HPAScalingRules) {
    let window = path.child("stabilizationWindowSeconds");
    match rules.stabilization_window_seconds {
        Some(seconds) if seconds < 0 => errors.invalid(&window, seconds, NOT_NEGATIVE),
        Some(seconds) if seconds > LONGEST_WINDOW => {
            errors.invalid(&window, seconds, format!("must be less than or equal to {LONGEST_WINDOW}"));
        }
        _ => {}
    }
    if let Some(policy) = &rules.select_policy
        && !matches!(&**policy, "Max" | "Min" | "Disabled")
    {
        errors.not_supported(&path.child("selectPolicy"), policy, &["Disabled", "Max", "Min"]);
    }
    let policies = path.child("policies");
    if list(&rules.policies).is_empty() {
        errors.required(&policies, "must specify at least one Policy");
    }
    for (at, policy) in list(&rules.policies).iter().enumerate() {
        let path = policies.index(at);
        if !matches!(&*policy.type_, "Pods" | "Percent") {
            errors.not_supported(&path.child("type"), &policy.type_, &["Percent", "Pods"]);
        }
        for (name, value) in [("value", policy.value), ("periodSeconds", policy.period_seconds)] {
            if value <= 0 {
                errors.invalid(&path.child(name), value, POSITIVE);
            }
        }
        if policy.period_seconds > LONGEST_PERIOD {
            let why = format!("must be less than or equal to {LONGEST_PERIOD}");
            errors.invalid(&path.child("periodSeconds"), policy.period_seconds, why);
        }
    }
    if let Some(tolerance) = &rules.tolerance
        && quantity(tolerance).is_none_or(|tolerance| tolerance.is_negative())
    {
        errors.invalid(&path.child("tolerance"), tolerance, NOT_NEGATIVE);
    }
}
