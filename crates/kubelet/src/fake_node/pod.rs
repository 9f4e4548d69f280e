//! The status of a pod on a fake node.
//!
//! ```text
//!   bound ──► Running, Ready ──► deleted: gone at once
//!                  ├─ of a Job ──► Succeeded
//!                  └─ active for longer than its deadline ──► Failed
//! ```

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use machinery::phase::{ConditionStatus, PodPhase};
use runtime::TerminationReason;
use serde_json::{Value, json};

use crate::pod::status::DEADLINE_EXCEEDED;
use crate::time::{after, api_time, between};

/// How long after its start a pod of a Job completes: KWOK's annotation, a duration as Go writes it. Else at once.
const COMPLETE_AFTER: &str = "pod-complete.stage.kwok.x-k8s.io/delay";

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

/// Decides about `pod`, on a node at the address `host`. `own` gives the pod's own address.
pub(super) fn plan(pod: &Pod, host: &str, own: impl FnOnce() -> String, now: Timestamp) -> PodAction {
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
    let deadline =
        spec.active_deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let ends = [(completion(pod), PodPhase::Succeeded), (deadline, PodPhase::Failed)];
    let first = ends.into_iter().filter_map(|(life, phase)| Some((life?, phase))).min_by_key(|(life, _)| *life);
    let started = status.start_time.as_ref().map_or(now, |started| started.0);
    let due = first.map(|(life, phase)| (between(now, after(started, life)), phase));
    if let Some((Duration::ZERO, phase)) = due {
        let mut ended = end(spec, &status, phase, now);
        if phase == PodPhase::Failed {
            let (reason, message) = DEADLINE_EXCEEDED;
            (ended["reason"], ended["message"]) = (reason.into(), message.into());
        }
        return patch(pod, ended);
    }
    let ready = gates_open(spec, &status);
    let is = |type_: &str, value: bool| {
        let mut known = status.conditions.iter().flatten();
        known.any(|known| known.type_ == type_ && (known.status == ConditionStatus::True) == value)
    };
    if PodPhase::of(pod) != Some(PodPhase::Running) || !is("ContainersReady", true) || !is("Ready", ready) {
        return patch(pod, run(pod, spec, &status, host, own, now));
    }
    due.map_or(PodAction::Nothing, |(left, _)| PodAction::Later(left))
}

fn patch(pod: &Pod, status: Value) -> PodAction {
    PodAction::Status(json!({ "metadata": { "uid": pod.metadata.uid }, "status": status }))
}

/// How long after its start the pod completes; nothing if it never does by itself.
fn completion(pod: &Pod) -> Option<Duration> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.kind == "Job" && owner.controller == Some(true))?;
    let delay = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(COMPLETE_AFTER));
    Some(delay.and_then(|text| go_duration(text)).unwrap_or_default())
}

/// `90s`, `1m30s`, `500ms`: the durations of Go, as far as people write them.
fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?;
        rest = tail;
    }
    Some(total)
}

/// Whether all that the pod's readiness waits for beyond its containers has come.
fn gates_open(spec: &PodSpec, status: &PodStatus) -> bool {
    spec.readiness_gates.iter().flatten().all(|gate| {
        let mut known = status.conditions.iter().flatten();
        known.any(|known| known.type_ == gate.condition_type && known.status == ConditionStatus::True)
    })
}

fn run(
    pod: &Pod,
    spec: &PodSpec,
    status: &PodStatus,
    host: &str,
    own: impl FnOnce() -> String,
    now: Timestamp,
) -> Value {
    let started = status.start_time.clone().unwrap_or_else(|| api_time(now));
    let running = |_: &Container| json!({ "running": { "startedAt": started } });
    let inits = |container: &Container| match container.restart_policy.as_deref() {
        Some("Always") => running(container),
        _ => done(0, status, now),
    };
    let address = match spec.host_network {
        Some(true) => host.to_owned(),
        _ => status.pod_ip.clone().unwrap_or_else(own),
    };
    let ready = gates_open(spec, status);
    let mut result = json!({
        "phase": PodPhase::Running.as_str(),
        "startTime": started,
        "hostIP": host,
        "hostIPs": [{ "ip": host }],
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "containerStatuses": containers(&spec.containers, true, running),
        "conditions": conditions(status, pod.metadata.generation, now, |type_| match type_ {
            "Ready" if !ready => Some(("ReadinessGatesNotReady", "a readiness gate is not open")),
            _ => None,
        }),
    });
    if let Some(containers) = &spec.init_containers {
        result["initContainerStatuses"] = self::containers(containers, true, inits);
    }
    result
}

fn end(spec: &PodSpec, status: &PodStatus, phase: PodPhase, now: Timestamp) -> Value {
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
fn conditions(
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
