//! storage.k8s.io/v1 VolumeAttributesClass.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttributesClass as Object;
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name};
use serde_json::Value;

use super::class::{parameters, provisioner};
use crate::check::Report;
use crate::common::count;

/// VolumeAttributesClasses.
pub(crate) struct VolumeAttributesClass;

impl Kind for VolumeAttributesClass {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["vac"],
        returns_deleted_object: true,
        ..Descriptor::cluster("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses")
    };

    fn warnings(_new: &Object, old: Option<&Object>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        vec!["parameters are not used: no node here mounts volumes of CSI drivers".to_owned()]
    }

    /// As `ValidateVolumeAttributesClass` in upstream's `pkg/apis/storage/validation/validation.go`.
    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        provisioner(&mut errors, &Path::new("driverName"), &object.driver_name);
        let path = Path::new("parameters");
        parameters(&mut errors, &path, &object.parameters);
        if count(&object.parameters) == 0 {
            errors.required(&path, "must contain at least one key/value pair");
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let fixed =
            [("driverName", new.driver_name == old.driver_name), ("parameters", new.parameters == old.parameters)];
        for (field, _) in fixed.into_iter().filter(|(_, same)| !same) {
            errors.forbidden(&Path::new(field), format!("updates to {field} are forbidden."));
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::string("DriverName", "The CSI driver that knows the parameters."), Column::age()]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![cell_name(&object.metadata), object.driver_name.as_str().into(), cell_age(&object.metadata, now)]
    }
}
