//! What objects and pods are asked about by several kinds, beyond what the controllers ask.

pub(crate) use controllers::pods::{condition, is_finished as has_ended, is_ready};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use machinery::selector::LabelSelector as Selector;

use crate::words::after;

pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// Whether `owner` manages the object.
pub(crate) fn is_controlled_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    owner.uid.as_ref().is_some_and(|uid| controllers::meta::is_controlled_by(meta, uid))
}

pub(crate) fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The pods that `owner` manages.
pub(crate) fn pods_of(pods: &[Pod], owner: &ObjectMeta) -> Vec<Pod> {
    pods.iter().filter(|pod| is_controlled_by(&pod.metadata, owner)).cloned().collect()
}

/// When a pod that is ready has been that for so many seconds; nothing if it is not ready.
pub(crate) fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    after(controllers::pods::ready_since(pod)?, i64::from(min_ready_seconds))
}

/// Whether a selector selects an object; one that is not understood selects nothing.
pub(crate) fn selects(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    Selector::from_object(Some(selector)).is_ok_and(|selector| selector.matches_option(meta.labels.as_ref()))
}
