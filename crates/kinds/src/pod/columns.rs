//! A Pod as `kubectl get pods` shows it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::age::since;
use machinery::phase::ConditionStatus;
use registry::kind::{Column, cell_age, cell_name};
use serde_json::Value;

use crate::common::{blank, list, or_none, text};

/// The columns.
pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::string("Ready", "How many of the containers are ready."),
        Column::string("Status", "What the containers are doing, in a word."),
        Column::string("Restarts", "How often the containers were restarted, and when last."),
        Column::age(),
        Column::wide("IP", "Address of the pod."),
        Column::wide("Node", "Node the pod is assigned to."),
        Column::wide("Nominated Node", "Node on which room is being made for the pod."),
        Column::wide("Readiness Gates", "How many of the additional conditions for readiness are true."),
    ]
}

/// The cells of one Pod.
pub(super) fn row(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let status = pod.status.as_ref().unwrap_or(&no_status);
    let summary = Summary::of(pod, spec, status);
    let restarts = match (summary.restarts.count, summary.restarts.last) {
        (count, Some(last)) if count != 0 => format!("{count} ({} ago)", since(Some(last), now)),
        (count, _) => count.to_string(),
    };
    vec![
        cell_name(&pod.metadata),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        cell_age(&pod.metadata, now),
        or_none(list(&status.pod_ips).first().map_or("", |address| &address.ip)),
        or_none(text(&spec.node_name)),
        or_none(text(&status.nominated_node_name)),
        readiness_gates(spec, status).into(),
    ]
}

fn readiness_gates(spec: &PodSpec, status: &PodStatus) -> String {
    let gates = list(&spec.readiness_gates);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let passed = gates
        .iter()
        .filter(|gate| {
            condition(status, &gate.condition_type).is_some_and(|condition| condition.status == ConditionStatus::True)
        })
        .count();
    format!("{passed}/{}", gates.len())
}

/// Restarts of some containers, and when the last one of them ended.
#[derive(Default, Clone, Copy)]
struct Restarts<'a> {
    count: i32,
    last: Option<&'a Time>,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, container: &'a ContainerStatus) {
        self.count += container.restart_count;
        let ended = container
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
            .and_then(|terminated| terminated.finished_at.as_ref());
        self.last = self.last.max(ended);
    }
}

struct Summary<'a> {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts<'a>,
}

impl<'a> Summary<'a> {
    fn of(pod: &Pod, spec: &PodSpec, status: &'a PodStatus) -> Self {
        let sidecars = list(&spec.init_containers).iter().filter(|container| is_sidecar(container)).count();
        let mut summary = Self {
            ready: 0,
            total: spec.containers.len() + sidecars,
            reason: text(if blank(&status.reason) { &status.phase } else { &status.reason }).to_owned(),
            restarts: Restarts::default(),
        };
        if condition(status, "PodScheduled").is_some_and(|condition| text(&condition.reason) == "SchedulingGated") {
            "SchedulingGated".clone_into(&mut summary.reason);
        }
        let (initializing, sidecar_restarts) = summary.add_init_containers(spec, status);
        let initialized =
            condition(status, "Initialized").is_some_and(|condition| condition.status == ConditionStatus::True);
        if !initializing || initialized {
            summary.restarts = sidecar_restarts;
            summary.add_containers(status);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            if text(&status.reason) == "NodeLost" {
                "Unknown".clone_into(&mut summary.reason);
            } else if !["Succeeded", "Failed"].contains(&text(&status.phase)) {
                "Terminating".clone_into(&mut summary.reason);
            }
        }
        summary
    }

    /// Goes through the init containers up to the first that is not done; whether there is one, and the restarts of
    /// the sidecars among those seen.
    fn add_init_containers(&mut self, spec: &PodSpec, status: &'a PodStatus) -> (bool, Restarts<'a>) {
        let containers = list(&spec.init_containers);
        let mut sidecars = Restarts::default();
        for (index, container) in list(&status.init_container_statuses).iter().enumerate() {
            self.restarts.add(container);
            let sidecar = containers.iter().any(|candidate| candidate.name == container.name && is_sidecar(candidate));
            if sidecar {
                sidecars.add(container);
            }
            let state = State::of(container.state.as_ref());
            self.reason = match state {
                State::Terminated(terminated) if terminated.exit_code == 0 => continue,
                _ if sidecar && container.started == Some(true) => {
                    self.ready += usize::from(container.ready);
                    continue;
                }
                State::Terminated(terminated) => format!("Init:{}", ending(terminated)),
                State::Waiting(reason) if !reason.is_empty() && reason != "PodInitializing" => {
                    format!("Init:{reason}")
                }
                State::Waiting(_) | State::Running | State::Unknown => {
                    format!("Init:{index}/{}", containers.len())
                }
            };
            return (true, sidecars);
        }
        (false, sidecars)
    }

    /// Goes through the containers from the last to the first, so that the first one with something to say is heard.
    fn add_containers(&mut self, status: &'a PodStatus) {
        let mut running = false;
        for container in list(&status.container_statuses).iter().rev() {
            self.restarts.add(container);
            match State::of(container.state.as_ref()) {
                State::Waiting(reason) if !reason.is_empty() => reason.clone_into(&mut self.reason),
                State::Terminated(terminated) => self.reason = ending(terminated),
                State::Running if container.ready => {
                    running = true;
                    self.ready += 1;
                }
                State::Waiting(_) | State::Running | State::Unknown => {}
            }
        }
        if self.reason == "Completed" && running {
            let ready = condition(status, "Ready").is_some_and(|condition| condition.status == ConditionStatus::True);
            if ready { "Running" } else { "NotReady" }.clone_into(&mut self.reason);
        }
    }
}

/// A container's state; upstream takes `waiting` before `terminated` should both be set.
enum State<'a> {
    Waiting(&'a str),
    Terminated(&'a ContainerStateTerminated),
    Running,
    Unknown,
}

impl<'a> State<'a> {
    fn of(state: Option<&'a ContainerState>) -> Self {
        match state {
            Some(ContainerState { waiting: Some(waiting), .. }) => Self::Waiting(text(&waiting.reason)),
            Some(ContainerState { terminated: Some(terminated), .. }) => Self::Terminated(terminated),
            Some(ContainerState { running: Some(_), .. }) => Self::Running,
            _ => Self::Unknown,
        }
    }
}

fn ending(terminated: &ContainerStateTerminated) -> String {
    let signal = terminated.signal.unwrap_or_default();
    if !blank(&terminated.reason) {
        text(&terminated.reason).to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", terminated.exit_code)
    }
}

fn is_sidecar(container: &Container) -> bool {
    text(&container.restart_policy) == "Always"
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    list(&status.conditions).iter().find(|condition| condition.type_ == kind)
}
