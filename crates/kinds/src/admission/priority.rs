//! Priority: a pod has the priority of its class, and at most one class is the default
//! (`plugin/pkg/admission/priority/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, PODS, decode_stored, object_of, object_of_mut};
use registry::object::Object;
use serde::Deserialize;

use crate::common::{blank, default_text, text};
use crate::priority_class::SYSTEM_CLASSES;

const CLASSES: &str = "scheduling.k8s.io/priorityclasses";

/// The plugin.
pub(super) struct Priority;

#[async_trait]
impl AdmissionPlugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        [PODS, CLASSES].iter().any(|storage| attributes.creates(storage) || attributes.updates(storage))
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        if attributes.is_whole(CLASSES) {
            return Ok(false);
        }
        let pod: &mut Pod = object_of_mut(object)?;
        match attributes.old {
            None => prioritize(pod.spec.get_or_insert_default(), attributes)?,
            Some(old) => keep(pod, object_of(Some(old))?),
        }
        Ok(true)
    }

    /// Upstream refuses a pod in its first half; here all else that is wrong is said before.
    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        if attributes.is_whole(CLASSES) {
            return check_default(attributes, object_of(object)?);
        }
        if attributes.old.is_some() { Ok(()) } else { check_pod(attributes, object_of(object)?) }
    }
}

fn prioritize(spec: &mut PodSpec, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let class = class_of(text(&spec.priority_class_name), attributes)?.unwrap_or_else(Class::none);
    if blank(&spec.priority_class_name) {
        spec.priority_class_name = class.name;
    }
    // Other than the class has it: refused once all else is known to be right.
    spec.priority.get_or_insert(class.value);
    default_text(&mut spec.preemption_policy, &class.preemption);
    Ok(())
}

/// A priority is given once: an update that leaves it out does not take it away.
fn keep(new: &mut Pod, old: &Pod) {
    if let (Some(new), Some(old)) = (&mut new.spec, &old.spec) {
        new.priority = new.priority.or(old.priority);
        if new.preemption_policy.is_none() {
            new.preemption_policy.clone_from(&old.preemption_policy);
        }
    }
}

fn check_pod(attributes: &Attributes<'_>, pod: &Pod) -> Result<(), ApiError> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let class = text(&spec.priority_class_name);
    let Some(Class { value, preemption, .. }) = class_of(class, attributes)? else {
        return Err(attributes.forbidden(pod, format!("no PriorityClass with name {class} was found")));
    };
    let computed = "must not be provided in pod spec; priority admission controller computed";
    if let Some(given) = spec.priority.filter(|given| *given != value) {
        let why =
            format!("the integer value of priority ({given}) {computed} {value} from the given PriorityClass name");
        return Err(attributes.forbidden(pod, why));
    }
    let given = text(&spec.preemption_policy);
    if given != preemption {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) {computed} {preemption} from the given PriorityClass name"
        );
        return Err(attributes.forbidden(pod, why));
    }
    Ok(())
}

/// Pods without a class have that of the one default: a second is refused.
fn check_default(attributes: &Attributes<'_>, class: &PriorityClass) -> Result<(), ApiError> {
    if class.global_default != Some(true) {
        return Ok(());
    }
    let name = text(&class.metadata.name);
    let others = defaults(attributes)?;
    let Some(other) = others.iter().find(|other| text(&other.metadata.name) != name) else { return Ok(()) };
    let other = text(&other.metadata.name);
    let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
    Err(attributes.forbidden(class, why))
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
fn class_of(name: &str, attributes: &Attributes<'_>) -> Result<Option<Class>, ApiError> {
    if let Some((_, value)) = SYSTEM_CLASSES.into_iter().find(|(known, _)| *known == name) {
        return Ok(Some(Class::plain(Some(name.to_owned()), value)));
    }
    if !name.is_empty() {
        return Ok(attributes.stored(CLASSES, "", name)?.map(Class::of));
    }
    let default = defaults(attributes)?.into_iter().min_by_key(|class| class.value.unwrap_or_default());
    Ok(Some(default.map_or_else(Class::none, Class::of)))
}

/// The classes that are the default of pods without one: more than one only if they were stored side by side.
fn defaults(attributes: &Attributes<'_>) -> Result<Vec<PriorityClass>, ApiError> {
    /// Read of each class for each pod: the rest of it is skipped.
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Mark {
        global_default: bool,
    }
    let mut defaults = Vec::new();
    for entry in attributes.registry.store().snapshot(CLASSES).iter() {
        if decode_stored::<Mark>(entry, &entry.value)?.global_default {
            defaults.push(decode_stored(entry, &entry.value)?);
        }
    }
    Ok(defaults)
}
