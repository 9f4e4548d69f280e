//! core/v1 ConfigMap.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap as Object;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::validate;
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name};
use serde_json::Value;

use super::check::{Report, frozen};
use super::common::{count, entries, entry};

/// The most the values of a ConfigMap or Secret may take together, in bytes.
pub(crate) const MAX_DATA: usize = 1024 * 1024;

/// ConfigMaps.
pub(crate) struct ConfigMap;

impl Kind for ConfigMap {
    type Object = Object;

    const DESCRIPTOR: Descriptor =
        Descriptor { short_names: &["cm"], ..Descriptor::namespaced("", "v1", "ConfigMap", "configmaps") };

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut size = 0;
        for (key, value) in entries(&object.data) {
            let path = Path::new("data").key(key);
            errors.messages(&path, key, validate::config_map_key(key));
            if entry(&object.binary_data, key).is_some() {
                errors.invalid(&path, key, "duplicate of key present in binaryData");
            }
            size += value.len();
        }
        for (key, value) in entries(&object.binary_data) {
            errors.messages(&Path::new("binaryData").key(key), key, validate::config_map_key(key));
            size += value.0.len();
        }
        if size > MAX_DATA {
            // The whole object is meant, for which upstream writes an empty index.
            errors.push(FieldError::too_long(&Path::new("[]"), "", MAX_DATA));
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        if old.immutable == Some(true) {
            frozen(&mut errors, "immutable", new.immutable == Some(true));
            frozen(&mut errors, "data", new.data == old.data);
            frozen(&mut errors, "binaryData", new.binary_data == old.binary_data);
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::string("Data", "How many keys it has."), Column::age()]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let keys = count(&object.data) + count(&object.binary_data);
        vec![cell_name(&object.metadata), keys.into(), cell_age(&object.metadata, now)]
    }
}
