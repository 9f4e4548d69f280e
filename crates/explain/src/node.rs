//! A node: its conditions and taints, and what of it is taken.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use machinery::phase::ConditionStatus;
use machinery::placement::taints;
use machinery::resources::{Resources, requests};

use crate::explanation::{Explanation, Step};
use crate::meta::{has_ended, is_deleting, name};
use crate::related::Related;
use crate::words::{after, count, given, list, number, reason_and_message, since};

pub(crate) fn explain(out: &mut Explanation, node: &Node, related: &Related, now: Timestamp) {
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    if let Some(info) = &status.node_info {
        out.has(format!(
            "the kubelet {} and {} on {}",
            info.kubelet_version, info.container_runtime_version, info.os_image
        ));
    }
    let addresses: Vec<String> =
        status.addresses.iter().flatten().map(|it| format!("{} {}", it.type_, it.address)).collect();
    if !addresses.is_empty() {
        out.has(format!("the addresses {}", list(&addresses)));
    }
    conditions(out, status.conditions.as_deref().unwrap_or_default(), now);
    lease(out, node, related, now);
    if spec.unschedulable == Some(true) {
        out.wants("no new pods: it is cordoned");
        out.next(Step::new(
            "You",
            format!("run kubectl uncordon {}, when it is to take pods again", name(&node.metadata)),
        ));
    }
    for taint in taints(node) {
        let value = given(taint.value.as_ref()).map(|value| format!("={value}")).unwrap_or_default();
        let added = taint.time_added.as_ref().map(|time| format!(" since {}", since(time.0, now)));
        let effect = match taint.effect.as_str() {
            "NoSchedule" => "new pods that do not tolerate it are not put here",
            "NoExecute" => "pods that do not tolerate it leave, and none are put here",
            _ => "pods that do not tolerate it are rather put elsewhere",
        };
        out.has(format!("the taint {}{value}:{}{}: {effect}", taint.key, taint.effect, added.unwrap_or_default()));
    }
    allocated(out, node, related);
    if !is_deleting(&node.metadata) && out.next.is_empty() {
        out.next(Step::new("Nobody", "needs to act: it takes pods"));
    }
}

/// What one would not have, and that all else is well.
fn conditions(out: &mut Explanation, conditions: &[NodeCondition], now: Timestamp) {
    let mut well = Vec::new();
    for condition in conditions {
        let good = if condition.type_ == "Ready" { ConditionStatus::True } else { ConditionStatus::False };
        if condition.status == good {
            well.push(condition.type_.as_str());
            continue;
        }
        let changed = condition.last_transition_time.as_ref().map(|time| format!(" since {}", since(time.0, now)));
        let text = reason_and_message(condition.reason.as_ref(), condition.message.as_ref());
        out.why(format!("{} is {}{}: {text}", condition.type_, condition.status, changed.unwrap_or_default()));
        out.next(match (condition.type_.as_str(), condition.status.as_str()) {
            ("Ready", "Unknown") => Step::new("The node lifecycle controller", "takes it for ready again")
                .waits_for("its kubelet to be heard of"),
            ("Ready", _) => Step::new("The kubelet", "reports it ready").waits_for("what is named below to be mended"),
            ("MemoryPressure" | "DiskPressure" | "PIDPressure", _) => {
                Step::new("The kubelet", "evicts pods and frees images, and takes no new pods")
                    .waits_for("the pressure to ease")
            }
            (type_, _) => Step::new(format!("Whoever sets the condition {type_}"), "sets it back"),
        });
    }
    if !well.is_empty() {
        out.has(format!("conditions as they should be: {}", list(&well)));
    }
}

fn lease(out: &mut Explanation, node: &Node, related: &Related, now: Timestamp) {
    let leases = related.all::<Lease>("leases.coordination.k8s.io");
    let of_nodes = |lease: &&Lease| {
        lease.metadata.namespace.as_deref() == Some("kube-node-lease") && lease.metadata.name == node.metadata.name
    };
    let Some(spec) = leases.iter().find(of_nodes).and_then(|lease| lease.spec.as_ref()) else { return };
    let (Some(renewed), Some(duration)) = (&spec.renew_time, spec.lease_duration_seconds) else { return };
    let until = after(renewed.0, i64::from(duration));
    let renewed = since(renewed.0, now);
    match until {
        Some(until) if until < now => {
            out.why(format!("its lease ran out: it was renewed {renewed} ago and lasts {duration}s"));
        }
        _ => out.has(format!("a lease that was renewed {renewed} ago and lasts {duration}s")),
    }
}

fn allocated(out: &mut Explanation, node: &Node, related: &Related) {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default();
    let offers = Resources::from_list(&allocatable);
    if !related.knows("pods") {
        return;
    }
    let pods = related.all::<Pod>("pods");
    let its = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == node.metadata.name.as_ref();
    let alive: Vec<&Pod> = pods.iter().filter(its).filter(|pod| !has_ended(pod)).collect();
    let mut taken = Resources::default();
    for pod in &alive {
        taken.add(&requests(pod));
    }
    let most = allocatable.get("pods").map(|most| format!(" of {}", most.0)).unwrap_or_default();
    out.has(format!("{}{most}", count(number(alive.len()), "pod")));
    let parts: Vec<String> = offers
        .each()
        .filter(|(name, amount)| *amount > 0 && *name != "pods" && !name.starts_with("hugepages-"))
        .map(|(name, amount)| {
            let used = taken.of(name);
            // As percents of large numbers of bytes.
            let percent = i128::from(used) * 100 / i128::from(amount.max(1));
            format!("{name} {} of {} ({percent}%)", Resources::text(name, used), Resources::text(name, amount))
        })
        .collect();
    out.has(format!("requested by its pods: {}", list(&parts)));
}
