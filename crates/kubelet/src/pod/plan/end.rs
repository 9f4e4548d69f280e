//! Ending a pod: containers politely and in order, then its sandbox, then its traces.

use std::time::Duration;

use runtime::Container;

use super::{Action, Inputs, Plan};
use crate::pod::step::Step;
use crate::time::{after, between};
use crate::types::desired::ContainerKind;

/// How many containers of one name are kept while the pod lives: the last one and its predecessor.
const KEPT: usize = 2;

/// A container gets this much time after its pre-stop hook, however long that took (as upstream has it).
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// Ends what runs: ordinary containers at once, then sidecars in reverse order, then the sandbox.
pub(super) fn terminate(inputs: Inputs<'_>, plan: &mut Plan) {
    let Inputs { desired, runtime, state, .. } = inputs;
    // The higher, the earlier. Whatever is not a sidecar comes first.
    let turn_of = |container: &Container| {
        desired
            .inits()
            .filter(|init| init.kind == ContainerKind::Sidecar)
            .position(|sidecar| sidecar.name() == container.name)
            .unwrap_or(usize::MAX)
    };
    let turn = runtime.running().map(turn_of).max();
    for container in runtime.running() {
        begin(inputs, plan, container, None, state.grace());
        if Some(turn_of(container)) == turn {
            go_on(inputs, plan, container, state.grace());
        }
    }
    // A start under way may still bring a container to life.
    if turn.is_some() || state.making() {
        return;
    }
    for sandbox in runtime.sandboxes().iter().filter(|sandbox| sandbox.ready) {
        when_idle(inputs, plan, &sandbox.id, |id| Action::StopSandbox { id });
    }
}

/// Lets go of a pod in which nothing runs: its volumes at once, its object when somebody asked for its deletion.
pub(super) fn release(inputs: Inputs<'_>, plan: &mut Plan) {
    let Inputs { desired, state, now, .. } = inputs;
    if state.torn_down.is_due(now) && !state.volumes.is_busy() {
        plan.act(Action::TearDownVolumes);
    }
    plan.wake(state.torn_down.wake_at(now));
    plan.wake(state.failure.as_ref().and_then(|failure| failure.not_before).filter(|not_before| *not_before > now));
    if desired.deleting() && !desired.gone && state.torn_down.is_done() {
        if state.released.is_due(now) {
            plan.act(Action::Release);
        }
        plan.wake(state.released.wake_at(now));
    }
    collect(inputs, plan);
}

/// Removes all traces of the pod in the runtime.
pub(super) fn remove(inputs: Inputs<'_>, plan: &mut Plan) {
    for sandbox in inputs.runtime.sandboxes() {
        when_idle(inputs, plan, &sandbox.id, |id| Action::RemoveSandbox { id });
    }
}

/// Removes ended containers that nobody will ask for, and sandboxes that were replaced. What an evicted pod has used is given
/// back at once (upstream: `ShouldPodContentBeRemoved` in `pkg/kubelet/pod_workers.go`), before the API knows: on a full disk
/// the store takes no status until it is.
pub(super) fn collect(inputs: Inputs<'_>, plan: &mut Plan) {
    let Inputs { desired, runtime, state, .. } = inputs;
    // Until it is noted that the pod was evicted, its containers are what keeps it from being run again. Where the disk has no
    // room for that note, they make it.
    let noted = matches!(state.eviction_noted, Step::Done(()) | Step::Failed(_));
    let evicted = desired.evicted() || state.is_evicted() && noted;
    let mut kept: Vec<&str> = Vec::new();
    for container in &desired.containers {
        for (age, old) in runtime.history(container.name()).into_iter().enumerate() {
            if age < KEPT && !evicted && !state.reclaimed.contains(&old.id) {
                kept.push(&old.id);
            } else if old.state.is_exited() {
                discard(inputs, plan, &old.id);
            }
        }
    }
    for sandbox in runtime.sandboxes().iter().skip(1) {
        let in_use = sandbox
            .containers
            .iter()
            .any(|container| container.state.is_running() || kept.contains(&container.id.as_str()));
        if sandbox.ready {
            when_idle(inputs, plan, &sandbox.id, |id| Action::StopSandbox { id });
        } else if !in_use {
            when_idle(inputs, plan, &sandbox.id, |id| Action::RemoveSandbox { id });
        }
    }
}

/// Removes one container.
pub(super) fn discard(inputs: Inputs<'_>, plan: &mut Plan, id: &str) {
    when_idle(inputs, plan, id, |id| Action::RemoveContainer { id });
}

/// Begins to end one container, or goes on with it.
pub(super) fn stop(
    inputs: Inputs<'_>,
    plan: &mut Plan,
    container: &Container,
    message: Option<String>,
    grace: Duration,
) {
    begin(inputs, plan, container, message, grace);
    go_on(inputs, plan, container, grace);
}

fn begin(inputs: Inputs<'_>, plan: &mut Plan, container: &Container, message: Option<String>, grace: Duration) {
    if !inputs.state.stopping.contains_key(&container.id) {
        let name = &container.name;
        plan.act(Action::BeginStop {
            id: container.id.clone(),
            container: name.clone(),
            message: message.unwrap_or_else(|| format!("Stopping container {name}")),
            grace,
        });
    }
}

/// Signals a container whose pre-stop hook has ended; again if the grace became shorter meanwhile.
fn go_on(inputs: Inputs<'_>, plan: &mut Plan, container: &Container, grace: Duration) {
    let Some(stopping) = inputs.state.stopping.get(&container.id) else {
        return;
    };
    let grace = grace.min(stopping.grace);
    let left = grace.saturating_sub(between(stopping.since, inputs.now));
    if stopping.hook && !left.is_zero() {
        plan.wake(Some(after(stopping.since, grace)));
        return;
    }
    if let Some(retry) = stopping.retry_at
        && retry > inputs.now
    {
        plan.wake(Some(retry));
        return;
    }
    if stopping.stop.is_none_or(|given| grace < given) {
        plan.act(Action::StopContainer { id: container.id.clone(), left: left.max(LEAST_GRACE.min(grace)), grace });
    }
}

fn when_idle(inputs: Inputs<'_>, plan: &mut Plan, id: &str, action: impl Fn(String) -> Action) {
    let state = inputs.state;
    match state.retry_at.get(id) {
        _ if state.busy.contains(id) => {}
        Some(retry) if *retry > inputs.now => plan.wake(Some(*retry)),
        _ => plan.act(action(id.to_owned())),
    }
}
