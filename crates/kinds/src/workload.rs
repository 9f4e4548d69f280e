//! What the workloads of the apps group have in common: a selector, a template that must match it, counts in the status.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::field::{ErrorList, Path};
use machinery::int_or_string;
use machinery::selector::LabelSelector as Selector;
use machinery::validate;
use registry::kind::{Column, cell_age, cell_name};
use serde_json::Value;

use super::check::{Report, label_selector, non_negative, selector_is_empty};
use super::common::{container_cells, container_columns, template_containers, template_labels, text};
use super::pod::validate_template;

/// The columns of a kind that keeps so many pods; `selector` describes the last.
pub(crate) fn replica_columns(selector: &str) -> Vec<Column> {
    let [containers, images] = container_columns();
    vec![
        Column::name(),
        Column::integer("Desired", "How many pods are desired."),
        Column::integer("Current", "Pods that exist."),
        Column::integer("Ready", "Pods that are ready."),
        Column::age(),
        containers,
        images,
        Column::wide("Selector", selector),
    ]
}

/// The cells of [`replica_columns`]: how many pods are desired, exist and are ready; their template, and their selector.
pub(crate) fn replica_row(
    meta: &ObjectMeta,
    now: Timestamp,
    [desired, current, ready]: [i32; 3],
    template: Option<&PodTemplateSpec>,
    selector: Value,
) -> Vec<Value> {
    let [names, images] = container_cells(template.map_or(&[], template_containers));
    let (name, age) = (cell_name(meta), cell_age(meta, now));
    vec![name, desired.into(), current.into(), ready.into(), age, names, images, selector]
}

/// Validates the selector of a workload and the template it selects. `kind` names the workload in messages.
pub(crate) fn validate_selected_template(
    errors: &mut ErrorList,
    path: &Path,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    kind: &str,
) {
    validate_selector(errors, path, selector, template);
    let path = path.child("template");
    validate_template(errors, &path, template);
    validate_restart(errors, &path, template, kind);
}

/// Validates the selector of a workload, and that it selects the pods made of the template.
pub(crate) fn validate_selector(
    errors: &mut ErrorList,
    path: &Path,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
) {
    // On the wire a missing selector and one that says nothing are told apart, here they are not: both select nothing.
    let missing = selector_is_empty(selector);
    if missing {
        errors.required(&path.child("selector"), "");
    } else {
        label_selector(errors, &path.child("selector"), Some(selector));
    }
    let labels = template_labels(template);
    match Selector::from_object(Some(selector)) {
        Ok(parsed) if missing || !parsed.matches(&labels) => mismatch(errors, &path.child("template"), &labels),
        Ok(_) => {}
        Err(error) => errors.invalid(&path.child("selector"), selector, error.to_string()),
    }
}

/// The template's labels do not match the selector.
pub(crate) fn mismatch(errors: &mut ErrorList, template: &Path, labels: &BTreeMap<String, String>) {
    errors.invalid(&template.child("metadata").child("labels"), labels, "`selector` does not match template `labels`");
}

/// A workload that keeps pods running takes only pods that keep running.
pub(crate) fn validate_restart(errors: &mut ErrorList, template: &Path, object: &PodTemplateSpec, kind: &str) {
    let Some(spec) = &object.spec else { return };
    let path = template.child("spec");
    let policy = text(&spec.restart_policy);
    if policy != "Always" {
        errors.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        errors.forbidden(
            &path.child("activeDeadlineSeconds"),
            format!("activeDeadlineSeconds in {kind} is not Supported"),
        );
    }
}

/// A count or percentage that may not be negative.
pub(crate) fn positive_count_or_percent(errors: &mut ErrorList, path: &Path, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => non_negative(errors, path, *number),
        IntOrString::String(percent) => errors.messages(path, percent, validate::percent(percent)),
    }
}

/// A percentage that may not be more than all.
pub(crate) fn at_most_all(errors: &mut ErrorList, path: &Path, value: &IntOrString) {
    if let IntOrString::String(percent) = value
        && int_or_string::percentage(percent).is_some_and(|percent| percent > 100)
    {
        errors.invalid(path, value, "must not be greater than 100%");
    }
}

/// The number of a count, the percentage of a percentage: all that matters to tell whether it is nothing.
pub(crate) fn is_nothing(value: &IntOrString) -> bool {
    match value {
        IntOrString::Int(number) => *number == 0,
        IntOrString::String(percent) => int_or_string::percentage(percent) == Some(0),
    }
}

/// Validates the counts in a status. Those marked as parts may not exceed `replicas`.
pub(crate) fn validate_counts(errors: &mut ErrorList, replicas: i32, parts: &[(&'static str, Option<i32>)]) {
    let path = Path::new("status");
    non_negative(errors, &path.child("replicas"), replicas);
    for (name, value) in parts {
        non_negative(errors, &path.child(*name), value.unwrap_or_default());
    }
    for (name, value) in parts {
        let value = value.unwrap_or_default();
        if value > replicas {
            errors.invalid(&path.child(*name), value, "cannot be greater than status.replicas");
        }
    }
    let of = |wanted: &str| parts.iter().find(|(name, _)| *name == wanted).and_then(|(_, value)| *value);
    let available = of("availableReplicas").unwrap_or_default();
    if available > of("readyReplicas").unwrap_or_default() {
        errors.invalid(&path.child("availableReplicas"), available, "cannot be greater than readyReplicas");
    }
}
