//! scheduling.k8s.io/v1 PriorityClass.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass as Object;
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Context, Descriptor, Kind, cell_age, cell_name};
use serde_json::Value;

use super::check::{Report, immutable, one_of};
use super::common::text;

/// The highest priority a user may give; what is above is for the system.
const HIGHEST_USER_PRIORITY: i32 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
/// The classes of the system, and their values.
pub(crate) const SYSTEM_CLASSES: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// PriorityClasses.
pub(crate) struct PriorityClass;

impl Kind for PriorityClass {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["pc"],
        ..Descriptor::cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
    };

    fn default(object: &mut Object) {
        object.value.get_or_insert(0);
        object.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.metadata.generation = Some(1);
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let name = text(&object.metadata.name);
        let value = object.value.unwrap_or_default();
        if name.starts_with(SYSTEM_PREFIX) {
            if !SYSTEM_CLASSES.contains(&(name, value)) {
                errors.forbidden(
                    &Path::new("metadata").child("name"),
                    format!("priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only"),
                );
            }
        } else if value > HIGHEST_USER_PRIORITY {
            errors.forbidden(
                &Path::new("value"),
                format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"),
            );
        }
        if let Some(policy) = &object.preemption_policy {
            one_of(&mut errors, &Path::new("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        if new.value != old.value {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        immutable(&mut errors, &Path::new("preemptionPolicy"), &new.preemption_policy, &old.preemption_policy);
        errors
    }

    fn undeletable(object: &Object) -> Option<&'static str> {
        let is_system = SYSTEM_CLASSES.iter().any(|(name, _)| *name == text(&object.metadata.name));
        is_system.then_some("this is a system priority class and cannot be deleted")
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::integer("Value", "Priority of the pods of this class."),
            Column {
                kind: "boolean".to_owned(),
                ..Column::string("Global-Default", "Whether pods without a class have this one.")
            },
            Column::age(),
            Column::string("PreemptionPolicy", "Whether pods of this class may displace others."),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            cell_name(&object.metadata),
            object.value.unwrap_or_default().into(),
            object.global_default.unwrap_or_default().into(),
            cell_age(&object.metadata, now),
            text(&object.preemption_policy).into(),
        ]
    }
}
