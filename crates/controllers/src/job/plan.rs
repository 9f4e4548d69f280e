//! What a Job needs: Pods to create and delete, its status, and which Pods it has counted.
//!
//! Upstream's way to count each Pod exactly once, whoever deletes what and when: a Pod has a finalizer until it is counted.
//! First its UID is written into `uncountedTerminatedPods`; then the finalizer goes; and when that shows, the UID becomes
//! a number. A Job is finished once no Pod of it is left to be counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use informer::EventType;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::indexes::Indexes;
use super::pod as of;
use super::policy::{self, Verdict};
use crate::meta::ConditionStatus;
use crate::owner::Owner;
use crate::pods::PodPhase;
use crate::replicaset::rank;
use crate::{meta, pods};

/// No more Pods than this are created or deleted in one go.
const BURST: usize = 500;
/// No more Pods than this wait to be counted at once.
const UNCOUNTED: usize = 500;

/// What is to be done for a Job, in this order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Pods to delete.
    pub(crate) delete: Vec<Arc<Pod>>,
    /// Pods to delete that are not to be counted.
    pub(crate) delete_uncounted: Vec<Arc<Pod>>,
    /// Pods to create.
    pub(crate) create: Vec<Pod>,
    /// The status, as if the above had been carried out.
    pub(crate) status: JobStatus,
    /// Pods whose finalizer may go once the status is written.
    pub(crate) remove_finalizers: Vec<Arc<Pod>>,
    /// What there is to tell.
    pub(crate) events: Vec<(EventType, String, String)>,
    /// When time alone changes something.
    pub(crate) requeue_after: Option<Duration>,
}

/// Whether the Job has come to its end, one way or the other.
pub(crate) fn is_finished(job: &Job) -> bool {
    condition(job, "Complete").is_some() || condition(job, "Failed").is_some()
}

/// The condition of this type, if it is true.
pub(crate) fn condition<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_ && condition.status == ConditionStatus::True)
}

/// When a finished Job is to be deleted, if it asks for that.
pub(crate) fn expires(job: &Job) -> Option<Timestamp> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let ended = condition(job, "Complete").or_else(|| condition(job, "Failed"))?;
    Some(meta::plus_seconds(ended.last_transition_time.as_ref()?.0, i64::from(seconds)))
}

/// Decides what `job` needs, whose Pods are `pods`. What the controller wrote itself must be shown already.
pub(crate) fn plan(job: &Job, pods: &[Arc<Pod>], owner: &Owner, now: Timestamp) -> Plan {
    let empty = JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&empty);
    let mut plan = Plan { status: job.status.clone().unwrap_or_default(), ..Plan::default() };
    if is_finished(job) {
        plan.remove_finalizers = pods.iter().filter(|pod| of::is_tracked(pod)).cloned().collect();
        return plan;
    }
    let mut planner = Planner { job, spec, pods, owner, now, tally: Tally::of(job, spec, pods), plan };
    planner.start();
    let end = planner.finished_condition();
    planner.sync(end.as_ref());
    planner.plan
}

/// Why a Job comes to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    succeeds: bool,
    reason: String,
    message: String,
}

impl End {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { succeeds: false, reason: reason.to_owned(), message: message.into() }
    }

    fn success(reason: &str, message: impl Into<String>) -> Self {
        Self { succeeds: true, reason: reason.to_owned(), message: message.into() }
    }
}

/// How a Job's Pods stand.
#[derive(Default)]
struct Tally {
    active: Vec<Arc<Pod>>,
    ready: i32,
    terminating: i32,
    /// Pods that succeeded, or indexes.
    succeeded: i32,
    failed: i32,
    /// Indexes that the status has.
    counted_indexes: Indexes,
    succeeded_indexes: Indexes,
    failed_indexes: Indexes,
    /// With a limit for each index: the Pod of each index that failed last and has no successor yet. It stays tracked, for
    /// it alone knows how often its index failed.
    last_failed: BTreeMap<i32, Arc<Pod>>,
}

impl Tally {
    fn of(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>]) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
        let (was_succeeded, was_failed) = (set(&uncounted.succeeded), set(&uncounted.failed));
        let mut tally = Self::default();
        let completions = spec.completions.unwrap_or_default();
        let indexed = of::is_indexed(spec);
        let valid = |pod: &Pod| of::index(pod).filter(|index| *index < completions);
        let (mut succeeded, mut failed) = (0, 0);
        let mut indexes = Vec::new();
        for pod in pods {
            if pods::is_active(pod) {
                tally.ready += i32::from(pods::is_ready(pod));
                tally.active.push(Arc::clone(pod));
            } else if !pods::is_finished(pod) {
                tally.terminating += 1;
            }
            let uid = meta::uid(&**pod);
            if !of::is_tracked(pod) || was_succeeded.contains(uid) || was_failed.contains(uid) {
                continue;
            }
            if indexed && valid(pod).is_none() {
                continue;
            }
            if pods::phase(pod) == PodPhase::Succeeded {
                succeeded += 1;
                indexes.extend(valid(pod));
            } else if of::has_failed(spec, pod) && policy::verdict(job, pod) != Verdict::Ignore {
                failed += 1;
            }
        }
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        tally.failed = status.failed.unwrap_or_default() + number(was_failed.len()) + failed;
        if indexed {
            tally.counted_indexes =
                Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
            tally.succeeded_indexes = tally.counted_indexes.clone();
            tally.succeeded_indexes.extend(indexes);
            tally.succeeded = tally.succeeded_indexes.total();
            if let Some(limit) = spec.backoff_limit_per_index {
                tally.fail_indexes(job, spec, pods, limit);
            }
        } else {
            tally.succeeded = status.succeeded.unwrap_or_default() + number(was_succeeded.len()) + succeeded;
        }
        tally
    }

    fn fail_indexes(&mut self, job: &Job, spec: &JobSpec, pods: &[Arc<Pod>], limit: i32) {
        let completions = spec.completions.unwrap_or_default();
        let known = job.status.as_ref().and_then(|status| status.failed_indexes.as_deref()).unwrap_or_default();
        self.failed_indexes = Indexes::parse(known, completions);
        let mut failed = Vec::new();
        for pod in pods.iter().filter(|pod| of::has_failed(spec, pod)) {
            let Some(index) = of::index(pod).filter(|index| *index < completions) else { continue };
            if !of::is_tracked(pod) {
                continue;
            }
            let verdict = policy::verdict(job, pod);
            let (before, _) = of::failures(pod);
            if verdict == Verdict::FailIndex || (verdict == Verdict::Count && before >= limit) {
                failed.push(index);
            }
            let last = self.last_failed.get(&index);
            let total = |pod: &Pod| of::failures(pod).0 + of::failures(pod).1;
            if last.is_none_or(|last| total(last) < total(pod)) {
                self.last_failed.insert(index, Arc::clone(pod));
            }
        }
        self.failed_indexes.extend(failed);
        let succeeded_by = |index: i32, failed: &Pod| {
            let total = |pod: &Pod| of::failures(pod).0 + of::failures(pod).1;
            let later = |pod: &&Arc<Pod>| of::index(pod) == Some(index) && total(pod) > total(failed);
            pods.iter().any(|pod| later(&pod))
        };
        let (ended, succeeded) = (self.failed_indexes.clone(), self.succeeded_indexes.clone());
        self.last_failed
            .retain(|index, pod| !ended.contains(*index) && !succeeded.contains(*index) && !succeeded_by(*index, pod));
    }
}

fn set(uids: &Option<Vec<String>>) -> BTreeSet<&str> {
    uids.iter().flatten().map(String::as_str).collect()
}

struct Planner<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [Arc<Pod>],
    owner: &'a Owner,
    now: Timestamp,
    tally: Tally,
    plan: Plan,
}

impl Planner<'_> {
    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn start(&mut self) {
        if self.plan.status.start_time.is_none() && !self.is_suspended() {
            self.plan.status.start_time = Some(meta::seconds(self.now));
        }
    }

    /// Whether the Job is at its end before anything further is done for it.
    fn finished_condition(&mut self) -> Option<End> {
        let known = |type_: &str, succeeds: bool| {
            let known = condition(self.job, type_)?;
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            Some(End { succeeds, reason: text(&known.reason), message: text(&known.message) })
        };
        if let Some(end) = known("SuccessCriteriaMet", true).or_else(|| known("FailureTarget", false)) {
            return Some(end);
        }
        let failed = self.pods.iter().filter(|pod| of::has_failed(self.spec, pod));
        let fatal = failed.map(|pod| policy::verdict(self.job, pod)).find_map(|verdict| match verdict {
            Verdict::FailJob(message) => Some(message),
            _ => None,
        });
        if let Some(message) = fatal {
            return Some(End::failure("PodFailurePolicy", message));
        }
        if self.tally.failed > self.spec.backoff_limit.unwrap_or(6) || self.restarts_too_often() {
            return Some(End::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        if self.is_past_deadline() {
            return Some(End::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        self.index_failure().or_else(|| {
            let message = policy::success(self.spec, &self.tally.succeeded_indexes)?;
            Some(End::success("SuccessPolicy", message))
        })
    }

    fn index_failure(&self) -> Option<End> {
        self.spec.backoff_limit_per_index?;
        let failed = self.tally.failed_indexes.total();
        if self.spec.max_failed_indexes.is_some_and(|limit| failed > limit) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(End::failure("MaxFailedIndexesExceeded", message));
        }
        let all_ended = failed + self.tally.succeeded >= self.spec.completions.unwrap_or_default();
        (failed > 0 && all_ended).then(|| End::failure("FailedIndexes", "Job has failed indexes"))
    }

    /// Upstream: with the restart policy OnFailure it is restarts of containers that count.
    fn restarts_too_often(&self) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let unfinished =
            self.pods.iter().filter(|pod| matches!(pods::phase(pod), PodPhase::Running | PodPhase::Pending));
        let restarts: i32 = unfinished
            .filter_map(|pod| pod.status.as_ref())
            .flat_map(|status| {
                status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
            })
            .map(|container| container.restart_count)
            .sum();
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn is_past_deadline(&mut self) -> bool {
        let (Some(seconds), Some(start)) = (self.spec.active_deadline_seconds, &self.plan.status.start_time) else {
            return false;
        };
        if self.is_suspended() {
            return false;
        }
        let due = meta::plus_seconds(start.0, seconds);
        if due <= self.now {
            return true;
        }
        self.requeue_after(meta::until(due, self.now));
        false
    }

    fn sync(&mut self, end: Option<&End>) {
        let mut active = i32::try_from(self.tally.active.len()).unwrap_or(i32::MAX);
        let mut end = end.cloned();
        if end.is_some() {
            self.plan.delete.clone_from(&self.tally.active);
            active = 0;
        } else if !meta::is_deleting(self.job) {
            active += self.manage_job();
            let succeeded = self.tally.succeeded;
            let complete = match self.spec.completions {
                None => succeeded > 0 && active == 0,
                Some(completions) => succeeded >= completions && active == 0,
            };
            if complete && !self.is_suspended() {
                end = Some(End::success("CompletionsReached", "Reached expected number of succeeded pods"));
            } else {
                self.suspend_or_resume();
            }
        }
        self.plan.status.active = meta::count(active);
        self.plan.status.ready = Some(self.tally.ready);
        self.plan.status.terminating = Some(self.tally.terminating);
        let all_counted = self.track_finished_pods(end.as_ref());
        if let Some(end) = &end {
            self.enact_finished(end, all_counted);
        }
    }

    /// Brings the number of active Pods to what is wanted. The answer is by how much it changes.
    fn manage_job(&mut self) -> i32 {
        let active = self.tally.active.len();
        if self.is_suspended() {
            self.plan.delete_uncounted.clone_from(&self.tally.active);
            return -i32::try_from(active).unwrap_or(i32::MAX);
        }
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let wanted = match self.spec.completions {
            // Once one has succeeded, the others run to their end.
            None if self.tally.succeeded > 0 => i32::try_from(active).unwrap_or(i32::MAX),
            None => parallelism,
            Some(completions) => (completions - self.tally.succeeded).clamp(0, parallelism),
        };
        let wanted = usize::try_from(wanted).unwrap_or_default();
        let mut surplus = self.surplus(active.saturating_sub(wanted));
        surplus.truncate(BURST);
        if !surplus.is_empty() {
            let change = i32::try_from(surplus.len()).unwrap_or(i32::MAX);
            self.plan.delete_uncounted = surplus;
            return -change;
        }
        let leaving = if of::only_replaces_failed(self.spec) { self.tally.terminating } else { 0 };
        let leaving = usize::try_from(leaving).unwrap_or_default();
        let missing = wanted.saturating_sub(active + leaving).min(BURST);
        if missing > 0 && (self.spec.backoff_limit_per_index.is_some() || !self.backs_off()) {
            self.create(missing);
        }
        i32::try_from(self.plan.create.len()).unwrap_or(i32::MAX)
    }

    /// Active Pods that are too many: of an index that another one has or that there is not, and further ones until there
    /// are `at_least` so many.
    fn surplus(&self, at_least: usize) -> Vec<Arc<Pod>> {
        let mut surplus = Vec::new();
        let mut rest = self.tally.active.clone();
        if of::is_indexed(self.spec) {
            let completions = self.spec.completions.unwrap_or_default();
            rest.sort_by_key(|pod| {
                (std::cmp::Reverse(pods::is_ready(pod)), meta::created(&**pod), meta::name(&**pod).to_owned())
            });
            let mut seen = BTreeSet::new();
            let has_place =
                |pod: &Arc<Pod>| of::index(pod).is_some_and(|index| index < completions && seen.insert(index));
            (rest, surplus) = rest.into_iter().partition(has_place);
        }
        let more = at_least.saturating_sub(surplus.len());
        if more > 0 {
            surplus.extend(rank::to_delete(rest, &self.tally.active, more, self.now));
        }
        surplus
    }

    /// Whether it is too early for a new Pod after those that failed.
    fn backs_off(&mut self) -> bool {
        let succeeded =
            self.pods.iter().filter(|pod| pods::phase(pod) == PodPhase::Succeeded).map(|pod| of::ended_at(pod)).max();
        let mut failures = 0;
        let mut last = None;
        for pod in self.pods.iter().filter(|pod| of::has_failed(self.spec, pod)) {
            let at = of::ended_at(pod);
            if succeeded.is_none_or(|succeeded| at > succeeded) {
                failures += 1;
                last = last.max(Some(at));
            }
        }
        last.is_some_and(|last| self.waits_until(last.saturating_add(of::back_off(failures)).unwrap_or(last)))
    }

    fn waits_until(&mut self, due: Timestamp) -> bool {
        if due > self.now {
            self.requeue_after(meta::until(due, self.now));
        }
        due > self.now
    }

    fn create(&mut self, count: usize) {
        if !of::is_indexed(self.spec) {
            self.plan.create = (0..count).map(|_| of::make(self.job, self.owner, None, None)).collect();
            return;
        }
        let busy: BTreeSet<i32> = self
            .pods
            .iter()
            .filter(|pod| pods::is_active(pod) || (of::only_replaces_failed(self.spec) && !pods::is_finished(pod)))
            .filter_map(|pod| of::index(pod))
            .collect();
        let free = |index: &i32| {
            let ended = self.tally.succeeded_indexes.contains(*index) || self.tally.failed_indexes.contains(*index);
            !ended && !busy.contains(index)
        };
        let indexes: Vec<i32> = (0..self.spec.completions.unwrap_or_default()).filter(free).take(count).collect();
        for index in indexes {
            let mut failures = None;
            if self.spec.backoff_limit_per_index.is_some() {
                failures = Some((0, 0));
                if let Some(last) = self.tally.last_failed.get(&index).cloned() {
                    let (counted, ignored) = of::failures(&last);
                    let (counted, ignored) = match policy::verdict(self.job, &last) {
                        Verdict::Ignore => (counted, ignored + 1),
                        _ => (counted + 1, ignored),
                    };
                    let in_a_row = usize::try_from(counted + ignored).unwrap_or(1);
                    let ended = of::ended_at(&last);
                    if self.waits_until(ended.saturating_add(of::back_off(in_a_row)).unwrap_or(ended)) {
                        continue;
                    }
                    failures = Some((counted, ignored));
                }
            }
            self.plan.create.push(of::make(self.job, self.owner, Some(index), failures));
        }
    }

    fn suspend_or_resume(&mut self) {
        let suspended = self.is_suspended();
        let was = condition(self.job, "Suspended").is_some();
        if suspended == was {
            return;
        }
        if suspended {
            self.set_condition("Suspended", true, "JobSuspended", "Job suspended");
            self.plan.events.push((EventType::Normal, "Suspended".to_owned(), "Job suspended".to_owned()));
        } else {
            self.set_condition("Suspended", false, "JobResumed", "Job resumed");
            self.plan.events.push((EventType::Normal, "Resumed".to_owned(), "Job resumed".to_owned()));
            self.plan.status.start_time = Some(meta::seconds(self.now));
        }
    }

    /// Counts Pods that ended. True if none is left that has yet to be counted.
    fn track_finished_pods(&mut self, end: Option<&End>) -> bool {
        let before = self.plan.status.uncounted_terminated_pods.take().unwrap_or_default();
        let tracked: BTreeSet<&str> =
            self.pods.iter().filter(|pod| of::is_tracked(pod)).map(|pod| meta::uid(&**pod)).collect();
        let (mut succeeded, counted) = split(before.succeeded, &tracked);
        if !of::is_indexed(self.spec) {
            self.plan.status.succeeded = meta::count(self.plan.status.succeeded.unwrap_or_default() + counted);
        }
        let (mut failed, counted) = split(before.failed, &tracked);
        self.plan.status.failed = meta::count(self.plan.status.failed.unwrap_or_default() + counted);

        let mut indexes = Vec::new();
        for pod in self.pods.iter().filter(|pod| of::is_tracked(pod)) {
            let uid = meta::uid(&**pod).to_owned();
            if succeeded.contains(&uid) || failed.contains(&uid) {
                self.plan.remove_finalizers.push(Arc::clone(pod));
                continue;
            }
            if self.plan.delete_uncounted.iter().any(|discarded| Arc::ptr_eq(discarded, pod))
                || !self.may_be_counted(pod, end)
            {
                continue;
            }
            if succeeded.len() + failed.len() + indexes.len() >= UNCOUNTED {
                break;
            }
            let index = of::index(pod).filter(|index| *index < self.spec.completions.unwrap_or_default());
            let has_place = !of::is_indexed(self.spec) || index.is_some();
            let fails = of::has_failed(self.spec, pod) || end.is_some_and(|end| !end.succeeds);
            if pods::phase(pod) == PodPhase::Succeeded {
                if of::is_indexed(self.spec) {
                    indexes.extend(index);
                } else {
                    succeeded.push(uid);
                }
            } else if fails && has_place && policy::verdict(self.job, pod) != Verdict::Ignore {
                failed.push(uid);
            }
            self.plan.remove_finalizers.push(Arc::clone(pod));
        }
        if of::is_indexed(self.spec) {
            let mut all = self.tally.counted_indexes.clone();
            all.extend(indexes);
            self.plan.status.succeeded = meta::count(all.total());
            self.plan.status.completed_indexes = Some(all.to_string()).filter(|text| !text.is_empty());
            if self.spec.backoff_limit_per_index.is_some() {
                self.plan.status.failed_indexes = Some(self.tally.failed_indexes.to_string());
            }
        }
        let list = |uids: Vec<String>| (!uids.is_empty()).then_some(uids);
        let all_counted = succeeded.is_empty() && failed.is_empty();
        self.plan.status.uncounted_terminated_pods =
            Some(UncountedTerminatedPods { succeeded: list(succeeded), failed: list(failed) });
        all_counted
    }

    fn may_be_counted(&self, pod: &Arc<Pod>, end: Option<&End>) -> bool {
        if meta::is_deleting(self.job) || end.is_some() || pods::phase(pod) == PodPhase::Succeeded {
            return true;
        }
        let is_last = |last: &Arc<Pod>| meta::uid(&**last) == meta::uid(&**pod);
        of::has_failed(self.spec, pod) && !self.tally.last_failed.values().any(is_last)
    }

    /// Says that the Job is at its end; and that it has ended, once no Pod of it runs or has yet to be counted.
    fn enact_finished(&mut self, end: &End, all_counted: bool) {
        let (interim, last) =
            if end.succeeds { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
        self.set_condition(interim, true, &end.reason, &end.message);
        let waits = !all_counted
            || !self.plan.remove_finalizers.is_empty()
            || !self.plan.delete.is_empty()
            || self.tally.terminating > 0
            || !self.tally.active.is_empty();
        if waits {
            return;
        }
        self.set_condition(last, true, &end.reason, &end.message);
        let event = if end.succeeds {
            self.plan.status.completion_time = Some(meta::seconds(self.now));
            (EventType::Normal, "Completed".to_owned(), "Job completed".to_owned())
        } else {
            (EventType::Warning, end.reason.clone(), end.message.clone())
        };
        self.plan.events.push(event);
    }

    fn set_condition(&mut self, type_: &str, status: bool, reason: &str, message: &str) {
        let status = ConditionStatus::from(status);
        let conditions = self.plan.status.conditions.get_or_insert_default();
        if conditions.iter().any(|known| known.type_ == type_ && known.status == status) {
            return;
        }
        conditions.retain(|known| known.type_ != type_);
        conditions.push(JobCondition {
            type_: type_.to_owned(),
            status: status.as_str().to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(meta::seconds(self.now)),
            last_transition_time: Some(meta::seconds(self.now)),
        });
    }

    fn requeue_after(&mut self, wait: Duration) {
        self.plan.requeue_after = Some(self.plan.requeue_after.map_or(wait, |least| least.min(wait)));
    }
}

/// The UIDs of Pods that still have their finalizer, and how many have lost it: those are numbers from now on.
fn split(uids: Option<Vec<String>>, tracked: &BTreeSet<&str>) -> (Vec<String>, i32) {
    let (open, done): (Vec<_>, Vec<_>) =
        uids.unwrap_or_default().into_iter().partition(|uid| tracked.contains(uid.as_str()));
    (open, i32::try_from(done.len()).unwrap_or(i32::MAX))
}
