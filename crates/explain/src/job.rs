//! A Job: how far it is, what it starts next, and what ends it.

use controllers::preview;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use machinery::phase::{ConditionStatus, PodPhase};

use crate::explanation::{Explanation, Step};
use crate::meta::{has_ended, is_deleting, name, pods_of};
use crate::related::Related;
use crate::replica_set::{namespace_option, refusal, unavailable};
use crate::words::{after, ago, count, given, list, number, reason_and_message};

const CONTROLLER: &str = "The Job controller";
/// So many pods that failed are named, the latest first.
const FAILED: usize = 3;

pub(crate) fn explain(out: &mut Explanation, job: &Job, related: &Related, now: Timestamp) {
    let Some(spec) = &job.spec else { return };
    wants(out, spec);
    let status = job.status.clone().unwrap_or_default();
    out.has(format!(
        "{} that {} with success, {} that failed, {} at work ({} ready)",
        count(status.succeeded.unwrap_or(0), "pod"),
        if status.succeeded == Some(1) { "has ended" } else { "have ended" },
        status.failed.unwrap_or(0),
        status.active.unwrap_or(0),
        status.ready.unwrap_or(0)
    ));
    if let Some(indexes) = given(status.completed_indexes.as_ref()) {
        out.has(format!("the completed indexes {indexes}"));
    }
    if let Some(indexes) = given(status.failed_indexes.as_ref()) {
        out.has(format!("the failed indexes {indexes}"));
    }
    if is_deleting(&job.metadata) {
        return;
    }
    let holds = |types: &[&str]| {
        let mut all = status.conditions.iter().flatten();
        all.find(|condition| types.contains(&condition.type_.as_str()) && condition.status == ConditionStatus::True)
    };
    if let Some(end) = holds(&["Complete", "Failed"]) {
        ended(out, job, spec, end, now);
        return;
    }
    if let Some(target) = holds(&["FailureTarget", "SuccessCriteriaMet"]) {
        let step = Step::new(CONTROLLER, "ends the Job").waits_for("its pods to be gone");
        out.next(step);
        out.why(reason_and_message(target.reason.as_ref(), target.message.as_ref()));
        return;
    }
    if let Some(manager) = given(spec.managed_by.as_ref()).filter(|it| *it != "kubernetes.io/job-controller") {
        out.next(Step::new(manager, "acts on it: it is named in managedBy, and the Job controller leaves it alone"));
        return;
    }
    if spec.suspend == Some(true) {
        out.next(Step::new("Nobody", "starts pods: it is suspended").waits_for(format!(
            "kubectl patch job {} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'",
            name(&job.metadata)
        )));
        return;
    }
    if related.knows("pods") {
        let pods = pods_of(&related.all::<Pod>("pods"), &job.metadata);
        work(out, job, spec, &pods, related, now);
    }
    if let (Some(seconds), Some(start)) = (spec.active_deadline_seconds, &status.start_time) {
        let step = Step::new(CONTROLLER, format!("fails the Job, if it still runs (activeDeadlineSeconds {seconds})"));
        out.next(step.until(after(start.0, seconds)));
    }
}

fn wants(out: &mut Explanation, spec: &JobSpec) {
    let parallel = spec.parallelism.unwrap_or(1);
    match spec.completions {
        Some(completions) => {
            out.wants(format!("{} to end with success, at most {parallel} at a time", count(completions, "pod")));
        }
        None => out.wants(format!("{} at a time, until one ends with success", count(parallel, "pod"))),
    }
    match spec.backoff_limit_per_index {
        Some(limit) => out.wants(format!("an index to fail after more than {} of its pods", count(limit, "failure"))),
        None => out.wants(format!(
            "to fail after more than {} of its pods (backoffLimit)",
            count(spec.backoff_limit.unwrap_or(6), "failure")
        )),
    }
}

fn ended(out: &mut Explanation, job: &Job, spec: &JobSpec, end: &JobCondition, now: Timestamp) {
    let when = end.last_transition_time.as_ref();
    let since = when.map(|time| format!(" {}", ago(time, now))).unwrap_or_default();
    out.has(format!("come to its end{since}: {}", end.type_));
    out.why(reason_and_message(end.reason.as_ref(), end.message.as_ref()));
    match spec.ttl_seconds_after_finished {
        Some(seconds) => {
            let step = Step::new(CONTROLLER, format!("deletes it (ttlSecondsAfterFinished {seconds})"));
            out.next(step.until(preview::job_expires(job)));
        }
        None => out.next(Step::new("Nobody", "acts on it any more: it stays until it is deleted")),
    }
}

fn work(out: &mut Explanation, job: &Job, spec: &JobSpec, pods: &[Pod], related: &Related, now: Timestamp) {
    let plan = preview::job(job, pods.to_vec(), now);
    let (going, alive): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().filter(|pod| !has_ended(pod)).partition(|pod| is_deleting(&pod.metadata));
    let names = |pods: &[&Pod]| list(&pods.iter().map(|pod| name(&pod.metadata)).collect::<Vec<_>>());
    if !plan.delete.is_empty() {
        out.next(Step::new(CONTROLLER, format!("deletes {}", list(&plan.delete))));
    }
    if !plan.create.is_empty() {
        let step = Step::new(CONTROLLER, format!("creates {}", count(number(plan.create.len()), "pod")));
        refusal(out, step, None, ("Job", name(&job.metadata)), related, now);
    } else if plan.due.is_some() {
        let step = Step::new(CONTROLLER, "creates another pod after those that failed");
        out.next(step.waits_for("its back-off, which doubles with each failure in a row").until(plan.due));
    } else if !alive.is_empty() {
        out.next(Step::new(CONTROLLER, "counts its pods as they end").waits_for(names(&alive)));
    } else if !going.is_empty() {
        out.next(Step::new(CONTROLLER, "goes on").waits_for(format!("{} to be gone", names(&going))));
    }
    unavailable(out, &alive, 0, now);
    let has_failed = |pod: &&Pod| PodPhase::of(pod) == Some(PodPhase::Failed);
    let failed: Vec<&Pod> = pods.iter().filter(has_failed).collect();
    let failures = job.status.as_ref().and_then(|status| status.failed).filter(|failures| *failures > 0);
    if let (Some(failures), None) = (failures, spec.backoff_limit_per_index) {
        let limit = spec.backoff_limit.unwrap_or(6);
        out.why(format!("{} so far; it bears {limit} (backoffLimit)", count(failures, "failure")));
    }
    for pod in failed.iter().rev().take(FAILED) {
        let (called, reason) = (name(&pod.metadata), crate::pod::not_ready(pod).unwrap_or_default());
        let option = namespace_option(pod);
        out.why(format!("the pod {called} failed: {reason}; see: kubectl logs {called}{option}"));
    }
}
