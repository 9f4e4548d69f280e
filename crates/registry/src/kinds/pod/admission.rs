//! What upstream does to Pods between defaulting and validation: its strategy and the admission plugins that are
//! always on ([`account`], Priority, RuntimeClass, DefaultTolerationSeconds).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodAffinityTerm, PodCondition, PodSpec, Toleration};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelectorRequirement, ObjectMeta, Time};
use machinery::field::{ErrorList, Path};
use machinery::gvk::{GroupKind, GroupResource};
use machinery::status::ApiError;
use serde::de::DeserializeOwned;
use store::Key;

use super::account;
use crate::kind::Context;
use crate::kinds::check::Report;
use crate::kinds::common::{blank, default_text, entry, list, text};
use crate::kinds::priority_class::{self, SYSTEM_CLASSES};

/// Marks a pod that mirrors a file on the node: it is nobody's business but the kubelet's.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How long a pod stays on a node that is in trouble.
const NODE_TROUBLE_SECONDS: i64 = 300;
const NODE_TROUBLES: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// Fills in what a new Pod gets.
pub(super) fn admit(pod: &mut Pod, context: &Context<'_>) {
    super::leader_worker::join_group(pod, context);
    if entry(&pod.metadata.annotations, MIRROR).is_none() {
        account::admit(pod, context);
    }
    let labels = pod.metadata.labels.clone();
    let spec = pod.spec.get_or_insert_default();
    take_runtime_class(spec, context);
    tolerate_node_trouble(spec);
    prioritize(spec, context);
    for term in pod_affinity_terms(spec) {
        merge_label_keys(term, labels.as_ref());
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

/// What the pod's runtime class says about its pods: what they cost, and where they can run.
fn take_runtime_class(spec: &mut PodSpec, context: &Context<'_>) {
    let Some(class) = runtime_class(spec, context) else { return };
    if let Some(overhead) = class.overhead
        && spec.overhead.is_none()
    {
        spec.overhead = overhead.pod_fixed;
    }
    if let Some(scheduling) = class.scheduling {
        let selector = scheduling.node_selector.unwrap_or_default();
        if !selector.is_empty() {
            spec.node_selector.get_or_insert_default().extend(selector);
        }
        for toleration in scheduling.tolerations.unwrap_or_default() {
            let present = spec.tolerations.get_or_insert_default();
            if !present.contains(&toleration) {
                present.push(toleration);
            }
        }
    }
}

fn runtime_class(spec: &PodSpec, context: &Context<'_>) -> Option<RuntimeClass> {
    let name = text(&spec.runtime_class_name);
    (!name.is_empty()).then(|| stored(context, &Key::new("node.k8s.io/runtimeclasses", "", name)))?
}

/// Lets a pod stay for a while on a node that is not ready or not reachable, unless the pod says otherwise.
pub(super) fn tolerate_node_trouble(spec: &mut PodSpec) {
    for trouble in NODE_TROUBLES {
        let tolerates = |toleration: &Toleration| {
            [trouble, ""].contains(&text(&toleration.key)) && ["NoExecute", ""].contains(&text(&toleration.effect))
        };
        if !list(&spec.tolerations).iter().any(tolerates) {
            spec.tolerations.get_or_insert_default().push(Toleration {
                key: Some(trouble.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(NODE_TROUBLE_SECONDS),
                value: None,
            });
        }
    }
}

fn prioritize(spec: &mut PodSpec, context: &Context<'_>) {
    let class = class_of(text(&spec.priority_class_name), context).unwrap_or_else(Class::none);
    if blank(&spec.priority_class_name) {
        spec.priority_class_name = class.name;
    }
    // Other than the class has it: refused once all else is known to be right ([`references_exist`]).
    spec.priority.get_or_insert(class.value);
    default_text(&mut spec.preemption_policy, &class.preemption);
}

/// What a priority class gives a pod.
struct Class {
    name: Option<String>,
    value: i32,
    preemption: String,
}

impl Class {
    /// What a pod has without a class.
    fn none() -> Self {
        Self::plain(None, 0)
    }

    fn plain(name: Option<String>, value: i32) -> Self {
        Self { name, value, preemption: "PreemptLowerPriority".to_owned() }
    }

    fn of(class: PriorityClass) -> Self {
        let mut own = Self::plain(class.metadata.name, class.value.unwrap_or_default());
        if let Some(policy) = class.preemption_policy {
            own.preemption = policy;
        }
        own
    }
}

/// The class of that name, if there is one; without a name the cluster's default class, or none.
fn class_of(name: &str, context: &Context<'_>) -> Option<Class> {
    if let Some((_, value)) = SYSTEM_CLASSES.into_iter().find(|(known, _)| *known == name) {
        return Some(Class::plain(Some(name.to_owned()), value));
    }
    if !name.is_empty() {
        return priority_class::stored(context, name).map(Class::of);
    }
    let default = priority_class::defaults(context).min_by_key(|class| class.value.unwrap_or_default());
    Some(default.map_or_else(Class::none, Class::of))
}

/// A priority is given once: an update that leaves it out does not take it away.
pub(super) fn keep_priority(new: &mut Pod, old: &Pod) {
    if let (Some(new), Some(old)) = (&mut new.spec, &old.spec) {
        new.priority = new.priority.or(old.priority);
        if new.preemption_policy.is_none() {
            new.preemption_policy.clone_from(&old.preemption_policy);
        }
        if blank(&new.service_account_name) {
            new.service_account_name.clone_from(&old.service_account_name);
            new.service_account.clone_from(&old.service_account);
        }
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

/// Refuses in a new Pod what only a subresource or a binding may bring about later.
pub(super) fn validate_create(pod: &Pod) -> Result<(), ApiError> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    if !list(&spec.ephemeral_containers).is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !blank(&spec.node_name) && !list(&spec.scheduling_gates).is_empty() {
        errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&GroupKind::new("", "Pod"), text(&pod.metadata.name), &errors))
}

/// Refuses a Pod that names a service account, priority class or runtime class which does not exist.
pub(super) fn references_exist(pod: &Pod, context: &Context<'_>) -> Result<(), ApiError> {
    account::exists(pod, context)?;
    let Some(spec) = &pod.spec else { return Ok(()) };
    let refuse = |meta: &ObjectMeta, why: String| {
        Err(ApiError::forbidden(&GroupResource::new("", "pods"), text(&meta.name), why))
    };
    let class = text(&spec.priority_class_name);
    let Some(Class { value, preemption, .. }) = class_of(class, context) else {
        return refuse(&pod.metadata, format!("no PriorityClass with name {class} was found"));
    };
    let computed = "must not be provided in pod spec; priority admission controller computed";
    if let Some(given) = spec.priority.filter(|given| *given != value) {
        let why =
            format!("the integer value of priority ({given}) {computed} {value} from the given PriorityClass name");
        return refuse(&pod.metadata, why);
    }
    let given = text(&spec.preemption_policy);
    if given != preemption {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) {computed} {preemption} from the given PriorityClass name"
        );
        return refuse(&pod.metadata, why);
    }
    let class = text(&spec.runtime_class_name);
    if !class.is_empty() {
        let Some(class) = runtime_class(spec, context) else {
            return refuse(&pod.metadata, format!("pod rejected: RuntimeClass \"{class}\" not found"));
        };
        if spec.overhead.is_some() && spec.overhead != class.overhead.and_then(|overhead| overhead.pod_fixed) {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned();
            return refuse(&pod.metadata, why);
        }
    }
    Ok(())
}

/// How long a Pod may take to end. One that never reached a node, or has ended already, goes at once.
pub(super) fn grace_period(pod: &Pod, requested: Option<i64>) -> i64 {
    let spec = pod.spec.as_ref();
    let phase = pod.status.as_ref().map_or("", |status| text(&status.phase));
    if spec.is_none_or(|spec| blank(&spec.node_name)) || ["Succeeded", "Failed"].contains(&phase) {
        return 0;
    }
    let wished = requested.or_else(|| spec.and_then(|spec| spec.termination_grace_period_seconds)).unwrap_or_default();
    // A negative period was once legal and means "as fast as possible, but in good order".
    if wished < 0 { 1 } else { wished }
}

/// Takes the resources and resize policies of the containers, and nothing else, from a resize request.
pub(super) fn take_resources(spec: &mut PodSpec, wished: PodSpec) {
    take_of(&mut spec.containers, &wished.containers);
    if let Some(containers) = &mut spec.init_containers {
        take_of(containers, list(&wished.init_containers));
    }
}

fn take_of(containers: &mut [Container], wished: &[Container]) {
    for container in containers {
        if let Some(wish) = wished.iter().find(|wish| wish.name == container.name) {
            container.resources.clone_from(&wish.resources);
            container.resize_policy.clone_from(&wish.resize_policy);
        }
    }
}

pub(super) fn stored<T: DeserializeOwned>(context: &Context<'_>, key: &Key) -> Option<T> {
    context.store.get(key).and_then(|entry| serde_json::from_slice(&entry.value).ok())
}
