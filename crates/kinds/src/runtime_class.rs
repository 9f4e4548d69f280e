//! node.k8s.io/v1 RuntimeClass.

use jiff::Timestamp;
use k8s_openapi::api::node::v1::RuntimeClass as Object;
use machinery::field::{ErrorList, Path};
use machinery::validate;
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name};
use serde_json::Value;

use super::check::{Report, immutable, labels};
use super::common::{canonical_quantities, entries, list};
use super::pod::resources::{container_resource_name, validate_quantity};
use super::pod::scheduling::validate_tolerations;

/// RuntimeClasses.
pub(crate) struct RuntimeClass;

impl Kind for RuntimeClass {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        unconditional_update: false,
        ..Descriptor::cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
    };

    fn default(object: &mut Object) {
        if let Some(overhead) = &mut object.overhead {
            canonical_quantities(&mut overhead.pod_fixed);
        }
    }

    fn warnings(_new: &Object, old: Option<&Object>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        vec!["handler is not used: containers run in Docker's default runtime".to_owned()]
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        errors.messages(&Path::new("handler"), &object.handler, validate::dns_label(&object.handler));
        if let Some(overhead) = &object.overhead {
            let path = Path::new("overhead").child("podFixed");
            for (name, amount) in entries(&overhead.pod_fixed) {
                let path = path.key(name);
                container_resource_name(&mut errors, &path, name);
                validate_quantity(&mut errors, &path, name, amount);
            }
        }
        if let Some(scheduling) = &object.scheduling {
            let path = Path::new("scheduling");
            labels(&mut errors, &path.child("nodeSelector"), &scheduling.node_selector);
            validate_tolerations(&mut errors, &path.child("tolerations"), list(&scheduling.tolerations));
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        immutable(&mut errors, &Path::new("handler"), &new.handler, &old.handler);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::string("Handler", "How the node runs pods of the class."), Column::age()]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![cell_name(&object.metadata), object.handler.as_str().into(), cell_age(&object.metadata, now)]
    }
}
