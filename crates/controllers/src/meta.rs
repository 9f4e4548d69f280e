//! Small things about object metadata that every controller needs: who controls an object, references, versions.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::{Metadata, Resource};
use serde::Serialize;
use serde_json::{Map, Value};

/// The index of an informer under which an object is found by the UID of its controller.
pub const BY_CONTROLLER: &str = "controllers/controller-uid";
/// The index under which an object without a controller is found by its namespace.
pub const ORPHANS: &str = "controllers/orphans";
/// The index under which an object is found by its namespace.
pub const BY_NAMESPACE: &str = "controllers/namespace";

/// The values for [`BY_CONTROLLER`].
pub fn controller_uids<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Vec<String> {
    controller_of(object.metadata()).map(|owner| owner.uid.clone()).into_iter().collect()
}

/// The values for [`ORPHANS`].
pub fn orphan_namespaces<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Vec<String> {
    match controller_of(object.metadata()) {
        Some(_) => Vec::new(),
        None => vec![namespace(object).to_owned()],
    }
}

/// The values for [`BY_NAMESPACE`].
pub fn namespaces<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Vec<String> {
    vec![namespace(object).to_owned()]
}

/// The name of `object`; empty if it has none, which no API server returns.
pub fn name<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().name.as_deref().unwrap_or_default()
}

/// The namespace of `object`; empty for objects of cluster scope.
pub fn namespace<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().namespace.as_deref().unwrap_or_default()
}

/// The UID of `object`.
pub fn uid<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().uid.as_deref().unwrap_or_default()
}

/// Whether deletion of `object` has begun.
pub fn is_deleting<K: Metadata<Ty = ObjectMeta>>(object: &K) -> bool {
    object.metadata().deletion_timestamp.is_some()
}

/// The value of an annotation.
pub fn annotation<'a, K: Metadata<Ty = ObjectMeta>>(object: &'a K, key: &str) -> Option<&'a str> {
    let annotations = object.metadata().annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

/// When `object` was created; the epoch if it does not say.
pub fn created<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Timestamp {
    object.metadata().creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// The status of a condition (`ConditionStatus` in `k8s.io/apimachinery/pkg/apis/meta/v1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can say whether it holds.
    Unknown,
}

impl ConditionStatus {
    /// As the API has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    /// What `text` says; what is neither true nor false is not known.
    pub fn of(text: &str) -> Self {
        match text {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(is_true: bool) -> Self {
        if is_true { Self::True } else { Self::False }
    }
}

impl PartialEq<ConditionStatus> for String {
    fn eq(&self, status: &ConditionStatus) -> bool {
        self == status.as_str()
    }
}

/// The owner reference that names the controller of an object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// Whether the object with this UID controls an object.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// The owner reference by which `owner` controls what it creates.
pub fn controller_ref<K: Resource + Metadata<Ty = ObjectMeta>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: name(owner).to_owned(),
        uid: uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference by which an event names `object`.
pub fn reference<K: Resource + Metadata<Ty = ObjectMeta>>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    }
}

/// A resource version as the number it is. Nothing if a server uses something else.
pub fn version(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

/// A counter as the API writes it: zero is left out.
pub fn count(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

/// `time` as the API keeps it, in whole seconds.
pub fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// How long it is from `now` to `then`; zero if that is past.
pub fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

/// `time` moved by so many seconds; `time` itself where that leaves the calendar.
pub fn plus_seconds(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(time)
}

/// The merge patch for the status subresource that turns `old` into `new`; nothing if they are the same.
///
/// Only members that differ are named, those that went away as null: a status has one writer, and what it did not mean
/// to change it does not touch.
///
/// # Errors
/// When a status cannot be encoded.
pub fn status_patch<S: Serialize>(old: &S, new: &S) -> Result<Option<Value>, serde_json::Error> {
    let changes = difference(&members(old)?, &members(new)?);
    Ok((!changes.is_empty()).then(|| serde_json::json!({ "status": changes })))
}

/// What a merge patch has to say to make `new` of `old`. At every depth: a merge patch keeps the members that it does not
/// name.
fn difference(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut changes = Map::new();
    for (key, value) in new {
        match (old.get(key), value) {
            (Some(before), value) if before == value => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                changes.insert(key.clone(), Value::Object(difference(before, after)));
            }
            _ => {
                changes.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        changes.insert(key.clone(), Value::Null);
    }
    changes
}

fn members<S: Serialize>(status: &S) -> Result<Map<String, Value>, serde_json::Error> {
    Ok(match serde_json::to_value(status)? {
        Value::Object(members) => members,
        _ => Map::new(),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSetStatus;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_patch_names_what_changed_and_nulls_what_went() {
        let old = ReplicaSetStatus {
            replicas: 2,
            ready_replicas: Some(2),
            observed_generation: Some(1),
            ..ReplicaSetStatus::default()
        };
        let new = ReplicaSetStatus { replicas: 3, ready_replicas: None, ..old.clone() };
        assert_eq!(
            status_patch(&old, &new).ok().flatten(),
            Some(json!({ "status": { "replicas": 3, "readyReplicas": null } }))
        );
        assert_eq!(status_patch(&old, &old).ok(), Some(None));
    }

    #[test]
    fn a_status_patch_reaches_what_is_deep() {
        let status = |uncounted: serde_json::Value| -> k8s_openapi::api::batch::v1::JobStatus {
            serde_json::from_value(json!({ "failed": 1, "uncountedTerminatedPods": uncounted })).expect("a status")
        };
        let check = |old: serde_json::Value, new: serde_json::Value, expected: serde_json::Value| {
            let patch = status_patch(&status(old), &status(new)).expect("JSON");
            let changes = patch.map(|patch| patch["status"]["uncountedTerminatedPods"].clone());
            assert_eq!(changes.unwrap_or_default(), expected);
        };
        check(json!({ "failed": ["a"] }), json!({}), json!({ "failed": null }));
        check(json!({ "failed": ["a"] }), json!({ "succeeded": ["b"] }), json!({ "failed": null, "succeeded": ["b"] }));
        check(json!({ "failed": ["a"] }), json!({ "failed": ["a"] }), json!(null));
        check(json!({}), json!({ "failed": ["a", "b"] }), json!({ "failed": ["a", "b"] }));
    }
}
