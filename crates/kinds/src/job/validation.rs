//! What may stand in a Job, and what may change.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use machinery::field::{ErrorList, Path};
use machinery::selector::LabelSelector as Selector;

use super::{UID_LABEL, policies};
use crate::check::{Report, immutable, label_selector, non_negative, optional_one_of};
use crate::common::{entry, template_labels, text};
use crate::pod::validate_template;
use crate::workload::mismatch;

/// Validates a specification; the selector aside, which a CronJob's template does not have yet.
pub(super) fn validate(errors: &mut ErrorList, path: &Path, spec: &JobSpec) {
    let mode = text(&spec.completion_mode);
    for (name, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        non_negative(errors, &path.child(name), value.unwrap_or_default());
    }
    if let Some(limit) = spec.backoff_limit_per_index
        && mode != "Indexed"
    {
        errors.invalid(&path.child("backoffLimitPerIndex"), limit, "requires indexed completion mode");
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    optional_one_of(errors, &path.child("completionMode"), &spec.completion_mode, &["NonIndexed", "Indexed"]);
    if mode == "Indexed" && spec.completions.is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    policies::validate(errors, path, spec);
    let path = path.child("template");
    validate_template(errors, &path, &spec.template);
    let policy = spec.template.spec.as_ref().map_or("", |spec| text(&spec.restart_policy));
    let path = path.child("spec").child("restartPolicy");
    match policy {
        "" | "Always" => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" | "Never" => {}
        other => errors.not_supported(&path, other, &["OnFailure", "Never"]),
    }
    if spec.pod_failure_policy.is_some() && policy != "Never" {
        errors.invalid(&path, policy, "only \"Never\" is supported when podFailurePolicy is specified");
    }
}

/// Validates the selector, which is generated unless the user says otherwise.
pub(super) fn validate_selector(errors: &mut ErrorList, path: &Path, spec: &JobSpec, uid: &str) {
    let field = path.child("selector");
    let Some(selector) = &spec.selector else {
        errors.required(&field, "");
        return;
    };
    label_selector(errors, &field, Some(selector));
    if spec.manual_selector != Some(true) && entry(&selector.match_labels, UID_LABEL).is_none_or(|value| value != uid) {
        errors.invalid(&field, selector, "`selector` not auto-generated");
    }
    let labels = template_labels(&spec.template);
    if Selector::from_object(Some(selector)).is_ok_and(|selector| !selector.matches(&labels)) {
        mismatch(errors, &path.child("template"), &labels);
    }
}

/// Validates the step from one state to the next.
pub(super) fn validate_update(new: &Job, old: &Job) -> ErrorList {
    let mut errors = ErrorList::new();
    let started = old.status.as_ref().is_some_and(|status| status.start_time.is_some());
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
    let path = Path::new("spec");
    let completions = path.child("completions");
    if text(&new.completion_mode) != "Indexed" {
        immutable(&mut errors, &completions, &new.completions, &old.completions);
    } else if new.completions != old.completions && new.completions.is_some() && new.completions != new.parallelism {
        // An indexed Job may grow and shrink as long as all its pods run at once. That it has completions is validated anyway.
        errors.invalid(&completions, new.completions, "can only be modified in tandem with spec.parallelism");
    }
    immutable(&mut errors, &path.child("selector"), &new.selector, &old.selector);
    let template = if old.suspend == Some(true) && !started {
        with_scheduling_of(&new.template, &old.template)
    } else {
        new.template.clone()
    };
    if template != old.template {
        errors.invalid(&path.child("template"), &new.template, crate::check::IMMUTABLE);
    }
    immutable(&mut errors, &path.child("completionMode"), &new.completion_mode, &old.completion_mode);
    immutable(&mut errors, &path.child("podFailurePolicy"), &new.pod_failure_policy, &old.pod_failure_policy);
    immutable(
        &mut errors,
        &path.child("backoffLimitPerIndex"),
        &new.backoff_limit_per_index,
        &old.backoff_limit_per_index,
    );
    immutable(&mut errors, &path.child("managedBy"), &new.managed_by, &old.managed_by);
    immutable(&mut errors, &path.child("successPolicy"), &new.success_policy, &old.success_policy);
    errors
}

/// The new template with the old directives for its scheduling: a Job that was never started may still be placed.
fn with_scheduling_of(new: &PodTemplateSpec, old: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = new.clone();
    if let (Some(new), Some(old)) = (&mut template.metadata, &old.metadata) {
        new.labels.clone_from(&old.labels);
        new.annotations.clone_from(&old.annotations);
    }
    if let (Some(new), Some(old)) = (&mut template.spec, &old.spec) {
        new.node_selector.clone_from(&old.node_selector);
        new.tolerations.clone_from(&old.tolerations);
        new.scheduling_gates.clone_from(&old.scheduling_gates);
        let before = old.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
        if new.affinity.is_some() || before.is_some() {
            new.affinity.get_or_insert_default().node_affinity = before;
        }
        if old.affinity.is_none() && new.affinity == Some(k8s_openapi::api::core::v1::Affinity::default()) {
            new.affinity = None;
        }
    }
    template
}

/// Validates a write to the status.
pub(super) fn validate_status(object: &Job) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(status) = &object.status else { return errors };
    for (name, value) in [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ] {
        non_negative(&mut errors, &Path::new("status").child(name), value.unwrap_or_default());
    }
    errors
}
