//! What a pod says about where it may run: tolerations, affinity, topology spread, gates.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    PodSchedulingGate, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use machinery::field::{ErrorList, Path};
use machinery::validate;

use crate::check::{POSITIVE, Report, label_name, label_selector, optional_one_of, qualified_name};
use crate::common::{entries, list, text};

/// The effects a taint can have.
pub(crate) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Validates tolerations.
pub(crate) fn validate_tolerations(errors: &mut ErrorList, path: &Path, tolerations: &[Toleration]) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let (key, operator) = (text(&toleration.key), text(&toleration.operator));
        let (value, effect) = (text(&toleration.value), text(&toleration.effect));
        if !key.is_empty() {
            label_name(errors, &path.child("key"), key);
        }
        if key.is_empty() && operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            errors.invalid(&path.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator {
            "Equal" | "" => {
                let messages = validate::label_value(value);
                if !messages.is_empty() {
                    errors.invalid(&path.child("operator"), value, messages.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid(&path.child("operator"), value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            _ => errors.not_supported(&path.child("operator"), operator, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.not_supported(&path.child("effect"), effect, &EFFECTS);
        }
    }
}

/// Validates affinity and anti-affinity.
pub(super) fn validate_affinity(errors: &mut ErrorList, path: &Path, affinity: &Affinity) {
    if let Some(node) = &affinity.node_affinity {
        node_affinity(errors, &path.child("nodeAffinity"), node);
    }
    let sides = [
        (
            "podAffinity",
            affinity.pod_affinity.as_ref().map(|side| {
                (
                    list(&side.required_during_scheduling_ignored_during_execution),
                    list(&side.preferred_during_scheduling_ignored_during_execution),
                )
            }),
        ),
        (
            "podAntiAffinity",
            affinity.pod_anti_affinity.as_ref().map(|side| {
                (
                    list(&side.required_during_scheduling_ignored_during_execution),
                    list(&side.preferred_during_scheduling_ignored_during_execution),
                )
            }),
        ),
    ];
    for (name, side) in sides {
        if let Some((required, preferred)) = side {
            pod_affinity(errors, &path.child(name), required, preferred);
        }
    }
}

fn pod_affinity(
    errors: &mut ErrorList,
    path: &Path,
    required: &[PodAffinityTerm],
    preferred: &[WeightedPodAffinityTerm],
) {
    let terms = path.child("requiredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in required.iter().enumerate() {
        pod_affinity_term(errors, &terms.index(index), term);
    }
    let terms = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in preferred.iter().enumerate() {
        weight(errors, &terms.index(index), term.weight);
        pod_affinity_term(errors, &terms.index(index).child("podAffinityTerm"), &term.pod_affinity_term);
    }
}

fn weight(errors: &mut ErrorList, path: &Path, weight: i32) {
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn pod_affinity_term(errors: &mut ErrorList, path: &Path, term: &PodAffinityTerm) {
    label_selector(errors, &path.child("labelSelector"), term.label_selector.as_ref());
    label_selector(errors, &path.child("namespaceSelector"), term.namespace_selector.as_ref());
    for namespace in list(&term.namespaces) {
        errors.messages(&path.child("namespace"), namespace, validate::dns_label(namespace));
    }
    label_keys(errors, path, term);
    if term.topology_key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    label_name(errors, &path.child("topologyKey"), &term.topology_key);
}

fn label_keys(errors: &mut ErrorList, path: &Path, term: &PodAffinityTerm) {
    let (matching, other) = (list(&term.match_label_keys), list(&term.mismatch_label_keys));
    for (name, keys) in [("matchLabelKeys", matching), ("mismatchLabelKeys", other)] {
        let path = path.child(name);
        if keys.is_empty() {
            continue;
        }
        if term.label_selector.is_none() {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            label_name(errors, &path.index(index), key);
        }
    }
    if let Some(selector) = &term.label_selector {
        // The keys have been merged into the selector, once each: a second time means that the user named them too.
        let mut named: BTreeSet<&str> = entries(&selector.match_labels).map(|(key, _)| key.as_str()).collect();
        for requirement in list(&selector.match_expressions) {
            let key = requirement.key.as_str();
            if let Some(index) = matching.iter().position(|candidate| candidate == key)
                && named.contains(key)
            {
                errors.invalid(&path.index(index), key, "exists in both matchLabelKeys and labelSelector");
            }
            named.insert(key);
        }
    }
    for (index, key) in matching.iter().enumerate().filter(|(_, key)| other.contains(key)) {
        errors.invalid(
            &path.child("matchLabelKeys").index(index),
            key,
            "exists in both matchLabelKeys and mismatchLabelKeys",
        );
    }
}

fn node_affinity(errors: &mut ErrorList, path: &Path, affinity: &NodeAffinity) {
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        node_selector(errors, &path.child("requiredDuringSchedulingIgnoredDuringExecution"), selector);
    }
    let terms = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in list(&affinity.preferred_during_scheduling_ignored_during_execution).iter().enumerate() {
        weight(errors, &terms.index(index), term.weight);
        // A preference for an impossible label value was always accepted: it just never matches.
        node_selector_term(errors, &terms.index(index).child("preference"), &term.preference, false);
    }
}

/// Validates a node selector.
pub(crate) fn node_selector(errors: &mut ErrorList, path: &Path, selector: &NodeSelector) {
    let terms = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.required(&terms, "must have at least one node selector term");
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        node_selector_term(errors, &terms.index(index), term, true);
    }
}

fn node_selector_term(errors: &mut ErrorList, path: &Path, term: &NodeSelectorTerm, check_values: bool) {
    for (index, requirement) in list(&term.match_expressions).iter().enumerate() {
        node_requirement(errors, &path.child("matchExpressions").index(index), requirement, check_values);
    }
    for (index, requirement) in list(&term.match_fields).iter().enumerate() {
        node_field(errors, &path.child("matchFields").index(index), requirement);
    }
}

fn node_requirement(errors: &mut ErrorList, path: &Path, requirement: &NodeSelectorRequirement, check_values: bool) {
    let values = list(&requirement.values);
    let field = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                errors.required(&field, "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                errors.forbidden(&field, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                errors.required(&field, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
        }
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    label_name(errors, &path.child("key"), &requirement.key);
    if check_values {
        for (index, value) in values.iter().enumerate() {
            errors.messages(&field.index(index), value, validate::label_value(value));
        }
    }
}

fn node_field(errors: &mut ErrorList, path: &Path, requirement: &NodeSelectorRequirement) {
    let values = list(&requirement.values);
    if !["In", "NotIn"].contains(&requirement.operator.as_str()) {
        errors.invalid(&path.child("operator"), &requirement.operator, "not a valid selector operator");
    } else if values.len() != 1 {
        errors.required(
            &path.child("values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        );
    }
    if requirement.key != "metadata.name" {
        errors.invalid(&path.child("key"), &requirement.key, "not a valid field selector key");
        return;
    }
    for (index, value) in values.iter().enumerate() {
        errors.messages(&path.child("values").index(index), value, validate::dns_subdomain(value));
    }
}

/// Validates topology spread constraints.
pub(super) fn validate_spread(errors: &mut ErrorList, path: &Path, constraints: &[TopologySpreadConstraint]) {
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let action = constraint.when_unsatisfiable.as_str();
        if constraint.max_skew <= 0 {
            errors.invalid(&path.child("maxSkew"), constraint.max_skew, POSITIVE);
        }
        if constraint.topology_key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            errors.not_supported(&path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        if constraints[index + 1..]
            .iter()
            .any(|later| later.topology_key == constraint.topology_key && later.when_unsatisfiable == action)
        {
            errors.duplicate(
                &path.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{}, {action}}}", constraint.topology_key),
            );
        }
        if let Some(domains) = constraint.min_domains {
            let path = path.child("minDomains");
            if domains <= 0 {
                errors.invalid(&path, domains, POSITIVE);
            }
            if action != "DoNotSchedule" {
                errors.invalid(
                    &path,
                    domains,
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"),
                );
            }
        }
        for (name, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            optional_one_of(errors, &path.child(name), policy, &["Honor", "Ignore"]);
        }
        spread_label_keys(errors, &path.child("matchLabelKeys"), constraint);
        label_selector(errors, &path.child("labelSelector"), constraint.label_selector.as_ref());
    }
}

fn spread_label_keys(errors: &mut ErrorList, path: &Path, constraint: &TopologySpreadConstraint) {
    let keys = list(&constraint.match_label_keys);
    if keys.is_empty() {
        return;
    }
    if constraint.label_selector.is_none() {
        errors.forbidden(path, "must not be specified when labelSelector is not set");
    }
    for (index, key) in keys.iter().enumerate() {
        label_name(errors, &path.index(index), key);
        if constraint.label_selector.as_ref().is_some_and(|selector| times_named(selector, key) > 0) {
            errors.invalid(&path.index(index), key, "exists in both matchLabelKeys and labelSelector");
        }
    }
}

fn times_named(selector: &LabelSelector, key: &str) -> usize {
    usize::from(entries(&selector.match_labels).any(|(name, _)| name == key))
        + list(&selector.match_expressions).iter().filter(|requirement| requirement.key == key).count()
}

/// Validates scheduling gates.
pub(super) fn validate_gates(errors: &mut ErrorList, path: &Path, gates: &[PodSchedulingGate]) {
    let mut seen = BTreeSet::new();
    for (index, gate) in gates.iter().enumerate() {
        let path = path.index(index);
        qualified_name(errors, &path, &gate.name);
        if !seen.insert(&gate.name) {
            errors.duplicate(&path, &gate.name);
        }
    }
}
