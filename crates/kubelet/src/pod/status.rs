//! A pod's status, computed as upstream's kubelet writes it. Pure.

mod conditions;
mod containers;
mod patch;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, PodIP, PodStatus};
use machinery::phase::PodPhase;

use super::plan::{Inputs, Stage, deadline_exceeded};
use crate::time::api_time;
use crate::types::desired::{ContainerKind, DesiredContainer, RestartPolicy};
use crate::types::failure::FailureKind;
use crate::types::waiting::Waiting;
use crate::values::resources::qos_class;

pub(crate) use patch::{differs, patch, urgent};

/// Reason and message of a pod that was active for longer than its `activeDeadlineSeconds` (upstream:
/// `pkg/kubelet/active_deadline.go`).
pub(crate) const DEADLINE_EXCEEDED: (&str, &str) =
    ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");

/// The most that all messages of one pod's ended containers may take together, in bytes (upstream:
/// `MaxPodTerminationMessageLogLength` in `pkg/kubelet/container/runtime.go`).
const TERMINATION_MESSAGES: usize = 12 << 10;

/// What else a status depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// Where the pod is.
    pub(crate) stage: Stage,
    /// By name of container: why it does not run.
    pub(crate) waiting: &'a BTreeMap<String, Waiting>,
    /// By id of an ended container: its last words.
    pub(crate) messages: &'a BTreeMap<String, String>,
    /// The node's address.
    pub(crate) node_ip: IpAddr,
    /// Scheme of container ids: `docker`.
    pub(crate) runtime: &'a str,
}

/// Computes the status.
pub(crate) fn compute(inputs: Inputs<'_>, facts: Facts<'_>) -> PodStatus {
    let Inputs { desired, state, .. } = inputs;
    let old = desired.status().cloned().unwrap_or_default();
    if state.failure.as_ref().is_some_and(|failure| failure.is_held_back(inputs.now)) && !desired.deleting() {
        return old;
    }
    let container = |container: &DesiredContainer| containers::status(inputs, facts, container);
    let mut inits: Vec<ContainerStatus> = desired.inits().map(container).collect();
    let mut apps: Vec<ContainerStatus> = desired.apps().map(container).collect();
    let mut ephemerals: Vec<ContainerStatus> = desired.ephemerals().map(container).collect();
    limit_messages([&mut inits, &mut apps, &mut ephemerals]);
    // Nothing waits to be made.
    if state.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Rejected) {
        (inits, apps, ephemerals) = (Vec::new(), Vec::new(), Vec::new());
    }

    let mut status = PodStatus {
        observed_generation: desired.pod.metadata.generation,
        qos_class: desired.spec().map(|spec| qos_class(spec).to_owned()),
        host_ip: Some(facts.node_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: facts.node_ip.to_string() }]),
        start_time: old.start_time.clone().or_else(|| Some(api_time(state.start_time))),
        reason: old.reason.clone(),
        message: old.message.clone(),
        ..PodStatus::default()
    };
    status.phase = Some(if desired.ended() {
        // A pod never comes back from its end.
        old.phase.clone().unwrap_or_default()
    } else if facts.stage < Stage::Terminated {
        // Nobody may take its place while something of it still runs, and only then is it known how it ended (upstream:
        // `mergePodStatus` in `pkg/kubelet/status/status_manager.go`).
        match phase(inputs, &inits, &apps, false) {
            phase if phase.is_terminal() => old.phase.clone().unwrap_or_else(|| PodPhase::Pending.to_string()),
            phase => phase.to_string(),
        }
    } else if let Some(failure) = &state.failure {
        status.reason = Some(failure.reason.to_string());
        status.message = Some(failure.status_message());
        PodPhase::Failed.to_string()
    } else if deadline_exceeded(inputs) {
        let (reason, message) = DEADLINE_EXCEEDED;
        status.reason = Some(reason.to_owned());
        status.message = Some(message.to_owned());
        PodPhase::Failed.to_string()
    } else {
        phase(inputs, &inits, &apps, true).to_string()
    });
    addresses(inputs, facts, &old, &mut status);
    status.conditions = Some(conditions::compute(inputs, &old, &status, &inits, &apps));
    status.init_container_statuses = Some(inits).filter(|inits| !inits.is_empty());
    status.container_statuses = Some(apps).filter(|apps| !apps.is_empty());
    status.ephemeral_container_statuses = Some(ephemerals).filter(|ephemerals| !ephemerals.is_empty());
    status
}

/// Cuts the messages of ended containers, each to an equal share (upstream: `normalizeStatus` of
/// `pkg/kubelet/status/status_manager.go`).
fn limit_messages(statuses: [&mut Vec<ContainerStatus>; 3]) {
    let containers: usize = statuses.iter().map(|statuses| statuses.len()).sum();
    let share = TERMINATION_MESSAGES / containers.max(1);
    for status in statuses.into_iter().flatten() {
        for state in [&mut status.state, &mut status.last_state].into_iter().flatten() {
            if let Some(message) = state.terminated.as_mut().and_then(|ended| ended.message.as_mut()) {
                message.truncate(message.floor_char_boundary(share));
            }
        }
    }
}

/// A pod keeps its addresses in its status after its sandbox has gone.
fn addresses(inputs: Inputs<'_>, facts: Facts<'_>, old: &PodStatus, status: &mut PodStatus) {
    let sandbox = inputs.runtime.ready_sandbox();
    let ips: Vec<IpAddr> = match sandbox {
        Some(sandbox) if sandbox.host_network => vec![facts.node_ip],
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    };
    if ips.is_empty() {
        status.pod_ip.clone_from(&old.pod_ip);
        status.pod_ips.clone_from(&old.pod_ips);
        return;
    }
    status.pod_ip = ips.first().map(ToString::to_string);
    let pod_ip = |ip: &IpAddr| PodIP { ip: ip.to_string() };
    status.pod_ips = Some(ips.iter().map(pod_ip).collect());
}

/// The phase, from the containers' states (upstream: `getPhase` in `pkg/kubelet/kubelet_pods.go`).
fn phase(inputs: Inputs<'_>, inits: &[ContainerStatus], apps: &[ContainerStatus], ended: bool) -> PodPhase {
    let desired = inputs.desired;
    let mut initializing = false;
    for (init, status) in desired.inits().zip(inits) {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.clone().unwrap_or_default();
        let ended = state.terminated.or(state.waiting.as_ref().and(last.terminated));
        match (init.kind, ended) {
            (ContainerKind::Init, Some(ended)) if ended.exit_code == 0 => {}
            (ContainerKind::Init, Some(_)) if desired.restart_policy == RestartPolicy::Never => {
                return PodPhase::Failed;
            }
            (ContainerKind::Init, _) => initializing = true,
            _ => initializing |= status.started != Some(true),
        }
    }
    let has_run = |status: &ContainerStatus| {
        let ran = status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some());
        ran || status.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
    };
    // A sidecar that restarts does not take an initialized pod back.
    if initializing && !apps.iter().any(has_run) {
        return match ended {
            true => PodPhase::Failed,
            false => PodPhase::Pending,
        };
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in apps {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.clone().unwrap_or_default();
        if state.running.is_some() {
            running += 1;
        } else if let Some(ended) = state.terminated {
            stopped += 1;
            succeeded += usize::from(ended.exit_code == 0);
        } else if last.terminated.is_some() {
            stopped += 1;
        } else {
            waiting += 1;
        }
    }
    if ended && running == 0 {
        // What never ran has not succeeded.
        return match waiting == 0 && stopped == succeeded && stopped > 0 {
            true => PodPhase::Succeeded,
            false => PodPhase::Failed,
        };
    }
    match desired.restart_policy {
        _ if waiting > 0 => PodPhase::Pending,
        _ if running > 0 => PodPhase::Running,
        _ if stopped == 0 => PodPhase::Pending,
        RestartPolicy::Always => PodPhase::Running,
        _ if stopped == succeeded => PodPhase::Succeeded,
        RestartPolicy::Never => PodPhase::Failed,
        RestartPolicy::OnFailure => PodPhase::Running,
    }
}

#[cfg(test)]
mod tests;
