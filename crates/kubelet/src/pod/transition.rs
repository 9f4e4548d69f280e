//! The transitions of a pod's state. Pure: whoever applies an event carries out the effects.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, ResourceRequirements};
use runtime::ContainerState;

use super::message::Message;
use super::operations::{NotStarted, OperationOutcome, Resized};
use super::plan::{Action, Inputs, Stage, has_completed};
use super::resize::Unfinished;
use super::state::{PodState, StatusWrite, Stopping};
use super::status;
use super::step::{Step, StepEvent};
use crate::images::PullPolicy;
use crate::objects::version;
use crate::probes::ProbeKind;
use crate::time::after;
use crate::types::desired::DesiredPod;
use crate::types::failure::Failure;
use crate::types::observed::Observed;
use crate::types::waiting::{Waiting, WaitingReason};

/// What failed for a reason that only somebody else can remove is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);
/// Volumes that could not be removed and a pod that could not be released are tried again after this time; what the runtime
/// failed to stop or remove for the first time, too.
const RETRY_REMOVAL: Duration = Duration::from_secs(2);
/// The first and the longest pause before volumes or a sandbox are tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(122));
/// A write of the status that failed is tried again after this time.
const RETRY_WRITE: Duration = Duration::from_secs(1);
/// A change of the status that nobody waits for is written together with what follows within this time.
const COALESCE: Duration = Duration::from_millis(500);

/// What happens to a pod's state.
pub(super) enum Event {
    /// The worker begins, and the runtime has this of the pod.
    Adopted(Arc<Observed>),
    /// The worker is told something.
    Message(Message),
    /// The runtime has this of the pod.
    Observed(Arc<Observed>),
    /// The ended container `id` has left this message.
    TerminationMessage {
        /// The container.
        id: String,
        /// The message; empty if it left none.
        message: String,
    },
    /// Time has passed.
    Tick,
    /// An action of the plan is being carried out.
    Begun(Action),
    /// Containers were allocated what they ask for, or not.
    Allocated(Result<(), Unfinished>),
    /// An operation has ended.
    Finished(OperationOutcome),
    /// The status was computed.
    StatusComputed(Arc<PodStatus>),
    /// The status is being written.
    WriteBegun,
}

/// What follows from a transition outside the state.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// People are told, in an event of the pod or of its container.
    Report {
        /// The container.
        container: Option<String>,
        /// Whether it is bad news.
        warning: bool,
        /// The event's reason.
        reason: Cow<'static, str>,
        /// The event's message.
        message: String,
    },
    /// The pod may refer to other objects than before.
    TrackReferences,
    /// The readiness probe of this container is asked for an attempt now.
    ProbeReadiness(String),
}

/// The state of a worker, which everybody may read and only [`StateMachine::apply`] changes.
pub(super) struct StateMachine(PodState);

impl Deref for StateMachine {
    type Target = PodState;

    fn deref(&self) -> &PodState {
        &self.0
    }
}

impl StateMachine {
    /// The state of a worker that begins.
    pub(super) fn new(desired: DesiredPod, sync_period: Duration, now: Timestamp) -> Self {
        Self(PodState::new(desired, sync_period, now))
    }

    /// The one transition function.
    pub(super) fn apply(&mut self, event: Event, now: Timestamp) -> Option<Effect> {
        let state = &mut self.0;
        match event {
            Event::Adopted(observed) => {
                state.runtime = observed;
                restore_probe_results(state);
            }
            Event::Message(message) => return handle_message(state, message, now),
            Event::Observed(observed) => observe(state, observed),
            Event::TerminationMessage { id, message } => {
                state.termination_messages.insert(id, message);
            }
            Event::Tick => tick(state, now),
            Event::Begun(action) => begin(state, action, now),
            Event::Allocated(result) => finish_allocation(state, result, now),
            Event::Finished(outcome) => return finish(state, outcome, now),
            Event::StatusComputed(status) => {
                state.status = status;
                state.write = match state.write {
                    StatusWrite::Busy => StatusWrite::Busy,
                    StatusWrite::Idle { retry_at } | StatusWrite::Pending { retry_at, .. }
                        if !status_differs(state) =>
                    {
                        StatusWrite::Idle { retry_at }
                    }
                    StatusWrite::Idle { retry_at } => StatusWrite::Pending { since: now, retry_at },
                    pending @ StatusWrite::Pending { .. } => pending,
                };
            }
            Event::WriteBegun => state.write = StatusWrite::Busy,
        }
        None
    }

    /// When the status is to be written; none while a write is under way, or not needed.
    pub(super) fn write_at(&self, stage: Stage, now: Timestamp) -> Option<Timestamp> {
        let StatusWrite::Pending { since, retry_at } = self.write else {
            return None;
        };
        // The release writes the last status itself.
        if self.released != Step::Idle {
            return None;
        }
        let known = self.desired.status().cloned().unwrap_or_default();
        // Once only the sandbox is left, the last status is a moment away.
        let last_to_come = stage == Stage::Terminating && self.runtime.running().next().is_none();
        let due = match status::urgent(&known, &self.status) && !last_to_come {
            true => now,
            false => after(since, COALESCE),
        };
        Some(retry_at.map_or(due, |retry| due.max(retry)))
    }
}

/// Whether the API does not have the status that was computed last.
fn status_differs(state: &PodState) -> bool {
    let known = state.desired.status().cloned().unwrap_or_default();
    !state.desired.gone && status::differs(&known, &state.status)
}

/// Takes over what runs from an earlier life of this process: it was ready then, and need not prove it first.
fn restore_probe_results(state: &mut PodState) {
    let desired = Arc::clone(&state.desired);
    for container in &desired.containers {
        let Some(running) = state.runtime.latest(container.name()) else {
            continue;
        };
        let Some(known) = desired.container_status(container.name()) else {
            continue;
        };
        let id = known.container_id.as_deref().and_then(|id| id.split_once("://"));
        if id.is_none_or(|(_, id)| id != running.id) {
            continue;
        }
        if known.started == Some(true) {
            state.probes.set(&running.id, ProbeKind::Startup, true);
        }
        if known.ready {
            state.probes.set(&running.id, ProbeKind::Readiness, true);
        }
    }
}

fn handle_message(state: &mut PodState, message: Message, now: Timestamp) -> Option<Effect> {
    match message {
        Message::Updated(pod, _) => return set_desired(state, pod),
        Message::Gone(_) => {
            let mut desired = DesiredPod::clone(&state.desired);
            desired.gone = true;
            state.desired = Arc::new(desired);
        }
        // The runtime's state is read before every plan.
        Message::Runtime => {}
        Message::Objects(_) => state.inputs_changed(),
        Message::Fail(failure) => return fail(state, failure, now),
        Message::Reclaim => {
            let dead = state.runtime.dead(state.desired.ended()).map(|container| container.id.clone());
            state.reclaimed = dead.collect();
        }
        Message::Verdict { id, kind, success } => {
            state.probes.set(&id, kind, success);
            if kind == ProbeKind::Startup && success {
                return Some(Effect::ProbeReadiness(id));
            }
        }
    }
    None
}

/// Notes that the node has failed the pod. One that has ended, or is being deleted, is left to its end; so is one that has
/// completed, though the API may not know it yet.
fn fail(state: &mut PodState, failure: Failure, now: Timestamp) -> Option<Effect> {
    let is_over = state.failure.is_some() || state.desired.ended() || state.desired.deleting();
    if is_over || has_completed(Inputs::new(state, now)) {
        return None;
    }
    let (reason, message) = (failure.reason.clone(), failure.message.clone());
    state.failure = Some(failure);
    Some(Effect::Report { container: None, warning: true, reason, message })
}

/// Takes a newer state of the API's pod. An older one, overtaken by the answer to an own write, is left aside.
fn set_desired(state: &mut PodState, pod: Arc<Pod>) -> Option<Effect> {
    let (old, new) = (&state.desired.pod.metadata, &pod.metadata);
    if let (Some(old), Some(new)) = (version(old), version(new))
        && new < old
    {
        return None;
    }
    let described = old.labels != new.labels || old.annotations != new.annotations;
    let specified = pod.spec != state.desired.pod.spec;
    let mut desired = DesiredPod::new(pod);
    desired.gone = state.desired.gone;
    if specified || state.desired.has_unallocated_resize() {
        desired = desired.with_allocated(&state.desired.allocated());
    }
    if specified {
        state.allocation.apply(StepEvent::InputsChanged);
        // A corrected image is tried at once, and so are other resources.
        for (name, retry) in &mut state.containers {
            retry.resize.apply(StepEvent::InputsChanged);
            let image = |desired: &DesiredPod| Some(desired.container(name)?.spec.image.clone());
            if image(&desired) != image(&state.desired) {
                retry.image.apply(StepEvent::InputsChanged);
                retry.pulls.reset();
            }
        }
    }
    state.desired = Arc::new(desired);
    if described || specified {
        state.inputs_changed();
    }
    specified.then_some(Effect::TrackReferences)
}

/// Takes the runtime's present state, and forgets what was known of containers that are no more.
fn observe(state: &mut PodState, observed: Arc<Observed>) {
    let exists = |id: &str| observed.container(id).is_some();
    state.termination_messages.retain(|id, _| exists(id));
    state.probes.retain(exists);
    let runs = |id: &str| observed.container(id).is_some_and(|container| !container.state.is_exited());
    state.stopping.retain(|id, _| runs(id));
    state.reclaimed.retain(|id| exists(id));
    state.applied.retain(|id, _| exists(id));
    state.restarting.retain(|id| exists(id));
    state.runtime = observed;
}

/// Has the volumes looked at when a token must be renewed, and now and then in any case: nothing is believed for longer
/// than that because somebody should have said otherwise. What failed has a time of its own.
fn tick(state: &mut PodState, now: Timestamp) {
    if state.renew_at.is_some_and(|renew| renew <= now) {
        state.renew_at = None;
        state.inputs_changed();
    }
    if state.sync_at <= now {
        state.sync_at = after(now, state.sync_period);
        if state.volumes.is_done() {
            state.volumes.apply(StepEvent::InputsChanged);
        }
    }
}

/// Notes that an action is under way, or done where it is nothing but a note.
fn begin(state: &mut PodState, action: Action, now: Timestamp) {
    match action {
        Action::SetUpVolumes => state.volumes.apply(StepEvent::Begun),
        Action::CreateSandbox { .. } => state.sandbox.apply(StepEvent::Begun),
        Action::EnsureImage { container } => {
            let retry = state.retry_mut(&container);
            retry.image.apply(StepEvent::Begun);
            retry.pull_reported = false;
        }
        Action::StartContainer { container, .. } => {
            let ended = state.runtime.latest(&container).map(|latest| latest.state.clone());
            let given = state.desired.container(&container).and_then(|desired| desired.spec.resources.clone());
            let retry = state.retry_mut(&container);
            if let Some(ContainerState::Exited { finished, .. }) = ended {
                retry.crashes.next(finished, now);
            }
            retry.start.apply(StepEvent::Begun);
            // The next start asks for the image again.
            retry.image.apply(StepEvent::Abandoned);
            // Whatever is allocated meanwhile is a resize.
            retry.given = given;
        }
        Action::ReportBackOff { container, ended, message } => {
            let retry = state.retry_mut(&container);
            retry.reported = Some(ended);
            retry.waiting = Some(Waiting::new(WaitingReason::CrashLoopBackOff, message));
        }
        Action::ReportPullBackOff { container, message } => {
            let retry = state.retry_mut(&container);
            retry.pull_reported = true;
            retry.waiting = Some(Waiting::new(WaitingReason::ImagePullBackOff, message));
        }
        Action::BeginStop { id, container, grace, .. } => {
            let hook = state.has_pre_stop(&id, &container);
            state.stopping.insert(id, Stopping { since: now, grace, hook, stop: None, retry_at: None });
        }
        Action::StopContainer { id, grace, .. } => {
            if let Some(stopping) = state.stopping.get_mut(&id) {
                stopping.stop = Some(grace);
                stopping.retry_at = None;
            }
        }
        Action::AllocateResources => state.allocation.apply(StepEvent::Begun),
        Action::ResizeContainer { container, .. } => state.retry_mut(&container).resize.apply(StepEvent::Begun),
        Action::RemoveContainer { id } | Action::StopSandbox { id } | Action::RemoveSandbox { id } => {
            state.busy.insert(id);
        }
        Action::ExceedDeadline => state.deadline_exceeded = true,
        Action::NoteEviction => state.eviction_noted.apply(StepEvent::Begun),
        Action::TearDownVolumes => state.torn_down.apply(StepEvent::Begun),
        Action::Release => state.released.apply(StepEvent::Begun),
    }
}

/// Notes what came of an operation.
fn finish(state: &mut PodState, outcome: OperationOutcome, now: Timestamp) -> Option<Effect> {
    match outcome {
        OperationOutcome::Volumes { result, references, renew } => {
            state.references = references;
            state.renew_at = renew;
            match result {
                Ok(mounted) => {
                    state.mounted = Some(mounted);
                    state.volume_failures = 0;
                    state.volumes.apply(StepEvent::Succeeded(()));
                }
                Err(error) => {
                    let pause = pause(state.volume_failures, PAUSES.1);
                    state.volume_failures += 1;
                    state.volumes.apply(StepEvent::Failed(after(now, pause)));
                    let (reason, message) = ("FailedMount".into(), error.to_string());
                    return Some(Effect::Report { container: None, warning: true, reason, message });
                }
            }
        }
        OperationOutcome::Sandbox(Ok(())) => {
            state.sandbox_failures = 0;
            state.sandbox.apply(StepEvent::Abandoned);
        }
        OperationOutcome::Sandbox(Err(_)) => {
            let pause = pause(state.sandbox_failures, RETRY);
            state.sandbox_failures += 1;
            state.sandbox.apply(StepEvent::Failed(after(now, pause)));
        }
        OperationOutcome::Image { container, result } => {
            let policy = state.desired.container(&container).map(|container| PullPolicy::of(&container.spec));
            let retry = state.retry_mut(&container);
            let event = match result {
                // Of an image that is not asked for any more: its failures are no reason to wait.
                _ if retry.image == Step::Outdated => StepEvent::Abandoned,
                Ok(image) => {
                    retry.pulls.reset();
                    StepEvent::Succeeded(image)
                }
                Err(None) => StepEvent::Abandoned,
                Err(Some(waiting)) => {
                    let pulled = waiting.reason == WaitingReason::ErrImagePull && policy != Some(PullPolicy::Never);
                    retry.waiting = Some(waiting);
                    let pause = match pulled {
                        true => {
                            retry.pulls.next(now, now);
                            retry.pulls.delay()
                        }
                        false => RETRY,
                    };
                    StepEvent::Failed(after(now, pause))
                }
            };
            retry.image.apply(event);
        }
        OperationOutcome::Started { container, result } => return finish_start(state, container, result, now),
        OperationOutcome::Resized { id, container, resources, result } => {
            finish_resize(state, id, &container, resources, result, now);
        }
        OperationOutcome::HookDone { id } => {
            if let Some(stopping) = state.stopping.get_mut(&id) {
                stopping.hook = false;
            }
        }
        OperationOutcome::Stopped { id, result } => {
            let pause = removal_pause(state.failures(&id));
            if let (Err(error), Some(stopping)) = (&result, state.stopping.get_mut(&id)) {
                tracing::warn!(%error, id, "a container could not be stopped");
                stopping.stop = None;
                stopping.retry_at = Some(after(now, pause));
            }
            state.note_failure(&id, result.is_err());
        }
        OperationOutcome::Removed { id, result } => {
            state.busy.remove(&id);
            state.retry_at.remove(&id);
            if let Err(error) = &result {
                tracing::warn!(%error, id, "a sandbox or container could not be removed");
                let pause = removal_pause(state.failures(&id));
                state.retry_at.insert(id.clone(), after(now, pause));
            }
            state.note_failure(&id, result.is_err());
        }
        OperationOutcome::EvictionNoted(result) => {
            if let Err(error) = &result {
                tracing::warn!(error, pod = state.desired.describe(), "an eviction could not be noted");
            }
            state.eviction_noted.apply(done_or_later(&result, now));
        }
        OperationOutcome::TornDown(result) => {
            if let Err(error) = &result {
                tracing::warn!(error, pod = state.desired.describe(), "volumes not removed");
            }
            state.torn_down.apply(done_or_later(&result, now));
        }
        OperationOutcome::Released(result) => {
            if let Err(error) = &result {
                tracing::debug!(%error, pod = state.desired.describe(), "pod not released");
            }
            state.released.apply(done_or_later(&result, now));
        }
        OperationOutcome::Written(result) => {
            let retry_at = Some(after(now, RETRY_WRITE));
            state.write = match &result {
                Ok(Some(_)) => StatusWrite::Idle { retry_at: None },
                // The pod is gone; the watch will say so.
                Ok(None) => StatusWrite::Idle { retry_at },
                Err(error) => {
                    tracing::debug!(%error, pod = state.desired.describe(), "status not written");
                    StatusWrite::Idle { retry_at }
                }
            };
            if let Ok(Some(pod)) = result {
                return set_desired(state, pod);
            }
        }
    }
    None
}

/// What becomes of a step of the pod's end: what failed is tried again after [`RETRY_REMOVAL`].
fn done_or_later<E>(result: &Result<(), E>, now: Timestamp) -> StepEvent {
    match result {
        Ok(()) => StepEvent::Succeeded(()),
        Err(_) => StepEvent::Failed(after(now, RETRY_REMOVAL)),
    }
}

fn finish_allocation(state: &mut PodState, result: Result<(), Unfinished>, now: Timestamp) {
    match result {
        Ok(()) => {
            let mut desired = DesiredPod::new(Arc::clone(&state.desired.pod));
            desired.gone = state.desired.gone;
            state.desired = Arc::new(desired);
            state.pending_resize = None;
            state.allocation.apply(StepEvent::Succeeded(()));
            for retry in state.containers.values_mut() {
                retry.resize.apply(StepEvent::InputsChanged);
            }
        }
        Err(why) => {
            state.pending_resize = Some(why);
            state.allocation.apply(StepEvent::Failed(after(now, RETRY)));
        }
    }
}

fn finish_resize(
    state: &mut PodState,
    id: String,
    container: &str,
    resources: Option<ResourceRequirements>,
    result: Result<Resized, Unfinished>,
    now: Timestamp,
) {
    let retry = state.retry_mut(container);
    match result {
        Ok(Resized::InPlace) => {
            retry.unfinished = None;
            retry.resize.apply(StepEvent::Succeeded(()));
            state.applied.insert(id, resources);
        }
        Ok(Resized::ByRestart) => {
            retry.unfinished = None;
            retry.resize.apply(StepEvent::Succeeded(()));
            // One that has ended by itself meanwhile is started again or not as its policy says.
            if state.runtime.container(&id).is_some_and(|made| made.state.is_running()) {
                state.restarting.insert(id);
            }
        }
        Err(why) => {
            retry.unfinished = Some(why);
            retry.resize.apply(StepEvent::Failed(after(now, RETRY)));
        }
    }
}

fn finish_start(
    state: &mut PodState,
    container: String,
    result: Result<(), NotStarted>,
    now: Timestamp,
) -> Option<Effect> {
    let ended = state.runtime.latest(&container).is_some_and(|latest| latest.state.is_exited());
    let grace = state.desired.grace();
    let retry = state.retry_mut(&container);
    match result {
        Ok(()) => {
            retry.start.apply(StepEvent::Succeeded(()));
            retry.waiting = None;
            // Whatever was allocated, or tried with its predecessor, while it was being started.
            retry.unfinished = None;
            let given = retry.given.clone();
            if let Some(id) = state.runtime.latest(&container).map(|latest| latest.id.clone()) {
                state.applied.insert(id, given);
            }
        }
        Err(NotStarted::Cancelled) => retry.start.apply(StepEvent::Abandoned),
        Err(NotStarted::Failed(waiting)) => {
            // What was made and ended waits as a crash does; what was never made, by the clock.
            let pause = match waiting.reason {
                WaitingReason::RunContainerError if ended => Duration::ZERO,
                _ => RETRY,
            };
            retry.waiting = Some(waiting);
            retry.start.apply(StepEvent::Failed(after(now, pause)));
        }
        Err(NotStarted::Hook { id, waiting }) => {
            retry.waiting = Some(waiting);
            retry.start.apply(StepEvent::Abandoned);
            let given = retry.given.clone();
            state.applied.insert(id.clone(), given);
            state.stopping.insert(id, Stopping { since: now, grace, hook: false, stop: None, retry_at: None });
            let (container, message) = (Some(container), "FailedPostStartHook".to_owned());
            return Some(Effect::Report { container, warning: false, reason: "Killing".into(), message });
        }
    }
    None
}

fn pause(failures: u32, longest: Duration) -> Duration {
    double(PAUSES.0, failures).min(longest)
}

/// The pause after a failure to stop or remove something that has failed so often before: a runtime that is overloaded is
/// not helped by being asked again and again.
fn removal_pause(failures: u32) -> Duration {
    double(RETRY_REMOVAL, failures).min(PAUSES.1)
}

fn double(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16))
}

#[cfg(test)]
mod tests;
