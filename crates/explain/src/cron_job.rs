//! A CronJob: when it runs next, and what keeps it from running.

use controllers::preview;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use machinery::age::rfc3339;

use crate::explanation::{Explanation, Step};
use crate::meta::{is_controlled_by, is_deleting, name};
use crate::related::Related;
use crate::words::{ago, count, list, number};

const CONTROLLER: &str = "The CronJob controller";

pub(crate) fn explain(out: &mut Explanation, cron: &CronJob, related: &Related, now: Timestamp) {
    let spec = &cron.spec;
    let zone_name = spec.time_zone.as_deref().unwrap_or("UTC");
    out.wants(format!("a Job whenever \"{}\" is due, by the clocks of {zone_name}", spec.schedule));
    let policy = spec.concurrency_policy.as_deref().unwrap_or("Allow");
    out.wants(match policy {
        "Forbid" => "no Job while an earlier one runs (Forbid)",
        "Replace" => "a new Job to replace one that still runs (Replace)",
        _ => "Jobs beside each other, if they last that long (Allow)",
    });
    if let Some(seconds) = spec.starting_deadline_seconds {
        out.wants(format!("no Job that is more than {seconds}s late (startingDeadlineSeconds)"));
    }
    let status = cron.status.clone().unwrap_or_default();
    match &status.last_schedule_time {
        Some(time) => out.has(format!("been due last at {} ({})", rfc3339(time.0), ago(time, now))),
        None => out.has("never been due so far"),
    }
    if let Some(time) = &status.last_successful_time {
        out.has(format!("ended with success last at {} ({})", rfc3339(time.0), ago(time, now)));
    }
    let active: Vec<&str> = status.active.iter().flatten().filter_map(|job| job.name.as_deref()).collect();
    if !active.is_empty() {
        out.has(format!("{} at work: {}", count(number(active.len()), "Job"), list(&active)));
    }
    let jobs = related.all::<Job>("jobs.batch");
    let own = jobs.iter().filter(|job| is_controlled_by(&job.metadata, &cron.metadata)).count();
    if related.knows("jobs.batch") {
        out.has(format!("{} in all", count(number(own), "Job")));
    }
    if is_deleting(&cron.metadata) {
        return;
    }
    if spec.suspend == Some(true) {
        let patch = format!(
            "kubectl patch cronjob {} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'",
            name(&cron.metadata)
        );
        out.next(Step::new("Nobody", "starts a Job: it is suspended").waits_for(patch));
        return;
    }
    if !related.knows("jobs.batch") {
        return;
    }
    let plan = preview::cron_job(cron, jobs, now);
    for job in &plan.create {
        out.next(Step::new(CONTROLLER, format!("creates the Job {job}, which is due")));
    }
    if !plan.delete.is_empty() {
        let step = format!("deletes {}: replaced, or beyond the history's limits", list(&plan.delete));
        out.next(Step::new(CONTROLLER, step));
    }
    for (reason, message) in &plan.tell {
        out.why(format!("{reason}: {message}"));
    }
    let is_told = |wanted: &str| plan.tell.iter().any(|(reason, _)| reason == wanted);
    if is_told("UnknownTimeZone") || is_told("UnparseableSchedule") {
        out.next(Step::new("You", "correct the schedule or the timeZone"));
        return;
    }
    let Some(due) = plan.due else {
        out.next(Step::new("Nobody", "starts a Job: the schedule is not due within five years"));
        return;
    };
    let step = Step::new(CONTROLLER, "creates a Job").until(Some(due));
    out.next(match policy {
        "Forbid" if !active.is_empty() => {
            step.waits_for(format!("the next time that is due, and for {} to end", list(&active)))
        }
        _ => step.waits_for("the next time that is due"),
    });
    if policy == "Replace" && !active.is_empty() {
        out.why(format!("that Job replaces {}, if it still runs then (Replace)", list(&active)));
    }
}
