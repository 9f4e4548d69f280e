//! What a CronJob needs: whether a Job is due, which old ones go, and its status.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use informer::EventType;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::cron::Schedule;

use crate::job::plan as jobs;
use crate::meta;
use crate::owner::Owner;

/// When the Job was due, in the time zone of its schedule.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Missing more times than this is worth a warning.
const MANY: i64 = 100;

/// A Job that is due.
#[derive(Debug, PartialEq)]
pub(crate) struct Start {
    /// The Job to create.
    pub(crate) job: Job,
    /// The time that it is for.
    pub(crate) due: Timestamp,
}

/// What is to be done for a CronJob, in this order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Finished Jobs beyond the history's limits.
    pub(crate) forget: Vec<Arc<Job>>,
    /// Running Jobs that the next one replaces, by name.
    pub(crate) replace: Vec<String>,
    /// The Job that is due.
    pub(crate) start: Option<Start>,
    /// The status before `start` was carried out.
    pub(crate) status: CronJobStatus,
    /// What there is to tell.
    pub(crate) events: Vec<(EventType, &'static str, String)>,
    /// When the next Job is due.
    pub(crate) requeue_after: Option<Duration>,
}

/// Decides what `cron` needs, whose Jobs are `jobs`. What the controller wrote itself must be shown already.
pub(crate) fn plan(cron: &CronJob, jobs: &[Arc<Job>], owner: &Owner, now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    plan.follow(jobs);
    plan.forget_old(cron, jobs);
    if !meta::is_deleting(cron) && cron.spec.suspend != Some(true) {
        plan.schedule(cron, owner, now);
    }
    plan.status.active = plan.status.active.take().filter(|active| !active.is_empty());
    plan
}

/// The status after `job` was created, which was due at `due`.
pub(crate) fn started(status: &CronJobStatus, job: &Job, due: Timestamp) -> CronJobStatus {
    let mut status = status.clone();
    let reference = ObjectReference { resource_version: job.metadata.resource_version.clone(), ..meta::reference(job) };
    status.active.get_or_insert_default().push(reference);
    status.last_schedule_time = Some(meta::seconds(due));
    status
}

impl Plan {
    fn event(&mut self, reason: &'static str, message: String) {
        let type_ = match reason {
            "SawCompletedJob" | "MissingJob" | "JobAlreadyActive" => EventType::Normal,
            _ => EventType::Warning,
        };
        self.events.push((type_, reason, message));
    }

    fn is_active(&self, job: &Job) -> bool {
        let mut active = self.status.active.iter().flatten();
        active.any(|reference| reference.uid.as_deref() == Some(meta::uid(job)))
    }

    fn deactivate(&mut self, gone: impl Fn(&ObjectReference) -> bool) {
        if let Some(active) = &mut self.status.active {
            active.retain(|reference| !gone(reference));
        }
    }

    /// Brings the list of running Jobs up to date.
    fn follow(&mut self, jobs: &[Arc<Job>]) {
        for job in jobs {
            let (active, finished) = (self.is_active(job), jobs::is_finished(job));
            if !active && !finished {
                let message = format!("Saw a job that the controller did not create or forgot: {}", meta::name(&**job));
                self.event("UnexpectedJob", message);
            }
            let complete = jobs::condition(job, "Complete").is_some();
            if active && finished {
                self.deactivate(|reference| reference.uid.as_deref() == Some(meta::uid(&**job)));
                let how = if complete { "Complete" } else { "Failed" };
                let message = format!("Saw completed job: {}, condition: {how}", meta::name(&**job));
                self.event("SawCompletedJob", message);
            }
            let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
            if complete && completed > self.status.last_successful_time {
                self.status.last_successful_time = completed;
            }
        }
        let known: BTreeSet<&str> = jobs.iter().map(|job| meta::uid(&**job)).collect();
        let missing = |reference: &&ObjectReference| reference.uid.as_deref().is_none_or(|uid| !known.contains(uid));
        let missing: Vec<_> = self.status.active.iter().flatten().filter(missing).cloned().collect();
        for reference in missing {
            let name = reference.name.clone().unwrap_or_default();
            self.event("MissingJob", format!("Active job went missing: {name}"));
            self.deactivate(|active| active.uid == reference.uid);
        }
    }

    fn forget_old(&mut self, cron: &CronJob, jobs: &[Arc<Job>]) {
        let limits =
            [("Complete", cron.spec.successful_jobs_history_limit), ("Failed", cron.spec.failed_jobs_history_limit)];
        for (condition, limit) in limits {
            let Some(limit) = limit else { continue };
            let mut ended: Vec<_> = jobs.iter().filter(|job| jobs::condition(job, condition).is_some()).collect();
            ended.sort_by_key(|job| {
                let started = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
                (started, meta::name(&***job).to_owned())
            });
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
            self.forget.extend(ended.into_iter().take(surplus).cloned());
        }
    }

    fn schedule(&mut self, cron: &CronJob, owner: &Owner, now: Timestamp) {
        let spec = &cron.spec;
        let zone = match spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => match TimeZone::get(name) {
                Ok(zone) => zone,
                Err(error) => return self.event("UnknownTimeZone", format!("invalid timeZone: {name:?}: {error}")),
            },
        };
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                return self
                    .event("UnparseableSchedule", format!("unparseable schedule: {:?} : {error}", spec.schedule));
            }
        };
        self.requeue_after = schedule.next(now, &zone).map(|next| meta::until(next, now));
        let Some((due, missed)) = self.due(cron, &schedule, &zone, now) else {
            return;
        };
        if missed > MANY {
            let message = format!(
                "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            );
            self.event("TooManyMissedTimes", message);
        }
        let deadline = spec.starting_deadline_seconds.map(|seconds| meta::plus_seconds(due, seconds));
        if deadline.is_some_and(|deadline| deadline < now) {
            let when = due.strftime("%a, %d %b %Y %H:%M:%S +0000");
            return self.event("MissSchedule", format!("Missed scheduled time to start a job: {when}"));
        }
        let name = format!("{}-{}", owner.name(), due.as_second().div_euclid(60));
        let active = self.status.active.clone().unwrap_or_default();
        if active.iter().any(|reference| reference.name.as_deref() == Some(&name)) {
            return;
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.event("JobAlreadyActive", message.to_owned());
            }
            Some("Replace") => {
                self.replace = active.into_iter().filter_map(|reference| reference.name).collect();
                self.status.active = None;
            }
            _ => {}
        }
        self.start = Some(Start { job: job(cron, owner, name, due, &zone), due });
    }

    /// The latest time that is due and was not served, and how many there are.
    fn due(&self, cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<(Timestamp, i64)> {
        let last = self.status.last_schedule_time.as_ref().map(|time| time.0);
        let mut earliest = last.unwrap_or_else(|| meta::created(cron));
        if let Some(seconds) = cron.spec.starting_deadline_seconds {
            // What is older would be too late anyway.
            earliest = earliest.max(meta::plus_seconds(now, -seconds));
        }
        let first = schedule.next(earliest, zone).filter(|first| *first <= now)?;
        let Some(second) = schedule.next(first, zone).filter(|second| *second <= now) else {
            return Some((first, 1));
        };
        // Upstream: the number is an estimate, so that a year of missed minutes costs no more than two.
        let step = second.duration_since(first).as_secs().max(1);
        let missed = now.duration_since(first).as_secs() / step + 1;
        let mut latest = second;
        if missed > 2 {
            let near = SignedDuration::from_secs(step.saturating_mul(missed - 2));
            let near = first.saturating_add(near).unwrap_or(first);
            latest = schedule.next(near, zone).filter(|near| *near <= now).unwrap_or(second).max(second);
        }
        while let Some(next) = schedule.next(latest, zone).filter(|next| *next <= now) {
            latest = next;
        }
        Some((latest, missed))
    }
}

fn job(cron: &CronJob, owner: &Owner, name: String, due: Timestamp, zone: &TimeZone) -> Job {
    let template = &cron.spec.job_template;
    let asked = template.metadata.clone().unwrap_or_default();
    let mut annotations = asked.annotations.unwrap_or_default();
    let zoned = due.to_zoned(zone.clone());
    let offset = if zoned.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    annotations.insert(SCHEDULED.to_owned(), zoned.strftime(offset).to_string());
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron.metadata.namespace.clone(),
            labels: asked.labels,
            annotations: Some(annotations),
            creation_timestamp: None,
            owner_references: Some(vec![owner.controller.clone()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
