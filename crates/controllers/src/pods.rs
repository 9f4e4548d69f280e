//! What controllers ask about a Pod: is it active, ready, available, and since when.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

use crate::meta::{self, ConditionStatus};

/// The index under which a Pod is found by the name of its node.
pub const BY_NODE: &str = "controllers/node";
/// The index under which a Pod is found by each of its labels; see [`label_value`].
pub const BY_LABEL: &str = "controllers/label";

/// The values for [`BY_NODE`].
pub fn node_names(pod: &Pod) -> Vec<String> {
    node_name(pod).map(str::to_owned).into_iter().collect()
}

/// The values for [`BY_LABEL`].
pub fn label_values(pod: &Pod) -> Vec<String> {
    let labels = pod.metadata.labels.iter().flatten();
    labels.map(|(key, value)| label_value(meta::namespace(pod), key, value)).collect()
}

/// What a Pod with this label in this namespace is found under in [`BY_LABEL`].
pub fn label_value(namespace: &str, key: &str, value: &str) -> String {
    // None of the parts can contain the separator.
    format!("{namespace}|{key}={value}")
}

/// The node that the Pod is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    let name = pod.spec.as_ref()?.node_name.as_deref()?;
    (!name.is_empty()).then_some(name)
}

/// The ordinal of a Pod of the StatefulSet called `set`: nothing if that is no name of one.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let (parent, digits) = pod.rsplit_once('-')?;
    let number: i32 = digits.parse().ok()?;
    (parent == set && number.to_string() == digits).then_some(number)
}

/// The phase of a Pod (`PodPhase` in `k8s.io/api/core/v1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    /// Nobody has set it, or to something that is none.
    Unset,
    /// It is accepted, and not all of its containers have been started.
    Pending,
    /// It is on a node, and a container runs, starts or is restarted.
    Running,
    /// All containers have ended well and are not started again.
    Succeeded,
    /// All containers have ended, one of them badly.
    Failed,
    /// Nobody can say.
    Unknown,
}

/// The Pod's phase.
pub fn phase(pod: &Pod) -> PodPhase {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Pending") => PodPhase::Pending,
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some("Unknown") => PodPhase::Unknown,
        _ => PodPhase::Unset,
    }
}

/// Whether all containers have ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), PodPhase::Succeeded | PodPhase::Failed)
}

/// Whether the Pod counts as a replica: neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !meta::is_deleting(pod)
}

/// The condition of this type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Since when the Pod is ready: nothing if it is not. A Pod whose condition has no time is ready since its creation.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == ConditionStatus::True)?;
    Some(ready.last_transition_time.as_ref().map_or_else(|| meta::created(pod), |time| time.0))
}

/// Whether the Pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// In what time a ready Pod will have been ready for `min_ready_seconds`: zero if it is available now, nothing if it
/// is not ready.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let since = ready_since(pod)?;
    if min_ready_seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let available_at = meta::plus_seconds(since, i64::from(min_ready_seconds));
    Some(meta::until(available_at, now))
}
