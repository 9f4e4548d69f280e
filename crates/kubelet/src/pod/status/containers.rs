//! The status of one container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use runtime::{Container, ContainerState, TerminationReason};

use super::Facts;
use crate::pod::plan::{Inputs, Stage, has_started};
use crate::pod::resize;
use crate::probes::ProbeKind;
use crate::time::api_time;
use crate::types::desired::{ContainerKind, DesiredContainer};
use crate::types::waiting::WaitingReason;

pub(super) fn status(inputs: Inputs<'_>, facts: Facts<'_>, desired: &DesiredContainer) -> ContainerStatus {
    let history = inputs.runtime.history(desired.name());
    let known = inputs.desired.container_status(desired.name());
    let Some(latest) = history.first() else {
        return never_made(inputs, facts, desired, known);
    };
    let mut status = ContainerStatus {
        name: desired.name().to_owned(),
        image: latest.image.clone(),
        image_id: latest.image_id.clone(),
        container_id: Some(format!("{}://{}", facts.runtime, latest.id)),
        restart_count: i32::try_from(latest.attempt).unwrap_or(i32::MAX),
        last_state: history
            .get(1)
            .and_then(|previous| terminated(facts, previous))
            .map(|ended| ApiState { terminated: Some(ended), ..ApiState::default() })
            // The one before the last may be gone from the runtime, but its end is in the API.
            .or_else(|| known.and_then(|known| same_container(known, facts, latest))),
        ..ContainerStatus::default()
    };
    let waiting = facts.waiting.get(desired.name());
    status.state = Some(match (&latest.state, waiting) {
        (ContainerState::Running { started }, _) => ApiState {
            running: Some(ContainerStateRunning { started_at: Some(api_time(*started)) }),
            ..ApiState::default()
        },
        (ContainerState::Exited { .. }, Some(waiting)) => {
            status.last_state =
                terminated(facts, latest).map(|ended| ApiState { terminated: Some(ended), ..ApiState::default() });
            waiting_state(waiting.reason, &waiting.message)
        }
        (ContainerState::Exited { .. }, None) => {
            ApiState { terminated: terminated(facts, latest), ..ApiState::default() }
        }
        (ContainerState::Created | ContainerState::Unknown, Some(waiting)) => {
            waiting_state(waiting.reason, &waiting.message)
        }
        (ContainerState::Created | ContainerState::Unknown, None) => waiting_state(default_reason(inputs), ""),
    });
    let started = has_started(inputs, desired, latest);
    status.started = Some(started);
    status.ready = match desired.kind {
        ContainerKind::Init => matches!(latest.state, ContainerState::Exited { exit_code: 0, .. }),
        _ => {
            let probed = desired.spec.readiness_probe.is_none()
                || inputs.probes.get(&latest.id, ProbeKind::Readiness) == Some(true);
            started && probed
        }
    };
    // Upstream: `convertContainerStatusResources` in `pkg/kubelet/kubelet_pods.go`.
    status.resources = match latest.state.is_running() {
        true => resize::applied(inputs.state, desired, latest).cloned(),
        false => desired.spec.resources.clone(),
    };
    status.allocated_resources = requests(desired);
    status.volume_mounts = volume_mounts(desired);
    status
}

/// The state of a container of which the runtime has nothing.
fn never_made(
    inputs: Inputs<'_>,
    facts: Facts<'_>,
    desired: &DesiredContainer,
    known: Option<&ContainerStatus>,
) -> ContainerStatus {
    // What ended and was cleaned away stays as it was last seen; so does everything of a pod that has ended.
    if let Some(known) = seen_to_end(inputs, facts, desired).or(known) {
        let state = known.state.as_ref();
        let ended = state.and_then(|state| state.terminated.as_ref());
        let over = ended.is_some_and(|ended| !desired.restarts_after(ended.exit_code));
        if over || (ended.is_some() && facts.stage >= Stage::Terminating) {
            return known.clone();
        }
        let ran = state.is_some_and(|state| state.running.is_some());
        if ran && facts.stage >= Stage::Terminating {
            return lost(known);
        }
    }
    let (reason, message) = match facts.waiting.get(desired.name()) {
        Some(waiting) => (waiting.reason, waiting.message.as_str()),
        None => (default_reason(inputs), ""),
    };
    ContainerStatus {
        name: desired.name().to_owned(),
        image: desired.spec.image.clone().unwrap_or_default(),
        image_id: String::new(),
        state: Some(waiting_state(reason, message)),
        // A container that the runtime lost has been run before, and will be counted on from there.
        last_state: known.and_then(|known| known.last_state.clone()),
        restart_count: known.map_or(0, |known| known.restart_count),
        started: Some(false),
        ready: false,
        volume_mounts: volume_mounts(desired),
        // Else the scheduler would go by what it asks for (which upstream leaves it to).
        resources: desired.spec.resources.clone().filter(|_| has_other(inputs, desired)),
        allocated_resources: requests(desired).filter(|_| has_other(inputs, desired)),
        ..ContainerStatus::default()
    }
}

/// Whether something else is allocated to a container than it asks for.
fn has_other(inputs: Inputs<'_>, desired: &DesiredContainer) -> bool {
    desired.is_resizable() && inputs.desired.has_unallocated_resize()
}

/// What is allocated to a container.
fn requests(desired: &DesiredContainer) -> Option<BTreeMap<String, Quantity>> {
    desired.spec.resources.as_ref()?.requests.clone()
}

/// The status of a container that has ended in a pod that ends, as computed before it was cleaned away: the API may not know.
fn seen_to_end<'a>(inputs: Inputs<'a>, facts: Facts<'_>, desired: &DesiredContainer) -> Option<&'a ContainerStatus> {
    let status = &inputs.state.status;
    let apps = status.container_statuses.iter().chain(&status.init_container_statuses);
    let mut all = apps.chain(&status.ephemeral_container_statuses).flatten();
    let has_ended = |known: &ContainerStatus| known.state.as_ref().is_some_and(|state| state.terminated.is_some());
    all.find(|known| known.name == desired.name() && facts.stage >= Stage::Terminating && has_ended(known))
}

/// A container that ran when the API was last told, and of which the runtime has no trace.
fn lost(known: &ContainerStatus) -> ContainerStatus {
    let message = "The container could not be located when the pod was deleted.  The container used to be Running";
    ContainerStatus {
        state: Some(ApiState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some(TerminationReason::ContainerStatusUnknown.as_str().to_owned()),
                message: Some(message.to_owned()),
                ..ContainerStateTerminated::default()
            }),
            ..ApiState::default()
        }),
        ready: false,
        started: Some(false),
        ..known.clone()
    }
}

/// The last state in the API, if it told of the predecessor of this very container.
fn same_container(known: &ContainerStatus, facts: Facts<'_>, latest: &Container) -> Option<ApiState> {
    let id = format!("{}://{}", facts.runtime, latest.id);
    if known.container_id.as_ref() == Some(&id) {
        let last = known.last_state.clone()?;
        // While it waits for its restart, its own end is shown as the last state.
        let own = last.terminated.as_ref().is_some_and(|ended| ended.container_id.as_ref() == Some(&id));
        return Some(last).filter(|_| !own);
    }
    // The API still shows the predecessor itself.
    let ended = known.state.as_ref()?.terminated.clone()?;
    Some(ApiState { terminated: Some(ended), ..ApiState::default() })
}

fn terminated(facts: Facts<'_>, container: &Container) -> Option<ContainerStateTerminated> {
    let ContainerState::Exited { exit_code, reason, message, started, finished } = &container.state else {
        return None;
    };
    let termination_message = facts.messages.get(&container.id).unwrap_or(message);
    Some(ContainerStateTerminated {
        exit_code: *exit_code,
        reason: Some(reason.as_str().to_owned()),
        message: Some(termination_message.clone()).filter(|message| !message.is_empty()),
        // A container that never started has the beginning of the Unix era here, as upstream has it.
        started_at: Some(api_time(started.unwrap_or(jiff::Timestamp::UNIX_EPOCH))),
        finished_at: Some(api_time(*finished)),
        container_id: Some(format!("{}://{}", facts.runtime, container.id)),
        ..ContainerStateTerminated::default()
    })
}

fn default_reason(inputs: Inputs<'_>) -> WaitingReason {
    match inputs.desired.inits().next() {
        Some(_) => WaitingReason::PodInitializing,
        None => WaitingReason::ContainerCreating,
    }
}

fn waiting_state(reason: WaitingReason, message: &str) -> ApiState {
    ApiState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_string()),
            message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        }),
        ..ApiState::default()
    }
}

fn volume_mounts(desired: &DesiredContainer) -> Option<Vec<VolumeMountStatus>> {
    let mounts = desired.spec.volume_mounts.as_ref()?;
    let status = |mount: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount.read_only.filter(|read_only| *read_only).map(|_| {
            let enabled = mount.recursive_read_only.as_deref() == Some("Enabled");
            if enabled { "Enabled" } else { "Disabled" }.to_owned()
        }),
        ..VolumeMountStatus::default()
    };
    Some(mounts.iter().map(status).collect())
}
