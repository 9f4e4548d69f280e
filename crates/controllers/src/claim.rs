//! Who belongs to whom: adoption and release by controller reference and selector.
//!
//! Upstream: an object with a controller reference belongs to that controller and to nobody else, whatever its labels.
//! A controller takes in orphans that its selector matches, and lets go of what it no longer matches.

use std::collections::BTreeMap;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use crate::meta;

/// How an object stands to a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the controller's and stays so.
    Owned,
    /// It is nobody's, and the selector matches.
    Adopt,
    /// It is the controller's, but the selector does not match any more.
    Release,
    /// It is no concern of the controller's.
    Foreign,
}

/// How `object` stands to `owner`, whose selector is `matches`.
pub(crate) fn claim<O, K>(owner: &O, matches: impl Fn(&BTreeMap<String, String>) -> bool, object: &K) -> Claim
where
    O: Metadata<Ty = ObjectMeta>,
    K: Metadata<Ty = ObjectMeta>,
{
    let selected = || match &object.metadata().labels {
        Some(labels) => matches(labels),
        None => matches(&BTreeMap::new()),
    };
    let owner_deleting = meta::is_deleting(owner);
    match meta::controller_of(object.metadata()) {
        Some(controller) if controller.uid != meta::uid(owner) => Claim::Foreign,
        Some(_) if selected() => Claim::Owned,
        Some(_) if owner_deleting => Claim::Foreign,
        Some(_) => Claim::Release,
        None if owner_deleting || meta::is_deleting(object) || !selected() => Claim::Foreign,
        None => Claim::Adopt,
    }
}

/// The strategic merge patch that makes `owner` the controller of `object`. It fails if another object of the same
/// name has taken the place of `object`.
pub(crate) fn adoption<K: Metadata<Ty = ObjectMeta>>(owner: &OwnerReference, object: &K) -> Value {
    json!({ "metadata": { "uid": meta::uid(object), "ownerReferences": [owner] } })
}

/// The strategic merge patch that takes `object` away from the owner with the UID `owner`.
pub(crate) fn release<K: Metadata<Ty = ObjectMeta>>(owner: &str, object: &K) -> Value {
    json!({ "metadata": {
        "uid": meta::uid(object),
        "ownerReferences": [{ "$patch": "delete", "uid": owner }],
    } })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::from_value;

    use super::*;

    #[test]
    fn claims() {
        let mine =
            json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "1", "controller": true }]);
        let theirs =
            json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "2", "controller": true }]);
        let owned_only = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1" }]);
        let web = json!({ "app": "web" });
        let other = json!({ "app": "other" });
        let long_ago = json!("2020-01-01T00:00:00Z");
        let table = [
            (Value::Null, &mine, &web, Value::Null, Claim::Owned),
            (Value::Null, &mine, &other, Value::Null, Claim::Release),
            (Value::Null, &theirs, &web, Value::Null, Claim::Foreign),
            (Value::Null, &Value::Null, &web, Value::Null, Claim::Adopt),
            (Value::Null, &owned_only, &web, Value::Null, Claim::Adopt),
            (Value::Null, &Value::Null, &other, Value::Null, Claim::Foreign),
            (Value::Null, &Value::Null, &web, long_ago.clone(), Claim::Foreign),
            (long_ago.clone(), &Value::Null, &web, Value::Null, Claim::Foreign),
            (long_ago.clone(), &mine, &web, Value::Null, Claim::Owned),
            (long_ago, &mine, &other, Value::Null, Claim::Foreign),
        ];
        for (owner_deleted, owners, labels, deleted, expect) in table {
            let owner: ReplicaSet = from_value(json!({
                "metadata": { "name": "rs", "uid": "1", "deletionTimestamp": owner_deleted }
            }))
            .expect("owner");
            let pod: Pod = from_value(json!({ "metadata": {
                "name": "p", "ownerReferences": owners, "labels": labels, "deletionTimestamp": deleted
            } }))
            .expect("pod");
            let matches = |labels: &BTreeMap<String, String>| labels.get("app").is_some_and(|app| app == "web");
            assert_eq!(claim(&owner, matches, &pod), expect, "{pod:?}");
        }
    }
}
