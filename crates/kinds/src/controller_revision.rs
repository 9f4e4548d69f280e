//! apps/v1 ControllerRevision: a snapshot of a workload's template, immutable once written.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision as Object;
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name};
use serde_json::Value;

use super::check::{Report, immutable, non_negative};
use super::common::controller_of;

/// ControllerRevisions.
pub(crate) struct ControllerRevision;

impl Kind for ControllerRevision {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor::namespaced("apps", "v1", "ControllerRevision", "controllerrevisions");

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        if object.data.is_none() {
            errors.required(&Path::new("data"), "data is mandatory");
        }
        non_negative(&mut errors, &Path::new("revision"), object.revision);
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        immutable(&mut errors, &Path::new("data"), &new.data, &old.data);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Controller", "Owner that manages the revision."),
            Column::string("Revision", "Number of the revision."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let controller = controller_of(&object.metadata).map_or_else(
            || "<none>".to_owned(),
            |owner| {
                let kind = owner.kind.to_lowercase();
                match owner.api_version.split_once('/') {
                    Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
                    None => format!("{kind}/{}", owner.name),
                }
            },
        );
        vec![cell_name(&object.metadata), controller.into(), object.revision.into(), cell_age(&object.metadata, now)]
    }
}
