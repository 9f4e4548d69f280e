//! storage.k8s.io/v1 CSINode.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSINode as Object, CSINodeDriver};
use machinery::field::{ErrorList, FieldError, Path};
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name};
use serde_json::Value;

use super::csi_driver::driver_name;
use crate::check::{NEGATIVE, Report, immutable, qualified_name};
use crate::common::list;

/// The longest identity of a node, in bytes.
const NODE_ID_MAX: usize = 192;

/// CSINodes.
pub(crate) struct CSINode;

impl Kind for CSINode {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        unconditional_update: false,
        returns_deleted_object: true,
        ..Descriptor::cluster("storage.k8s.io", "v1", "CSINode", "csinodes")
    };

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec").child("drivers");
        let mut names = BTreeSet::new();
        for (index, entry) in object.spec.drivers.iter().enumerate() {
            let path = path.index(index);
            driver(&mut errors, &path, entry);
            if !names.insert(&entry.name) {
                errors.duplicate(&path.child("name"), &entry.name);
            }
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        for old in &old.spec.drivers {
            let Some(new) = new.spec.drivers.iter().find(|new| new.name == old.name) else { continue };
            // How many volumes a node takes may be found out later; who the driver is may not change.
            let masked = CSINodeDriver { allocatable: old.allocatable.clone(), ..new.clone() };
            immutable(&mut errors, &Path::new("CSINodeDriver"), &masked, old);
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::integer("Drivers", "How many drivers run on the node."), Column::age()]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![cell_name(&object.metadata), object.spec.drivers.len().into(), cell_age(&object.metadata, now)]
    }
}

fn driver(errors: &mut ErrorList, path: &Path, driver: &CSINodeDriver) {
    driver_name(errors, &path.child("name"), &driver.name);
    let id = path.child("nodeID");
    if driver.node_id.is_empty() {
        errors.required(&id, "");
    }
    if driver.node_id.len() > NODE_ID_MAX {
        errors.push(FieldError::too_long(&id, "", NODE_ID_MAX));
    }
    if let Some(count) = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count)
        && count < 0
    {
        errors.invalid(&path.child("allocatable").child("count"), count, NEGATIVE);
    }
    let keys = list(&driver.topology_keys);
    for (index, key) in keys.iter().enumerate() {
        if key.is_empty() {
            errors.required(&path.child("topologyKeys"), key);
        }
        if keys[..index].contains(key) {
            errors.duplicate(&path.child("topologyKeys"), key);
        }
        qualified_name(errors, &path.child("topologyKeys"), key);
    }
}
