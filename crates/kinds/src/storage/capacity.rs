//! storage.k8s.io/v1 CSIStorageCapacity.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIStorageCapacity as Object;
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, cell_name};
use serde_json::Value;

use super::class_name;
use crate::check::{NEGATIVE, Report, immutable, label_selector};
use crate::common::{canonical_quantity, quantity};

/// CSIStorageCapacities.
pub(crate) struct CSIStorageCapacity;

impl Kind for CSIStorageCapacity {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        unconditional_update: false,
        ..Descriptor::namespaced("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities")
    };

    fn default(object: &mut Object) {
        for amount in [&mut object.capacity, &mut object.maximum_volume_size].into_iter().flatten() {
            canonical_quantity(amount);
        }
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        label_selector(&mut errors, &Path::new("nodeTopology"), object.node_topology.as_ref());
        let class = Path::new("storageClassName");
        if object.storage_class_name.is_empty() {
            errors.required(&class, "");
        }
        class_name(&mut errors, &class, &object.storage_class_name);
        for (field, amount) in [("capacity", &object.capacity), ("maximumVolumeSize", &object.maximum_volume_size)] {
            if let Some(amount) = amount
                && quantity(amount).is_some_and(|amount| amount.is_negative())
            {
                errors.invalid(&Path::new(field), &amount.0, NEGATIVE);
            }
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        immutable(&mut errors, &Path::new("nodeTopology"), &new.node_topology, &old.node_topology);
        immutable(&mut errors, &Path::new("storageClassName"), &new.storage_class_name, &old.storage_class_name);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("StorageClassName", "The class it is about."),
            Column::string("Capacity", "How much is free."),
        ]
    }

    fn row(object: &Object, _now: Timestamp) -> Vec<Value> {
        let capacity = object.capacity.as_ref().map_or("", |capacity| &capacity.0);
        vec![cell_name(&object.metadata), object.storage_class_name.as_str().into(), capacity.into()]
    }
}
