//! The decision: what to do next for one pod. Pure, without a clock of its own.
//!
//! [`stage`] says where in its life the pod is, [`plan`] what follows from that. Whoever carries out the actions makes
//! no choices; everything that happens comes back as a changed input.

mod end;
mod sync;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use runtime::{Container, ContainerState};

use super::state::PodState;
use crate::probes::{ProbeKind, ProbeResults};
use crate::types::desired::{ContainerKind, DesiredContainer, DesiredPod};
use crate::types::observed::Observed;
use crate::types::waiting::{Waiting, WaitingReason};

/// Where in its life a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It is made to be as desired.
    Syncing,
    /// What runs is ended, politely.
    Terminating,
    /// Nothing runs any more. What has ended is kept for its logs, until somebody deletes the pod.
    Terminated,
    /// Its traces in the runtime are removed.
    Removing,
    /// Nothing is left; the worker ends.
    Gone,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Put the volumes in place.
    SetUpVolumes,
    /// Make and start a sandbox.
    CreateSandbox {
        /// How many there were before.
        attempt: u32,
    },
    /// Make sure that a container's image is present, pulling it as its policy asks.
    EnsureImage {
        /// Name of the container.
        container: String,
    },
    /// Create and start a container.
    StartContainer {
        /// Its name.
        container: String,
        /// How many there were before: its restart count.
        attempt: u32,
    },
    /// Tell people that a container which ended waits for its back-off.
    ReportBackOff {
        /// Its name.
        container: String,
        /// Id of the ended one.
        ended: String,
        /// The waiting state's message.
        message: String,
    },
    /// Tell people that a failed pull waits for its back-off.
    ReportPullBackOff {
        /// Name of the container.
        container: String,
        /// The waiting state's message.
        message: String,
    },
    /// Note that a container is to end, tell people why, and run its pre-stop hook.
    BeginStop {
        /// Its id.
        id: String,
        /// Its name.
        container: String,
        /// Why.
        message: String,
        /// How long its end may take.
        grace: Duration,
    },
    /// Signal a container to end, and kill it after the grace.
    StopContainer {
        /// Its id.
        id: String,
        /// What is left of the grace.
        left: Duration,
        /// The grace it is left of.
        grace: Duration,
    },
    /// Allocate to containers what they ask for, or say why not.
    AllocateResources,
    /// Give a running container what is allocated to it.
    ResizeContainer {
        /// Its id.
        id: String,
        /// Its name.
        container: String,
    },
    /// Remove an ended container.
    RemoveContainer {
        /// Its id.
        id: String,
    },
    /// Stop a sandbox.
    StopSandbox {
        /// Its id.
        id: String,
    },
    /// Remove a sandbox with its containers.
    RemoveSandbox {
        /// Its id.
        id: String,
    },
    /// Tell people that the pod has run for longer than `activeDeadlineSeconds`, and remember it.
    ExceedDeadline,
    /// Note on disk that the pod was evicted.
    NoteEviction,
    /// Take the volumes away.
    TearDownVolumes,
    /// Write the last status and let go of the API's object.
    Release,
}

/// What is to be done, and when to ask again if nothing happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Where the pod is.
    pub(crate) stage: Stage,
    /// What to do, all of it at the same time.
    pub(crate) actions: Vec<Action>,
    /// By name of container: why it does not run.
    pub(crate) waiting: BTreeMap<String, Waiting>,
    /// When the answer would change by itself.
    pub(crate) wake_at: Option<Timestamp>,
}

/// All that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// What should be.
    pub(crate) desired: &'a DesiredPod,
    /// What is.
    pub(crate) runtime: &'a Observed,
    /// How it is.
    pub(crate) probes: &'a ProbeResults,
    /// What was tried.
    pub(crate) state: &'a PodState,
    /// The time.
    pub(crate) now: Timestamp,
}

impl<'a> Inputs<'a> {
    /// What follows from `state` at `now`.
    pub(crate) fn new(state: &'a PodState, now: Timestamp) -> Self {
        Self { desired: &state.desired, runtime: &state.runtime, probes: &state.probes, state, now }
    }
}

/// Decides what to do next.
pub(crate) fn plan(inputs: Inputs<'_>) -> Plan {
    let mut plan = Plan { stage: stage(inputs), actions: Vec::new(), waiting: BTreeMap::new(), wake_at: None };
    if deadline_exceeded(inputs) && !inputs.state.deadline_exceeded && !inputs.desired.ended() {
        plan.act(Action::ExceedDeadline);
    }
    if inputs.state.is_evicted() && !inputs.desired.ended() && !inputs.desired.deleting() {
        let noted = &inputs.state.eviction_noted;
        if noted.is_due(inputs.now) {
            plan.act(Action::NoteEviction);
        }
        plan.wake(noted.wake_at(inputs.now));
    }
    match plan.stage {
        Stage::Syncing => sync::plan(inputs, &mut plan),
        Stage::Terminating => end::terminate(inputs, &mut plan),
        Stage::Terminated => end::release(inputs, &mut plan),
        Stage::Removing => end::remove(inputs, &mut plan),
        Stage::Gone => {}
    }
    plan
}

/// Where the pod is: the one transition function.
pub(crate) fn stage(inputs: Inputs<'_>) -> Stage {
    let Inputs { desired, runtime, state, .. } = inputs;
    let ending = desired.deleting()
        || desired.ended()
        || state.failure.is_some()
        || deadline_exceeded(inputs)
        || has_completed(inputs);
    if !ending {
        return Stage::Syncing;
    }
    let alive =
        runtime.running().next().is_some() || runtime.sandboxes().iter().any(|sandbox| sandbox.ready) || state.making();
    if alive {
        return Stage::Terminating;
    }
    let released = desired.gone || state.released.is_done();
    if !released || !state.torn_down.is_done() {
        return Stage::Terminated;
    }
    if runtime.is_empty() { Stage::Gone } else { Stage::Removing }
}

/// When the pod's `activeDeadlineSeconds` are over.
fn deadline(inputs: Inputs<'_>) -> Option<Timestamp> {
    inputs.desired.deadline(inputs.state.start_time)
}

/// Whether the pod was still active when its `activeDeadlineSeconds` were over: then it has failed, whatever its
/// containers exit with. That follows from the clock and from when they ended, so that a restart of this process in
/// between changes nothing. (Upstream, `pkg/kubelet/active_deadline.go`, asks the clock alone, and so fails a pod that
/// completed in time while no kubelet was there to see it.)
pub(crate) fn deadline_exceeded(inputs: Inputs<'_>) -> bool {
    if inputs.state.deadline_exceeded {
        return true;
    }
    let Some(deadline) = deadline(inputs).filter(|deadline| *deadline <= inputs.now) else {
        return false;
    };
    let in_time = |desired: &DesiredContainer| {
        let state = inputs.runtime.latest(desired.name()).map(|container| &container.state);
        !matches!(state, Some(ContainerState::Exited { finished, .. }) if *finished >= deadline)
    };
    // Sidecars end after the pod has completed.
    !has_completed(inputs) || !inputs.desired.apps().chain(inputs.desired.inits_to_end()).all(in_time)
}

/// Whether all containers have ended and none is to be started again.
pub(crate) fn has_completed(inputs: Inputs<'_>) -> bool {
    if initialization(inputs) == Initialization::Failed {
        return true;
    }
    let mut apps = inputs.desired.apps().peekable();
    apps.peek().is_some()
        && apps.all(|app| inputs.runtime.latest(app.name()).is_some_and(|container| is_over(inputs, app, container)))
}

/// Whether a container has ended and is not to be started again. One that was ended to be started with other resources has not
/// completed, whatever it exits with.
fn is_over(inputs: Inputs<'_>, desired: &DesiredContainer, container: &Container) -> bool {
    !inputs.state.restarting.contains(&container.id)
        && matches!(&container.state, ContainerState::Exited { exit_code, .. } if !desired.restarts_after(*exit_code))
}

/// How far the init containers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Initialization {
    /// Not all have done their work.
    Pending,
    /// All have; the sidecars among them have started.
    Done,
    /// One failed, and is not to be started again.
    Failed,
}

/// How far the init containers are in the newest sandbox.
pub(crate) fn initialization(inputs: Inputs<'_>) -> Initialization {
    let Inputs { desired, runtime, .. } = inputs;
    // An app container in this sandbox proves it, even if an init container was removed since.
    if desired.apps().any(|app| runtime.current(app.name()).is_some()) {
        return Initialization::Done;
    }
    for init in desired.inits() {
        let container = match init.kind {
            // A failed one counts from whatever sandbox: without a restart there is no new sandbox.
            ContainerKind::Init => runtime.latest(init.name()),
            _ => runtime.current(init.name()),
        };
        let Some(container) = container else {
            return Initialization::Pending;
        };
        match (init.kind, &container.state) {
            (ContainerKind::Init, ContainerState::Exited { exit_code: 0, .. })
                if runtime.current(init.name()).is_some() => {}
            (ContainerKind::Init, ContainerState::Exited { exit_code, .. })
                if *exit_code != 0 && !init.restarts_after(*exit_code) =>
            {
                return Initialization::Failed;
            }
            (ContainerKind::Sidecar, ContainerState::Running { .. }) if has_started(inputs, init, container) => {}
            _ => return Initialization::Pending,
        }
    }
    Initialization::Done
}

/// Whether a container runs and its startup probe, if it has one, has succeeded.
pub(crate) fn has_started(inputs: Inputs<'_>, desired: &DesiredContainer, container: &Container) -> bool {
    if !container.state.is_running() {
        return false;
    }
    // Until its post-start hook has ended a container has not started.
    let starting = inputs.state.retry(desired.name()).is_some_and(|retry| retry.start.is_busy());
    let probed =
        desired.spec.startup_probe.is_none() || inputs.probes.get(&container.id, ProbeKind::Startup) == Some(true);
    probed && !starting
}

impl Plan {
    fn act(&mut self, action: Action) {
        if !self.actions.contains(&action) {
            self.actions.push(action);
        }
    }

    fn wake(&mut self, at: Option<Timestamp>) {
        self.wake_at = [self.wake_at, at].into_iter().flatten().min();
    }

    fn wait(&mut self, container: &str, reason: WaitingReason, message: &str) {
        self.waiting.insert(container.to_owned(), Waiting::new(reason, message));
    }
}

#[cfg(test)]
mod tests;
