//! The status of a pod on a fake node of which somebody has said what it goes through ([`Stages`]).
//!
//! ```text
//!   bound ─create─► Pending ─init─► ─ready─► Running ─readiness─► Ready ─complete─► Succeeded
//!                                              │  ▲
//!                                       failed ▼  │ restart
//!                                         CrashLoopBackOff
//! ```
//!
//! Everything follows from the status that there is and the time, so that whoever goes on with it needs no memory. Times of the API are
//! whole seconds, and so a delay may end up to a second early.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::phase::{ConditionStatus, PodPhase};
use serde_json::{Value, json};

use super::pod::{self, PodAction, Subject};
use super::stages::{FATAL, Failure, Stages};
use crate::time::{after, api_time, between};

const CRASH_LOOP: &str = "CrashLoopBackOff";

/// What is to be done for a pod that has neither ended nor been deleted.
pub(super) fn plan(subject: &Subject<'_>, stages: Stages<'_>, own: impl FnOnce() -> String) -> PodAction {
    let Subject { spec, status, now, .. } = *subject;
    let delay = |stage: &str| stages.delay(stage, 0).unwrap_or_default();
    let bound = bound(subject);
    let created = after(bound, delay("pod-create"));
    if status.start_time.is_none() && now < created {
        return PodAction::Later(between(now, created));
    }
    let started = status.start_time.clone().unwrap_or_else(|| api_time(now));
    let mut story = Story { stages, spec, now, wake: Vec::new() };
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let (inits, initialized) = story.inits(
        inits,
        status,
        started.0,
        delay("pod-init-container-running"),
        delay("pod-init-container-completed"),
    );
    let runs_at = initialized.map(|at| after(at, delay("pod-ready")));
    let runs = runs_at.is_some_and(|at| story.has_come(at));
    let mains = match runs {
        true => story.mains(status),
        false => {
            let reason = if inits.is_empty() { "ContainerCreating" } else { "PodInitializing" };
            spec.containers
                .iter()
                .map(|container| container_status(container, 0, waiting(reason, None), None))
                .collect()
        }
    };
    if let Some(end) = story.end(subject, &inits, &mains, started.0) {
        return end;
    }
    let ready = runs && story.is_ready(&mains);
    let phase = if runs { PodPhase::Running } else { PodPhase::Pending };
    let desired = Desired { phase, started, inits, mains, ready, initialized: initialized.is_some_and(|at| at <= now) };
    if desired.is_there(subject) {
        let next = story.wake.into_iter().min();
        return next.map_or(PodAction::Nothing, |at| PodAction::Later(between(now, at)));
    }
    pod::patch(subject.pod, desired.status(subject, own))
}

/// When the pod was bound; now, where nobody knows.
fn bound(subject: &Subject<'_>) -> Timestamp {
    let mut conditions = subject.status.conditions.iter().flatten();
    let scheduled =
        conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == ConditionStatus::True);
    let at = scheduled.and_then(|condition| condition.last_transition_time.as_ref());
    at.or(subject.pod.metadata.creation_timestamp.as_ref()).map_or(subject.now, |time| time.0)
}

/// A pod's containers as they are now.
struct Story<'a> {
    stages: Stages<'a>,
    spec: &'a PodSpec,
    now: Timestamp,
    /// When something is to happen next.
    wake: Vec<Timestamp>,
}

/// The stages of a kind of containers.
struct Kind {
    failed: &'static str,
    restart: &'static str,
}

const INIT: Kind = Kind { failed: "pod-init-container-failed", restart: "pod-init-container-restart" };
const MAIN: Kind = Kind { failed: "pod-container-failed", restart: "pod-container-restart" };

impl Story<'_> {
    /// Whether a time has come; if not, it is waited for.
    fn has_come(&mut self, at: Timestamp) -> bool {
        if at > self.now {
            self.wake.push(at);
        }
        at <= self.now
    }

    /// The init containers, all at the same stage, and when the last of them is done, if that is known: one that fails never is.
    fn inits(
        &mut self,
        inits: &[Container],
        status: &PodStatus,
        started: Timestamp,
        running: Duration,
        completed: Duration,
    ) -> (Vec<ContainerStatus>, Option<Timestamp>) {
        if inits.is_empty() {
            return (Vec::new(), Some(started));
        }
        let runs_at = after(started, running);
        let done_at = after(runs_at, completed);
        let runs = self.has_come(runs_at);
        let done = runs && self.has_come(done_at);
        let failure = self.stages.failure(INIT.failed);
        let mut fails = false;
        let statuses = inits.iter().map(|container| {
            let known = find(status.init_container_statuses.as_deref(), &container.name);
            let failure = failure.as_ref().filter(|failure| is_meant(failure, container));
            fails |= failure.is_some();
            if !runs {
                return container_status(container, 0, waiting("PodInitializing", None), None);
            }
            if failure.is_some() || container.restart_policy.as_deref() == Some("Always") {
                return self.evolve(container, known, failure, &INIT);
            }
            let since = api_time(runs_at);
            let state = match done {
                true => ContainerState {
                    terminated: Some(ContainerStateTerminated {
                        exit_code: 0,
                        reason: Some("Completed".to_owned()),
                        started_at: Some(since),
                        finished_at: Some(api_time(done_at)),
                        ..ContainerStateTerminated::default()
                    }),
                    ..ContainerState::default()
                },
                false => running_since(since),
            };
            container_status(container, 0, state, None)
        });
        let statuses = statuses.collect();
        (statuses, (!fails).then_some(done_at))
    }

    fn mains(&mut self, status: &PodStatus) -> Vec<ContainerStatus> {
        let failure = self.stages.failure(MAIN.failed);
        let spec = self.spec;
        let evolve = |container: &Container| {
            let known = find(status.container_statuses.as_deref(), &container.name);
            let failure = failure.as_ref().filter(|failure| is_meant(failure, container));
            self.evolve(container, known, failure, &MAIN)
        };
        spec.containers.iter().map(evolve).collect()
    }

    /// A container that is started, fails, and is started again, if it does.
    fn evolve(
        &mut self,
        container: &Container,
        known: Option<&ContainerStatus>,
        failure: Option<&Failure>,
        kind: &Kind,
    ) -> ContainerStatus {
        let count = known.map_or(0, |known| known.restart_count);
        let last = known.and_then(|known| known.last_state.clone());
        let state = known.and_then(|known| known.state.clone()).unwrap_or_default();
        let now = self.now;
        let start = |count: i32, last| container_status(container, count, running_since(api_time(now)), last);
        if let Some(running) = &state.running {
            let since = running.started_at.as_ref().map_or(self.now, |time| time.0);
            let fails_at = failure
                .map(|failure| (failure, after(since, self.stages.delay(kind.failed, count).unwrap_or_default())));
            let Some((failure, at)) = fails_at else { return container_status(container, count, state, last) };
            if !self.has_come(at) {
                return container_status(container, count, state, last);
            }
            let ended =
                ContainerState { terminated: Some(terminated(failure, since, self.now)), ..ContainerState::default() };
            if self.spec.restart_policy.as_deref() == Some("Never") {
                return container_status(container, count, ended, last);
            }
            let wait = self.stages.restart(kind.restart, count);
            if wait.is_zero() {
                return start(count + 1, Some(ended));
            }
            self.wake.push(after(self.now, wait));
            return container_status(container, count, crash_loop(container, wait), Some(ended));
        }
        if state.waiting.as_ref().is_some_and(|waiting| waiting.reason.as_deref() == Some(CRASH_LOOP)) {
            let ended = last.as_ref().and_then(|last| last.terminated.as_ref()?.finished_at.as_ref());
            let at = after(ended.map_or(self.now, |time| time.0), self.stages.restart(kind.restart, count));
            if !self.has_come(at) {
                return container_status(container, count, state, last);
            }
            return start(count + 1, last);
        }
        if state.terminated.is_some() {
            return container_status(container, count, state, last);
        }
        start(count, last)
    }

    /// The end of the pod, if it has come.
    fn end(
        &mut self,
        subject: &Subject<'_>,
        inits: &[ContainerStatus],
        mains: &[ContainerStatus],
        started: Timestamp,
    ) -> Option<PodAction> {
        let Subject { pod, spec, status, now, .. } = *subject;
        let since = mains.iter().filter_map(running_at).max();
        let fatal = self.stages.fatal();
        let fails_at = since
            .filter(|_| fatal.is_some())
            .map(|since| after(since, self.stages.delay(FATAL, 0).unwrap_or(Duration::from_secs(1))));
        let completion = pod::completes(pod).then(|| self.stages.delay("pod-complete", 0)).flatten();
        let completion = completion.or_else(|| pod::is_of_job(pod).then_some(Duration::ZERO));
        let completes_at = since.zip(completion).map(|(since, completion)| after(since, completion));
        let deadline = pod::deadline(spec).map(|life| after(started, life));
        let ends = [(fails_at, End::Fatal), (completes_at, End::Complete), (deadline, End::Deadline)];
        let (at, end) = ends
            .into_iter()
            .filter_map(|(at, end)| Some((at?, end)))
            .min_by_key(|(at, _)| *at)
            .unwrap_or((Timestamp::MAX, End::Complete));
        if at < Timestamp::MAX && self.has_come(at) {
            let mut ended =
                pod::end(spec, status, if end == End::Complete { PodPhase::Succeeded } else { PodPhase::Failed }, now);
            match end {
                End::Complete => {}
                End::Deadline => pod::exceeded(&mut ended),
                End::Fatal => ended["containerStatuses"] = failed(spec, fatal.as_ref(), since.unwrap_or(started), now),
            }
            return Some(pod::patch(pod, ended));
        }
        // What is not restarted has ended once all of it has.
        let is_over = |all: &[ContainerStatus]| {
            all.iter().all(|one| one.state.as_ref().is_some_and(|state| state.terminated.is_some()))
        };
        let failed_init = inits.iter().any(|init| {
            init.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code != 0)
        });
        (failed_init || is_over(mains)).then(|| {
            let mut ended = pod::end(spec, status, PodPhase::Failed, now);
            ended["containerStatuses"] = json!(mains);
            if !inits.is_empty() {
                ended["initContainerStatuses"] = json!(inits);
            }
            pod::patch(pod, ended)
        })
    }

    /// Whether all containers run, and have for long enough.
    fn is_ready(&mut self, mains: &[ContainerStatus]) -> bool {
        let since: Vec<Timestamp> = mains.iter().filter_map(running_at).collect();
        let wait = self.stages.delay("pod-readiness", 0).unwrap_or_default();
        match since.iter().max() {
            Some(latest) if since.len() == mains.len() => self.has_come(after(*latest, wait)),
            _ => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Fatal,
    Deadline,
}

/// What the status of a pod is to be.
struct Desired {
    phase: PodPhase,
    started: Time,
    inits: Vec<ContainerStatus>,
    mains: Vec<ContainerStatus>,
    ready: bool,
    initialized: bool,
}

impl Desired {
    /// The containers, those that run ready or not as the pod is.
    fn containers(&self) -> Vec<ContainerStatus> {
        let mut all = self.mains.clone();
        all.iter_mut().for_each(|one| one.ready = self.ready && running_at(one).is_some());
        all
    }

    fn is_ready(&self, subject: &Subject<'_>) -> bool {
        self.ready && pod::gates_open(subject.spec, subject.status)
    }

    fn is_there(&self, subject: &Subject<'_>) -> bool {
        let status = subject.status;
        let has = |type_: &str, value: bool| {
            let mut known = status.conditions.iter().flatten();
            known.any(|known| known.type_ == type_ && (known.status == ConditionStatus::True) == value)
        };
        PodPhase::of(subject.pod) == Some(self.phase)
            && status.start_time.is_some()
            && status.container_statuses.as_deref().unwrap_or_default() == self.containers()
            && status.init_container_statuses.as_deref().unwrap_or_default() == self.inits
            && has("Initialized", self.initialized)
            && has("ContainersReady", self.ready)
            && has("Ready", self.is_ready(subject))
    }

    fn status(&self, subject: &Subject<'_>, own: impl FnOnce() -> String) -> Value {
        let ready = self.is_ready(subject);
        let mut status = json!({
            "phase": self.phase.as_str(),
            "startTime": self.started,
            "containerStatuses": self.containers(),
            "conditions": pod::conditions(subject.status, subject.pod.metadata.generation, subject.now, |type_| match type_ {
                "Initialized" if !self.initialized => Some(("ContainersNotInitialized", "containers are being initialized")),
                "ContainersReady" if !self.ready => Some(("ContainersNotReady", "containers are not ready")),
                "Ready" if !self.ready => Some(("ContainersNotReady", "containers are not ready")),
                "Ready" if !ready => Some(("ReadinessGatesNotReady", "a readiness gate is not open")),
                _ => None,
            }),
        });
        if !self.inits.is_empty() {
            status["initContainerStatuses"] = json!(self.inits);
        }
        pod::addresses(&mut status, subject, own);
        status
    }
}

fn find<'a>(all: Option<&'a [ContainerStatus]>, name: &str) -> Option<&'a ContainerStatus> {
    all?.iter().find(|one| one.name == name)
}

fn is_meant(failure: &Failure, container: &Container) -> bool {
    failure.container.as_ref().is_none_or(|name| *name == container.name)
}

fn running_at(status: &ContainerStatus) -> Option<Timestamp> {
    Some(status.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0)
}

fn running_since(time: Time) -> ContainerState {
    ContainerState { running: Some(ContainerStateRunning { started_at: Some(time) }), ..ContainerState::default() }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn crash_loop(container: &Container, wait: Duration) -> ContainerState {
    let wait = crate::time::go_duration(wait);
    waiting(CRASH_LOOP, Some(format!("back-off {wait} restarting failed container={}", container.name)))
}

fn terminated(failure: &Failure, started: Timestamp, now: Timestamp) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: failure.exit_code,
        reason: Some(failure.reason.clone()),
        message: failure.message.clone(),
        started_at: Some(api_time(started)),
        finished_at: Some(api_time(now)),
        ..ContainerStateTerminated::default()
    }
}

/// A container's status. One that runs has started, and is ready unless somebody says otherwise.
fn container_status(
    container: &Container,
    restarts: i32,
    state: ContainerState,
    last: Option<ContainerState>,
) -> ContainerStatus {
    let runs = state.running.is_some();
    let done = state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0);
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        restart_count: restarts,
        ready: runs || done,
        started: Some(runs),
        state: Some(state),
        last_state: last,
        ..ContainerStatus::default()
    }
}

/// The containers of a pod that has failed as a whole: those that are meant by themselves, the others with it.
fn failed(spec: &PodSpec, failure: Option<&Failure>, started: Timestamp, now: Timestamp) -> Value {
    let killed = Failure { container: None, exit_code: 137, reason: "Error".to_owned(), message: None };
    let status = |container: &Container| {
        let failure = failure.filter(|failure| is_meant(failure, container)).unwrap_or(&killed);
        let ended = ContainerState { terminated: Some(terminated(failure, started, now)), ..ContainerState::default() };
        container_status(container, 0, ended, None)
    };
    json!(spec.containers.iter().map(status).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
