//! A pod's conditions.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};

use machinery::phase::{ConditionStatus, PodPhase};

use crate::pod::plan::Inputs;
use crate::pod::resize::{self, Unfinished};
use crate::time::api_time;
use crate::types::desired::ContainerKind;
use crate::types::failure::FailureKind;

/// One condition without its times.
struct Verdict {
    type_: &'static str,
    /// `None` when true, else reason and message.
    obstacle: Option<(&'static str, String)>,
    /// The reason shown although it is true.
    reason: Option<&'static str>,
}

pub(super) fn compute(
    inputs: Inputs<'_>,
    old: &PodStatus,
    new: &PodStatus,
    inits: &[ContainerStatus],
    apps: &[ContainerStatus],
) -> Vec<PodCondition> {
    let phase = new.phase.as_deref().and_then(PodPhase::parse);
    let containers_ready = containers_ready(phase, inputs, inits, apps);
    let ready = match &containers_ready {
        Some(obstacle) => Some(obstacle.clone()),
        None => readiness_gates(inputs, old),
    };
    let initialized = initialized(phase, inputs, inits, apps);
    let verdicts = [
        Verdict {
            type_: "PodReadyToStartContainers",
            obstacle: match inputs.runtime.ready_sandbox() {
                Some(_) => None,
                None => Some(("", String::new())),
            },
            reason: None,
        },
        Verdict {
            type_: "Initialized",
            reason: (phase == Some(PodPhase::Succeeded)).then_some("PodCompleted"),
            obstacle: initialized,
        },
        Verdict { type_: "Ready", obstacle: ready, reason: None },
        Verdict { type_: "ContainersReady", obstacle: containers_ready, reason: None },
        Verdict { type_: "PodScheduled", obstacle: None, reason: None },
    ];
    let mut conditions: Vec<PodCondition> =
        verdicts.into_iter().map(|verdict| of_verdict(inputs, old, verdict)).collect();
    conditions.extend(disruption_target(inputs, old, phase));
    conditions.extend(unfinished_resizes(inputs, old));
    // Conditions of others stay as they are.
    let others = old
        .conditions
        .iter()
        .flatten()
        .filter(|other| !RESIZE.contains(&other.type_.as_str()))
        .filter(|other| conditions.iter().all(|condition| condition.type_ != other.type_));
    let others: Vec<PodCondition> = others.cloned().collect();
    conditions.extend(others);
    conditions
}

/// Tells controllers that a pod did not fail by itself (upstream: `pkg/kubelet/eviction/eviction_manager.go`).
fn disruption_target(inputs: Inputs<'_>, old: &PodStatus, phase: Option<PodPhase>) -> Option<PodCondition> {
    const TYPE: &str = "DisruptionTarget";
    let failure = inputs.state.failure.as_ref().filter(|failure| failure.kind == FailureKind::Evicted)?;
    if phase != Some(PodPhase::Failed) {
        return None;
    }
    let (reason, message) = ("TerminationByKubelet", failure.message.clone());
    Some(condition(inputs, old, TYPE, ConditionStatus::True, reason, message))
}

/// The conditions of resizes, which are there only while one is not done.
pub(super) const RESIZE: [&str; 2] = [resize::PENDING, resize::IN_PROGRESS];

fn unfinished_resizes(inputs: Inputs<'_>, old: &PodStatus) -> Vec<PodCondition> {
    let state = inputs.state;
    let all = inputs.desired.containers.iter().filter_map(|desired| {
        let latest = inputs.runtime.latest(desired.name())?;
        let why = state.retry(desired.name())?.unfinished.as_ref()?;
        resize::is_needed(state, desired, latest).then_some(why)
    });
    // Who takes the request back has what it asks for.
    let pending = state.pending_resize.as_ref().filter(|_| inputs.desired.has_unallocated_resize());
    let of = |type_: &str| pending.into_iter().chain(all.clone()).find(|why| why.condition == type_);
    let told = |why: &Unfinished| {
        condition(inputs, old, why.condition, ConditionStatus::True, why.reason, why.message.clone())
    };
    RESIZE.into_iter().filter_map(of).map(told).collect()
}

fn of_verdict(inputs: Inputs<'_>, old: &PodStatus, verdict: Verdict) -> PodCondition {
    let (status, reason, message) = match verdict.obstacle {
        None => (ConditionStatus::True, verdict.reason.unwrap_or_default(), String::new()),
        Some((reason, message)) => (ConditionStatus::False, reason, message),
    };
    condition(inputs, old, verdict.type_, status, reason, message)
}

/// The time of a condition moves only when its status does.
fn condition(
    inputs: Inputs<'_>,
    old: &PodStatus,
    type_: &str,
    status: ConditionStatus,
    reason: &str,
    message: String,
) -> PodCondition {
    let known = old.conditions.iter().flatten().find(|known| known.type_ == type_ && known.status == status);
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_string(),
        reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        message: Some(message).filter(|message| !message.is_empty()),
        last_probe_time: None,
        last_transition_time: known
            .and_then(|known| known.last_transition_time.clone())
            .or_else(|| Some(api_time(inputs.now))),
        observed_generation: inputs.desired.pod.metadata.generation,
    }
}

fn names(statuses: &[&ContainerStatus]) -> String {
    let names: Vec<&str> = statuses.iter().map(|status| status.name.as_str()).collect();
    format!("[{}]", names.join(" "))
}

fn initialized(
    phase: Option<PodPhase>,
    inputs: Inputs<'_>,
    inits: &[ContainerStatus],
    apps: &[ContainerStatus],
) -> Option<(&'static str, String)> {
    let started = |status: &ContainerStatus| {
        status.restart_count > 0
            || status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    if phase == Some(PodPhase::Succeeded) || apps.iter().any(started) {
        return None;
    }
    let incomplete: Vec<&ContainerStatus> = inputs
        .desired
        .inits()
        .zip(inits)
        .filter(|(desired, status)| match desired.kind {
            ContainerKind::Init => !status.ready,
            _ => status.started != Some(true),
        })
        .map(|(_, status)| status)
        .collect();
    (!incomplete.is_empty()).then(|| {
        let names = names(&incomplete);
        ("ContainersNotInitialized", format!("containers with incomplete status: {names}"))
    })
}

fn containers_ready(
    phase: Option<PodPhase>,
    inputs: Inputs<'_>,
    inits: &[ContainerStatus],
    apps: &[ContainerStatus],
) -> Option<(&'static str, String)> {
    match phase {
        Some(PodPhase::Succeeded) => return Some(("PodCompleted", String::new())),
        Some(PodPhase::Failed) => return Some(("PodFailed", String::new())),
        _ => {}
    }
    let sidecars = inputs
        .desired
        .inits()
        .zip(inits)
        .filter(|(desired, _)| desired.kind == ContainerKind::Sidecar)
        .map(|(_, status)| status);
    let unready: Vec<&ContainerStatus> = sidecars.chain(apps).filter(|status| !status.ready).collect();
    (!unready.is_empty()).then(|| {
        let names = names(&unready);
        ("ContainersNotReady", format!("containers with unready status: {names}"))
    })
}

fn readiness_gates(inputs: Inputs<'_>, old: &PodStatus) -> Option<(&'static str, String)> {
    let gates = inputs.desired.spec().and_then(|spec| spec.readiness_gates.as_ref())?;
    let obstacles: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let gate = &gate.condition_type;
            let mut conditions = old.conditions.iter().flatten();
            match conditions.find(|condition| condition.type_ == *gate) {
                None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
                Some(condition) if condition.status != ConditionStatus::True => Some(format!(
                    "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    (!obstacles.is_empty()).then(|| {
        let mut message = obstacles.join(", ");
        if obstacles.len() > 1 {
            message = format!("[{message}]");
        }
        ("ReadinessGatesNotReady", message)
    })
}
