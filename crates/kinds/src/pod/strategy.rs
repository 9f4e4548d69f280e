//! What upstream's strategy does to Pods before they are stored (`pkg/registry/core/pod/strategy.go`). What its admission
//! does is in [`admission`](crate::admission).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodAffinityTerm, PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelectorRequirement, Time};
use machinery::field::{ErrorList, Path};

use crate::check::Report;
use crate::common::{blank, list, text};

/// Merges the label keys of all terms of affinity into their selectors.
pub(super) fn merge_affinity_label_keys(pod: &mut Pod) {
    let labels = pod.metadata.labels.as_ref();
    for term in pod.spec.as_mut().map(pod_affinity_terms).unwrap_or_default() {
        merge_label_keys(term, labels);
    }
}

/// Every term of affinity and anti-affinity, required or preferred.
fn pod_affinity_terms(spec: &mut PodSpec) -> Vec<&mut PodAffinityTerm> {
    let Some(affinity) = &mut spec.affinity else { return Vec::new() };
    let (mut required, mut preferred) = (Vec::new(), Vec::new());
    if let Some(side) = &mut affinity.pod_affinity {
        required.push(&mut side.required_during_scheduling_ignored_during_execution);
        preferred.push(&mut side.preferred_during_scheduling_ignored_during_execution);
    }
    if let Some(side) = &mut affinity.pod_anti_affinity {
        required.push(&mut side.required_during_scheduling_ignored_during_execution);
        preferred.push(&mut side.preferred_during_scheduling_ignored_during_execution);
    }
    let required = required.into_iter().flatten().flatten();
    let preferred = preferred.into_iter().flatten().flatten().map(|term| &mut term.pod_affinity_term);
    required.chain(preferred).collect()
}

/// The account of a pod is given once: an update that leaves it out does not take it away.
pub(super) fn keep_account(new: &mut Pod, old: &Pod) {
    if let (Some(new), Some(old)) = (&mut new.spec, &old.spec)
        && blank(&new.service_account_name)
    {
        new.service_account_name.clone_from(&old.service_account_name);
        new.service_account.clone_from(&old.service_account);
    }
}

/// Turns the label keys of an affinity term into requirements with this pod's own values.
fn merge_label_keys(term: &mut PodAffinityTerm, labels: Option<&BTreeMap<String, String>>) {
    let Some(selector) = &mut term.label_selector else { return };
    let keys = [(&term.match_label_keys, "In"), (&term.mismatch_label_keys, "NotIn")];
    for (keys, operator) in keys {
        for key in list(keys) {
            if let Some(value) = labels.and_then(|labels| labels.get(key)) {
                let requirement = LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: Some(vec![value.clone()]),
                };
                // A pod that a webhook changed comes here twice.
                let requirements = selector.match_expressions.get_or_insert_default();
                if !requirements.contains(&requirement) {
                    requirements.push(requirement);
                }
            }
        }
    }
}

/// The condition of a Pod that waits behind scheduling gates.
pub(super) fn gated_condition(spec: &PodSpec, now: Timestamp) -> Option<PodCondition> {
    (!list(&spec.scheduling_gates).is_empty()).then(|| PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    })
}

/// What only a subresource or a binding may bring about later.
pub(super) fn validate_create(pod: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(spec) = &pod.spec else { return errors };
    let path = Path::new("spec");
    if !list(&spec.ephemeral_containers).is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !blank(&spec.node_name) && !list(&spec.scheduling_gates).is_empty() {
        errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    errors
}

/// How long a Pod may take to end. One that never reached a node, or has ended already, goes at once.
pub(super) fn grace_period(pod: &Pod, requested: Option<i64>) -> i64 {
    let spec = pod.spec.as_ref();
    let phase = pod.status.as_ref().map_or("", |status| text(&status.phase));
    if spec.is_none_or(|spec| blank(&spec.node_name)) || ["Succeeded", "Failed"].contains(&phase) {
        return 0;
    }
    let asked = requested.or_else(|| spec.and_then(|spec| spec.termination_grace_period_seconds)).unwrap_or_default();
    // A negative period was once legal and means "as fast as possible, but in good order".
    if asked < 0 { 1 } else { asked }
}

/// Takes the resources and resize policies of the containers, and nothing else, from a resize request.
pub(super) fn take_resources(spec: &mut PodSpec, desired: PodSpec) {
    take_of(&mut spec.containers, &desired.containers);
    if let Some(containers) = &mut spec.init_containers {
        take_of(containers, list(&desired.init_containers));
    }
}

fn take_of(containers: &mut [Container], desired: &[Container]) {
    for container in containers {
        if let Some(desired) = desired.iter().find(|one| one.name == container.name) {
            container.resources.clone_from(&desired.resources);
            container.resize_policy.clone_from(&desired.resize_policy);
        }
    }
}
