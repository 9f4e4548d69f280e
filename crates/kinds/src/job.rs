//! batch/v1 Job, and what it shares with the CronJob that carries a template of it.

mod cron;
mod policies;
mod validation;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job as Object, JobSpec, JobStatus};
use machinery::age::human_duration;
use machinery::field::{ErrorList, Path};
use machinery::phase::ConditionStatus;
use registry::kind::{Column, Context, Descriptor, Kind, Subresource, bump_generation, cell_age, cell_name};
use serde_json::Value;

pub(crate) use cron::CronJob;

use super::common::{
    container_cells, container_columns, default_text, format_selector, list, or_none, template_containers, text,
};
use super::pod::{default_template, template_warnings};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// The same labels as they were called before they had a prefix.
const OLD_UID_LABEL: &str = "controller-uid";
const OLD_NAME_LABEL: &str = "job-name";

/// Jobs.
pub(crate) struct Job;

impl Kind for Job {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        categories: &["all"],
        subresources: &[Subresource::Status],
        selectable: &["status.successful"],
        orphan_by_default: true,
        ..Descriptor::namespaced("batch", "v1", "Job", "jobs")
    };

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        default_spec(spec);
        spec.manual_selector.get_or_insert(false);
        let labels = template_labels(object);
        if object.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty) && labels.is_some() {
            object.metadata.labels = labels;
        }
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.status = Some(JobStatus::default());
        object.metadata.generation = Some(1);
        generate_selector(object);
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(&mut new.metadata, changed);
    }

    fn prepare_status(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = JobSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        let path = Path::new("spec");
        validation::validate(&mut errors, &path, spec);
        validation::validate_selector(&mut errors, &path, spec, text(&object.metadata.uid));
        errors
    }

    fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
        let template = new.spec.as_ref().map(|spec| &spec.template);
        template_warnings(new, old, true, &["spec", "template"], template)
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        validation::validate_update(new, old)
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        validation::validate_status(new)
    }

    fn fields(object: &Object) -> Vec<(&'static str, String)> {
        let succeeded = object.status.as_ref().and_then(|status| status.succeeded).unwrap_or_default();
        vec![("status.successful", succeeded.to_string())]
    }

    fn columns() -> Vec<Column> {
        let [containers, images] = container_columns();
        vec![
            Column::name(),
            Column::string("Status", "How far it is."),
            Column::string("Completions", "How many of its pods succeeded."),
            Column::string("Duration", "How long it took, or has been running."),
            Column::age(),
            containers,
            images,
            Column::wide("Selector", "Selector of the pods."),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (JobSpec::default(), JobStatus::default());
        let spec = object.spec.as_ref().unwrap_or(&no_spec);
        let status = object.status.as_ref().unwrap_or(&no_status);
        let succeeded = status.succeeded.unwrap_or_default();
        let completions = match (spec.completions, spec.parallelism.unwrap_or_default()) {
            (Some(wanted), _) => format!("{succeeded}/{wanted}"),
            (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            (None, _) => format!("{succeeded}/1"),
        };
        let duration = status.start_time.as_ref().map_or_else(String::new, |start| {
            let end = status.completion_time.as_ref().map_or(now, |end| end.0);
            human_duration(end.duration_since(start.0).as_secs())
        });
        let [names, images] = container_cells(template_containers(&spec.template));
        vec![
            cell_name(&object.metadata),
            state(object, status).into(),
            completions.into(),
            duration.into(),
            cell_age(&object.metadata, now),
            names,
            images,
            or_none(&spec.selector.as_ref().map(format_selector).unwrap_or_default()),
        ]
    }
}

fn template_labels(object: &Object) -> Option<BTreeMap<String, String>> {
    object.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref()).and_then(|meta| meta.labels.clone())
}

/// Fills in the specification of a Job. That of a CronJob's template keeps its gaps, but for those in
/// [`default_parts`], until a Job is made of it (upstream: `pkg/apis/batch/v1/defaults.go`).
fn default_spec(spec: &mut JobSpec) {
    // Without either a Job runs one pod to its end; with parallelism alone it is a work queue.
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let unlimited = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if unlimited { i32::MAX } else { 6 });
    default_text(&mut spec.completion_mode, "NonIndexed");
    spec.suspend.get_or_insert(false);
    let policy = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    default_text(&mut spec.pod_replacement_policy, policy);
    default_parts(spec);
}

/// Fills in what has defaults of its own, in a Job or in a CronJob's template.
fn default_parts(spec: &mut JobSpec) {
    let rules = spec.pod_failure_policy.iter_mut().flat_map(|policy| &mut policy.rules);
    for pattern in rules.flat_map(|rule| rule.on_pod_conditions.iter_mut().flatten()) {
        default_text(&mut pattern.status, "True");
    }
    default_template(&mut spec.template);
}

/// Ties the pods to this Job alone by its uid, unless the user takes care of the selector.
fn generate_selector(object: &mut Object) {
    let (uid, name) = (text(&object.metadata.uid).to_owned(), text(&object.metadata.name).to_owned());
    let spec = object.spec.get_or_insert_default();
    if spec.manual_selector == Some(true) {
        return;
    }
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (label, value) in [(OLD_NAME_LABEL, &name), (OLD_UID_LABEL, &uid), (NAME_LABEL, &name), (UID_LABEL, &uid)] {
        labels.insert(label.to_owned(), value.clone());
    }
    let selected = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    selected.entry(UID_LABEL.to_owned()).or_insert(uid);
    // A template without labels has some now, which are the Job's as those of any other template would be.
    if object.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty) {
        object.metadata.labels = template_labels(object);
    }
}

fn state(object: &Object, status: &JobStatus) -> &'static str {
    let is = |kind: &str| {
        list(&status.conditions)
            .iter()
            .any(|condition| condition.type_ == kind && condition.status == ConditionStatus::True)
    };
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if object.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}
