//! The status of a fake node.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use machinery::phase::ConditionStatus;
use serde_json::{Value, json};

use crate::time::api_time;

/// What a node offers that names nothing: KWOK's numbers, which are never reached.
const OFFERED: [(&str, &str); 3] = [("cpu", "1k"), ("memory", "1Ti"), ("pods", "1M")];

/// The conditions of a node in good health: type, value, reason, message.
const CONDITIONS: [(&str, ConditionStatus, &str, &str); 4] = [
    ("MemoryPressure", ConditionStatus::False, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", ConditionStatus::False, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", ConditionStatus::False, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", ConditionStatus::True, "KubeletReady", "the node is fake: it exists as an object only"),
];

/// The address of the node.
pub(super) fn address(node: &Node) -> Option<&str> {
    let mut addresses = node.status.as_ref()?.addresses.iter().flatten();
    Some(addresses.find(|address| address.type_ == "InternalIP")?.address.as_str())
}

/// The patch of its status that a node lacks, if any.
///
/// What is there stays as it is, also a condition that somebody set for a test: `Ready` is written only where there is
/// none, or an `Unknown` one, which nobody would ever end.
pub(super) fn plan(node: &Node, own: String, kubelet_version: &str, now: Timestamp) -> Option<Value> {
    let status = node.status.clone().unwrap_or_default();
    let mut patch = json!({});
    let lacks = |type_: &str| {
        let mut known = status.conditions.iter().flatten();
        known.find(|known| known.type_ == type_).is_none_or(|known| known.status == ConditionStatus::Unknown)
    };
    let missing: Vec<NodeCondition> = CONDITIONS
        .iter()
        .filter(|(type_, ..)| lacks(type_))
        .map(|(type_, value, reason, message)| NodeCondition {
            type_: (*type_).to_owned(),
            status: value.to_string(),
            reason: Some((*reason).to_owned()),
            message: Some((*message).to_owned()),
            last_heartbeat_time: Some(api_time(now)),
            last_transition_time: Some(api_time(now)),
        })
        .collect();
    if !missing.is_empty() {
        patch["conditions"] = json!(missing);
    }
    let none = |list: &Option<BTreeMap<String, Quantity>>| list.as_ref().is_none_or(BTreeMap::is_empty);
    let offered = || BTreeMap::from(OFFERED.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))));
    if none(&status.allocatable) {
        patch["allocatable"] = json!(status.capacity.clone().filter(|list| !list.is_empty()).unwrap_or_else(offered));
    }
    if none(&status.capacity) {
        patch["capacity"] = json!(status.allocatable.clone().filter(|list| !list.is_empty()).unwrap_or_else(offered));
    }
    if address(node).is_none() {
        patch["addresses"] = json!([
            { "type": "InternalIP", "address": own },
            { "type": "Hostname", "address": node.metadata.name },
        ]);
    }
    if status.node_info.is_none_or(|info| info.kubelet_version.is_empty()) {
        patch["nodeInfo"] = json!({
            "architecture": "amd64", "operatingSystem": "linux", "osImage": "fake", "kernelVersion": "",
            "containerRuntimeVersion": "fake://", "kubeletVersion": kubelet_version, "kubeProxyVersion": "",
            "bootID": "", "machineID": "", "systemUUID": "",
        });
    }
    (patch != json!({})).then(|| json!({ "metadata": { "uid": node.metadata.uid }, "status": patch }))
}
