//! What may change in a Pod once it exists.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, NodeAffinity, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use machinery::field::{ErrorList, Path};
use machinery::validate;
use serde_json::Value;

use crate::check::{Report, dns_subdomain, immutable, ip, qualified_name};
use crate::common::{entries, entry, list, text};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Validates an update of the Pod itself.
pub(super) fn validate(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let empty = PodSpec::default();
    let (new, old) = (new.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    let pairs = [
        ("containers", new.containers.as_slice(), old.containers.as_slice()),
        ("initContainers", list(&new.init_containers), list(&old.init_containers)),
    ];
    for (name, new, old) in pairs {
        if new.len() != old.len() {
            errors.forbidden(&path.child(name), "pod updates may not add or remove containers");
            return errors;
        }
    }
    if !deadline(&mut errors, &path.child("activeDeadlineSeconds"), new, old) {
        return errors;
    }
    added_tolerations(&mut errors, &path.child("tolerations"), list(&new.tolerations), list(&old.tolerations));
    for (index, gate) in list(&new.scheduling_gates).iter().enumerate() {
        if !list(&old.scheduling_gates).contains(gate) {
            errors.forbidden(
                &path.child("schedulingGates").index(index).child("name"),
                format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name),
            );
        }
    }
    if new == old {
        return errors;
    }
    let masked = mask_updatable(&mut errors, &path, new, old);
    if masked != *old {
        let difference = differences(old, &masked);
        errors.forbidden(&path, format!("pod updates may not change fields other than {UPDATABLE}\n{difference}"));
    }
    errors
}

/// Validates a write of the ephemeral containers: some may be added, and nothing else happens to them.
pub(super) fn validate_ephemeral(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec").child("ephemeralContainers");
    let of = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default();
    let (new, old) = (of(new), of(old));
    for old in &old {
        let why = match new.iter().find(|new| new.name == old.name) {
            Some(new) if new == old => continue,
            Some(_) => "changed",
            None => "removed",
        };
        errors.forbidden(&path, format!("existing ephemeral containers \"{}\" may not be {why}\n", old.name));
    }
    errors
}

fn deadline(errors: &mut ErrorList, path: &Path, new: &PodSpec, old: &PodSpec) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.invalid(path, new, validate::between(0, i64::from(i32::MAX)));
            false
        }
        (Some(new), Some(old)) if old < new => {
            errors.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(path, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn added_tolerations(errors: &mut ErrorList, path: &Path, new: &[Toleration], old: &[Toleration]) {
    // All but how long it is tolerated.
    fn what(toleration: &Toleration) -> [Option<&str>; 4] {
        let Toleration { key, operator, value, effect, toleration_seconds: _ } = toleration;
        [key, operator, value, effect].map(Option::as_deref)
    }
    let new: BTreeSet<_> = new.iter().map(what).collect();
    if !old.iter().all(|old| new.contains(&what(old))) {
        errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

/// The new specification with everything that may change set back to the old state.
fn mask_updatable(errors: &mut ErrorList, path: &Path, new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut masked = new.clone();
    mask_images(&mut masked.containers, &old.containers);
    if let Some(containers) = &mut masked.init_containers {
        mask_images(containers, list(&old.init_containers));
    }
    masked.active_deadline_seconds = old.active_deadline_seconds;
    masked.scheduling_gates.clone_from(&old.scheduling_gates);
    masked.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0)
        && masked.termination_grace_period_seconds == Some(1)
    {
        masked.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    // A gated pod has not been scheduled: it may still be narrowed down.
    if !list(&old.scheduling_gates).is_empty() {
        mask_gated(errors, path, &mut masked, old);
    }
    masked
}

fn mask_images(containers: &mut [Container], old: &[Container]) {
    for (container, old) in containers.iter_mut().zip(old) {
        container.image.clone_from(&old.image);
    }
}

fn mask_gated(errors: &mut ErrorList, path: &Path, masked: &mut PodSpec, old: &PodSpec) {
    if masked.node_selector != old.node_selector {
        if entries(&old.node_selector).any(|(key, value)| entry(&masked.node_selector, key) != Some(value)) {
            errors.invalid(
                &path.child("nodeSelector"),
                &masked.node_selector,
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            );
        }
        masked.node_selector.clone_from(&old.node_selector);
    }
    let before = old.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    let after = masked.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    if before != after {
        narrowed_affinity(errors, &path.child("affinity").child("nodeAffinity"), after.as_ref(), before.as_ref());
        masked.affinity.get_or_insert_default().node_affinity = before;
        if old.affinity.is_none() && masked.affinity == Some(Default::default()) {
            masked.affinity = None;
        }
    }
}

fn required_terms(affinity: Option<&NodeAffinity>) -> &[NodeSelectorTerm] {
    affinity
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref())
        .map_or(&[], |selector| selector.node_selector_terms.as_slice())
}

fn narrowed_affinity(errors: &mut ErrorList, path: &Path, new: Option<&NodeAffinity>, old: Option<&NodeAffinity>) {
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    let (new, old) = (required_terms(new), required_terms(old));
    if old.is_empty() {
        return;
    }
    if new.len() != old.len() {
        errors.invalid(&path, new, "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
        return;
    }
    for (index, (new, old)) in new.iter().zip(old).enumerate() {
        let grown = list(&new.match_expressions).starts_with(list(&old.match_expressions))
            && list(&new.match_fields).starts_with(list(&old.match_fields));
        let was_empty = list(&old.match_expressions).is_empty() && list(&old.match_fields).is_empty();
        if !grown || (was_empty && new != old) {
            errors.invalid(&path.index(index), new, "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// The fields that differ, a pair of lines each.
fn differences(old: &PodSpec, new: &PodSpec) -> String {
    let json = |spec: &PodSpec| serde_json::to_value(spec).unwrap_or_default();
    let mut lines = String::new();
    compare("spec", &json(old), &json(new), &mut lines);
    lines
}

fn compare(path: &str, old: &Value, new: &Value, lines: &mut String) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(left), Value::Object(right)) => {
            let names = left.keys().chain(right.keys().filter(|name| !left.contains_key(*name)));
            for name in names {
                let of = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                compare(&format!("{path}.{name}"), &of(left), &of(right), lines);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                compare(&format!("{path}[{index}]"), left, right, lines);
            }
        }
        _ => lines.push_str(&format!("- {path}: {old}\n+ {path}: {new}\n")),
    }
}

/// Validates a write to the status of a Pod.
pub(super) fn validate_status(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let (Some(new_status), Some(old_status)) = (&new.status, &old.status) else { return errors };
    for (index, condition) in list(&new_status.conditions).iter().enumerate() {
        if !["PodScheduled", "Ready", "Initialized"].contains(&condition.type_.as_str()) {
            let path = Path::new("metadata").child("conditions").index(index).child("Type");
            qualified_name(&mut errors, &path, &condition.type_);
        }
    }
    let path = Path::new("status");
    let nominated = text(&new_status.nominated_node_name);
    if new_status.nominated_node_name != old_status.nominated_node_name && !nominated.is_empty() {
        dns_subdomain(&mut errors, &path.child("nominatedNodeName"), nominated);
    }
    if old_status.qos_class.is_some() {
        immutable(&mut errors, &path.child("qosClass"), &new_status.qos_class, &old_status.qos_class);
    }
    let empty = PodSpec::default();
    let spec = old.spec.as_ref().unwrap_or(&empty);
    let policy = text(&spec.restart_policy);
    let lists = [
        ("containerStatuses", &new_status.container_statuses, &old_status.container_statuses, policy),
        ("initContainerStatuses", &new_status.init_container_statuses, &old_status.init_container_statuses, policy),
        (
            "ephemeralContainerStatuses",
            &new_status.ephemeral_container_statuses,
            &old_status.ephemeral_container_statuses,
            "Never",
        ),
    ];
    for (name, new, old, policy) in lists {
        transitions(&mut errors, &path.child(name), list(new), list(old), policy, spec);
    }
    for (index, address) in list(&new_status.pod_ips).iter().enumerate() {
        ip(&mut errors, &path.child("podIPs").index(index), &address.ip);
    }
    if let Some(first) = list(&new_status.host_ips).first()
        && text(&new_status.host_ip) != first.ip
    {
        errors.invalid(&path.child("hostIPs").index(0).child("ip"), &first.ip, "must be equal to `hostIP`");
    }
    errors
}

/// A container that ended for good does not come back.
fn transitions(
    errors: &mut ErrorList,
    path: &Path,
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    policy: &str,
    spec: &PodSpec,
) {
    if policy == "Always" {
        return;
    }
    for (index, old) in old.iter().enumerate() {
        let Some(terminated) = old.state.as_ref().and_then(|state| state.terminated.as_ref()) else { continue };
        if terminated.exit_code != 0 && policy == "OnFailure" || restarts_on_its_own(spec, &old.name) {
            continue;
        }
        let revived = new
            .iter()
            .any(|new| new.name == old.name && new.state.as_ref().is_none_or(|state| state.terminated.is_none()));
        if revived {
            errors.forbidden(&path.index(index).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// Whether a container has a restart policy of its own: sidecars, and containers with restart rules.
fn restarts_on_its_own(spec: &PodSpec, name: &str) -> bool {
    spec.containers.iter().chain(list(&spec.init_containers)).any(|container| {
        container.name == name && container.restart_policy.as_deref().is_some_and(|own| own != "Never")
    })
}
