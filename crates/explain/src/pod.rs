//! A pod: what it waits for from its creation to its end. What led to its node is the scheduler's to tell.

mod containers;
mod eviction;
mod volumes;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, PodStatus};
use machinery::phase::{ConditionStatus, PodPhase};

use crate::explanation::{Explanation, Step};
use crate::meta::{condition, has_ended, is_deleting, is_ready};
use crate::related::Related;
use crate::words::{ago, count, given, list, number, reason_and_message};

pub(crate) fn explain(out: &mut Explanation, pod: &Pod, related: &Related, now: Timestamp) {
    let Some(spec) = &pod.spec else { return };
    let status = pod.status.clone().unwrap_or_default();
    wants(out, spec);
    has(out, spec, &status, now);
    containers::states(out, pod, now);
    if is_deleting(&pod.metadata) {
        deletion(out, pod, spec);
    } else if has_ended(pod) {
        ended(out, spec, &status);
    } else if !scheduling_gates(spec).is_empty() {
        gates(out, spec);
    } else if spec.node_name.is_none() {
        scheduling(out, pod, spec, &status);
        volumes::claims(out, spec, pod, related);
    } else {
        on_node(out, pod, spec, &status, related, now);
    }
    for condition in status.conditions.iter().flatten() {
        if condition.type_ == "DisruptionTarget" && condition.status == ConditionStatus::True {
            let why = reason_and_message(condition.reason.as_ref(), condition.message.as_ref());
            out.why(format!("it was chosen to go: {why}"));
        }
    }
    if !has_ended(pod) {
        eviction::from_node(out, pod, related);
        eviction::budget(out, pod, related);
    }
}

fn wants(out: &mut Explanation, spec: &PodSpec) {
    let names: Vec<String> = spec.containers.iter().map(containers::with_image).collect();
    out.wants(format!("{}: {}", count(number(names.len()), "container"), list(&names)));
    let (sidecars, init): (Vec<_>, Vec<_>) =
        spec.init_containers.iter().flatten().partition(|it| it.restart_policy.as_deref() == Some("Always"));
    if !init.is_empty() {
        let names: Vec<String> = init.into_iter().map(containers::with_image).collect();
        out.wants(format!("before them, one after the other to their end: {}", list(&names)));
    }
    if !sidecars.is_empty() {
        let names: Vec<String> = sidecars.into_iter().map(containers::with_image).collect();
        out.wants(format!("beside them, started first: {}", list(&names)));
    }
    out.wants(format!("its restart policy is {}", spec.restart_policy.as_deref().unwrap_or("Always")));
}

fn has(out: &mut Explanation, spec: &PodSpec, status: &PodStatus, now: Timestamp) {
    let since = status.start_time.as_ref().map(|time| format!(", taken up by its node {}", ago(time, now)));
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let why = reason_and_message(status.reason.as_ref(), status.message.as_ref());
    let why = if why.is_empty() { why } else { format!(" ({why})") };
    out.has(format!("the phase {phase}{why}{}", since.unwrap_or_default()));
    match (&spec.node_name, given(status.pod_ip.as_ref())) {
        (Some(node), Some(address)) => out.has(format!("the node {node}, and there the address {address}")),
        (Some(node), None) => out.has(format!("the node {node}, and no address yet")),
        (None, _) => out.has("no node yet"),
    }
    if let Some(node) = given(status.nominated_node_name.as_ref()).filter(|_| spec.node_name.is_none()) {
        out.has(format!("been promised room on the node {node}, once pods of lower priority have left it"));
    }
}

fn deletion(out: &mut Explanation, pod: &Pod, spec: &PodSpec) {
    let time = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let Some(node) = spec.node_name.as_ref().filter(|_| !has_ended(pod)) else { return };
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
    let running: Vec<&str> = containers::statuses(pod)
        .filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
        .map(|status| status.name.as_str())
        .collect();
    let what = match running.as_slice() {
        [] => "its containers to end".to_owned(),
        running => format!("{} to end", list(running)),
    };
    let step = Step::new(
        format!("The kubelet of {node}"),
        format!("stops the containers, and kills what still runs after its grace period of {grace}s"),
    );
    out.next(step.waits_for(what).until(time));
}

fn ended(out: &mut Explanation, spec: &PodSpec, status: &PodStatus) {
    let how = match PodPhase::parse(status.phase.as_deref().unwrap_or_default()) {
        Some(PodPhase::Succeeded) => "all its containers have ended with success",
        _ => "it has failed",
    };
    out.next(Step::new("Nobody", format!("starts it again: {how}. A pod that has ended stays that way")));
    if status.reason.as_deref() == Some("Evicted") {
        out.why(format!(
            "the kubelet of {} evicted it: {}",
            spec.node_name.as_deref().unwrap_or("its node"),
            status.message.as_deref().unwrap_or("its node ran short of something")
        ));
    }
}

fn gates(out: &mut Explanation, spec: &PodSpec) {
    out.next(
        Step::new("Whoever set its scheduling gates", "removes them, and then the scheduler looks for a node")
            .waits_for(list(&scheduling_gates(spec))),
    );
}

/// The gates that keep a pod from being scheduled.
fn scheduling_gates(spec: &PodSpec) -> Vec<&str> {
    spec.scheduling_gates.iter().flatten().map(|gate| gate.name.as_str()).collect()
}

/// The readiness gates of a pod whose conditions are not True.
fn closed_gates(pod: &Pod) -> Vec<&str> {
    let is_true = |type_: &str| condition(pod, type_).is_some_and(|it| it.status == ConditionStatus::True);
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    gates.map(|gate| gate.condition_type.as_str()).filter(|type_| !is_true(type_)).collect()
}

fn scheduling(out: &mut Explanation, pod: &Pod, spec: &PodSpec, status: &PodStatus) {
    let scheduler = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
    let refused = condition(pod, "PodScheduled").filter(|it| it.status == ConditionStatus::False);
    let step = Step::new(format!("The scheduler {scheduler}"), "puts it on a node");
    match refused {
        Some(refused) => {
            let promised = given(status.nominated_node_name.as_ref());
            out.next(step.waits_for(match promised {
                Some(node) => format!("the pods of lower priority on {node} to leave"),
                None => "a change of the cluster after which a node would do".to_owned(),
            }));
            out.why(reason_and_message(refused.reason.as_ref(), refused.message.as_ref()));
        }
        None => {
            out.next(step);
            out.why(format!("no scheduler has said anything of it yet. It names the scheduler {scheduler}"));
        }
    }
}

/// Of a pod that its kubelet works on: the first thing that is missing.
fn on_node(out: &mut Explanation, pod: &Pod, spec: &PodSpec, status: &PodStatus, related: &Related, now: Timestamp) {
    let kubelet = format!("The kubelet of {}", spec.node_name.as_deref().unwrap_or_default());
    if status.start_time.is_none() {
        out.next(Step::new(&kubelet, "takes it up"));
        node_is_away(out, spec, related);
        return;
    }
    let missing = volumes::claims(out, spec, pod, related);
    if missing || volumes::failed(out, pod, related, &kubelet, now) {
        node_is_away(out, spec, related);
        return;
    }
    let waits = containers::next(out, pod, spec, related, &kubelet, now);
    if !waits && !is_ready(pod) {
        readiness_gates(out, pod);
    }
    if !waits && is_ready(pod) && out.next.is_empty() {
        out.next(Step::new("Nobody", "needs to act: it runs and is ready"));
        out.has("everything it wants: it is ready");
    } else if out.next.is_empty() {
        out.next(Step::new(&kubelet, "brings its status up to date"));
    }
    node_is_away(out, spec, related);
}

/// A kubelet of which nothing is heard does nothing.
fn node_is_away(out: &mut Explanation, spec: &PodSpec, related: &Related) {
    let name = spec.node_name.as_deref();
    let nodes = related.all::<Node>("nodes");
    let node = nodes.iter().find(|node| node.metadata.name.as_deref() == name);
    if node.is_none() && related.knows("nodes") {
        out.why(format!("there is no node {}", name.unwrap_or_default()));
    }
    let conditions = node.and_then(|node| node.status.as_ref()).and_then(|status| status.conditions.as_ref());
    for ready in conditions.into_iter().flatten().filter(|it| it.type_ == "Ready") {
        if ready.status != ConditionStatus::True {
            let why = reason_and_message(ready.reason.as_ref(), ready.message.as_ref());
            out.why(format!("the node {} is not ready: {why}", name.unwrap_or_default()));
        }
    }
}

fn readiness_gates(out: &mut Explanation, pod: &Pod) {
    let closed = closed_gates(pod);
    if !closed.is_empty() {
        out.next(
            Step::new("Whoever owns its readiness gates", "sets their conditions to True, and then the pod is ready")
                .waits_for(list(&closed)),
        );
    }
}

/// In a few words, why a pod is not ready; nothing if it is.
pub(crate) fn not_ready(pod: &Pod) -> Option<String> {
    let status = pod.status.clone().unwrap_or_default();
    if is_deleting(&pod.metadata) {
        return Some("it is being deleted".to_owned());
    }
    if has_ended(pod) {
        let why = reason_and_message(status.reason.as_ref(), status.message.as_ref());
        let why = if why.is_empty() { containers::problem(pod).unwrap_or_default() } else { why };
        let phase = status.phase.unwrap_or_default();
        return Some(format!("it has ended: {phase}{}{why}", if why.is_empty() { "" } else { ", " }));
    }
    if is_ready(pod) {
        return None;
    }
    let gates = pod.spec.as_ref().map(scheduling_gates).unwrap_or_default();
    if !gates.is_empty() {
        return Some(format!("it waits for its scheduling gates: {}", list(&gates)));
    }
    if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
        let refused = condition(pod, "PodScheduled").and_then(|it| it.message.clone());
        return Some(format!("it has no node yet{}", refused.map(|why| format!(": {why}")).unwrap_or_default()));
    }
    if let Some(problem) = containers::problem(pod) {
        return Some(problem);
    }
    let gates = closed_gates(pod);
    if !gates.is_empty() {
        return Some(format!("its readiness gates are not True: {}", list(&gates)));
    }
    let ready = condition(pod, "Ready");
    let why = ready.map(|it| reason_and_message(it.reason.as_ref(), it.message.as_ref())).unwrap_or_default();
    Some(if why.is_empty() { "it is not ready".to_owned() } else { format!("it is not ready: {why}") })
}
