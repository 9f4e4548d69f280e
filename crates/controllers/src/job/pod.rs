//! The Pods of a Job: how they are made, what they say of their index, and when they ended.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use crate::owner::Owner;
use crate::{meta, pod_control, pods};

/// The finalizer that keeps a Pod until its Job has counted it.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The annotation and label with a Pod's completion index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The annotation with the number of failures of a Pod's index before it.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The annotation with the number of failures before it that the failure policy ignored.
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// After a failure the next Pod comes after this time, and after each further one twice as long.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(10);
/// But never later than this.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(6);

/// Whether the Job's completions have indexes.
pub(crate) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether the Job still has to count this Pod.
pub(crate) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// The Pod's completion index.
pub(crate) fn index(pod: &Pod) -> Option<i32> {
    meta::annotation(pod, INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// Whether the Pod counts as one that failed. Upstream: one that is deleted before its end has failed too, unless only
/// what has really ended is replaced.
pub(crate) fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match pods::phase(pod) {
        pods::PodPhase::Failed => true,
        pods::PodPhase::Succeeded => false,
        _ => meta::is_deleting(pod) && !only_replaces_failed(spec),
    }
}

/// Whether a new Pod waits until the one before it has really ended.
pub(crate) fn only_replaces_failed(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
}

/// When the Pod ended: the latest of what is known of it.
pub(crate) fn ended_at(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let ends = containers.iter().filter_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?;
        Some(ended.0)
    });
    let not_ready = pods::condition(pod, "Ready").and_then(|condition| condition.last_transition_time.as_ref());
    let deleted = pod.metadata.deletion_timestamp.as_ref();
    ends.max().or(not_ready.or(deleted).map(|time| time.0)).unwrap_or_else(|| meta::created(pod))
}

/// How long to wait after so many failures in a row.
pub(crate) fn back_off(failures: usize) -> SignedDuration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT)
}

/// How often the Pod's index failed before it; and how often it did without counting.
pub(crate) fn failures(pod: &Pod) -> (i32, i32) {
    let number = |key: &str| meta::annotation(pod, key).and_then(|text| text.parse().ok()).unwrap_or_default();
    (number(FAILURES), number(IGNORED))
}

/// A Pod for `job`, with what `index` and the failures of the index before make of it.
pub(crate) fn make(job: &Job, owner: &Owner, index: Option<i32>, failures: Option<(i32, i32)>) -> Pod {
    let empty = JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&empty);
    let prefix = match index {
        Some(index) => format!("{}-{index}-", owner.name()),
        None => format!("{}-", owner.name()),
    };
    let mut pod = pod_control::from_template(&spec.template, owner, prefix);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    let Some(index) = index else {
        return pod;
    };
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if let Some((failures, ignored)) = failures {
        annotations.insert(FAILURES.to_owned(), failures.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED.to_owned(), ignored.to_string());
        }
    }
    let body = pod.spec.get_or_insert_default();
    body.hostname = Some(format!("{}-{index}", owner.name()));
    body.init_containers.iter_mut().flatten().chain(&mut body.containers).for_each(add_index);
    pod
}

/// Tells a container its index, unless it has something of its own under that name.
fn add_index(container: &mut Container) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == NAME) {
        return;
    }
    let field = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
    env.push(EnvVar {
        name: NAME.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    });
}
