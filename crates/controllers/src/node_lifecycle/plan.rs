//! What a node's silence means: conditions, taints, and Pods that nobody speaks for.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use machinery::well_known::{TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE, is_fake_node};

use crate::meta;
use crate::meta::ConditionStatus;

/// A node that is silent for so long is given up.
pub(crate) const GRACE: Duration = Duration::from_secs(40);

/// Conditions other than Ready, by the value for which new Pods are kept away, and the taint that does it.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// The conditions of which nothing is known when the kubelet is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What is to be done for a node.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Conditions to set; others stay.
    pub(crate) conditions: Vec<NodeCondition>,
    /// All taints, if they change.
    pub(crate) taints: Option<Vec<Taint>>,
    /// Whether its Pods are no longer ready, as far as anybody can tell.
    pub(crate) unready_pods: bool,
}

/// Decides about `node`, of which nothing was heard for `silent_for`. If `others_down`, no other node is ready either:
/// then the fault is more likely here than there, and nothing is evicted.
pub(crate) fn plan(node: &Node, silent_for: Duration, others_down: bool, now: Timestamp) -> Plan {
    let conditions = if silent_for >= GRACE { unknown(node, now) } else { Vec::new() };
    let value = |type_: &str| {
        let set = conditions.iter().find(|condition| condition.type_ == type_);
        set.or_else(|| condition(node, type_)).map(|condition| ConditionStatus::of(&condition.status))
    };
    let ready = value("Ready");
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    if let Some(key) = match ready {
        Some(ConditionStatus::True) | None => None,
        Some(ConditionStatus::False) => Some(TAINT_NOT_READY),
        Some(ConditionStatus::Unknown) => Some(TAINT_UNREACHABLE),
    } {
        wanted.push((key, "NoSchedule"));
        if !others_down {
            wanted.push((key, "NoExecute"));
        }
    }
    let pressures = PRESSURES.iter().filter(|(type_, _)| value(type_) == Some(ConditionStatus::True));
    wanted.extend(pressures.map(|(_, key)| (*key, "NoSchedule")));
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((TAINT_UNSCHEDULABLE, "NoSchedule"));
    }
    Plan {
        taints: taints(node, &wanted, now),
        // A kubelet that is alive reports its Pods itself, whatever somebody wrote into the node's conditions.
        unready_pods: silent_for >= GRACE && ready == Some(ConditionStatus::Unknown),
        conditions,
    }
}

/// Whether `node` says that it is ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|condition| condition.status == ConditionStatus::True)
}

/// Whether `node` is a fake node, which no kubelet keeps alive: it is never silent. The annotation is KWOK's.
pub(crate) fn is_fake(node: &Node) -> bool {
    is_fake_node(node.metadata.annotations.as_ref())
}

/// The condition of this type.
pub(crate) fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn unknown(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let unknown = REPORTED.iter().filter_map(|type_| {
        let old = condition(node, type_);
        if old.is_some_and(|old| old.status == ConditionStatus::Unknown) {
            return None;
        }
        let (reason, message) = match old {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let heard = old.and_then(|old| old.last_heartbeat_time.clone());
        Some(NodeCondition {
            type_: (*type_).to_owned(),
            status: ConditionStatus::Unknown.as_str().to_owned(),
            last_heartbeat_time: heard.or_else(|| node.metadata.creation_timestamp.clone()),
            last_transition_time: Some(meta::seconds(now)),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
        })
    });
    unknown.collect()
}

/// The taints of `node` with exactly `wanted` of those that this controller sets; nothing if they are that already.
fn taints(node: &Node, wanted: &[(&str, &str)], now: Timestamp) -> Option<Vec<Taint>> {
    let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let is = |taint: &Taint, (key, effect): &(&str, &str)| taint.key == *key && taint.effect == *effect;
    let mut new: Vec<Taint> = old.clone();
    new.retain(|taint| !is_ours(taint) || wanted.iter().any(|wanted| is(taint, wanted)));
    for (key, effect) in wanted {
        if !new.iter().any(|taint| is(taint, &(key, effect))) {
            new.push(Taint {
                key: (*key).to_owned(),
                effect: (*effect).to_owned(),
                time_added: Some(meta::seconds(now)),
                value: None,
            });
        }
    }
    (new != old).then_some(new)
}

fn is_ours(taint: &Taint) -> bool {
    match taint.effect.as_str() {
        "NoExecute" => [TAINT_NOT_READY, TAINT_UNREACHABLE].contains(&taint.key.as_str()),
        "NoSchedule" => {
            let pressure = PRESSURES.iter().any(|(_, key)| taint.key == *key);
            pressure || [TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE].contains(&taint.key.as_str())
        }
        _ => false,
    }
}
