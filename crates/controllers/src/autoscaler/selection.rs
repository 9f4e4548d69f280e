//! Which pods an autoscaler scales by, and who else does.

use std::sync::Arc;

use informer::{Informer, ObjectKey};
use k8s_openapi::api::core::v1::Pod;
use machinery::selector::LabelSelector;

use crate::meta;

/// The pods that the target's selector selects.
pub(super) fn pods(pods: &Informer<Pod>, namespace: &str, selector: &LabelSelector) -> Vec<Arc<Pod>> {
    let mut pods = pods.by_index(meta::BY_NAMESPACE, namespace);
    pods.retain(|pod| selector.matches_option(pod.metadata.labels.as_ref()));
    pods
}

/// The autoscalers of the namespace, this one included, that scale by any of `pods`: more than one fight each other.
pub(super) fn rivals<'a>(
    own: &ObjectKey,
    all: impl Iterator<Item = (&'a ObjectKey, Option<&'a LabelSelector>)>,
    pods: &[Arc<Pod>],
) -> Vec<String> {
    let same_place = all.filter(|(key, _)| key.namespace == own.namespace);
    let selects = same_place.filter(|(key, selector)| {
        let matches =
            |pod: &Arc<Pod>| selector.is_some_and(|selector| selector.matches_option(pod.metadata.labels.as_ref()));
        *key == own || pods.iter().any(matches)
    });
    let mut names: Vec<String> = selects.map(|(key, _)| key.to_string()).collect();
    names.sort();
    names
}
