//! The difference between the API's status and the computed one, as a strategic merge patch.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use serde_json::{Map, Value, json};

use super::conditions::RESIZE;

/// Conditions that the kubelet writes.
const OWN: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "DisruptionTarget",
    RESIZE[0],
    RESIZE[1],
];

/// Fields of the status that the kubelet writes; others (such as `nominatedNodeName`) are left alone.
const FIELDS: [&str; 13] = [
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "qosClass",
    "observedGeneration",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
];

/// Whether the API must be told.
pub(crate) fn differs(known: &PodStatus, new: &PodStatus) -> bool {
    let fields = fields(known, new);
    !fields.is_empty() || !conditions(known, new).is_empty()
}

/// Whether people or controllers wait for this change: a phase, a readiness, a container's state. Other changes can
/// wait for company.
pub(crate) fn urgent(known: &PodStatus, new: &PodStatus) -> bool {
    let state = |status: &ContainerStatus| {
        let state = status.state.clone().unwrap_or_default();
        (
            status.ready,
            status.restart_count,
            state.running.is_some(),
            state.terminated.is_some(),
            state.waiting.and_then(|waiting| waiting.reason),
        )
    };
    let states = |status: &PodStatus| -> Vec<_> {
        let inits = status.init_container_statuses.iter().flatten();
        let others = status.container_statuses.iter().chain(&status.ephemeral_container_statuses).flatten();
        inits.chain(others).map(state).collect()
    };
    known.phase != new.phase || known.start_time.is_none() || states(known) != states(new)
}

/// The patch of `/status` that makes `known` be `new`, for the pod with this uid only.
pub(crate) fn patch(uid: &str, known: &PodStatus, new: &PodStatus) -> Value {
    let mut status = fields(known, new);
    let conditions = conditions(known, new);
    if !conditions.is_empty() {
        status.insert("conditions".to_owned(), json!(conditions));
    }
    json!({ "metadata": { "uid": uid }, "status": status })
}

fn fields(known: &PodStatus, new: &PodStatus) -> Map<String, Value> {
    let (known, new) = (to_map(known), to_map(new));
    let mut changed = Map::new();
    for field in FIELDS {
        let (old, new) = (known.get(field), new.get(field));
        if old == new {
            continue;
        }
        let value = match (field, old, new) {
            // Lists that are merged by address: what is no longer there must be named.
            ("podIPs" | "hostIPs", Some(Value::Array(old)), new) => {
                let new = new.and_then(Value::as_array).cloned().unwrap_or_default();
                let gone = old.iter().filter(|ip| !new.contains(ip));
                let gone = gone.map(|ip| json!({ "ip": ip["ip"], "$patch": "delete" }));
                Value::Array(gone.chain(new.iter().cloned()).collect())
            }
            (_, _, Some(new)) => new.clone(),
            (_, _, None) => Value::Null,
        };
        changed.insert(field.to_owned(), value);
    }
    changed
}

fn conditions(known: &PodStatus, new: &PodStatus) -> Vec<Value> {
    let find = |type_: &str| {
        let mut conditions = known.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == type_)
    };
    let changed = new
        .conditions
        .iter()
        .flatten()
        .filter(|new| OWN.contains(&new.type_.as_str()))
        .filter(|new| find(&new.type_) != Some(new));
    // Whoever set the condition that a pod is scheduled has set its time, too.
    let changed = changed.filter(|new| new.type_ != "PodScheduled" || !same(find(&new.type_), new));
    // What is done has no condition.
    let done = RESIZE.into_iter().filter(|type_| {
        find(type_).is_some() && !new.conditions.iter().flatten().any(|condition| condition.type_ == *type_)
    });
    let done = done.map(|type_| json!({ "type": type_, "$patch": "delete" }));
    changed
        .map(|new| {
            let mut value = json!(new);
            if let (Some(value), Some(known)) = (value.as_object_mut(), find(&new.type_)) {
                // A merged condition keeps what is not named.
                for (field, gone) in [
                    ("reason", known.reason.is_some() && new.reason.is_none()),
                    ("message", known.message.is_some() && new.message.is_none()),
                ] {
                    if gone {
                        value.insert(field.to_owned(), Value::Null);
                    }
                }
            }
            value
        })
        .chain(done)
        .collect()
}

fn same(known: Option<&PodCondition>, new: &PodCondition) -> bool {
    known.is_some_and(|known| known.status == new.status)
}

fn to_map(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}
