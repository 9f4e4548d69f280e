//! The status of a pod on a fake node.
//!
//! ```text
//!   bound ──► Running, Ready ──► deleted: gone at once
//!                  ├─ of a Job ──► Succeeded
//!                  └─ active for longer than its deadline ──► Failed
//! ```
//!
//! Of whose stages somebody has said something, [`staged`] decides.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use machinery::phase::{ConditionStatus, PodPhase};
use runtime::TerminationReason;
use serde_json::{Value, json};

use super::staged;
use super::stages::Stages;
use crate::pod::status::DEADLINE_EXCEEDED;
use crate::time::{after, api_time, between};

/// What is to be done for a pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PodAction {
    /// All is as it should be.
    Nothing,
    /// Look again then.
    Later(Duration),
    /// Patch its status.
    Status(Value),
    /// It was asked to go, and nothing holds it: delete it.
    Delete,
}

/// A pod, and what is known around it.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) pod: &'a Pod,
    pub(super) spec: &'a PodSpec,
    pub(super) status: &'a PodStatus,
    /// The address of its node.
    pub(super) host: &'a str,
    pub(super) now: Timestamp,
}

/// Decides about `pod`, on a node with these annotations at the address `host`. `own` gives the pod's own address.
pub(super) fn plan(
    pod: &Pod,
    node: Option<&BTreeMap<String, String>>,
    host: &str,
    own: impl FnOnce() -> String,
    now: Timestamp,
) -> PodAction {
    let (Some(spec), status) = (&pod.spec, pod.status.clone().unwrap_or_default()) else {
        return PodAction::Nothing;
    };
    let ended = PodPhase::of(pod).is_some_and(PodPhase::is_terminal);
    if pod.metadata.deletion_timestamp.is_some() {
        let held = pod.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
        return match pod.metadata.deletion_grace_period_seconds {
            // Whoever holds it wants to see how it ended.
            _ if held && !ended => patch(pod, end(spec, &status, PodPhase::Failed, now)),
            Some(0) if held => PodAction::Nothing,
            _ => PodAction::Delete,
        };
    }
    if ended {
        return PodAction::Nothing;
    }
    let subject = Subject { pod, spec, status: &status, host, now };
    if let Some(stages) = Stages::of(pod, node) {
        return staged::plan(&subject, stages, own);
    }
    let completion = is_of_job(pod).then_some(Duration::ZERO);
    let ends = [(completion, PodPhase::Succeeded), (deadline(spec), PodPhase::Failed)];
    let first = ends.into_iter().filter_map(|(life, phase)| Some((life?, phase))).min_by_key(|(life, _)| *life);
    let started = status.start_time.as_ref().map_or(now, |started| started.0);
    let due = first.map(|(life, phase)| (between(now, after(started, life)), phase));
    if let Some((Duration::ZERO, phase)) = due {
        let mut ended = end(spec, &status, phase, now);
        if phase == PodPhase::Failed {
            exceeded(&mut ended);
        }
        return patch(pod, ended);
    }
    let ready = gates_open(spec, &status);
    let is = |type_: &str, value: bool| {
        let mut known = status.conditions.iter().flatten();
        known.any(|known| known.type_ == type_ && (known.status == ConditionStatus::True) == value)
    };
    if PodPhase::of(pod) != Some(PodPhase::Running) || !is("ContainersReady", true) || !is("Ready", ready) {
        return patch(pod, run(&subject, own));
    }
    due.map_or(PodAction::Nothing, |(left, _)| PodAction::Later(left))
}

/// The patch that makes a pod's status so.
pub(super) fn patch(pod: &Pod, status: Value) -> PodAction {
    PodAction::Status(json!({ "metadata": { "uid": pod.metadata.uid }, "status": status }))
}

/// How long the pod may be active.
pub(super) fn deadline(spec: &PodSpec) -> Option<Duration> {
    spec.active_deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// Says of a pod that has failed that it was active for too long.
pub(super) fn exceeded(ended: &mut Value) {
    let (reason, message) = DEADLINE_EXCEEDED;
    (ended["reason"], ended["message"]) = (reason.into(), message.into());
}

/// Whether the pod is a Job's, and so completes by itself.
pub(super) fn is_of_job(pod: &Pod) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.kind == "Job" && owner.controller == Some(true))
}

/// Whether the pod can complete: nobody starts it again then.
pub(super) fn completes(pod: &Pod) -> bool {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    is_of_job(pod) || policy.is_some_and(|policy| policy != "Always")
}

/// Whether all that the pod's readiness waits for beyond its containers has come.
pub(super) fn gates_open(spec: &PodSpec, status: &PodStatus) -> bool {
    spec.readiness_gates.iter().flatten().all(|gate| {
        let mut known = status.conditions.iter().flatten();
        known.any(|known| known.type_ == gate.condition_type && known.status == ConditionStatus::True)
    })
}

fn run(subject: &Subject<'_>, own: impl FnOnce() -> String) -> Value {
    let Subject { pod, spec, status, now, .. } = *subject;
    let started = status.start_time.clone().unwrap_or_else(|| api_time(now));
    let running = |_: &Container| json!({ "running": { "startedAt": started } });
    let inits = |container: &Container| match container.restart_policy.as_deref() {
        Some("Always") => running(container),
        _ => done(0, status, now),
    };
    let ready = gates_open(spec, status);
    let mut result = json!({
        "phase": PodPhase::Running.as_str(),
        "startTime": started,
        "containerStatuses": containers(&spec.containers, true, running),
        "conditions": conditions(status, pod.metadata.generation, now, |type_| match type_ {
            "Ready" if !ready => Some(("ReadinessGatesNotReady", "a readiness gate is not open")),
            _ => None,
        }),
    });
    if let Some(containers) = &spec.init_containers {
        result["initContainerStatuses"] = self::containers(containers, true, inits);
    }
    addresses(&mut result, subject, own);
    result
}

/// Says in a status where the pod is.
pub(super) fn addresses(status: &mut Value, subject: &Subject<'_>, own: impl FnOnce() -> String) {
    let host = subject.host;
    let address = match subject.spec.host_network {
        Some(true) => host.to_owned(),
        _ => subject.status.pod_ip.clone().unwrap_or_else(own),
    };
    status["hostIP"] = host.into();
    status["hostIPs"] = json!([{ "ip": host }]);
    status["podIPs"] = json!([{ "ip": address }]);
    status["podIP"] = address.into();
}

/// The status of a pod that has ended.
pub(super) fn end(spec: &PodSpec, status: &PodStatus, phase: PodPhase, now: Timestamp) -> Value {
    let (code, why) = match phase {
        PodPhase::Succeeded => (0, "PodCompleted"),
        _ => (137, "PodFailed"),
    };
    let ended = |_: &Container| done(code, status, now);
    let mut result = json!({
        "phase": phase.as_str(),
        "startTime": status.start_time.clone().unwrap_or_else(|| api_time(now)),
        "containerStatuses": containers(&spec.containers, false, ended),
        "conditions": conditions(status, None, now, |type_| match type_ {
            "Ready" | "ContainersReady" => Some((why, "")),
            _ => None,
        }),
    });
    if let Some(containers) = &spec.init_containers {
        result["initContainerStatuses"] = self::containers(containers, false, |_| done(0, status, now));
    }
    result
}

fn done(code: i32, status: &PodStatus, now: Timestamp) -> Value {
    let started = status.start_time.clone().unwrap_or_else(|| api_time(now));
    json!({ "terminated": {
        "exitCode": code, "reason": TerminationReason::of(code).as_str(), "startedAt": started, "finishedAt": api_time(now),
    } })
}

fn containers(containers: &[Container], ready: bool, state: impl Fn(&Container) -> Value) -> Value {
    let status = |container: &Container| {
        json!({
            "name": container.name, "image": container.image, "imageID": "",
            "ready": ready, "started": ready, "restartCount": 0, "state": state(container),
        })
    };
    containers.iter().map(status).collect()
}

/// The conditions, with the obstacles where there are any; times move only where the value does.
pub(super) fn conditions(
    status: &PodStatus,
    generation: Option<i64>,
    now: Timestamp,
    obstacle: impl Fn(&str) -> Option<(&'static str, &'static str)>,
) -> Vec<Value> {
    let all = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];
    all.iter()
        .map(|type_| {
            let obstacle = obstacle(type_);
            let value = ConditionStatus::from(obstacle.is_none());
            let mut known = status.conditions.iter().flatten();
            let known = known.find(|known| known.type_ == *type_ && known.status == value);
            let since = known.and_then(|known| known.last_transition_time.clone()).unwrap_or_else(|| api_time(now));
            let mut condition = json!({ "type": type_, "status": value.as_str(), "lastTransitionTime": since,
                "observedGeneration": generation });
            if let Some((reason, message)) = obstacle {
                condition["reason"] = reason.into();
                condition["message"] = message.into();
            }
            condition
        })
        .collect()
}
