//! Making a pod be as desired: sandbox, init containers in their order, then all others at once.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use runtime::{Container, ContainerState};

use super::{Action, Initialization, Inputs, Plan, deadline, end, has_started, initialization, is_over};
use crate::pod::resize;
use crate::pod::state::RetryState;
use crate::pod::step::Step;
use crate::probes::ProbeKind;
use crate::time::{after, between, go_duration};
use crate::types::desired::{ContainerKind, DesiredContainer};
use crate::types::waiting::WaitingReason;

/// What a process killed by the kernel exits with.
const KILLED: i32 = 137;

pub(super) fn plan(inputs: Inputs<'_>, plan: &mut Plan) {
    let Inputs { desired, state, now, .. } = inputs;
    plan.wake(deadline(inputs));
    if desired.has_unallocated_resize() {
        // All else follows from what is allocated.
        if state.allocation.is_due(now) {
            return plan.act(Action::AllocateResources);
        }
        plan.wake(state.allocation.wake_at(now));
    }

    let ready = sandbox(inputs, plan);
    if state.volumes.is_due(now) {
        plan.act(Action::SetUpVolumes);
    }
    plan.wake(state.volumes.wake_at(now));

    // They wait for nothing: a pod that does not get through its initialization is what one looks into.
    for ephemeral in desired.ephemerals() {
        container(inputs, plan, ephemeral, ready);
    }
    let initialized = initialization(inputs) == Initialization::Done;
    for init in desired.inits() {
        let current = inputs.runtime.current(init.name());
        let passed = match init.kind {
            // Once all is initialized, what has run to its end is never looked at again.
            ContainerKind::Init => initialized || current.is_some_and(|init| is_completed(&init.state)),
            _ => {
                container(inputs, plan, init, ready);
                initialized || current.is_some_and(|sidecar| has_started(inputs, init, sidecar))
            }
        };
        if !passed {
            if init.kind == ContainerKind::Init {
                container(inputs, plan, init, ready);
            }
            break;
        }
    }
    if initialized {
        // Upstream starts containers one after the other, hooks included, and people use that to order them. Without
        // hooks nobody can tell, so the others start together.
        let mut held = false;
        for app in desired.apps() {
            let made = inputs.runtime.current(app.name());
            if !held || made.is_some() {
                container(inputs, plan, app, ready);
            }
            let hook = app.spec.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
            let starting = state.retry(app.name()).is_some_and(|retry| retry.start.is_busy());
            held |= hook && (made.is_none() || starting);
        }
    }
    end::collect(inputs, plan);
}

fn is_completed(state: &ContainerState) -> bool {
    matches!(state, ContainerState::Exited { exit_code: 0, .. })
}

/// Makes a sandbox if there is none that runs. Answers whether containers can be created.
fn sandbox(inputs: Inputs<'_>, plan: &mut Plan) -> bool {
    let Inputs { runtime, state, now, .. } = inputs;
    if state.sandbox.is_busy() {
        return false;
    }
    if runtime.ready_sandbox().is_some() {
        return true;
    }
    // What survived its sandbox is ended first: it has lost its network.
    let mut survivors = runtime.running().peekable();
    if survivors.peek().is_some() {
        survivors.for_each(|left| end::stop(inputs, plan, left, None, inputs.desired.grace()));
    } else if !matches!(state.sandbox, Step::Failed(until) if until > now) {
        let attempt = runtime.sandbox().map_or(0, |sandbox| sandbox.attempt + 1);
        plan.act(Action::CreateSandbox { attempt });
    }
    plan.wake(state.sandbox.wake_at(now));
    false
}

/// Brings one container to run, and keeps it so.
fn container(inputs: Inputs<'_>, plan: &mut Plan, desired: &DesiredContainer, ready: bool) {
    let Inputs { runtime, state, .. } = inputs;
    let name = desired.name();
    if state.retry(name).is_some_and(|retry| retry.start.is_busy()) {
        show_waiting(inputs, plan, name);
        return;
    }
    // An init container counts only in the sandbox it ran in; its predecessors are history.
    let latest = match desired.kind {
        ContainerKind::Init => runtime.current(name),
        _ => runtime.latest(name),
    };
    let Some(container) = latest else {
        return start(inputs, plan, desired, ready, None);
    };
    match &container.state {
        ContainerState::Running { .. } => watch(inputs, plan, desired, container),
        ContainerState::Unknown => end::stop(inputs, plan, container, None, inputs.desired.grace()),
        // Left behind by an interrupted start: what it was made from may be stale.
        ContainerState::Created => end::discard(inputs, plan, &container.id),
        ContainerState::Exited { .. } if is_over(inputs, desired, container) => {}
        ContainerState::Exited { .. } => start(inputs, plan, desired, ready, Some(container)),
    }
}

/// Starts a container, or says what it waits for.
fn start(inputs: Inputs<'_>, plan: &mut Plan, desired: &DesiredContainer, ready: bool, ended: Option<&Container>) {
    let Inputs { runtime, state, now, .. } = inputs;
    let name = desired.name();
    let nothing = RetryState::default();
    let remembered = state.retry(name).unwrap_or(&nothing);

    if ended.is_some_and(|ended| crash_back_off(inputs, plan, desired, remembered, ended)) {
        return;
    }
    show_waiting(inputs, plan, name);
    if let Step::Failed(until) = remembered.start
        && until > now
    {
        plan.wake(Some(until));
        return;
    }
    match remembered.image {
        Step::Failed(until) if until > now => {
            pull_back_off(inputs, plan, desired, remembered, until);
        }
        Step::Idle | Step::Failed(_) => plan.act(Action::EnsureImage { container: name.to_owned() }),
        Step::Done(_) if ready && state.volumes_serve() => plan.act(Action::StartContainer {
            container: name.to_owned(),
            attempt: next_attempt(inputs, name, runtime.latest(name)),
        }),
        Step::Busy | Step::Outdated | Step::Done(_) => {}
    }
}

/// Shows what went wrong last.
fn show_waiting(inputs: Inputs<'_>, plan: &mut Plan, name: &str) {
    let retry = inputs.state.retry(name);
    if let Some(waiting) = retry.and_then(|retry| retry.waiting.as_ref()) {
        plan.wait(name, waiting.reason, &waiting.message);
    }
}

/// Whether a container that ended must wait; if so, says how long.
fn crash_back_off(
    inputs: Inputs<'_>,
    plan: &mut Plan,
    desired: &DesiredContainer,
    remembered: &RetryState,
    ended: &Container,
) -> bool {
    let ContainerState::Exited { finished, .. } = &ended.state else {
        return false;
    };
    let Some(until) = remembered.crashes.wait_until(*finished, inputs.now) else {
        return false;
    };
    let (name, pod) = (desired.name(), inputs.desired.describe());
    let delay = go_duration(remembered.crashes.delay());
    let message = format!("back-off {delay} restarting failed container={name} pod={pod}");
    plan.wait(name, WaitingReason::CrashLoopBackOff, &message);
    plan.wake(Some(until));
    if remembered.reported.as_ref() != Some(&ended.id) {
        plan.act(Action::ReportBackOff { container: name.to_owned(), ended: ended.id.clone(), message });
    }
    true
}

/// For the first half of the delay a pull's own error is shown, then that the next attempt is waited for.
fn pull_back_off(
    inputs: Inputs<'_>,
    plan: &mut Plan,
    desired: &DesiredContainer,
    remembered: &RetryState,
    until: jiff::Timestamp,
) {
    plan.wake(Some(until));
    let Some(waiting) = &remembered.waiting else {
        return;
    };
    if waiting.reason != WaitingReason::ErrImagePull || remembered.pull_reported {
        return;
    }
    let (left, half) = (between(inputs.now, until), remembered.pulls.delay() / 2);
    if left > half {
        plan.wake(Some(after(inputs.now, left - half)));
        return;
    }
    let image = desired.spec.image.as_deref().unwrap_or_default();
    let error = &waiting.message;
    let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {error}");
    plan.wait(desired.name(), WaitingReason::ImagePullBackOff, &message);
    plan.act(Action::ReportPullBackOff { container: desired.name().to_owned(), message });
}

/// The restart count of the next container called `name`. If the runtime has forgotten its predecessors, the API's
/// status has not.
fn next_attempt(inputs: Inputs<'_>, name: &str, latest: Option<&Container>) -> u32 {
    if let Some(latest) = latest {
        return latest.attempt + 1;
    }
    let known = inputs.desired.container_status(name);
    known
        .filter(|status| status.container_id.is_some())
        .and_then(|status| u32::try_from(status.restart_count).ok())
        .map_or(0, |count| count + 1)
}

/// Ends a running container that is not as it should be.
fn watch(inputs: Inputs<'_>, plan: &mut Plan, desired: &DesiredContainer, container: &Container) {
    let name = desired.name();
    let failed = |kind| inputs.probes.get(&container.id, kind) == Some(false);
    let again = desired.restarts_after(KILLED);
    let (what, grace, again) = if container.hash != desired.hash && desired.kind != ContainerKind::Init {
        ("definition changed", inputs.desired.grace(), true)
    } else if inputs.state.restarting.contains(&container.id) {
        ("resize requires restart", inputs.desired.grace(), false)
    } else if failed(ProbeKind::Liveness) {
        let grace = probe_grace(inputs, desired.spec.liveness_probe.as_ref());
        ("failed liveness probe", grace, again)
    } else if failed(ProbeKind::Startup) {
        let grace = probe_grace(inputs, desired.spec.startup_probe.as_ref());
        ("failed startup probe", grace, again)
    } else {
        // Whatever made it end, goes on.
        if inputs.state.stopping.contains_key(&container.id) {
            end::stop(inputs, plan, container, None, inputs.desired.grace());
        } else if resize::is_needed(inputs.state, desired, container) {
            resize_container(inputs, plan, desired, container);
        }
        return;
    };
    let suffix = if again { ", will be restarted" } else { "" };
    let message = format!("Container {name} {what}{suffix}");
    end::stop(inputs, plan, container, Some(message), grace);
}

fn resize_container(inputs: Inputs<'_>, plan: &mut Plan, desired: &DesiredContainer, container: &Container) {
    let idle = Step::Idle;
    let step = inputs.state.retry(desired.name()).map_or(&idle, |retry| &retry.resize);
    if step.is_due(inputs.now) {
        plan.act(Action::ResizeContainer { id: container.id.clone(), container: desired.name().to_owned() });
    }
    plan.wake(step.wake_at(inputs.now));
}

fn probe_grace(inputs: Inputs<'_>, probe: Option<&Probe>) -> Duration {
    probe
        .and_then(|probe| probe.termination_grace_period_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(inputs.desired.grace(), Duration::from_secs)
}
