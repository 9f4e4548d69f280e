//! Which ReplicaSet belongs to which template, and in what order they came: hashes, revisions, annotations.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::replicas::Bounds;
use crate::meta;

/// The label that tells the Pods of one template from those of another.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";
/// The place of a ReplicaSet in the sequence of rollouts; on a Deployment, that of the current one.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
/// The places that a ReplicaSet had before the Deployment was rolled back to it.
pub(crate) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// What the Deployment asked for when it last scaled the ReplicaSet: how a change of scale is told from a rollout.
pub(crate) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// That, with surge: what proportions are taken of.
pub(crate) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// The longest history that is kept in an annotation, in bytes.
const HISTORY_MAX: usize = 2_000;

/// Objects within a template where an empty one means as much as none. An empty object elsewhere does mean something
/// (`emptyDir: {}`).
const MAPS: [&str; 9] =
    ["annotations", "labels", "limits", "matchLabels", "metadata", "nodeSelector", "overhead", "requests", "resources"];

/// The template without its hash label, and without what makes no difference.
fn canonical(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    // What cannot be encoded cannot have come through the API.
    let mut value = serde_json::to_value(&template).unwrap_or_default();
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(prune);
            members.retain(|key, member| match member {
                Value::Null => false,
                Value::Array(items) => !items.is_empty(),
                Value::Object(members) => !members.is_empty() || !MAPS.contains(&key.as_str()),
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// The template's hash, as it stands in names and labels.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    machinery::hash::pod_template_hash(&canonical(template), collisions)
}

/// Whether two templates ask for the same Pods.
pub(crate) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a == b || canonical(a) == canonical(b)
}

/// The template of `rs`.
pub(crate) fn template(rs: &ReplicaSet) -> Option<&PodTemplateSpec> {
    rs.spec.as_ref()?.template.as_ref()
}

/// The order in which ReplicaSets were created.
pub(crate) fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> Ordering {
    meta::created(a).cmp(&meta::created(b)).then_with(|| meta::name(a).cmp(meta::name(b)))
}

/// The oldest of `sets` with the template of `deployment`. Upstream: with several, the choice must be a stable one.
pub(crate) fn current<'a>(deployment: &Deployment, sets: &'a [Arc<ReplicaSet>]) -> Option<&'a Arc<ReplicaSet>> {
    let wanted = &deployment.spec.as_ref()?.template;
    let same = |rs: &&Arc<ReplicaSet>| template(rs).is_some_and(|template| same_template(template, wanted));
    sets.iter().filter(same).min_by(|a, b| by_age(a, b))
}

/// The revision of `rs`; zero if it has none.
pub(crate) fn revision(rs: &ReplicaSet) -> i64 {
    number(rs, REVISION).unwrap_or_default()
}

/// What the Deployment asked for when it last scaled `rs`.
pub(crate) fn desired_replicas(rs: &ReplicaSet) -> Option<i32> {
    number(rs, DESIRED_REPLICAS)
}

/// That, with surge.
pub(crate) fn max_replicas(rs: &ReplicaSet) -> Option<i32> {
    number(rs, MAX_REPLICAS)
}

fn number<N: std::str::FromStr>(rs: &ReplicaSet, key: &str) -> Option<N> {
    meta::annotation(rs, key)?.parse().ok()
}

/// Notes the Deployment's scale on `rs`. True if it was not noted yet.
pub(crate) fn set_scale(rs: &mut ReplicaSet, bounds: Bounds) -> bool {
    let annotations = annotations(rs);
    let desired = set(annotations, DESIRED_REPLICAS, bounds.replicas.to_string());
    let max = set(annotations, MAX_REPLICAS, bounds.max_total().to_string());
    desired || max
}

/// Gives `rs` the annotations of `deployment` and at least the revision `revision`. True if something changed.
///
/// Revisions move on and never back: a ReplicaSet that is rolled back to gets a new one and keeps the old in its history.
pub(crate) fn set_revision(deployment: &Deployment, rs: &mut ReplicaSet, revision: i64) -> bool {
    let mut changed = false;
    let annotations = annotations(rs);
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        let own = [LAST_APPLIED, ROLLBACK_TO, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS];
        if !own.contains(&key.as_str()) {
            changed |= set(annotations, key, value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned();
    let old_number: i64 = old.as_deref().and_then(|old| old.parse().ok()).unwrap_or_default();
    if old_number >= revision {
        return changed;
    }
    annotations.insert(REVISION.to_owned(), revision.to_string());
    if let Some(old) = old {
        let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
        if !history.is_empty() {
            history.push(',');
        }
        history.push_str(&old);
        while history.len() > HISTORY_MAX {
            let first = history.find(',').map_or(history.len(), |comma| comma + 1);
            history.drain(..first);
        }
    }
    true
}

fn annotations(rs: &mut ReplicaSet) -> &mut BTreeMap<String, String> {
    rs.metadata.annotations.get_or_insert_default()
}

fn set(map: &mut BTreeMap<String, String>, key: &str, value: String) -> bool {
    if map.get(key) == Some(&value) {
        return false;
    }
    map.insert(key.to_owned(), value);
    true
}

/// The ReplicaSet for the present template of `deployment`, with no replicas yet.
pub(crate) fn new_replica_set(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            // The name follows from the template, so that creating it twice is refused.
            name: Some(format!("{}-{hash}", meta::name(deployment))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![meta::controller_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
