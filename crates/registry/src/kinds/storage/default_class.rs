//! Which class a claim has that names none: the newest one marked as the default (upstream's admission,
//! DefaultStorageClass).

use std::cmp::Reverse;

use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use store::Store;

use crate::kinds::common::entry;

const MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// Whether a class is marked as the default.
pub(super) fn is_default(meta: &ObjectMeta) -> bool {
    MARKS.iter().any(|mark| entry(&meta.annotations, mark).is_some_and(|value| value == "true"))
}

/// The name of the default class, if there is one. Classes are few.
pub(super) fn name(store: &Store) -> Option<String> {
    let classes = store.snapshot("storage.k8s.io/storageclasses");
    let decoded = classes.iter().filter_map(|entry| serde_json::from_slice::<StorageClass>(&entry.value).ok());
    let metas = decoded.map(|class| class.metadata).filter(is_default);
    let order = |meta: &ObjectMeta| {
        let created = meta.creation_timestamp.as_ref().map(|time| time.0);
        (Reverse(created), meta.name.clone())
    };
    metas.min_by_key(order)?.name
}
